"""Which requests of a log count, and what is known of each: the samples that means and percentiles are taken from.

"Measured" requests are those that count; latencies are taken from the successful ones among them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from servebench.analysis import stats
from servebench.analysis.cache import derived, once_a_log
from servebench.analysis.latency import e2e_s
from servebench.log.result import Result
from servebench.log.schema import Log
from servebench.log.unread import with_requests

OfRequest = Callable[[Result], float | None] | Callable[[Result], np.ndarray]


def measured(log: Log) -> list[Result]:
    """Requests that count, failed ones too."""
    return [r for r in log.results if r.phase == "measured"]


def succeeded(log: Log) -> list[Result]:
    """Those of them that were answered to the end."""
    return _succeeded(with_requests(log))


@once_a_log
def _succeeded(log: Log) -> list[Result]:
    return [r for r in measured(log) if r.succeeded]


def failed_of(*runs: Log) -> tuple[int, int]:
    """(requests that failed, requests that count), over all these runs.

    Those that we cut off ourselves, since the server was overloaded, are neither.
    """
    of_runs = list(map(_failed_of, runs))
    return sum(failed for failed, _ in of_runs), sum(counted for _, counted in of_runs)


@derived
def _failed_of(log: Log) -> tuple[int, int]:
    counted = len(measured(log)) - cut_off(log)
    return counted - len(succeeded(log)), counted


@derived
def retries(log: Log) -> int:
    """How often requests that count were sent again."""
    return sum(r.retries for r in measured(log))


def cut_off(log: Log) -> int:
    """Measured requests that were given up when the point was stopped early, overloaded."""
    return sum(r.cancelled and r.error is not None for r in measured(log)) if log.quality.overloaded else 0


def failed_share(*runs: Log) -> float:
    """Failed requests / requests that count, over all these runs; 1 where none counts."""
    failed, counted = failed_of(*runs)
    return 1 - (counted - failed) / counted if counted else 1.0


def each(log: Log, of_request: OfRequest, by_time: bool = False) -> np.ndarray:
    """What each successful request has, a number or several, those without one left out. Shape (n,).

    `by_time`: in the order of sending.
    """
    done = sorted(succeeded(log), key=lambda r: r.sent_ns) if by_time else succeeded(log)
    values = [v for r in done if (v := of_request(r)) is not None]
    pooled = bool(values) and isinstance(values[0], np.ndarray)
    return np.concatenate(values) if pooled else np.array(values, dtype=float)


@derived
def mean_e2e_s(log: Log) -> float | None:
    """Mean end-to-end latency."""
    return stats.mean(each(log, e2e_s))


class Gaps(NamedTuple):
    """Times between what came in succession, of many requests: one row, request by request. Shapes (gaps,)."""

    gap_s: np.ndarray
    owner: np.ndarray  # index of the request that a gap belongs to


def gaps(requests: list[Result], of_tokens: bool = False) -> Gaps:
    """Gaps between events, or before every token after the first: tokens that came in one event have gap 0."""
    at = _in_a_row("q", [r.event_ns for r in requests])
    owner = np.repeat(np.arange(len(requests)), [len(r.event_ns) for r in requests])
    if of_tokens:
        tokens = _in_a_row("I", [r.event_tokens for r in requests])
        at, owner = np.repeat(at, tokens), np.repeat(owner, tokens)
    inside = owner[1:] == owner[:-1]
    return Gaps(np.diff(at)[inside] / 1e9, owner[1:][inside])


def arrivals(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Of all events, requests of every phase: arrival (ns) and tokens. Shapes (events,)."""
    sent = np.array([r.sent_ns for r in log.results], dtype=np.int64)
    after = _in_a_row("q", [r.event_ns for r in log.results])
    tokens = _in_a_row("I", [r.event_tokens for r in log.results])
    return after + np.repeat(sent, [len(r.event_ns) for r in log.results]), tokens


def _in_a_row(code: str, parts: list[Sequence[int]]) -> np.ndarray:
    """Parts are arrays of this type where a log was read, which makes this fast."""
    arrays = (part if isinstance(part, array) else array(code, part) for part in parts)
    return np.frombuffer(b"".join(arrays), dtype=code).astype(np.int64)
