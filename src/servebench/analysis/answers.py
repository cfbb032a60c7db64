"""Are the answers right? What they look like, how many questions were answered right, whether load changes them.

A question counts once, however many runs asked it: it is right if at least half of its answers are. Right alone
and wrong under load, or the other way round: if load made no difference, both would be equally likely. `worse` is
the one-sided binomial test of that (McNemar's, exact).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import comb

import numpy as np

from servebench.analysis import samples, stats
from servebench.analysis.cache import derived
from servebench.log.checks import Asked
from servebench.log.result import Result
from servebench.log.schema import Log

LEVEL = 0.005  # of a false alarm
SEEN = 0.95  # how often a drop has to be found to be one that is seen
WANTED = 0.1  # a drop of the share of right answers that users would want to know of
WORTH = 0.3  # a drop that questions have to find at least, to say that there is none
MAX_FLAWED_SHARE = 0.2  # of logs that do not say it
BY_LENGTH = ("length", "max_tokens")
METRICS = ("flawed_share", "check_share", "check_share_alone", "failed_share")  # that say how good answers are
COUNTED = ("usage", "token_ids")  # sources of token counts that are the server's own


# What answers look like.


def flaw(r: Result) -> str:
    """What is wrong with the answer to a request, whatever it asked; "" if nothing is seen."""
    if r.error:
        aborted = (r.finish_reason or "").lower().startswith("abort")
        return "aborted" if aborted else "blank" if r.error.startswith("empty answer") else ""
    short = r.generated_tokens < r.max_new_tokens and r.token_source.startswith(COUNTED)
    return r.flaw or ("truncated" if short and (r.finish_reason or "").lower() in BY_LENGTH else "")


@derived
def flaws(log: Log) -> dict[str, int]:
    """Answers with a flaw, by its kind, the most frequent first; `corrupted` are those that the engine counted."""
    seen = Counter(filter(None, map(flaw, samples.measured(log))))
    engines = log.telemetry.engines if log.telemetry else ()
    seen["corrupted"] = round(sum(engine.corrupted_requests or 0 for engine in engines))
    return {kind: n for kind, n in seen.most_common() if n}


def flawed_share(log: Log) -> float | None:
    """Requests whose answer is blank, a short text again and again, cut off before its length, no valid UTF-8 or
    aborted / requests that count; or those that the engine counts as corrupted, if these are more."""
    flawed, asked = flawed_of(log)
    return flawed / asked if asked else None


def flawed_of(*runs: Log) -> tuple[int, int]:
    """(requests whose answers are flawed, requests that count), over all these runs."""
    found = [dict(flaws(log)) for log in runs]
    asked = [samples.failed_of(log)[1] for log in runs]
    flawed = [max(each.pop("corrupted", 0), sum(each.values())) for each in found]
    return sum(map(min, flawed, asked)), sum(asked)


def broken(log: Log) -> str | None:
    """What is wrong with the answers, if more of them are flawed than may be (--max_flawed_share)."""
    most = MAX_FLAWED_SHARE if log.max_flawed_share is None else log.max_flawed_share
    share = flawed_share(log)
    if share is None or share <= most:
        return None
    return f"{share:.0%} of its answers are broken ({described(log)})"


def described(log: Log) -> str:
    """`21 repeated, 3 blank`."""
    return ", ".join(f"{n} {kind}" for kind, n in flaws(log).items())


# Questions.


@dataclass(frozen=True)
class Checked:
    """Questions asked alone and under load. `lost`: right alone and wrong under load; `won`: reversed."""

    n: int
    right: int
    right_alone: int
    lost: int
    won: int

    @property
    def share(self) -> float:
        return self.right / self.n

    @property
    def share_alone(self) -> float:
        return self.right_alone / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %, of the share that is right under load."""
        return stats.wilson_interval(self.right, self.n)

    @property
    def worse(self) -> bool:
        return surely_more(self.lost, self.won)

    @property
    def sees(self) -> float | None:
        """The smallest drop of the share that would have been found in 95 % of cases; None: none would."""
        return smallest_drop(self.n, self.won)


def checked(runs: Iterable[Log]) -> Checked | None:
    """Of all runs of a point, or of several points. None where no question was asked."""
    logs = list(runs)
    under, alone = (right_of(asked) for asked in ([a for log in logs for a in log.checks], _alone(logs)))
    return compared(alone, under)


def compared(before: dict[str, bool], after: dict[str, bool]) -> Checked | None:
    """Of two sets of answers, the questions that are in both."""
    both = before.keys() & after.keys()
    pairs = Counter((before[question], after[question]) for question in both)
    if not both:
        return None
    lost, won = pairs[True, False], pairs[False, True]
    return Checked(len(both), pairs[True, True] + won, pairs[True, True] + lost, lost, won)


def right_of(asked: Iterable[Asked]) -> dict[str, bool]:
    """Of each question that has a right answer whether that came."""
    answers: dict[str, list[bool]] = {}
    for each in asked:
        if each.scored:
            answers.setdefault(each.question, []).append(each.right)
    return {question: 2 * sum(came) >= len(came) for question, came in answers.items()}


def _alone(logs: Iterable[Log]) -> list[Asked]:
    return [asked for log in logs for asked in log.checks_alone]


def check_share(log: Log) -> float | None:
    """Questions of --check answered right under load / questions asked; one that failed is not right."""
    found = right_of(log.checks)
    return sum(found.values()) / len(found) if found else None


def check_share_alone(log: Log) -> float | None:
    """The same of these questions while nothing else was asked."""
    found = right_of(log.checks_alone)
    return sum(found.values()) / len(found) if found else None


@cache
def surely_more(lost: int, won: int, level: float = LEVEL) -> bool:
    """Are there more of the first than chance would bring, if both were equally likely?"""
    n = lost + won
    return bool(sum(comb(n, k) for k in range(lost, n + 1)) < level * 2**n)


@cache
def smallest_drop(n: int, won: int) -> float | None:
    """Of a share of n questions, of which so many were won by chance: that is found in 95 % of cases, to 1 %."""
    needed = next((lost for lost in range(n + 1) if surely_more(lost, won)), n + 1)
    for percent in range(1, 100):
        lost = min(1.0, percent / 100 + won / n)  # with those that chance lost too
        missed = sum(comb(n, k) * lost**k * (1 - lost) ** (n - k) for k in range(min(needed, n + 1)))
        if needed <= n and missed < 1 - SEEN:
            return percent / 100
    return None


def needed(drop: float) -> int:
    """How many questions it takes to find such a drop in 95 % of cases, to the next ten, if chance wins none."""
    return next(n for n in range(10, 10**6, 10) if (smallest_drop(n, 0) or 1.0) <= drop)


# Verdicts.


def verdict(runs: Sequence[Log]) -> str:
    """`ok`, `worse under load (...)`, `below --check_floor (...)` or `not known (...)`; "" without questions."""
    found, floor = checked(runs), next((log.check_floor for log in runs if log.check_floor is not None), None)
    if not found:
        return ""
    if found.worse:
        return f"worse under load ({found.share:.2f} against {found.share_alone:.2f} alone)"
    low, high = found.interval
    if floor is not None and high < floor:
        return f"below --check_floor ({found.share:.2f}, at most {high:.2f}, against {floor:g})"
    if floor is not None and low < floor:
        return f"not known ({found.share:.2f} of {found.n} questions is too near --check_floor {floor:g})"
    if (found.sees or 1.0) > WORTH:
        return f"not known ({found.n} questions are too few)"
    return "ok"


def wrong(runs: Sequence[Log]) -> str | None:
    """The verdict, if it is that they are not as good as they should be."""
    found = verdict(runs)
    return found if found.startswith(("worse", "below")) else None


def good_enough(runs: Sequence[Log]) -> bool:
    """Is it known that they keep to --check_floor?"""
    return bool(found := verdict(runs)) and not found.startswith("not known")


# Agreement.


@dataclass(frozen=True)
class Agreement:
    """Pairs of answers to the same questions, by their first tokens."""

    pairs: int
    equal: int
    first_difference: float | None  # the median token, counted from 1, at which the others part
    logprobs: tuple[float, float] | None = None  # mean of the tokens of the first ones and of the second ones

    @property
    def share(self) -> float:
        return self.equal / self.pairs


def agreement(pairs: Iterable[tuple[Asked, Asked]]) -> Agreement | None:
    """Of answers that came; None without any."""
    came = [(a, b) for a, b in pairs if not (a.error or b.error)]
    if not came:
        return None
    apart = [at for a, b in came if (at := parting(a.tokens, b.tokens))]
    known = [(a.mean_logprob, b.mean_logprob) for a, b in came if None not in (a.mean_logprob, b.mean_logprob)]
    means = np.mean(np.array(known, dtype=float), axis=0).tolist() if known else ()
    return Agreement(
        pairs=len(came),
        equal=len(came) - len(apart),
        first_difference=float(np.median(apart)) if apart else None,
        logprobs=tuple(means) or None,
    )


def parting(a: Sequence[str], b: Sequence[str]) -> int:
    """The first token in which they differ, counted from 1; 0 if there is none."""
    if list(a) == list(b):
        return 0
    return 1 + next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def alone_and_under_load(logs: Iterable[Log]) -> list[tuple[Asked, Asked]]:
    """The answers to each question alone and under load, of the same server."""
    pairs = []
    for log in logs:
        alone = {each.question: each for each in log.checks_alone}
        pairs += [(alone[each.question], each) for each in log.checks if each.question in alone]
    return pairs


def repeats(logs: Iterable[Log]) -> list[tuple[Asked, Asked]]:
    """Each answer to a question under load and the next one to it: how far they differ is chance."""
    asked: dict[str, list[Asked]] = {}
    for log in logs:
        for each in log.checks:
            asked.setdefault(each.question, []).append(each)
    return [pair for same in asked.values() for pair in pairwise(same)]


def between(a: Iterable[Log], b: Iterable[Log]) -> list[tuple[Asked, Asked]]:
    """The answers of two servers to the same questions, alone."""
    first, second = ({each.question: each for each in _alone(logs)} for logs in (a, b))
    return [(first[question], second[question]) for question in first if question in second]
