"""Had a point settled? Requests in flight, TTFT and tokens/s over its steady window.

A window that is still warming up, drifts, or hardly ever forgets its past gives intervals that are wrong. "Not
stationary" is an answer then: measure longer, or lower the load.
"""

from __future__ import annotations

import numpy as np

from servebench import metrics, stats
from servebench.records import Log

BINS = stats.FEWEST  # of the window


def unsteady(log: Log) -> str | None:
    """Why the point is not stationary; None if it is, or has too few requests (100) to tell."""
    latency = waiting_s(log)
    if not log.window_ns or len(latency) < stats.FEWEST:
        return None
    over_time = {"requests in flight": in_flight(log), "tokens/s": tokens_per_bin(log)}
    for name, values in over_time.items():
        if stats.settled_at(values) > 0.5:
            return f"{name} never settle"
    for name, values in (over_time | {"TTFT": latency}).items():
        if stats.drifts(values):
            return f"{name} drift"
    effective = stats.effective_samples(latency)
    if effective < stats.FEWEST_EFFECTIVE:
        return f"{len(latency)} requests tell as much as {effective:.0f} independent ones"
    return None


def not_stationary(runs: list[Log]) -> bool:
    """Of the runs of one point: are most of them not stationary?"""
    return 2 * sum(unsteady(log) is not None for log in runs) > len(runs)


def warming_up(log: Log) -> float:
    """Share of the window by which it had settled (MSER-5)."""
    if not log.window_ns or len(metrics.succeeded(log)) < stats.FEWEST:
        return 0.0
    return max(stats.settled_at(in_flight(log)), stats.settled_at(tokens_per_bin(log)))


def waiting_s(log: Log) -> np.ndarray:
    """TTFT, or E2E latency of answers that came whole, in the order of sending. Shape (n,)."""
    done = sorted(metrics.succeeded(log), key=lambda r: r.sent_ns)
    first = [metrics.ttft_s(r) for r in done]
    return np.array([metrics.e2e_s(r) if t is None else t for r, t in zip(done, first, strict=True)])


def in_flight(log: Log) -> np.ndarray:
    """Requests in flight at the middle of each bin of the window. Shape (BINS,)."""
    edges = _edges(log)
    middle = (edges[1:] + edges[:-1]) / 2
    sent = np.sort([r.sent_ns for r in log.results])
    ended = np.sort([r.sent_ns + r.event_ns[-1] if r.event_ns else r.sent_ns for r in log.results])
    return np.asarray(np.searchsorted(sent, middle) - np.searchsorted(ended, middle))


def tokens_per_bin(log: Log) -> np.ndarray:
    """Tokens that arrived in each bin of the window, from requests of every phase. Shape (BINS,)."""
    at, tokens = metrics.arrivals(log)
    return np.histogram(at, _edges(log), weights=tokens)[0]


def _edges(log: Log) -> np.ndarray:
    start, end = log.window_ns or (0, 1)
    return np.linspace(start, end, BINS + 1)
