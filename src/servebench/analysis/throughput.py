"""Rates of a point, per s, and its requests in flight; None is what a log cannot tell.

Throughput is taken from the measured window, in which all clients are active, over all that was in flight in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from servebench.analysis import samples, stats
from servebench.analysis.cache import derived
from servebench.analysis.latency import end_ns
from servebench.analysis.model_size import parameters
from servebench.analysis.samples import each, mean_e2e_s, succeeded
from servebench.log import original
from servebench.log.config import Clients, Dataset
from servebench.log.result import Result
from servebench.log.schema import Log


@derived
def request_throughput(log: Log) -> float | None:
    """Requests completed in the window / its length, requests/s.

    For logs of the original suite it is clients / mean latency: their clients all begin at once, so the first
    requests complete one latency after the window opened, and too few complete in it.
    """
    if original.is_original(log):
        return blog_throughput(log)
    length = window_s(log)
    return sum(1 for _ in ended_in_window(log)) / length if length else None


@derived
def output_token_throughput(log: Log) -> float | None:
    """Tokens that arrived in the window / its length, tokens/s. They come from requests of every phase."""
    if original.is_original(log):
        return _with_each_request(log, lambda r: r.generated_tokens)
    length = window_s(log)
    if not length or not log.window_ns:
        return None
    (start, end), (at, tokens) = log.window_ns, samples.arrivals(log)
    return int(tokens[(start < at) & (at <= end)].sum()) / length


@derived
def total_token_throughput(log: Log) -> float | None:
    """Output tokens and the prompt tokens of requests that ended in the window, tokens/s."""
    if original.is_original(log):
        return _with_each_request(log, lambda r: r.generated_tokens + r.prompt_tokens)
    output, prompts = output_token_throughput(log), input_token_throughput(log)
    return None if output is None or prompts is None else output + prompts


@derived
def input_token_throughput(log: Log) -> float | None:
    """Prompt tokens of requests that ended in the window / its length, tokens/s."""
    if original.is_original(log):
        return _with_each_request(log, lambda r: r.prompt_tokens)
    length = window_s(log)
    return sum(r.prompt_tokens for r in ended_in_window(log)) / length if length else None


def _with_each_request(log: Log, of_request: Callable[[Result], float]) -> float | None:
    """Request throughput x the mean of this over the requests that succeeded."""
    rate, tokens = request_throughput(log), stats.mean(each(log, of_request))
    return None if rate is None or tokens is None else rate * tokens


def blog_throughput(log: Log) -> float | None:
    """FastGen's throughput-latency figures: clients / mean latency, requests/s. For clients that never pause."""
    load, asked = log.run.load, log.run.requests
    if not isinstance(load, Clients) or (isinstance(asked, Dataset) and asked.think_time):
        return None
    latency = mean_e2e_s(log)
    return load.num_clients / latency if latency else None


@derived
def makespan_throughput(log: Log) -> float | None:
    """The original's effective throughput: n / (last end - first start), requests/s. Ramp and drain lower it."""
    done = succeeded(log)
    if not done:
        return None
    span = max(map(end_ns, done)) - min(r.sent_ns for r in done)
    return len(done) / (span / 1e9)


def throughput_per_gpu(log: Log) -> float | None:
    """Output token throughput / GPUs, tokens/s/GPU."""
    tokens_per_s = output_token_throughput(log)
    return None if tokens_per_s is None else tokens_per_s / gpus(log)


@derived
def tflops_per_gpu(log: Log) -> float | None:
    """Parameters x (prompt + generated tokens) x 2 x request throughput / GPUs, TFLOP/s."""
    size, rate, done = parameters(log.server.model), request_throughput(log), succeeded(log)
    if not size or rate is None or not done:
        return None
    tokens = float(np.mean([r.prompt_tokens + r.generated_tokens for r in done]))
    return size * tokens * 2 * rate / gpus(log) / 1e12


def gpus(log: Log) -> int:
    """GPUs (on a CPU: workers) that the point used."""
    return known_gpus(log) or log.server.workers


def known_gpus(log: Log) -> int | None:
    """GPUs of the server; None where the log does not know of any (on a CPU, or started by others)."""
    if log.server_facts.gpus:
        return len(log.server_facts.gpus)
    unknown = log.server.urls or (log.identity and not log.identity.get("environment", {}).get("gpus"))
    return None if unknown else log.server.workers


def window_s(log: Log) -> float | None:
    """Length of the measured window."""
    return (log.window_ns[1] - log.window_ns[0]) / 1e9 if log.window_ns else None


def ended_in_window(log: Log) -> Iterable[Result]:
    """Requests that completed in the measured window, those of warm-up and cooldown too."""
    start, end = log.window_ns or (0, 0)
    for r in log.results:
        if r.succeeded and start < r.sent_ns + r.event_ns[-1] <= end:
            yield r


@derived
def effective_concurrency(log: Log) -> float | None:
    """Mean requests in flight over the window, those of warm-up and cooldown too."""
    return concurrency(log.results, log.window_ns) if log.window_ns else None


@derived
def littles_law_ratio(log: Log) -> float | None:
    """Requests ended in the window / its length x mean time in flight / effective concurrency.

    Near 1 when the window was stationary. A failed request was in flight too, until it was given up.
    """
    length, in_flight = window_s(log), effective_concurrency(log)
    ended = [r for r in log.results if not r.cancelled and (r.event_ns or r.ended_ns is not None)]
    start, end = log.window_ns or (0, 0)
    times = [(end_ns(r) - r.sent_ns) / 1e9 for r in ended if r.phase == "measured"]
    inside = sum(start < end_ns(r) <= end for r in ended)
    return inside / length * sum(times) / len(times) / in_flight if length and in_flight and times else None


def concurrency(results: Sequence[Result], window_ns: tuple[int, int]) -> float:
    """Mean requests in flight over the window: the time integral of those sent and not ended, over its length."""
    start, end = window_ns
    sent, ended = lifetimes_ns(results, window_ns)
    inside = np.minimum(ended, end) - np.maximum(sent, start)
    return float(np.maximum(inside, 0).sum() / max(1, end - start))


def lifetimes_ns(results: Sequence[Result], window_ns: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """When each request was sent and ended; one that was cancelled was in flight to the end of the window."""
    sent = [r.sent_ns for r in results]
    ended = [window_ns[1] if r.cancelled else end_ns(r) for r in results]
    return np.array(sent, dtype=np.int64), np.array(ended, dtype=np.int64)
