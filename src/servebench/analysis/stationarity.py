"""Is a point stationary? Requests in flight, TTFT and tokens/s over its measured window.

A window that is still warming up, drifts, or hardly ever forgets its past gives intervals that are wrong. "Not
stationary" is an answer then: measure longer, or lower the load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from servebench.analysis import cache, latency, samples, stats, throughput
from servebench.analysis.stats import Interval
from servebench.log.schema import Log

BINS = 2 * stats.MIN_FOR_BATCHES  # of the window, so that a half of it can still be tested


@cache.derived
def why_not_stationary(log: Log) -> str | None:
    """Why the point is not stationary; None if it is, or has too few requests (100) to tell."""
    if not log.window_ns:
        return None
    return why_series_are_not(over_time(log), waiting_s(log))


def why_series_are_not(series: dict[str, np.ndarray], waiting_s: np.ndarray) -> str | None:
    """Likewise of these series, and of the waiting times of requests in the order of sending. A warm-up is cut."""
    if len(waiting_s) < stats.MIN_FOR_BATCHES:
        return None
    warm_up = {name: stats.settled_at(values) for name, values in series.items()}
    for name, share in warm_up.items():
        if share > 0.5:
            return f"{name} never settled"
    rest = max(warm_up.values())
    for name, values in (series | {"TTFT": waiting_s}).items():
        if stats.drifts(values[int(rest * len(values)) :]):
            return f"{name} drifted"
    effective = stats.effective_samples(waiting_s[int(rest * len(waiting_s)) :])
    if effective < stats.MIN_EFFECTIVE:
        return f"these {len(waiting_s)} requests carry the information of {effective:.0f} independent ones"
    return None


def stationary(runs: Sequence[Log]) -> bool:
    """Is a point stationary? It is not where most of its runs are not."""
    return not stats.majority(sum(why_not_stationary(log) is not None for log in runs), len(runs))


def interval(runs: Sequence[Log], of_log: Callable[[Log], float | None]) -> Interval | None:
    """The mean over the runs of a point, with its interval if they are stationary. None without a value."""
    values = [value for log in runs if (value := of_log(log)) is not None]
    return stats.t_interval(values, stationary(runs))


def warming_up(log: Log) -> float:
    """Share of the window that was still warming up (MSER-5)."""
    if not log.window_ns or len(samples.succeeded(log)) < stats.MIN_FOR_BATCHES:
        return 0.0
    return max(stats.settled_at(values) for values in over_time(log).values())


@cache.once_a_log
def over_time(log: Log) -> dict[str, np.ndarray]:
    """What should not change over the window, in each of its bins. Shapes (BINS,)."""
    start, end = log.window_ns or (0, 1)
    sent, ended = throughput.lifetimes_ns(log.results, (start, end))
    edges = np.linspace(0, end - start, BINS + 1)  # not of the clock, whose ns float64 does not hold
    return {
        "requests in flight": in_flight(sent - start, ended - start, edges),
        "tokens/s": tokens_per_bin(log) / (edges[1] / 1e9),
    }


def waiting_s(log: Log) -> np.ndarray:
    """TTFT, or E2E latency of answers that came whole, in the order of sending. Shape (n,)."""
    done = sorted(samples.succeeded(log), key=lambda r: r.sent_ns)
    first = [latency.ttft_s(r) for r in done]
    return np.array([latency.e2e_s(r) if t is None else t for r, t in zip(done, first, strict=True)])


@cache.derived
def effective_samples(log: Log) -> float:
    """Requests, as many as their correlation leaves."""
    return stats.effective_samples(waiting_s(log))


def in_flight(sent: np.ndarray, ended: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean requests in flight in each bin between these edges, from the times of their begin and end."""
    passed = _time_since(np.sort(sent), edges) - _time_since(np.sort(ended), edges)
    return np.asarray(np.diff(passed) / np.diff(edges))


def _time_since(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The sum, at each edge, of the time that has passed since each of the times before it."""
    before = np.searchsorted(times, edges)
    return np.asarray(before * edges - np.concatenate([[0], np.cumsum(times)])[before])


def tokens_per_bin(log: Log) -> np.ndarray:
    """Tokens that arrived in each bin of the window, from requests of every phase. Shape (BINS,)."""
    at, tokens = samples.arrivals(log)
    return np.histogram(at, _edges(log), weights=tokens)[0]


def ends_per_bin(log: Log) -> np.ndarray:
    """Requests that completed in each bin of the window. Shape (BINS,)."""
    return np.histogram([r.sent_ns + r.event_ns[-1] for r in throughput.ended_in_window(log)], _edges(log))[0]


def _edges(log: Log) -> np.ndarray:
    start, end = log.window_ns or (0, 1)
    return np.linspace(start, end, BINS + 1)
