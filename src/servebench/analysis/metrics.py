"""Log -> numbers. One definition each; times in s, rates per s. None is what a log cannot tell.

"Measured" requests are those that count; latencies are taken from the successful ones among them. Throughput
is taken from the steady window (all clients active), over all that was in flight in it. SLAs are in sla.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from servebench.log import original
from servebench.log.schema import Log, Result

P = ParamSpec("P")
T = TypeVar("T")


def once_a_log(of_log: Callable[Concatenate[Log, P], T]) -> Callable[Concatenate[Log, P], T]:
    """What takes every request or token of a log is worked out once, and kept with it: many ask for it."""

    @wraps(of_log)
    def kept(log: Log, /, *args: P.args, **kwargs: P.kwargs) -> T:
        memory: dict[Any, T] = log.__dict__.setdefault("memory", {})
        key = (of_log, args, tuple(kwargs.items()))  # not its name: another module may have one of the same
        if key not in memory:
            memory[key] = of_log(log, *args, **kwargs)
        return memory[key]

    return kept


# Of one request.


def ttft_s(r: Result) -> float | None:
    """Time to first token: first content event - sent, of every streamed answer, also one of a single event."""
    return r.event_ns[0] / 1e9 if r.streamed and r.event_ns else None


def time_to_first_answer_token_s(r: Result) -> float | None:
    """First content event that is not reasoning - sent, of a streamed answer; None where all was reasoning."""
    at = r.first_answer_event
    return r.event_ns[at] / 1e9 if r.streamed and at is not None and r.event_ns else None


def e2e_s(r: Result) -> float:
    """End-to-end latency: last content event - sent."""
    return r.event_ns[-1] / 1e9


def end_ns(r: Result) -> int:
    """When the request ended (ns of CLOCK_REALTIME): its last content event, or the time that it was given up."""
    return r.sent_ns + (r.ended_ns if r.ended_ns is not None else r.event_ns[-1] if r.event_ns else 0)


def schedule_wait_s(r: Result) -> float:
    """Open loop: sent - scheduled, which every latency from schedule has on top of that from send. Else 0."""
    return 0.0 if r.scheduled_ns is None else (r.sent_ns - r.scheduled_ns) / 1e9


def ttft_from_schedule_s(r: Result) -> float | None:
    """TTFT as a user feels it (s): first content event - when the request should have left (open loop)."""
    first = ttft_s(r)
    return None if first is None or r.scheduled_ns is None else first + schedule_wait_s(r)


def e2e_from_schedule_s(r: Result) -> float | None:
    """End-to-end latency from when the request should have left (open loop), s."""
    return None if r.scheduled_ns is None else e2e_s(r) + schedule_wait_s(r)


def shown_tokens(r: Result) -> int:
    """Tokens that came in events: all that were generated but reasoning that was not shown."""
    return sum(r.event_tokens) if r.reasoning_tokens else r.generated_tokens


def itl_s(r: Result) -> np.ndarray:
    """Inter-token latencies: gaps between successive content events. Shape (events - 1,)."""
    return np.diff(r.event_ns) / 1e9


def tpot_s(r: Result) -> float | None:
    """Time per output token after the first event: (last - first event) / tokens of the events after the first."""
    rest = shown_tokens(r) - r.event_tokens[0]
    return (r.event_ns[-1] - r.event_ns[0]) / 1e9 / rest if rest > 0 else None


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


def timing_statistics(requests: Sequence[Sequence[int]]) -> dict[str, float]:
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


# Of one point.


class Gaps(NamedTuple):
    """Times between what came in succession, of many requests: one row, request by request. Shapes (gaps,)."""

    gap_s: np.ndarray
    owner: np.ndarray  # index of the request that a gap belongs to


def gaps(requests: list[Result], of_tokens: bool = False) -> Gaps:
    """Gaps between events, or before every token after the first: tokens that came in one event have gap 0."""
    at = _in_a_row([r.event_ns for r in requests])
    owner = np.repeat(np.arange(len(requests)), [len(r.event_ns) for r in requests])
    if of_tokens:
        tokens = _in_a_row([r.event_tokens for r in requests])
        at, owner = np.repeat(at, tokens), np.repeat(owner, tokens)
    inside = owner[1:] == owner[:-1]
    return Gaps(np.diff(at)[inside] / 1e9, owner[1:][inside])


def measured(log: Log) -> list[Result]:
    """Requests that count, failed ones too."""
    return [r for r in log.results if r.phase == "measured"]


def succeeded(log: Log) -> list[Result]:
    return [r for r in measured(log) if r.error is None and r.event_ns]


def failed_share(*runs: Log) -> float:
    """Failed requests / requests that count, over all these runs."""
    counted = sum(len(measured(log)) for log in runs)
    return 1 - sum(len(succeeded(log)) for log in runs) / counted if counted else 1.0


def each(log: Log, of_request: Callable[[Result], float | None]) -> np.ndarray:
    """One value a successful request, those without one left out. Shape (n,)."""
    values = [of_request(r) for r in succeeded(log)]
    return np.array([v for v in values if v is not None], dtype=float)


def pooled_itl_s(log: Log) -> np.ndarray:
    """Inter-token latencies of all successful requests together. Shape (gaps,)."""
    return gaps(succeeded(log)).gap_s


def percentile(values: np.ndarray, q: float) -> float | None:
    return float(np.percentile(values, q)) if len(values) else None


def mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def mean_e2e_s(log: Log) -> float | None:
    """Mean end-to-end latency."""
    return mean(each(log, e2e_s))


def arrivals(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Of all events, requests of every phase: arrival (ns) and tokens. Shapes (events,)."""
    sent = np.array([r.sent_ns for r in log.results], dtype=np.int64)
    after = _in_a_row([r.event_ns for r in log.results])
    tokens = _in_a_row([r.event_tokens for r in log.results])
    return after + np.repeat(sent, [len(r.event_ns) for r in log.results]), tokens


def _in_a_row(parts: list[Sequence[int]]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *(np.asarray(part, dtype=np.int64) for part in parts)])


def window_s(log: Log) -> float | None:
    """Length of the steady window."""
    return (log.window_ns[1] - log.window_ns[0]) / 1e9 if log.window_ns else None


def ended_in_window(log: Log) -> Iterable[Result]:
    """Requests that completed in the steady window, warm-up and hold requests too."""
    start, end = log.window_ns or (0, 0)
    for r in log.results:
        ended = r.error is None and r.finish_reason != "cancelled" and r.event_ns
        if ended and start < r.sent_ns + r.event_ns[-1] <= end:
            yield r


@once_a_log
def request_throughput(log: Log) -> float | None:
    """Requests completed in the window / its length, requests/s.

    Of the original suite's logs clients / mean latency: their clients begin all at once, so that the first of
    them complete one latency after the window opened, and too few complete in it.
    """
    if original.is_original(log):
        return blog_throughput(log)
    length = window_s(log)
    return sum(1 for _ in ended_in_window(log)) / length if length else None


def output_token_throughput(log: Log) -> float | None:
    """Tokens that arrived in the window / its length, tokens/s. Requests of every phase brought them."""
    if original.is_original(log):
        return _with_each_request(log, lambda r: r.generated_tokens)
    length = window_s(log)
    if not length or not log.window_ns:
        return None
    start, end = log.window_ns
    tokens = 0
    for r in log.results:
        if r.event_ns and start < r.sent_ns + r.event_ns[0] and r.sent_ns + r.event_ns[-1] <= end:
            tokens += sum(r.event_tokens)
        else:
            events = zip(r.event_ns, r.event_tokens, strict=True)
            tokens += sum(k for t, k in events if start < r.sent_ns + t <= end)
    return tokens / length


def total_token_throughput(log: Log) -> float | None:
    """Output tokens and the prompt tokens of requests that ended in the window, tokens/s."""
    if original.is_original(log):
        return _with_each_request(log, lambda r: r.generated_tokens + r.prompt_tokens)
    output, length = output_token_throughput(log), window_s(log)
    if output is None or not length:
        return None
    return output + sum(r.prompt_tokens for r in ended_in_window(log)) / length


def _with_each_request(log: Log, of_request: Callable[[Result], float]) -> float | None:
    """Request throughput x the mean of this over the requests that succeeded."""
    rate, tokens = request_throughput(log), mean(each(log, of_request))
    return None if rate is None or tokens is None else rate * tokens


def blog_throughput(log: Log) -> float | None:
    """FastGen's throughput-latency figures: clients / mean latency, requests/s. Of clients that never pause."""
    latency = None if log.run.open_loop or log.run.think_time else mean_e2e_s(log)
    return log.run.num_clients / latency if latency else None


def makespan_throughput(log: Log) -> float | None:
    """The original's effective throughput: n / (last end - first start), requests/s. Biased low by ramp, drain."""
    done = succeeded(log)
    if not done:
        return None
    span = max(map(end_ns, done)) - min(r.sent_ns for r in done)
    return len(done) / (span / 1e9)


def gpus(log: Log) -> int:
    """GPUs (on a CPU: workers) that the point used."""
    return log.server.tp_size * log.server.num_replicas


def throughput_per_gpu(log: Log) -> float | None:
    """Output token throughput / GPUs, tokens/s/GPU."""
    tokens_per_s = output_token_throughput(log)
    return None if tokens_per_s is None else tokens_per_s / gpus(log)


def interactivity(log: Log) -> np.ndarray:
    """1 / TPOT of every request, tokens/s/user. Shape (n,)."""
    tpot = each(log, tpot_s)
    return 1 / tpot[tpot > 0]


def lifetimes_ns(results: list[Result], window_ns: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """When each request was sent and ended; one that was cancelled was in flight to the end of the window."""
    sent = [r.sent_ns for r in results]
    ended = [window_ns[1] if r.finish_reason == "cancelled" else end_ns(r) for r in results]
    return np.array(sent, dtype=np.int64), np.array(ended, dtype=np.int64)


def concurrency(results: list[Result], window_ns: tuple[int, int]) -> float:
    """Mean requests in flight over the window: the time integral of those sent and not ended, over its length."""
    start, end = window_ns
    sent, ended = lifetimes_ns(results, window_ns)
    inside = np.minimum(ended, end) - np.maximum(sent, start)
    return float(np.maximum(inside, 0).sum() / max(1, end - start))


def effective_concurrency(log: Log) -> float | None:
    """Mean requests in flight over the window, warm-up and hold requests too."""
    return concurrency(log.results, log.window_ns) if log.window_ns else None


def littles_law_ratio(log: Log) -> float | None:
    """Requests ended in the window / its length x mean time in flight / effective concurrency.

    Near 1 when the window was steady. A failed request was in flight too, until it was given up.
    """
    length, in_flight = window_s(log), effective_concurrency(log)
    ended = [r for r in log.results if r.finish_reason != "cancelled" and (r.event_ns or r.ended_ns is not None)]
    start, end = log.window_ns or (0, 0)
    times = [(end_ns(r) - r.sent_ns) / 1e9 for r in ended if r.phase == "measured"]
    inside = sum(start < end_ns(r) <= end for r in ended)
    return inside / length * sum(times) / len(times) / in_flight if length and in_flight and times else None


# Parameters that one token passes through, in billions, where the name says another number: mixtures of experts.
ACTIVE = {"8x7b": 12.9, "8x22b": 39.1, "gpt-oss-120b": 5.1, "gpt-oss-20b": 3.6}
# Those of models whose names say none.
UNSAID = {r"phi-2": 2.7, r"deepseek-v3(\.[12])?": 37.0, r"deepseek-r1": 37.0}
SIZE = r"(?<![\d.x])(?<!\d_)(\d+(?:\.\d+)?)([bm])(?![a-z\d])"


def parameters(model: str) -> float | None:
    """Parameters of a model by its name, those that a token passes through: a table, else what the name says.

    `Llama-2-70b` 70e9, `Qwen3-30B-A3B` 3e9, `Qwen2.5-7B-Instruct-1M` 7e9 (a million is its context). None where
    the name says nothing. Of a path, the last part that says something counts, and no hash.
    """
    parts = [part for part in model.lower().split("/") if not re.fullmatch(r"[0-9a-f]{12,}", part)]
    hub_id = len(model.split("/")) == 2 and not model.startswith((".", "~", "/"))
    return next((size for part in reversed(parts[hub_id:]) if (size := _parameters(part))), None)


def _parameters(name: str) -> float | None:
    for billions in (size for key, size in ACTIVE.items() if key in name):
        return billions * 1e9
    active = re.findall(rf"(?<![a-z])a{SIZE}", name)
    sizes = active or sorted(re.findall(SIZE, name), key=lambda size: size[1])  # billions before millions
    if sizes:
        return float(sizes[0][0]) * {"b": 1e9, "m": 1e6}[sizes[0][1]]
    return next((size * 1e9 for key, size in UNSAID.items() if re.search(rf"{key}(?![\d.])", name)), None)


def tflops_per_gpu(log: Log) -> float | None:
    """Parameters x (prompt + generated tokens) x 2 x request throughput / GPUs, TFLOP/s."""
    size, rate, done = parameters(log.server.model), request_throughput(log), succeeded(log)
    if not size or rate is None or not done:
        return None
    tokens = float(np.mean([r.prompt_tokens + r.generated_tokens for r in done]))
    return size * tokens * 2 * rate / gpus(log) / 1e12
