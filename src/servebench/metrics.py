"""Log -> numbers. One definition each; times in s, rates per s. What cannot be said of a log is None.

"Measured" requests are those that count; latencies are taken from the successful ones among them. Throughput
is taken from the steady window (all clients active), over all that was in flight in it. A failed request meets
no SLA.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import accumulate

import numpy as np

from servebench.records import Log, Result

EMA_SPAN = 16
GENERATION_RATES = (1, 2, 3, 4, 6, 8)  # tokens/s, FastGen's generation SLAs
PROMPT_RATE = 512.0  # prompt tokens/s, FastGen's prompt SLA

# Of one request.


def ttft_s(r: Result) -> float | None:
    """Time to first token: first content event - sent. None for an answer that was not streamed."""
    return r.event_ns[0] / 1e9 if len(r.event_ns) > 1 or r.generated_tokens == 1 else None


def e2e_s(r: Result) -> float:
    """End-to-end latency: last content event - sent."""
    return r.event_ns[-1] / 1e9


def schedule_wait_s(r: Result) -> float:
    """Open loop: sent - scheduled, which every latency from schedule has on top of that from send. Else 0."""
    return 0.0 if r.scheduled_ns is None else (r.sent_ns - r.scheduled_ns) / 1e9


def itl_s(r: Result) -> np.ndarray:
    """Inter-token latencies: gaps between successive content events. Shape (events - 1,)."""
    return np.diff(r.event_ns) / 1e9


def tpot_s(r: Result) -> float | None:
    """Time per output token after the first event: (last - first event) / (tokens - tokens of the first event)."""
    rest = r.generated_tokens - r.event_tokens[0]
    return (r.event_ns[-1] - r.event_ns[0]) / 1e9 / rest if rest > 0 else None


def token_gaps_s(r: Result) -> np.ndarray:
    """Gap before every token after the first; tokens that came in one event have gap 0. Shape (tokens - 1,)."""
    return np.diff(np.repeat(r.event_ns, r.event_tokens)) / 1e9


def timing_statistics(requests: list[list[int]]) -> dict[str, float]:
    """Mean, p50 and p99 of TTFT and of pooled ITL, s, from each request's event times (ns since it was sent).

    Needs one request at least; gaps that nobody has are 0.
    """
    first = np.array([events[0] for events in requests]) / 1e9
    gaps = np.concatenate([np.diff(events) for events in requests]) / 1e9
    values: dict[str, float] = {}
    for name, sample in (("ttft", first), ("itl", gaps if len(gaps) else np.zeros(1))):
        p50, p99 = np.percentile(sample, [50, 99])
        values |= {
            f"{name}_mean_s": float(sample.mean()),
            f"{name}_p50_s": float(p50),
            f"{name}_p99_s": float(p99),
        }
    return values


# SLAs of one request. A message with k tokens meets k deadlines at its stamp.


def meets_prompt_sla(r: Result, tokens_per_s: float = PROMPT_RATE) -> bool:
    """FastGen: the first token within prompt_tokens / rate."""
    first = ttft_s(r)
    return first is not None and first <= r.prompt_tokens / tokens_per_s


def ema(gaps: np.ndarray, span: int = EMA_SPAN) -> np.ndarray:
    """Exponential moving average, alpha = 2 / (span + 1), with adjusted weights (they sum to 1 from the start)."""
    keep = 1 - 2 / (span + 1)
    sums = accumulate(gaps.tolist(), lambda total, gap: keep * total + gap)
    weights = accumulate(range(len(gaps)), lambda total, _: keep * total + 1, initial=1.0)
    return np.array([total / weight for total, weight in zip(sums, weights, strict=False)])


def meets_generation_sla_ema(r: Result, tokens_per_s: float, span: int = EMA_SPAN) -> bool:
    """FastGen: the moving average of the gaps after the first token stays below 1 / rate at every token."""
    return bool((ema(token_gaps_s(r), span) < 1 / tokens_per_s).all())


def meets_generation_sla_cumulative(r: Result, tokens_per_s: float) -> bool:
    """FastGen: the first i gaps together take at most i / rate, for every i."""
    gaps = token_gaps_s(r)
    return bool((np.cumsum(gaps) <= np.arange(1, len(gaps) + 1) / tokens_per_s).all())


def meets_limits(
    r: Result, ttft: float = float("inf"), tpot: float = float("inf"), e2e: float = float("inf")
) -> bool:
    """Goodput's SLA: TTFT, TPOT and E2E latency all within limits (s)."""
    return (ttft_s(r) or 0) <= ttft and (tpot_s(r) or 0) <= tpot and e2e_s(r) <= e2e


# Of one point.


def measured(log: Log) -> list[Result]:
    """Requests that count, failed ones too."""
    return [r for r in log.results if r.phase == "measured"]


def succeeded(log: Log) -> list[Result]:
    return [r for r in measured(log) if r.error is None and r.event_ns]


def failed_share(log: Log) -> float:
    """Failed requests / requests that count."""
    counted = measured(log)
    return 1 - len(succeeded(log)) / len(counted) if counted else 1.0


def each(log: Log, of_request: Callable[[Result], float | None]) -> np.ndarray:
    """One value a successful request, those without one left out. Shape (n,)."""
    values = [of_request(r) for r in succeeded(log)]
    return np.array([v for v in values if v is not None], dtype=float)


def pooled_itl_s(log: Log) -> np.ndarray:
    """Inter-token latencies of all successful requests together. Shape (gaps,)."""
    return np.concatenate([np.empty(0), *(itl_s(r) for r in succeeded(log))])


def percentile(values: np.ndarray, q: float) -> float | None:
    return float(np.percentile(values, q)) if len(values) else None


def mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def window_s(log: Log) -> float | None:
    """Length of the steady window."""
    return (log.window_ns[1] - log.window_ns[0]) / 1e9 if log.window_ns else None


def _ended_in_window(log: Log) -> Iterable[Result]:
    start, end = log.window_ns or (0, 0)
    for r in log.results:
        ended = r.error is None and r.finish_reason != "cancelled" and r.event_ns
        if ended and start < r.sent_ns + r.event_ns[-1] <= end:
            yield r


def request_throughput(log: Log) -> float | None:
    """Requests completed in the window / its length, requests/s."""
    length = window_s(log)
    return sum(1 for _ in _ended_in_window(log)) / length if length else None


def output_token_throughput(log: Log) -> float | None:
    """Tokens that arrived in the window / its length, tokens/s. Requests of every phase brought them."""
    length = window_s(log)
    if not length or not log.window_ns:
        return None
    start, end = log.window_ns
    tokens = 0
    for r in log.results:
        at = np.array(r.event_ns, dtype=np.int64) + r.sent_ns
        tokens += int(np.array(r.event_tokens)[(start < at) & (at <= end)].sum()) if len(at) else 0
    return tokens / length


def total_token_throughput(log: Log) -> float | None:
    """Output tokens and the prompt tokens of requests that ended in the window, tokens/s."""
    output, length = output_token_throughput(log), window_s(log)
    if output is None or not length:
        return None
    return output + sum(r.prompt_tokens for r in _ended_in_window(log)) / length


def blog_throughput(log: Log) -> float | None:
    """FastGen's throughput-latency figures: clients / mean latency, requests/s. Not of an open loop."""
    if log.run.open_loop:
        return None
    latency = mean(each(log, e2e_s))
    return log.run.num_clients / latency if latency else None


def makespan_throughput(log: Log) -> float | None:
    """The original's effective throughput: n / (last end - first start), requests/s. Biased low by ramp, drain."""
    done = succeeded(log)
    if not done:
        return None
    span = max(r.sent_ns + r.event_ns[-1] for r in done) - min(r.sent_ns for r in done)
    return len(done) / (span / 1e9)


def share_meeting(log: Log, sla: Callable[[Result], bool]) -> float:
    """Share of the requests that count which succeeded and meet the SLA."""
    counted = measured(log)
    return sum(sla(r) for r in succeeded(log)) / len(counted) if counted else 0.0


def effective_throughput(log: Log, sla: Callable[[Result], bool]) -> float | None:
    """Requests/s that succeed and meet the SLA: request throughput x the share of its requests that do."""
    arrivals = request_throughput(log)
    if arrivals is None:
        return None
    ok = 1 - failed_share(log)
    return arrivals * share_meeting(log, sla) / ok if ok else 0.0


def gpus(log: Log) -> int:
    """GPUs (on a CPU: workers) that the point used."""
    return log.server.tp_size * log.server.num_replicas


def interactivity(log: Log) -> np.ndarray:
    """1 / TPOT of every request, tokens/s/user. Shape (n,)."""
    tpot = each(log, tpot_s)
    return 1 / tpot[tpot > 0]


def littles_law_ratio(log: Log) -> float | None:
    """Throughput x mean latency / requests in flight: near 1 when the window was steady."""
    rate, latency, in_flight = request_throughput(log), mean(each(log, e2e_s)), log.quality.achieved_concurrency
    return rate * latency / in_flight if rate and latency and in_flight else None


# Parameters that one token passes through, in billions (Mixtral: 2 of 8 experts).
PARAMETERS = {"mixtral-8x7b": 12.9, "falcon-40b": 40.0, "falcon-180b": 180.0, "phi-2": 2.7}


def parameters(model: str) -> float | None:
    """Parameters of a model by its name: a table, else the size that the name says (`Llama-2-70b`, `135M`)."""
    name = model.lower()
    known = [billions for key, billions in PARAMETERS.items() if key in name]
    said = re.findall(r"(?<![\d.x])(\d+(?:\.\d+)?)([bm])(?![a-z])", name)
    if known:
        return known[0] * 1e9
    return float(said[-1][0]) * {"b": 1e9, "m": 1e6}[said[-1][1]] if said else None


def tflops_per_gpu(log: Log) -> float | None:
    """Parameters x (prompt + generated tokens) x 2 x request throughput / GPUs, TFLOP/s."""
    size, rate, done = parameters(log.server.model), request_throughput(log), succeeded(log)
    if not size or rate is None or not done:
        return None
    tokens = float(np.mean([r.prompt_tokens + r.generated_tokens for r in done]))
    return size * tokens * 2 * rate / gpus(log) / 1e12
