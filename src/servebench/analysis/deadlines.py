"""Which requests and tokens came in time: FastGen's SLAs, the deadline of every token, and the rates of both.

An SLA maps a log to one bool a successful request that counts, shape (n,). A failed request meets none. A message
with k tokens meets k deadlines at its stamp.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from servebench.analysis import latency, samples, throughput
from servebench.analysis.cache import derived, once_a_log
from servebench.log.result import Result
from servebench.log.schema import Log

EMA_SPAN = 16
GENERATION_RATES = (1, 2, 3, 4, 6, 8)  # tokens/s, FastGen's generation SLAs
PROMPT_RATE = 512.0  # prompt tokens/s, FastGen's prompt SLA
Met = Callable[[Log], np.ndarray]


@once_a_log
def meets_prompt(log: Log, tokens_per_s: float = PROMPT_RATE) -> np.ndarray:
    """FastGen: the first token within prompt_tokens / rate."""
    done = samples.succeeded(log)
    first = np.array([latency.ttft_s(r) for r in done], dtype=float)  # None becomes nan, which is never in time
    return first <= np.array([r.prompt_tokens for r in done]) / tokens_per_s


@once_a_log
def largest_ema_s(log: Log, span: int) -> np.ndarray:
    """The largest exponential moving average of the gaps after the first token, of each request. 0 without gaps.

    alpha = 2 / (span + 1), with adjusted weights: they sum to 1 from the start.
    """
    requests = samples.succeeded(log)
    gap_s, owner = samples.gaps(requests, of_tokens=True)
    counts = np.bincount(owner, minlength=len(requests))
    longest_first = np.argsort(-counts)
    starts, lengths = (np.cumsum(counts) - counts)[longest_first], counts[longest_first]
    sums, largest = np.zeros(len(requests)), np.zeros(len(requests))
    keep, weight = 1 - 2 / (span + 1), 0.0
    for i in range(max(counts, default=0)):
        n = np.searchsorted(-lengths, -i)  # requests that have a gap of this number
        weight = keep * weight + 1
        sums[:n] = keep * sums[:n] + gap_s[starts[:n] + i]
        largest[longest_first[:n]] = np.maximum(largest[longest_first[:n]], sums[:n] / weight)
    return largest


def meets_ema(log: Log, tokens_per_s: float, span: int = EMA_SPAN) -> np.ndarray:
    """FastGen: the moving average of the gaps after the first token stays below 1 / rate at every token."""
    return _pace_known(log) & (largest_ema_s(log, span) < 1 / tokens_per_s)


@once_a_log
def slowest_start_s(log: Log) -> np.ndarray:
    """The largest mean of the first i gaps after the first token, over every i, of each request (0 without)."""
    requests = samples.succeeded(log)
    gap_s, owner = samples.gaps(requests, of_tokens=True)
    counts = np.bincount(owner, minlength=len(requests))
    start = np.cumsum(counts) - counts
    sums = np.concatenate([[0.0], np.cumsum(gap_s)])
    number = np.arange(1, len(gap_s) + 1) - start[owner]
    slowest = np.zeros(len(requests))
    np.maximum.at(slowest, owner, (sums[1:] - sums[start[owner]]) / number)
    return slowest


def meets_cumulative(log: Log, tokens_per_s: float) -> np.ndarray:
    """FastGen: the first i gaps together take at most i / rate, for every i."""
    return _pace_known(log) & (slowest_start_s(log) <= 1 / tokens_per_s)


@once_a_log
def _pace_known(log: Log) -> np.ndarray:
    """Does the log tell of each request how fast its tokens came? Not of several tokens in a single event."""
    known = [len(r.event_ns) > 1 or latency.shown_tokens(r) <= 1 for r in samples.succeeded(log)]
    return np.array(known, dtype=bool)


def share_meeting(log: Log, met: Met) -> float:
    """Share of the requests that count which succeeded and meet the SLA."""
    counted = samples.measured(log)
    return float(met(log).sum()) / len(counted) if counted else 0.0


def effective_throughput(log: Log, met: Met) -> float | None:
    """Requests/s that succeed and meet the SLA: request throughput x the share of its requests that do."""
    arrivals = throughput.request_throughput(log)
    if arrivals is None:
        return None
    ok = 1 - samples.failed_share(log)
    return arrivals * share_meeting(log, met) / ok if ok else 0.0


@derived
def fluidity_index(log: Log, ttft: float, tpot: float) -> float | None:
    """Share of all token deadlines that were met; those of failed requests were not (Etalon, arXiv 2407.07000)."""
    due = sum(r.max_new_tokens if r.error else latency.shown_tokens(r) for r in samples.measured(log))
    met = sum(deadlines_met(r, ttft, tpot) for r in samples.succeeded(log))
    return met / due if due else None


def deadlines_met(r: Result, ttft: float, tpot: float) -> int:
    """Tokens of the answer that came in time, as the fluidity index counts them (Etalon, arXiv 2407.07000).

    The first is due `ttft` s after the request was sent, each other `tpot` s after the one before it was due:
    early tokens bank slack. After a miss deadlines count from the late token on.
    """
    met, due = 0, ttft
    for at, tokens in zip(r.event_ns, r.event_tokens, strict=True):
        for _ in range(tokens):
            met += at / 1e9 <= due
            due = max(due, at / 1e9) + tpot
    return met
