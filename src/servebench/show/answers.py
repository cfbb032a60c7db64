"""Are the answers right? What the questions of --check say of a point, of a server, and of one against another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from servebench.analysis import answers, stats
from servebench.analysis.answers import LEVEL, Agreement, Checked
from servebench.log.schema import Log
from servebench.show.layouts import Layout

Runs = Sequence[Log]


def of_point(runs: Runs) -> str:
    """`answers: ok: 9 of 10 questions right under load, 9 alone`; "" where none were asked."""
    found = answers.checked(runs)
    return f"answers: {answers.verdict(runs)}: {_counted(found)}" if found else ""


def _counted(found: Checked) -> str:
    right = f"{found.right} of {found.n} questions right under load, {found.right_alone} alone"
    if found.sees and found.sees <= answers.WORTH:
        return f"{right}; a drop of {found.sees:.0%} would have been found"
    needed = f"a drop of {answers.WANTED:.0%} takes {answers.needed(answers.WANTED)} questions"
    return f"{right}; {needed}: more --num_requests or --runs"


def of_study(layouts: Sequence[Layout]) -> Iterator[str]:
    """A line for each server that was asked questions, then for each that answers worse than the best of them."""
    of_servers = {layout.name: [log for runs in layout.points for log in runs] for layout in layouts}
    asked = {name: logs for name, logs in of_servers.items() if answers.checked(logs)}
    for name, logs in asked.items():
        yield f"{name}: {of_point(logs)}{_alike(logs)}"
    yield from of_servers_against_best(asked)


def of_servers_against_best(asked: dict[str, list[Log]]) -> Iterator[str]:
    """Who answers worse, by more than chance, than the one that answers best; how far the others agree with it."""
    if len(asked) < 2:
        return
    best = max(asked, key=lambda name: _share(asked[name]))
    for name, logs in asked.items():
        if name != best:
            words = worse(asked[best], logs, (best, name), LEVEL / (len(asked) - 1))
            yield words or _agree(
                f"{name} and {best} alone", answers.agreement(answers.between(asked[best], logs))
            )


def _share(logs: Runs) -> float:
    found = answers.checked(logs)
    return found.share if found else 0.0


def worse(a: Runs, b: Runs, names: tuple[str, str], level: float = LEVEL) -> str:
    """That B answers the same questions worse than A by more than chance; "" if it does not, or nobody knows."""
    found = against(a, b)
    if not found or not answers.surely_more(found.lost, found.won, level):
        return ""
    right = f"{found.share:.2f} of {found.n} questions right under load, {names[0]} {found.share_alone:.2f}"
    return f"{names[1]} answers worse than {names[0]} by more than chance: {right}"


def against(a: Runs, b: Runs) -> Checked | None:
    """Of the questions that both were asked under load; `lost` are those that A answers right, and B does not."""
    of_a, of_b = (answers.right_of(asked for log in logs for asked in log.checks) for logs in (a, b))
    return answers.compared(of_a, of_b)


def _alike(logs: Runs) -> str:
    """How far the first tokens agree alone and under load; by more than chance if repeats agree better."""
    found = answers.agreement(answers.alone_and_under_load(logs))
    chance = answers.agreement(answers.repeats(logs))
    if not found:
        return ""
    ends = [stats.wilson_interval(each.equal, each.pairs) for each in (found, chance) if each]
    more = chance and ends[0][1] < ends[1][0]
    repeats = f", repeats under load {chance.share:.0%} of {chance.pairs}" if chance else ""
    return f"; {_agree('alone and under load', found)}{repeats}{': more than chance' if more else ''}"


def _agree(what: str, found: Agreement | None) -> str:
    if not found:
        return f"{what}: no answers to compare"
    at = f" (the others part at token {found.first_difference:.0f})" if found.first_difference else ""
    logs = " and ".join(f"{mean:.3f}" for mean in found.logprobs or ())
    sure = f", mean log-probability {logs}" if logs else ""
    return f"{what} begin {found.share:.0%} of {found.pairs} answers alike{at}{sure}"
