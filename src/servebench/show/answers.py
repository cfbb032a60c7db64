"""Are the answers right? What the questions of --check say of a point, of a server, and of one against another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from servebench.analysis import answers, stats
from servebench.analysis.answers import LEVEL, Agreement, Checked
from servebench.log.schema import Log
from servebench.show import tables
from servebench.show.layouts import Layout
from servebench.show.points import load_words
from servebench.show.tables import Column, counted

Runs = Sequence[Log]
COLUMNS = (
    Column("server", left=True, cut=True),
    Column("answers", left=True),
    Column("right\nunder load"),
    Column("right\nalone"),
    Column("of"),
    Column("begin alike,\nalone and load", left=True, drop=2),
    Column("repeats\nalike", drop=3),
    Column("mean log-prob.\nalone, load", drop=4),
    Column("begin alike,\nas the best", left=True, drop=1),
)


def of_point(runs: Runs) -> str:
    """`answers: ok: 90% of 10 questions right under load, 90% alone`; "" where none were to be asked."""
    said, found = answers.verdict(runs), answers.checked(runs)
    if not found:
        return f"answers: {said}: the load has room for none, or none came; more --num_requests" if said else ""
    right = f"{found.share:.0%} of {counted(found.n, 'question')} right under load, {found.share_before:.0%} alone"
    return f"answers: {said}: {right}{_power(found)}{_failed(runs, found)}"


def _power(found: Checked) -> str:
    if found.sees and found.sees <= answers.WORTH:
        return f"; a drop of {found.sees:.0%} would have been found"
    needed = answers.needed(answers.WANTED)
    return f"; a drop of {answers.WANTED:.0%} takes {needed}: more --num_requests" if found.n < needed else ""


def _failed(runs: Runs, found: Checked) -> str:
    errors = (each.error for log in runs for each in (*log.checks, *log.checks_alone) if each.error)
    return f"; {counted(found.failed, 'answer')} failed, the first with: {next(errors)}" if found.failed else ""


# Servers side by side.


def table(layouts: Sequence[Layout]) -> str:
    """A row for each server that was asked; "" where none was. Then what is wrong with any, in sentences."""
    found = rows(layouts)
    said = [tables.wrapped(words) for words in remarks(layouts)]
    return "\n".join([tables.table(COLUMNS, found), *said]) if found else ""


def rows(layouts: Sequence[Layout]) -> list[list[str]]:
    """Its cells, a column each."""
    asked = _asked(layouts)
    best = _best(asked)
    return [_row(name, logs, asked[best] if name != best else ()) for name, logs in asked.items()]


def _asked(layouts: Sequence[Layout]) -> dict[str, list[Log]]:
    """The logs of the servers that were asked questions, by their names."""
    of_servers = {layout.name: [log for runs in layout.points for log in runs] for layout in layouts}
    return {name: logs for name, logs in of_servers.items() if answers.checked(logs)}


def _best(asked: dict[str, list[Log]]) -> str:
    shares = {name: found.share for name, logs in asked.items() if (found := answers.checked(logs))}
    return max(shares, key=lambda name: shares[name], default="")


def _row(name: str, logs: Runs, best: Runs) -> list[str]:
    found = answers.checked(logs)
    assert found
    same = answers.agreement(answers.alone_and_under_load(logs))
    chance, with_best = answers.agreement(answers.repeats(logs)), answers.agreement(answers.between(best, logs))
    low, high = found.interval
    return [
        name,
        answers.verdict(logs),
        f"{found.share:.0%} ({low:.0%} to {high:.0%})",
        f"{found.share_before:.0%}",
        str(found.n),
        _alike(same) + (" (not chance)" if same and chance and _surely_less(same, chance) else ""),
        _alike(chance),
        " ".join(f"{mean:.3f}" for mean in (same.logprobs if same else None) or ()),
        _alike(with_best),
    ]


def _alike(found: Agreement | None) -> str:
    """`90% of 40, else to token 12`."""
    if not found:
        return ""
    at = f", else to token {found.first_difference:.0f}" if found.first_difference else ""
    return f"{found.share:.0%} of {found.pairs}{at}"


def _surely_less(one: Agreement, than: Agreement) -> bool:
    """Do the 95 % intervals lie apart?"""
    ends = [stats.wilson_interval(each.equal, each.pairs) for each in (one, than)]
    return ends[0][1] < ends[1][0]


# What is wrong.


def remarks(layouts: Sequence[Layout]) -> Iterator[str]:
    """Loads that make answers worse; replicas, and servers, that answer worse than the others."""
    asked = _asked(layouts)
    best = _best(asked)
    for layout in layouts:
        for runs in layout.points:
            if words := answers.wrong(runs):
                yield f"{layout.name}, {load_words(runs[0].run)}: answers {words}"
    for name, logs in asked.items():
        yield from _replicas(name, logs)
        if name != best and (words := worse(asked[best], logs, (best, name), LEVEL / (len(asked) - 1))):
            yield words


def _replicas(name: str, logs: Runs) -> Iterator[str]:
    """Replicas whose share of right answers lies below that of the others."""
    under = [each for log in logs for each in log.checks if each.scored]
    for server in sorted({each.server for each in under}):
        sides = ([each for each in under if (each.server == server) is own] for own in (True, False))
        counts = [(sum(each.right for each in side), len(side)) for side in sides]
        (right, n), others = counts
        if stats.wilson_interval(right, n)[1] < stats.wilson_interval(*others)[0] and others[1]:
            rest = f"the others {others[0]} of {others[1]}"
            yield f"{name}: replica {server + 1} answers {right} of {n} questions right, {rest}"


def worse(a: Runs, b: Runs, names: tuple[str, str], level: float = LEVEL) -> str:
    """That B answers the same questions worse than A by more than chance; "" if it does not, or nobody knows."""
    found = answers.compared(*([asked for log in logs for asked in log.checks] for logs in (a, b)))
    if not found or not found.worse(level):
        return ""
    right = f"{found.share:.0%} of {found.n} questions right under load, {names[0]} {found.share_before:.0%}"
    return f"{names[1]} answers worse than {names[0]} by more than chance: {right}"
