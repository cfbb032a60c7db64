"""Are the answers right? What they look like, how many questions were answered right, whether load changes them.

Each question has a share of right answers alone, and one under load: of all runs together, so that it counts once,
however often it was asked. If load made no difference, the difference of the two would be as likely the other way
round. `chance` is the one-sided test of that, exact; of one run it is McNemar's.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np

from servebench.analysis import samples, stats
from servebench.analysis.cache import derived
from servebench.analysis.flaws import REPEATED
from servebench.log.checks import Asked
from servebench.log.result import Result
from servebench.log.schema import Log

LEVEL = 0.005  # of a false alarm
PARTS = 60  # of a right answer, that differences of questions are counted in
SEEN = 0.95  # how often a drop has to be found to be one that is seen
BY_CHANCE = 0.02  # of the questions, that are won and lost by chance where nobody knows
WANTED = 0.1  # a drop of the share of right answers that users would want to know of
WORTH = 0.3  # a drop that questions have to find at least, to say that there is none
REPEATS = 0.5  # of the answers, that healthy models may repeat themselves in
SAMPLES = 0.5  # a temperature below which models take to repeating themselves
MAX_FLAWED_SHARE = 0.2  # of logs that do not say it
BY_LENGTH = ("length", "max_tokens")
METRICS = ("flawed_share", "check_share", "check_share_alone")  # that say how good answers are
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


def flawed_of(*runs: Log, besides: str = "") -> tuple[int, int]:
    """(requests whose answers are flawed, otherwise than `besides`; requests that count), over all these runs."""
    found = [{kind: n for kind, n in flaws(log).items() if kind != besides} for log in runs]
    asked = [samples.failed_of(log)[1] for log in runs]
    flawed = [max(each.pop("corrupted", 0), sum(each.values())) for each in found]
    return sum(map(min, flawed, asked)), sum(asked)


@derived
def broken(log: Log) -> str | None:
    """What is wrong with the answers, if more of them are flawed than may be (--max_flawed_share), surely.

    Healthy models repeat themselves, too: with those answers it takes REPEATS of them, and where the likeliest
    token is always taken they say nothing.
    """
    most = MAX_FLAWED_SHARE if log.max_flawed_share is None else log.max_flawed_share
    kinds = {REPEATED: most} | ({"": max(most, REPEATS)} if log.run.temperature >= SAMPLES else {})
    for besides, bound in kinds.items():
        flawed, asked = flawed_of(log, besides=besides)
        if stats.wilson_interval(flawed, asked)[0] > bound:
            return f"{flawed / asked:.0%} of its answers are broken ({described(log)})"
    return None


def described(log: Log) -> str:
    """`21 repeated, 3 blank`."""
    return ", ".join(f"{n} {kind}" for kind, n in flaws(log).items())


# Questions.


@dataclass(frozen=True)
class Checked:
    """Questions asked alone and under load, or of two servers. Shares of right answers, question by question."""

    before: tuple[float, ...]
    after: tuple[float, ...]
    failed: int = 0  # answers that did not come

    @property
    def n(self) -> int:
        return len(self.after)

    @property
    def share(self) -> float:
        return sum(self.after) / self.n

    @property
    def share_before(self) -> float:
        return sum(self.before) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %, of the share that is right after; a question counts once, however often asked."""
        return stats.wilson_interval(sum(self.after), self.n)

    @property
    def differences(self) -> tuple[int, ...]:
        """How much less each is right after, in PARTS; without those that are equal."""
        parts = (round(PARTS * (a - b)) for a, b in zip(self.before, self.after, strict=True))
        return tuple(sorted(filter(None, parts)))

    def worse(self, level: float = LEVEL) -> bool:
        """Is less right after, by more than chance?"""
        return chance(self.differences) < level

    @property
    def sees(self) -> float | None:
        """The smallest drop of the share that would have been found in 95 % of cases; None: none would."""
        won = -sum(part for part in self.differences if part < 0) / PARTS
        drop = smallest_drop(self.n, math.ceil(won))
        return drop if drop and drop <= self.share_before else None


def checked(runs: Iterable[Log]) -> Checked | None:
    """Of all runs of a point, or of several points. None where no question was asked both times."""
    logs = list(runs)
    alone = [each for log in logs for each in log.checks_alone]
    under = [each for log in logs for each in log.checks]
    found = compared(alone, under)
    return found and replace(found, failed=sum(each.error is not None for each in (*alone, *under)))


def compared(before: Iterable[Asked], after: Iterable[Asked]) -> Checked | None:
    """By the questions that were asked both times; None without any."""
    first, second = right_of(before), right_of(after)
    both = first.keys() & second.keys()
    pairs = sorted((first[question], second[question]) for question in both)
    return Checked(tuple(a for a, _ in pairs), tuple(b for _, b in pairs)) if pairs else None


def right_of(asked: Iterable[Asked]) -> dict[str, float]:
    """Of each question that has a right answer the share of its answers that are right."""
    came: dict[str, list[bool]] = {}
    for each in asked:
        if each.scored:
            came.setdefault(each.question, []).append(each.right)
    return {question: sum(right) / len(right) for question, right in came.items()}


def right_share(asked: Iterable[Asked]) -> float | None:
    found = right_of(asked)
    return sum(found.values()) / len(found) if found else None


def check_share(log: Log) -> float | None:
    """Questions of --check answered right under load / questions asked; one that failed is not right."""
    return right_share(log.checks)


def check_share_alone(log: Log) -> float | None:
    """The same of these questions while nothing else was asked."""
    return right_share(log.checks_alone)


@cache
def chance(differences: tuple[int, ...]) -> float:
    """How probable so large a sum is, if each difference were as likely the other way round.

    The distribution of the sum of those that are positive is worked out exactly. With differences of one size it
    is the binomial one, and this is McNemar's test.
    """
    sums = np.ones(1)
    for size in map(abs, differences):
        sums = (np.pad(sums, (0, size)) + np.pad(sums, (size, 0))) / 2
    positive = sum(part for part in differences if part > 0)
    return float(sums[positive:].sum())


@cache
def smallest_drop(n: int, won: int) -> float | None:
    """Of a share of n questions, of which so many were won by chance: that is found in 95 % of cases, to 1 %."""
    needed = bisect_left(range(n + 1), True, key=lambda lost: chance((-1,) * won + (1,) * lost) < LEVEL)
    for percent in range(1, 100):
        lost = min(0.999, percent / 100 + won / n)  # with those that chance lost too
        missed = sum(_binomial(n, k, lost) for k in range(min(needed, n + 1)))
        if needed <= n and missed < 1 - SEEN:
            return percent / 100
    return None


def _binomial(n: int, k: int, p: float) -> float:
    """How probable k of n are."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))


@cache
def needed(drop: float) -> int:
    """How many questions it takes to find such a drop in 95 % of cases, to the next ten, beside some chance."""
    return next(n for n in range(10, 10**6, 10) if (smallest_drop(n, math.ceil(BY_CHANCE * n)) or 1.0) <= drop)


# Verdicts.


def verdict(runs: Sequence[Log]) -> str:
    """`ok`, `worse under load (...)`, `below --check_floor (...)`, `not known (...)`; "" without --check."""
    found, floor = checked(runs), next((log.check_floor for log in runs if log.check_floor is not None), None)
    if not found:
        return "not known (no question was answered)" if any(log.run.check for log in runs) else ""
    low, high = found.interval
    if found.worse():
        return f"worse under load ({found.share:.0%} against {found.share_before:.0%} alone)"
    if floor is not None and high < floor:
        return f"below --check_floor ({found.share:.0%}, at most {high:.0%}, against {floor:.4g})"
    if floor is not None and low < floor:
        return f"not known ({found.share:.0%} is too near --check_floor {floor:.4g}, with {found.n} asked)"
    if (found.sees or 1.0) > WORTH:
        few = "too few are right alone" if found.n >= needed(WORTH) else f"{found.n} asked, which is too few"
        return f"not known ({few})"
    return "ok"


def wrong(runs: Sequence[Log]) -> str | None:
    """The verdict, if it is that they are not as good as they should be."""
    found = verdict(runs)
    return found if found.startswith(("worse", "below")) else None


def floor_unknown(logs: Sequence[Log]) -> str:
    """Why it is not known whether a server keeps to --check_floor, by all its questions; "" if it is."""
    found = verdict(logs) if any(log.check_floor is not None for log in logs) else ""
    return f"whether it keeps to --check_floor is {found}" if found.startswith("not known") else ""


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
    first, second = ({each.question: each for log in logs for each in log.checks_alone} for logs in (a, b))
    return [(first[question], second[question]) for question in first if question in second]
