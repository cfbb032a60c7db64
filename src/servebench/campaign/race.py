"""The race of `--decide`: which servers are measured in the next round.

All are measured coarsely. After each round those are out that are known not to be better than the best one by
more than EQUAL, until others turn out to be worse than they seemed; the level at which that is known is shared
among all of them and all rounds. The race ends when one is left and known well, or after race.ROUNDS rounds. What
is said in the end leaves EQUAL out (candidates.py): no tie is called a victory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from servebench.plan.race import ROUNDS, RaceSearch
from servebench.plan.sweep import ServerPlan
from servebench.show.candidates import Candidate, Decision, Question, of_logs
from servebench.show.layouts import server_name
from servebench.show.tables import counted, significant, wrapped

EQUAL = 1.05  # a server that is at most so much better is not worth another round
AT_LEAST = 2  # the last round that the winner is measured in, when it is alone

Say = Callable[[str], object]


def in_rounds(plan: Sequence[ServerPlan], say: Say, over: Callable[[], str] = lambda: "") -> Iterator[ServerPlan]:
    """The servers in the order in which they are measured. `say` tells how it stands; `over` why it ends early."""
    left = list(plan)
    for number in range(ROUNDS):
        for each in left:
            assert isinstance(each.strategy, RaceSearch)
            yield replace(each, strategy=replace(each.strategy, round=number))
        if why := over():
            say(wrapped(_cut_short(left, why)))
            return
        found = standing(plan)
        for words in filter(None, map(partial(_words, number), found)):
            say(wrapped(words))
        left = [each for each in plan if any(_has(each, rival) for one in found for rival in _in_race(one))]
        if all(_ends(one, number) for one in found):
            return


def standing(plan: Sequence[ServerPlan]) -> list[Decision]:
    """What is known so far, of each kind of requests."""
    assert isinstance(plan[0].strategy, RaceSearch)
    question = Question(plan[0].strategy.limits, looks=ROUNDS, margin=EQUAL)
    return of_logs((log for each in plan for log in each.history.logs.values()), question)


def _in_race(found: Decision) -> list[Candidate]:
    return [found.best, *found.rivals] if found.best else []


def _has(plan: ServerPlan, candidate: Candidate) -> bool:
    logs = {id(log) for log in plan.history.logs.values()}
    return any(id(log) in logs for runs in candidate.layout.points for log in runs)


def _ends(found: Decision, number: int) -> bool:
    return not found.best or (number >= AT_LEAST and not found.rivals)


def _cut_short(left: Sequence[ServerPlan], why: str) -> str:
    """Why the race ends early, and who was not measured at all."""
    names = [server_name(each.server) for each in left if not each.history.logs]
    missing = f"; not measured: {', '.join(names)}" if names else ""
    return f"{why}, with {counted(len(left), 'server')} in the race{missing}"


def _words(number: int, found: Decision) -> str:
    """Who is still in the race."""
    best, rivals = found.best, found.rivals
    if not best:
        return ""
    leads = f"{best.name} leads with {significant(best.capacity.rate)} requests/s"
    also = f"; still in the race: {', '.join(each.name for each in rivals)}" if rivals else ""
    out = len(found.candidates) - 1 - len(rivals)
    return f"round {number + 1}: {leads}{also}" + (f"; {counted(out, 'server')} out" if out else "")
