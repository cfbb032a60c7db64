"""Service level agreements: what a request has to keep to, and two ways to ask whether a load does.

    --sla fastgen-4 mlperf-llama2-70b "ttft<2s, tpot<100ms"   requests/s that meet it: the goodput
    --find_max "ttft_p99<2s, tpot_p99<100ms"                  do so many of the requests meet it? yes, no, unknown

fastgen-R: the prompt at 512 tokens/s or more, the generation at R tokens/s or more by FastGen's moving average.
mlperf-MODEL[-interactive]: MLPerf's limits on TTFT and TPOT, here of each request (MLPerf's are of the p99).
ttft<2s, tpot<100ms, e2e<10s: limits of every request, any of them (limits.py). All of one SLA stand in one word.

A percentile is below its limit when that share of the requests is: p99 < 2 s means that 99 % take less than 2 s.
So --find_max judges a share, with Wilson's 95 % interval, over the requests of all runs of a load together. A
failed request meets nothing, nor does one whose time is unknown. An answer of one token has no time between
tokens: it neither meets a limit of TPOT nor misses it. Goodput counts from when a request was sent; --find_max, in
an open loop, from when it should have been.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np

from servebench.analysis import deadlines, latency, limits, metrics, samples, stats
from servebench.analysis.cache import derived
from servebench.analysis.limits import Limit
from servebench.analysis.metrics import OfRequests, Values
from servebench.analysis.stats import Z95, wilson_interval
from servebench.analysis.trust import doubt, wrong_answers
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
BETWEEN_TOKENS = (
    "tpot_s",
    "itl_s",
    "interactivity_per_s",
)  # an answer of one token has none, and they wait for nobody
FROM_SCHEDULE = (
    "ttft_s",
    "time_to_first_answer_token_s",
    "e2e_latency_s",
)  # since sent, so that a wait comes on top


# The requests behind a limit.


def needed_share(limit: Limit) -> float | None:
    """Share of the requests that has to meet it, 0.99 for a p99. None of a limit that is not about a share."""
    if limit.relative:
        return None
    if limit.metric.name == "failed_share":
        return 1 - limit.value
    if limit.percentile is not None:
        return limit.percentile / 100 if limit.upper else 1 - limit.percentile / 100
    return 1.0 if limit.of_every_request else None


def of_requests(runs: Sequence[Log], limit: Limit) -> np.ndarray:
    """What the limit is asked about, of the requests of all these runs as they were sent. Shape (n,).

    A request that failed has what meets no limit, and so has one of which the log cannot tell. Of the error rate:
    1 for a request that failed, 0 for one that did not.
    """
    return np.concatenate([np.empty(0), *(_of_log(log, limit.metric, limit.upper) for log in runs)])


@derived
def _of_log(log: Log, metric: metrics.Metric, upper: bool) -> np.ndarray:
    """Of one run. A search asks again after each of its runs."""
    counted = sorted(samples.measured(log), key=lambda r: r.sent_ns)
    if not isinstance(metric, OfRequests):
        return np.array([0.0 if r.succeeded else 1.0 for r in counted])
    worst = inf if upper else -inf
    from_schedule = metric.name in FROM_SCHEDULE
    found: list[float] = []
    for r in counted:
        waited = latency.schedule_wait_s(r) if from_schedule else 0.0
        found += [value + waited for value in _of_request(r, metric, worst)]
    return np.array(found)


def _of_request(r: Result, metric: OfRequests, worst: float) -> Sequence[float]:
    """Since it was sent; `worst` if it failed or the log cannot tell; nothing if it has no such value."""
    if not r.succeeded:
        return [worst] * (max(1, r.max_new_tokens - 1) if metric.name == "itl_s" else 1)  # gaps it should have had
    if metric.name in BETWEEN_TOKENS and latency.shown_tokens(r) <= 1:
        return []
    value = metric.function(r)
    if isinstance(value, np.ndarray):
        return value.tolist() or [worst]
    return [worst if value is None else value]


def seen(runs: Sequence[Log], limit: Limit) -> float | None:
    """The percentile (or error rate) of all these runs: within the limit exactly when enough requests are."""
    found = of_requests(runs, limit)
    if not len(found):
        return None
    if limit.metric.name == "failed_share":
        return float(found.mean())
    rank = ceil((needed_share(limit) or 0) * len(found) - 1e-9) - 1
    best_first = np.sort(found) if limit.upper else -np.sort(-found)
    return float(best_first[max(0, rank)])


def worth(values: np.ndarray) -> float:
    """How many independent values those of a run are worth, failed requests in their proportion."""
    known = values[np.isfinite(values)]
    return stats.independent(known) * len(values) / len(known) if len(known) else float(len(values))


# Requests/s within an SLA.


@dataclass(frozen=True)
class Sla:
    """An SLA by its name; its limits, of every request, where it has any."""

    name: str
    met: deadlines.Met
    limits: tuple[Limit, ...] = ()

    @derived
    def throughput(self, log: Log) -> float | None:
        """Requests/s that succeed and meet it. None where the log cannot tell: answers that came whole."""
        of_tokens = not self.limits or any(limit.metric.of_tokens for limit in self.limits)
        return None if of_tokens and not log.run.stream else deadlines.effective_throughput(log, self.met)


def parse(name: str, option: str = "--sla") -> Sla:
    """Raises InputError for what is no SLA."""
    fastgen = re.fullmatch(r"fastgen-(\d+(?:\.\d+)?)", name)
    if fastgen and float(fastgen[1]) > 0:
        rate = float(fastgen[1])
        return Sla(name, lambda log: deadlines.meets_prompt(log) & deadlines.meets_ema(log, rate))
    if name in MLPERF:
        ttft_s, tpot_s = MLPERF[name]
        return _within(name, limits.parse(f"ttft<={ttft_s}s,tpot<={tpot_s}s"))
    if not re.search("[<>=]", name):
        presets = "fastgen-1 ... fastgen-8, " + ", ".join(MLPERF)
        raise InputError(
            f'{option} {name!r} is not an SLA; write limits as in "ttft<2s, tpot<100ms", or one of {presets}'
        )
    found = limits.parse(name, option, _no_sla)
    return _within(limits.joined(found), found)


def _no_sla(limit: Limit) -> str:
    """Why a limit is not one that a request can keep to."""
    if limit.metric.unit != "_s" or limit.relative:
        return "an SLA limits the times of a request; write for example ttft<2s"
    if limit.statistic:
        return f"an SLA is what every request has to meet; write {limits.short(limit.metric)}<{limit.typed}"
    return "" if limit.upper else f"a time needs an upper limit; write {limit.name}<{limit.typed}"


def _within(name: str, of_request: tuple[Limit, ...]) -> Sla:
    """The SLA that every request is within these limits."""

    def met(log: Log) -> np.ndarray:
        return np.array([all(_keeps(r, limit) for limit in of_request) for r in samples.succeeded(log)], bool)

    return Sla(name, met, of_request)


def _keeps(r: Result, limit: Limit) -> bool:
    assert isinstance(limit.metric, OfRequests)
    return all(map(limit.admits, _of_request(r, limit.metric, inf)))


def values(log: Log, slas: Sequence[Sla]) -> Values:
    """What each SLA adds to the metrics of a run."""
    found: Values = {}
    for sla in slas:
        found[f"effective_throughput[{sla.name}]_per_s"] = sla.throughput(log)
        limits_s = {limit.metric.stem: limit.value for limit in sla.limits}
        if {"ttft", "tpot"} <= limits_s.keys():
            index = deadlines.fluidity_index(log, limits_s["ttft"], limits_s["tpot"])
            found[f"fluidity_index[{sla.name}]"] = index
    return found


# Does a load keep to its limits?


def goals(text: str, option: str = "--find_max") -> tuple[Limit, ...]:
    """Limits of a load. Raises InputError."""
    return limits.parse(text, option, _no_goal)


def _no_goal(limit: Limit) -> str:
    """Why a limit is not one that a search can judge: it counts the requests that meet it."""
    name = limits.short(limit.metric)
    if limit.metric.name == "failed_share":
        return "" if limit.upper and 0 < limit.value < 1 else "write for example error_rate<1%"
    if limit.metric.unit != "_s" or limit.relative:
        return "only latencies and the error rate can be limited here; write for example ttft_p99<2s"
    if limit.percentile is None:
        return f"it is judged by the share of requests that meet it; write {name}_p99<{limit.typed}"
    return "" if limit.upper else f"a time needs an upper limit; write {limit.name}<{limit.typed}"


def requests_needed(wanted: Sequence[Limit]) -> int:
    """Requests of which, when all meet the limits, the interval says so: z^2 q / (1 - q), 381 for a p99."""
    strictest = max(needed_share(limit) or 0 for limit in wanted)
    return int(Z95**2 * strictest / (1 - strictest)) + 1


def decide(runs: Sequence[Log], wanted: Sequence[Limit]) -> bool | str | None:
    """Does a load meet the limits? True, False, None: another run must decide, or in words why nobody can tell.

    One run is enough for a yes (no stall makes a server faster), for an overload, and for a failure. Otherwise the
    requests of all runs are judged together, of two runs at least and MAX_RUNS at most. A run whose client was the
    limit decides nothing.
    """
    failures = [str(log.failure) for log in runs if log.status != "ok"]
    if failures:
        return failures[0]
    doubts = [next(filter(None, (doubt(log, limit.column) for limit in wanted)), "") for log in runs]
    good = [log for log, why in zip(runs, doubts, strict=True) if not why]
    if any(log.quality.overloaded for log in good) or wrong_answers(runs):
        return False
    last = len(runs) >= MAX_RUNS
    verdict = _decide_together(good, wanted, last) if good else None
    if verdict is None and last:
        return next(filter(None, doubts), "no answer has such a time")
    return verdict


def _decide_together(runs: Sequence[Log], wanted: Sequence[Limit], last: bool) -> bool | None:
    """Of runs that count. `last`: no more will come, so that what was seen decides. None: undecided."""
    found = [of_requests(runs, limit) for limit in wanted]
    shares = [needed_share(limit) or 0 for limit in wanted]
    bounds = [
        wilson_interval(limit.admitted(sample), len(sample)) for limit, sample in zip(wanted, found, strict=True)
    ]
    if all(low >= share for share, (low, _) in zip(shares, bounds, strict=True)):
        return True
    missed = [any(high < share for share, (_, high) in zip(shares, bounds, strict=True))]
    missed += [not _seen_within([log], wanted) for log in runs]
    if len(runs) > 1 and all(missed):
        return False
    return _seen_within(runs, wanted) if last and all(map(len, found)) else None


def _seen_within(runs: Sequence[Log], wanted: Sequence[Limit]) -> bool:
    known = [(limit, value) for limit in wanted if (value := seen(runs, limit)) is not None]
    return all(limit.admits(value) for limit, value in known)
