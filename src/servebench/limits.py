"""Limits that a load has to meet, such as `ttft_p99<2s,tpot_p99<100ms`, and whether it does: by interval.

A percentile is below its limit when that share of the requests is: p99 < 2 s means that 99 % take less than 2 s.
So a share is judged, with Wilson's 95 % interval; a failed request meets nothing. In an open loop TTFT and E2E
latency count from the time that a request was scheduled for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from servebench import metrics
from servebench.records import InputError, Log, Result
from servebench.stats import Z95, wilson_interval

MOST_RUNS = 3  # of a load that is near the limit; each has fresh requests
LIMIT = re.compile(r"(ttft|tpot|e2e)_p(\d+(?:\.\d+)?)<=?(\d+(?:\.\d+)?)(s|ms)")
OF_REQUEST: dict[str, Callable[[Result], float | None]] = {
    "ttft": metrics.ttft_s,
    "tpot": metrics.tpot_s,
    "e2e": metrics.e2e_s,
}


class Limit(NamedTuple):
    """At least `share` of the requests have less than most_s of a metric."""

    metric: str
    share: float
    most_s: float

    def met_by(self, r: Result) -> bool:
        value = OF_REQUEST[self.metric](r)
        waited = 0.0 if self.metric == "tpot" else metrics.schedule_wait_s(r)
        return value is None or value + waited < self.most_s


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


def decide(runs: Sequence[Log], limits: Sequence[Limit]) -> bool | None:
    """Does a load meet the limits? None: another run has to say.

    One run is enough to say yes, since no stall makes a server faster, or that the server is overloaded.
    Else two runs that agree are, and after MOST_RUNS the majority by what was seen.
    """
    if any(log.status != "ok" or log.quality.overloaded for log in runs):
        return False
    verdicts = [_meets(log, limits) for log in runs]
    if verdicts[0] or verdicts.count(True) > 1:
        return True
    if verdicts.count(False) > 1:
        return False
    seen = [all(met >= limit.share * n for limit in limits for met, n in [_share(log, limit)]) for log in runs]
    return sum(seen) * 2 > len(seen) if len(runs) >= MOST_RUNS else None


def _meets(log: Log, limits: Sequence[Limit]) -> bool | None:
    """Does one run meet all limits? None: an interval reaches to both sides."""
    verdicts = []
    for limit in limits:
        low, high = wilson_interval(*_share(log, limit))
        verdicts.append(True if low >= limit.share else False if high < limit.share else None)
    return False if False in verdicts else None if None in verdicts else True


def _share(log: Log, limit: Limit) -> tuple[int, int]:
    """(requests that meet the limit, requests that count)."""
    return sum(map(limit.met_by, metrics.succeeded(log))), len(metrics.measured(log))
