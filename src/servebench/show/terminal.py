"""A point in the terminal: a line, and what there is to say about it."""

from __future__ import annotations

import re

import numpy as np

from servebench.analysis import latency, metrics, samples, stats, trust
from servebench.analysis.metrics import OfRequests
from servebench.log.schema import Log, Quality
from servebench.servers.server import Server
from servebench.show import advice, answers, tables
from servebench.show.layouts import Runs, server_name
from servebench.show.points import asked, load_words
from servebench.show.tables import significant

REQUESTS = metrics.OF_POINT["request_throughput_per_s"]
TTFT, TPOT, E2E = (metrics.OF_REQUESTS[name] for name in ("ttft_s", "tpot_s", "e2e_latency_s"))


def ready(server: Server, with_batch: bool) -> str:
    """That a server answers: the head of the lines of its points."""
    name = server_name(server.config, with_batch)
    if server.processes:
        return f"{name}: ready after {tables.duration(server.facts.start_s)}"
    return f"{name}: answers at {', '.join(server.facts.urls)}"


def line(log: Log, with_requests: bool = False, known: bool = False, warned: set[str] | None = None) -> str:
    """One point in one line, and a line for each thing that is wrong and is not in `warned` yet.

    `known`: this failure was shown before.
    """
    name = "  " + _load_of(log) + (f"  {asked(log.run)[0]}" if with_requests else "")
    if log.status != "ok":
        tail = [] if known else [f"    | {row}" for row in log.server_facts.log_tail.splitlines()]
        return "\n".join(
            [tables.wrapped(f"{name}  {tables.paint('FAILED', 'red')}: {log.failure}", "    "), *tail]
        )
    failed, counted = samples.failed_of(log)
    latencies = [_p50_and_p99(metric.label, metric.sample(log)) for metric in shown_latencies([log])]
    parts = [name, f"{significant(REQUESTS.function(log))} req/s", *latencies]
    parts += [tables.paint(f"{failed} of {counted} failed", "red")] if failed else []
    parts += [tables.paint(", ".join(trust.marks([log])), "yellow")]
    text = tables.flowed(parts, "    ")
    if not failed and len(tables.flowed([*parts, f"{counted} ok"]).splitlines()) == 1:
        text = tables.flowed([*parts, f"{counted} ok"])
    return "\n".join(
        [text, *(tables.wrapped(f"    {row}", "      ") for row in rest(log, set() if warned is None else warned))]
    )


def rest(log: Log, warned: set[str]) -> list[str]:
    """What more there is to say of a point. A warning that differs in its numbers only is the same."""
    lines = beside(log)
    lines += [f"dataset: {log.client['workload_remark']}"] if log.client.get("workload_remark") else []
    of_point = {without_numbers(words): words for words in advice.of_point(log)}
    lines += [f"{tables.paint('warning', 'yellow')}: {of_point[kind]}" for kind in of_point if kind not in warned]
    warned.update(of_point)
    return lines + ([f"enough: {log.stopped}"] if log.stopped else [])


def without_numbers(words: str) -> str:
    return re.sub(r"[\d.]+", "", words)


def shown_latencies(logs: list[Log]) -> list[OfRequests]:
    """TTFT and TPOT; of answers that came whole their latency. Without those that nobody knows."""
    streamed, whole = (any(log.run.stream == stream for log in logs) for stream in (True, False))
    wanted = [TTFT, TPOT] * streamed + [E2E] * whole
    return [metric for metric in wanted if any(metric.percentile(log, 50) is not None for log in logs)]


def weakness(metric: OfRequests, runs: Runs, q: int) -> str:
    """A mark where the requests of any run are too few for this percentile."""
    return "~" if any(metric.too_few(log, q) for log in runs) else ""


def name_of(log: Log) -> str:
    """Server, load and run."""
    return f"{server_name(log.server)}, {_load_of(log)}"


def _load_of(log: Log) -> str:
    return load_words(log.run) + (f" run {log.run.repetition + 1}" if log.run.repetition else "")


def beside(log: Log) -> list[str]:
    """What reasoning, an open loop and probes add: the answer's begin, latencies from schedule, a new user's."""
    lines = []
    if log.run.stream and metrics.thinks_first([metrics.values(log)]):
        answer = samples.each(log, latency.time_to_first_answer_token_s)
        lines.append(_p50_and_p99("first answer token, after the reasoning:", answer))
    if log.run.open_loop:
        pair = [metrics.OF_REQUESTS[f"{name}_from_schedule_s"].sample(log) for name in ("ttft", "e2e_latency")]
        lines.append(f"from schedule: {_latencies(*pair)}")
    if log.probes:
        answered = [r for r in log.probes if r.succeeded]
        ttft = np.array([first for r in answered if (first := latency.ttft_s(r)) is not None])
        times = _latencies(ttft, np.array([latency.e2e_s(r) for r in answered]))
        failed = sum(r.error is not None for r in log.probes)
        lines.append(f"probes: {times}; {failed} of {len(log.probes)} failed")
    if words := answers.of_point([log]):
        lines.append(words)
    return lines


def _latencies(ttft: np.ndarray, e2e: np.ndarray) -> str:
    return f"{_p50_and_p99('TTFT', ttft)}; {_p50_and_p99('E2E', e2e)}"


def _p50_and_p99(name: str, sample: np.ndarray) -> str:
    """`TTFT 210 ms, p99 480`."""
    p50, p99 = (stats.percentile(sample, q) for q in (50, 99))
    if p50 is None or p99 is None:
        return f"{name} -"
    same_unit = (p50 < tables.IN_SECONDS) == (p99 < tables.IN_SECONDS)
    return f"{name} {tables.latency(p50)}, p99 {tables.ms(p99) if same_unit else tables.latency(p99)}"


def quality_line(q: Quality) -> str:
    """What the client says of itself, in one line. Lag: from the kernel's stamp to the read."""
    cpu = ", ".join(f"{share:.0%}" for share in q.worker_cpu_share) or "-"
    lag = f"lag p50 {_ms(q.lag_p50_s)}, p99 {_ms(q.lag_p99_s)}, max {_ms(q.lag_max_s)}"
    stamps = f"merged {q.merged_share:.2%}; unstamped {q.unstamped_share:.2%}"
    asked = f" of {q.asked_concurrency:.0f}" if q.asked_concurrency else ""
    concurrency = f"concurrency {q.achieved_concurrency:.1f}{asked}"
    rest = f"sends late p99 {_ms(q.send_late_p99_s)}; {concurrency}; RTT {_ms(q.connect_p50_s)}; CPU {cpu}"
    return f"{q.verdict.partition(':')[0]}; {lag}; {stamps}; {rest}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"
