"""Limits that a load has to meet, such as `ttft_p99<2s,tpot_p99<100ms`, and whether it does: by interval.

A percentile is below its limit when that share of the requests is: p99 < 2 s means that 99 % take less than 2 s.
So a share is judged, with Wilson's 95 % interval, over the requests of all runs of a load together. A failed
request meets nothing, nor does what is not known. In an open loop TTFT and E2E latency count from the time that a
request was scheduled for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

from servebench.analysis import latency, samples
from servebench.analysis.stats import Z95, wilson_interval
from servebench.analysis.trust import doubt
from servebench.errors import InputError
from servebench.log.schema import Log, Result

MOST_RUNS = 3  # of a load that is near the limit; each has fresh requests
LIMIT = re.compile(r"(ttft|tpot|e2e)_p(\d+(?:\.\d+)?)<=?(\d+(?:\.\d+)?)(s|ms)")
OF_REQUEST: dict[str, Callable[[Result], float | None]] = {
    "ttft": latency.ttft_s,
    "tpot": latency.tpot_s,
    "e2e": latency.e2e_s,
}


class Limit(NamedTuple):
    """At least `share` of the requests have less than most_s of a metric."""

    metric: str
    share: float
    most_s: float

    def __str__(self) -> str:
        return f"{self.metric}_p{self.share * 100:g}"

    def value_s(self, r: Result) -> float | None:
        """What counts of a request: infinite where it failed or is not known. None: it has no such time.

        An answer of one token has no time between tokens, so it neither meets a limit of TPOT nor misses it.
        """
        answered = r.error is None and bool(r.event_ns)
        if answered and self.metric == "tpot" and r.generated_tokens <= 1:
            return None
        value = OF_REQUEST[self.metric](r) if answered else None
        waited = 0.0 if self.metric == "tpot" else latency.schedule_wait_s(r)
        return float("inf") if value is None else value + waited

    def seen_s(self, runs: Sequence[Log]) -> float | None:
        """The percentile over the requests of all these runs: below most_s just when `share` of them are."""
        values = sorted(v for log in runs for r in samples.measured(log) if (v := self.value_s(r)) is not None)
        return values[max(0, ceil(self.share * len(values) - 1e-9) - 1)] if values else None


def parse_limits(text: str) -> tuple[Limit, ...]:
    """Raises InputError."""
    found = [LIMIT.fullmatch(part.strip().replace(" ", "")) for part in text.split(",")]
    limits = [
        Limit(m[1], float(m[2]) / 100, float(m[3]) / (1000 if m[4] == "ms" else 1)) if m else None for m in found
    ]
    good = tuple(limit for limit in limits if limit and 0 < limit.share < 1 and limit.most_s > 0)
    if len(good) < len(found):
        raise InputError(f"--find_max {text!r} is no list of limits; write such as 'ttft_p99<2s,tpot_p99<100ms'")
    return good


def requests_needed(limits: Sequence[Limit]) -> int:
    """Requests of which, when all meet the limits, the interval says so: z^2 q / (1 - q), 381 for a p99."""
    strictest = max(limit.share for limit in limits)
    return int(Z95**2 * strictest / (1 - strictest)) + 1


def decide(runs: Sequence[Log], limits: Sequence[Limit]) -> bool | str | None:
    """Does a load meet the limits? In words why that is not to be known; None: another run has to say.

    One run is enough to say yes, since no stall makes a server faster; that the server is overloaded; or that
    the load failed. Else all runs count together, two at least, MOST_RUNS at most. One whose client was the limit
    decides nothing.
    """
    failures = [str(log.failure) for log in runs if log.status != "ok"]
    if failures:
        return failures[0]
    doubts = [next(filter(None, (doubt(log, limit.metric) for limit in limits)), "") for log in runs]
    good = [log for log, why in zip(runs, doubts, strict=True) if not why]
    if any(log.quality.overloaded for log in good):
        return False
    last = len(runs) >= MOST_RUNS
    verdict = _together(good, limits, last) if good else None
    if verdict is None and last:
        return next(filter(None, doubts), "no answer has such a time")
    return verdict


def _together(runs: Sequence[Log], limits: Sequence[Limit], last: bool) -> bool | None:
    """Of runs that count. `last`: no more will come, so that what was seen decides. None: it is not known."""
    shares = [_share(runs, limit) for limit in limits]
    bounds = [wilson_interval(*share) for share in shares]
    if all(low >= limit.share for limit, (low, _) in zip(limits, bounds, strict=True)):
        return True
    missed = [any(high < limit.share for limit, (_, high) in zip(limits, bounds, strict=True))]
    missed += [not _seen([log], limits) for log in runs]
    if len(runs) > 1 and all(missed):
        return False
    return _seen(runs, limits) if last and all(n for _, n in shares) else None


def _seen(runs: Sequence[Log], limits: Sequence[Limit]) -> bool:
    return all((limit.seen_s(runs) or 0.0) < limit.most_s for limit in limits)


def _share(runs: Sequence[Log], limit: Limit) -> tuple[int, int]:
    """(requests that meet the limit, requests that count)."""
    values = [v for log in runs for r in samples.measured(log) if (v := limit.value_s(r)) is not None]
    return sum(v < limit.most_s for v in values), len(values)
