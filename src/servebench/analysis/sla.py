"""Service level agreements: which requests came in time, and how many a second. `--sla` names them.

    --sla fastgen-4 mlperf-llama2-70b ttft=2,tpot=0.1

fastgen-R: the prompt at 512 tokens/s or more, the generation at R tokens/s or more by FastGen's moving average.
mlperf-MODEL[-interactive]: MLPerf's limits on TTFT and TPOT, here of each request (MLPerf's are of the p99).
ttft=S,tpot=S,e2e=S: free limits, each may be left out; requests/s within them are the goodput.

An SLA maps a log to one bool a successful request that counts, shape (n,). A failed request meets none. A message
with k tokens meets k deadlines at its stamp.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from servebench.analysis import metrics
from servebench.analysis.metrics import once_a_log
from servebench.errors import InputError
from servebench.log.schema import Log, Result

EMA_SPAN = 16
GENERATION_RATES = (1, 2, 3, 4, 6, 8)  # tokens/s, FastGen's generation SLAs
PROMPT_RATE = 512.0  # prompt tokens/s, FastGen's prompt SLA
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
Met = Callable[[Log], np.ndarray]


# Definitions.


@once_a_log
def meets_prompt(log: Log, tokens_per_s: float = PROMPT_RATE) -> np.ndarray:
    """FastGen: the first token within prompt_tokens / rate."""
    prompts = np.array([r.prompt_tokens for r in metrics.succeeded(log)])
    return _column(log, metrics.ttft_s) <= prompts / tokens_per_s


@once_a_log
def largest_ema_s(log: Log, span: int) -> np.ndarray:
    """The largest exponential moving average of the gaps after the first token, of each request. 0 without gaps.

    alpha = 2 / (span + 1), with adjusted weights: they sum to 1 from the start.
    """
    requests = metrics.succeeded(log)
    gap_s, owner = metrics.gaps(requests, of_tokens=True)
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
    return _told_apart(log) & (largest_ema_s(log, span) < 1 / tokens_per_s)


@once_a_log
def slowest_start_s(log: Log) -> np.ndarray:
    """The largest mean of the first i gaps after the first token, over every i, of each request (0 without)."""
    requests = metrics.succeeded(log)
    gap_s, owner = metrics.gaps(requests, of_tokens=True)
    counts = np.bincount(owner, minlength=len(requests))
    start = np.cumsum(counts) - counts
    sums = np.concatenate([[0.0], np.cumsum(gap_s)])
    number = np.arange(1, len(gap_s) + 1) - start[owner]
    slowest = np.zeros(len(requests))
    np.maximum.at(slowest, owner, (sums[1:] - sums[start[owner]]) / number)
    return slowest


def meets_cumulative(log: Log, tokens_per_s: float) -> np.ndarray:
    """FastGen: the first i gaps together take at most i / rate, for every i."""
    return _told_apart(log) & (slowest_start_s(log) <= 1 / tokens_per_s)


@once_a_log
def _told_apart(log: Log) -> np.ndarray:
    """Is it known of each request how fast its tokens came? Of several tokens in a single event it is not."""
    known = [len(r.event_ns) > 1 or metrics.shown_tokens(r) <= 1 for r in metrics.succeeded(log)]
    return np.array(known, dtype=bool)


def meets_limits(
    log: Log, ttft: float = float("inf"), tpot: float = float("inf"), e2e: float = float("inf")
) -> np.ndarray:
    """Goodput's SLA: TTFT, TPOT and E2E latency all within limits (s). What is not known is not within one."""
    in_time = _column(log, metrics.e2e_s) <= e2e
    if ttft < float("inf"):
        in_time &= _column(log, metrics.ttft_s) <= ttft
    if tpot < float("inf"):
        only_token = np.array([metrics.shown_tokens(r) == 1 for r in metrics.succeeded(log)], dtype=bool)
        in_time &= only_token | (_column(log, metrics.tpot_s) <= tpot)
    return in_time


def _column(log: Log, of_request: Callable[[Result], float | None]) -> np.ndarray:
    """One value a successful request, nan where it has none. Shape (n,)."""
    values = [of_request(r) for r in metrics.succeeded(log)]
    return np.array([float("nan") if v is None else v for v in values])


# What comes of them.


def share_meeting(log: Log, met: Met) -> float:
    """Share of the requests that count which succeeded and meet the SLA."""
    counted = metrics.measured(log)
    return float(met(log).sum()) / len(counted) if counted else 0.0


def effective_throughput(log: Log, met: Met) -> float | None:
    """Requests/s that succeed and meet the SLA: request throughput x the share of its requests that do."""
    arrivals = metrics.request_throughput(log)
    if arrivals is None:
        return None
    ok = 1 - metrics.failed_share(log)
    return arrivals * share_meeting(log, met) / ok if ok else 0.0


def fluidity_index(log: Log, ttft: float, tpot: float) -> float | None:
    """Share of all token deadlines that were met; those of failed requests were not (Etalon, arXiv 2407.07000)."""
    due = sum(r.max_new_tokens if r.error else metrics.shown_tokens(r) for r in metrics.measured(log))
    met = sum(metrics.deadlines_met(r, ttft, tpot) for r in metrics.succeeded(log))
    return met / due if due else None


# Their names.


@dataclass(frozen=True)
class Sla:
    """An SLA by the name that `--sla` gave it; `limits` are its TTFT and TPOT (s) where it has both."""

    name: str
    met: Met
    limits: tuple[float, float] | None = None
    of_tokens: bool = True  # it asks when tokens came, which answers that came whole do not tell

    def throughput(self, log: Log) -> float | None:
        """Requests/s that succeed and meet it. None where the log cannot tell."""
        return None if self.of_tokens and not log.run.stream else effective_throughput(log, self.met)


def parse(name: str) -> Sla:
    """Raises InputError for what is no SLA."""
    fastgen = re.fullmatch(r"fastgen-(\d+(?:\.\d+)?)", name)
    if fastgen and float(fastgen[1]) > 0:
        return _fastgen(name, float(fastgen[1]))
    if name in MLPERF:
        ttft, tpot = MLPERF[name]
        return _limits(name, {"ttft": ttft, "tpot": tpot})
    found = re.findall(r"(ttft|tpot|e2e)=(\d*\.?\d+)(?:,|$)", name)
    limits = {key: float(value) for key, value in found}
    if limits and ",".join(f"{key}={value}" for key, value in found) == name:
        return _limits(name, limits)
    presets = "fastgen-1 ... fastgen-8, " + ", ".join(MLPERF)
    raise InputError(f"--sla {name!r} is no SLA; give ttft=S,tpot=S,e2e=S (any of them), or one of {presets}")


def _fastgen(name: str, rate: float) -> Sla:
    return Sla(name, lambda log: meets_prompt(log) & meets_ema(log, rate))


def _limits(name: str, limits: dict[str, float]) -> Sla:
    both = (limits["ttft"], limits["tpot"]) if {"ttft", "tpot"} <= limits.keys() else None
    return Sla(name, lambda log: meets_limits(log, **limits), both, of_tokens=limits.keys() != {"e2e"})
