"""Service level agreements: what a request has to keep to, and two ways to ask whether a load does.

    --sla fastgen-4 mlperf-llama2-70b ttft=2,tpot=0.1       requests/s that meet it: the goodput
    --find_max ttft_p99<2s,tpot_p99<100ms                   do so many of the requests meet it? yes, no, unknown

fastgen-R: the prompt at 512 tokens/s or more, the generation at R tokens/s or more by FastGen's moving average.
mlperf-MODEL[-interactive]: MLPerf's limits on TTFT and TPOT, here of each request (MLPerf's are of the p99).
ttft=S,tpot=S,e2e=S: free limits in s, each may be left out.

A percentile is below its limit when that share of the requests is: p99 < 2 s means that 99 % take less than 2 s.
So --find_max judges a share, with Wilson's 95 % interval, over the requests of all runs of a load together. A
failed request meets nothing, nor does one whose time is unknown. An answer of one token has no time between
tokens: it neither meets a limit of TPOT nor misses it. Goodput counts from when a request was sent; --find_max, in
an open loop, from when it should have been.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple

import numpy as np

from servebench.analysis import deadlines, latency, samples
from servebench.analysis.cache import once_a_log
from servebench.analysis.metrics import Values
from servebench.analysis.stats import Z95, wilson_interval
from servebench.analysis.trust import doubt
from servebench.errors import InputError
from servebench.log.result import Result
from servebench.log.schema import Log

# Limits of MLPerf Inference on (TTFT, TPOT), s.
MLPERF = {
    "mlperf-llama2-70b": (2.0, 0.2),
    "mlperf-llama2-70b-interactive": (0.45, 0.04),
    "mlperf-mixtral-8x7b": (2.0, 0.2),
    "mlperf-llama3.1-405b": (6.0, 0.175),
    "mlperf-llama3.1-405b-interactive": (4.5, 0.08),
    "mlperf-llama3.1-8b": (2.0, 0.1),
    "mlperf-llama3.1-8b-interactive": (0.5, 0.03),
    "mlperf-deepseek-r1": (2.0, 0.08),
    "mlperf-deepseek-r1-interactive": (1.5, 0.015),
}
MAX_RUNS = 3  # of a load that is near the limit; each has fresh requests
FREE = re.compile(r"(ttft|tpot|e2e)=(\d*\.?\d+)")
OF_SHARE = re.compile(r"(ttft|tpot|e2e)_p(\d+(?:\.\d+)?)<=?(\d+(?:\.\d+)?)(s|ms)")
LATENCIES: dict[str, tuple[str, Callable[[Result], float | None]]] = {  # the metric, and its function
    "ttft": ("ttft_s", latency.ttft_s),
    "tpot": ("tpot_s", latency.tpot_s),
    "e2e": ("e2e_latency_s", latency.e2e_s),
}


class Limit(NamedTuple):
    """At least `share` of the requests have less than max_s of a latency: ttft, tpot or e2e."""

    metric: str
    share: float
    max_s: float

    def __str__(self) -> str:
        return f"{self.metric}_p{self.share * 100:g}"

    def latency_s(self, r: Result) -> float | None:
        """Since it was sent: infinite if the request failed or the log cannot tell. None: it has no such time."""
        if r.error is not None or not r.event_ns:
            return inf
        if self.metric == "tpot" and latency.shown_tokens(r) <= 1:
            return None
        _, of_request = LATENCIES[self.metric]
        known = of_request(r)
        return inf if known is None else known

    def value_s(self, r: Result) -> float | None:
        """The same, but TTFT and E2E latency count from the time at which it should have been sent."""
        since_sent = self.latency_s(r)
        waited = 0.0 if self.metric == "tpot" else latency.schedule_wait_s(r)
        return None if since_sent is None else since_sent + waited

    def seen_s(self, runs: Sequence[Log]) -> float | None:
        """The percentile over the requests of all these runs: below max_s exactly when `share` of them are."""
        values = sorted(self.values_s(runs))
        return values[max(0, ceil(self.share * len(values) - 1e-9) - 1)] if values else None

    def values_s(self, runs: Sequence[Log]) -> list[float]:
        """Of the requests of all these runs that have such a time."""
        return [v for log in runs for v in _values_s(log, self)]


@once_a_log
def _values_s(log: Log, limit: Limit) -> list[float]:
    """Of one run. A search asks again after each of its runs."""
    return [v for r in samples.measured(log) if (v := limit.value_s(r)) is not None]


# Requests/s within an SLA.


@dataclass(frozen=True)
class Sla:
    """An SLA by the name that `--sla` gave it; its limits, s, where it has any."""

    name: str
    met: deadlines.Met
    limits: tuple[Limit, ...] = ()

    def throughput(self, log: Log) -> float | None:
        """Requests/s that succeed and meet it. None where the log cannot tell: answers that came whole."""
        of_tokens = {limit.metric for limit in self.limits} != {"e2e"}
        return None if of_tokens and not log.run.stream else deadlines.effective_throughput(log, self.met)


def parse(name: str) -> Sla:
    """Raises InputError for what is no SLA."""
    fastgen = re.fullmatch(r"fastgen-(\d+(?:\.\d+)?)", name)
    if fastgen and float(fastgen[1]) > 0:
        rate = float(fastgen[1])
        return Sla(name, lambda log: deadlines.meets_prompt(log) & deadlines.meets_ema(log, rate))
    if name in MLPERF:
        return _within(name, dict(zip(("ttft", "tpot"), MLPERF[name], strict=True)))
    parts = [FREE.fullmatch(part) for part in name.split(",")]
    if all(parts):
        return _within(name, {part[1]: float(part[2]) for part in parts if part})
    presets = "fastgen-1 ... fastgen-8, " + ", ".join(MLPERF)
    raise InputError(f"--sla {name!r} is no SLA; give ttft=S,tpot=S,e2e=S (any of them), or one of {presets}")


def _within(name: str, limits_s: dict[str, float]) -> Sla:
    """The SLA that every request is within these limits."""
    limits = tuple(Limit(metric, 1, max_s) for metric, max_s in limits_s.items())

    def met(log: Log) -> np.ndarray:
        done = samples.succeeded(log)
        return np.array([all((limit.latency_s(r) or 0) <= limit.max_s for limit in limits) for r in done], bool)

    return Sla(name, met, limits)


def values(log: Log, slas: Sequence[Sla]) -> Values:
    """What each SLA adds to the metrics of a run."""
    found: Values = {}
    for sla in slas:
        found[f"effective_throughput[{sla.name}]_per_s"] = sla.throughput(log)
        limits_s = {limit.metric: limit.max_s for limit in sla.limits}
        if {"ttft", "tpot"} <= limits_s.keys():
            index = deadlines.fluidity_index(log, limits_s["ttft"], limits_s["tpot"])
            found[f"fluidity_index[{sla.name}]"] = index
    return found


# Does a load keep to its limits?


def parse_limits(text: str) -> tuple[Limit, ...]:
    """Raises InputError."""
    found = [OF_SHARE.fullmatch(part.strip().replace(" ", "")) for part in text.split(",")]
    limits = [
        Limit(m[1], float(m[2]) / 100, float(m[3]) / (1000 if m[4] == "ms" else 1)) if m else None for m in found
    ]
    good = tuple(limit for limit in limits if limit and 0 < limit.share < 1 and limit.max_s > 0)
    if len(good) < len(found):
        raise InputError(f"--find_max {text!r} is no list of limits; write such as 'ttft_p99<2s,tpot_p99<100ms'")
    return good


def requests_needed(limits: Sequence[Limit]) -> int:
    """Requests of which, when all meet the limits, the interval says so: z^2 q / (1 - q), 381 for a p99."""
    strictest = max(limit.share for limit in limits)
    return int(Z95**2 * strictest / (1 - strictest)) + 1


def decide(runs: Sequence[Log], limits: Sequence[Limit]) -> bool | str | None:
    """Does a load meet the limits? True, False, None: another run must decide, or in words why nobody can tell.

    One run is enough for a yes (no stall makes a server faster), for an overload, and for a failure. Otherwise the
    requests of all runs are judged together, of two runs at least and MAX_RUNS at most. A run whose client was the
    limit decides nothing.
    """
    failures = [str(log.failure) for log in runs if log.status != "ok"]
    if failures:
        return failures[0]
    metrics = [LATENCIES[limit.metric][0] for limit in limits]
    doubts = [next(filter(None, (doubt(log, metric) for metric in metrics)), "") for log in runs]
    good = [log for log, why in zip(runs, doubts, strict=True) if not why]
    if any(log.quality.overloaded for log in good):
        return False
    last = len(runs) >= MAX_RUNS
    verdict = _decide_together(good, limits, last) if good else None
    if verdict is None and last:
        return next(filter(None, doubts), "no answer has such a time")
    return verdict


def _decide_together(runs: Sequence[Log], limits: Sequence[Limit], last: bool) -> bool | None:
    """Of runs that count. `last`: no more will come, so that what was seen decides. None: undecided."""
    found = [limit.values_s(runs) for limit in limits]
    bounds = [
        wilson_interval(sum(v < limit.max_s for v in values_s), len(values_s))
        for limit, values_s in zip(limits, found, strict=True)
    ]
    if all(low >= limit.share for limit, (low, _) in zip(limits, bounds, strict=True)):
        return True
    missed = [any(high < limit.share for limit, (_, high) in zip(limits, bounds, strict=True))]
    missed += [not _seen_within([log], limits) for log in runs]
    if len(runs) > 1 and all(missed):
        return False
    return _seen_within(runs, limits) if last and all(found) else None


def _seen_within(runs: Sequence[Log], limits: Sequence[Limit]) -> bool:
    return all((limit.seen_s(runs) or 0.0) < limit.max_s for limit in limits)
