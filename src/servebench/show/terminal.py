"""What the terminal shows of logs: a line a point, and a table at the end.

    python -m servebench summary results/ --sla fastgen-4 "ttft<2s, tpot<100ms"

shows the table and the warnings of a folder's logs again, with the requests/s that meet these SLAs (sla.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tabulate import tabulate

from servebench.analysis import differences, latency, metrics, samples, stationarity, stats, throughput, trust
from servebench.analysis.metrics import OfPoint, OfRequests
from servebench.analysis.sla import Sla, parse
from servebench.cli import commandline
from servebench.errors import no_logs
from servebench.figures.selection import load_text
from servebench.log import identity, schema, store
from servebench.log.schema import Log, Quality
from servebench.show import advice

Runs = list[Log]  # of one point
REQUESTS, CLIENTS_OVER_LATENCY, TOKENS = (
    metrics.OF_POINT[name]
    for name in ("request_throughput_per_s", "blog_throughput_per_s", "output_token_throughput_per_s")
)
LATENCIES = [metrics.OF_REQUESTS[name] for name in ("ttft_s", "tpot_s", "e2e_latency_s")]
NOTES = {  # of the marks that a table may have
    "(±": "(±) from the batches of a single run; several runs (--runs 5) know it better",
    "~": "~ fewer effective samples than this percentile needs (p50: 11, p90: 64)",
    "buffered": "buffered: an answer's tokens came all at once; something gathers them on their way",
    " cached": "cached: that share of the prompts was in the server's prefix cache; give another --seed",
    "stand-in": "stand-in: MII around a stand-in for DeepSpeed's engine; says nothing about DeepSpeed-FastGen",
    "overloaded": "overloaded: requests in flight grew all through; latencies only say how long it took",
    "?": "? not stationary, so without an interval: longer runs (--num_requests) or less load",
}


# One point.


def line(log: Log) -> str:
    """One point in one line, its client in another, and one for everything there is to say about it."""
    if log.status != "ok":
        return "\n".join([f"{name_of(log)}:  FAILED: {log.failure}", *indented(log.server_facts.log_tail)])
    rates = [f"{significant(metric.function(log))} {metric.short}" for metric in (REQUESTS, TOKENS)]
    medians = [f"{metric.label} {percentile(metric.sample(log), 50)} s" for metric in LATENCIES]
    failed = f"failed {_failed([log])}"
    window = f"window {significant(throughput.window_s(log))} s"
    marks = trust.marks([log])
    text = f"{name_of(log)}:  {'  '.join([*rates, *medians, failed, window])}"
    text += f"  ({', '.join(marks)})" if marks else ""
    rest = [f"  client: {quality_line(log.quality)}", *beside(log)]
    rest += [f"  dataset: {log.client['workload_remark']}"] if log.client.get("workload_remark") else []
    rest += [f"  warning: {words}" for words in advice.of_point(log)]
    return "\n".join([text, *rest, *([f"  enough: {log.stopped}"] if log.stopped else [])])


def name_of(log: Log) -> str:
    run, server, asked = log.run, log.server, log.run.requests
    what = asked.name or f"prompt {asked.mean_prompt_length}  gen {asked.mean_max_new_tokens}"
    again = f"  run {run.repetition + 1}" if run.repetition else ""
    load = f"{run.load.kind} {load_text(run)}"
    return f"{server.backend} tp{server.tp_size} x{server.num_replicas}  {what}  {load}{again}"


def beside(log: Log) -> list[str]:
    """What reasoning, an open loop and probes add: the answer's begin, latencies from schedule, a stranger's."""
    lines = []
    if log.run.stream and metrics.thinks_first([metrics.values(log)]):
        answer = samples.each(log, latency.time_to_first_answer_token_s)
        lines.append(f"  first answer token, after the reasoning: {_p50_and_p99(answer)}")
    for start, since in (("schedule", "_from_schedule"), ("send", "")) if log.run.open_loop else ():
        pair = (metrics.OF_REQUESTS[f"{name}{since}_s"].sample(log) for name in ("ttft", "e2e_latency"))
        lines.append(f"  from {start}: {_latencies(*pair)}")
    if log.probes:
        answered = [r for r in log.probes if r.succeeded]
        ttft = np.array([first for r in answered if (first := latency.ttft_s(r)) is not None])
        times = _latencies(ttft, np.array([latency.e2e_s(r) for r in answered]))
        lines.append(f"  probes: {times}; failed {sum(r.error is not None for r in log.probes)}/{len(log.probes)}")
    return lines


def _latencies(ttft: np.ndarray, e2e: np.ndarray) -> str:
    return f"TTFT {_p50_and_p99(ttft)}; E2E {_p50_and_p99(e2e)}"


def _p50_and_p99(sample: np.ndarray) -> str:
    return f"p50 {percentile(sample, 50)}, p99 {percentile(sample, 99)} s"


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


def indented(text: str) -> list[str]:
    return [f"    | {row}" for row in text.splitlines()]


def percentile(values: np.ndarray, q: int) -> str:
    """Three digits, "-" without samples, "~" behind a percentile that too few effective samples tell."""
    value = stats.percentile(values, q)
    return "-" if value is None else significant(value) + ("" if stats.enough_for_percentile(values, q) else "~")


def significant(value: float | None, digits: int = 3) -> str:
    """So many significant digits."""
    if value is None:
        return "-"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:.0f}"


# The table: a row a point.


@dataclass(frozen=True)
class Column:
    """A column of the table: its head, and its cell from the measured runs of a point, at least one."""

    head: str
    cell: Callable[[Runs], str]
    of_failed: str = "-"  # the cell of a point whose runs all failed


def table(logs: list[Log], slas: Sequence[Sla] = ()) -> str:
    """A row a point; what all points have in common stands above. Several runs give an interval: mean +-half."""
    points = identity.by_point(logs)
    common, names, rows = _settings([runs[0] for runs in points])
    columns = _columns(slas)
    for row, runs in zip(rows, points, strict=True):
        good = [log for log in runs if log.status == "ok"]
        cells = [column.cell(good) if good else column.of_failed for column in columns]
        row += [str(len(good or runs)), *cells]
    header = [*names, "runs", *(column.head for column in columns)]
    text = tabulate(rows, header, disable_numparse=True, stralign="right")
    return "\n".join([common, text, *(note for mark, note in NOTES.items() if mark in text)])


def _settings(logs: list[Log]) -> tuple[str, list[str], list[list[str]]]:
    """Settings of these logs: (a text of those that all share, names of the others, their values in each log)."""
    others = differences.differing_within(logs)
    all_of = [_sizes(log) | {name: differences.value(log, name) for name in others} for log in logs]
    names = [name for name in all_of[0] if name == "load" or len({of_log[name] for of_log in all_of}) > 1]
    common = ", ".join(f"{name} {value}" for name, value in all_of[0].items() if value and name not in names)
    return common, names, [[of_log[name] for name in names] for of_log in all_of]


def _sizes(log: Log) -> dict[str, str]:
    """Server, requests and load in the words of the table's heads."""
    server, run, asked = log.server, log.run, log.run.requests
    lengths = ("", "") if asked.name else (asked.mean_prompt_length, asked.mean_max_new_tokens)
    sizes: dict[str, object] = {"backend": server.backend, "model": schema.model_name(server.model)}
    sizes |= {"tp": server.tp_size, "batch": server.max_ragged_batch_size, "replicas": server.num_replicas}
    sizes |= {"requests": asked.name, "prompt": lengths[0], "gen": lengths[1], "load": load_text(run)}
    return {name: str(value) for name, value in sizes.items()}


def _columns(slas: Sequence[Sla]) -> list[Column]:
    rates = [Column(metric.short, partial(_rate, metric)) for metric in (REQUESTS, CLIENTS_OVER_LATENCY, TOKENS)]
    latencies = [
        column
        for metric in LATENCIES
        for column in (
            Column(f"{metric.label} p50 (s)", partial(_p50, metric)),
            Column("p90", partial(_p90, metric)),
        )
    ]
    return [
        *rates,
        *latencies,
        *(Column(f"{sla.name} (req/s)", partial(_mean, sla.throughput)) for sla in slas),
        Column("failed", _failed, of_failed="point failed"),
        Column("window (s)", lambda runs: significant(sum(throughput.window_s(log) or 0 for log in runs))),
        Column("client", client_and_marks),
    ]


def _rate(metric: OfPoint, runs: Runs) -> str:
    return _mean(metric.function, runs, lambda log: metric.batches(log).get(metric.name))


def _p50(metric: OfRequests, runs: Runs) -> str:
    def median(log: Log) -> float | None:
        return stats.percentile(metric.sample(log), 50)

    return _mean(median, runs, lambda log: metric.batches(log)[metric.column("p50")]) + _weakness(metric, runs, 50)


def _p90(metric: OfRequests, runs: Runs) -> str:
    """Over the requests of all runs, as a search judges it."""
    value = stats.percentile(np.concatenate([metric.sample(log) for log in runs]), 90)
    return significant(value) + _weakness(metric, runs, 90)


def _mean(
    of_log: Callable[[Log], float | None],
    runs: Runs,
    batches: Callable[[Log], np.ndarray | None] = lambda log: None,
) -> str:
    """The mean over runs, with an interval if they are stationary; (±) is that of one run's batches."""
    interval = stationarity.interval(runs, of_log)
    if not interval:
        return "-"
    if not stationarity.stationary(runs):
        return significant(interval.mean) + "?"
    if interval.known:
        return f"{significant(interval.mean)} ±{significant(interval.half, 2)}"
    of_batches = batches(runs[0]) if len(runs) == 1 else None
    within = None if of_batches is None else stats.t_interval(of_batches.tolist())
    return significant(interval.mean) + (f" (±{significant(within.half, 2)})" if within else "")


def _weakness(metric: OfRequests, runs: Runs, q: int) -> str:
    """A mark where the requests of a run are too few for this percentile."""
    found = [metric.sample(log) for log in runs]
    return "~" if any(len(sample) and not stats.enough_for_percentile(sample, q) for sample in found) else ""


def _failed(runs: Runs) -> str:
    """`3/120` requests."""
    return "{}/{}".format(*samples.failed_of(*runs))


def client_and_marks(runs: Runs) -> str:
    """What the client says of itself, and why numbers of the point may decide nothing."""
    marks = trust.marks(runs)
    verdicts = [log.quality.verdict.partition(":")[0] for log in runs]
    words = [] if any(mark.endswith("client-limited") for mark in marks) else [_not_ok(verdicts)]
    words += marks
    words += ["overloaded"] if any(log.quality.overloaded for log in runs) else []
    words += ["stand-in"] if trust.stand_in(runs[0]) else []
    return ", ".join(words)


def _not_ok(verdicts: list[str]) -> str:
    return next((verdict for verdict in verdicts if verdict != "ok"), "ok")


# Before and after.


def report(logs: list[Log], slas: Sequence[Sla] = ()) -> str:
    """The table, and what only shows when points are seen side by side."""
    return "\n".join([table(logs, slas), *(f"warning: {words}" for words in advice.of_sweep(logs))])


def main() -> int:
    parser = commandline.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commandline.add_folder(parser)
    parser.add_argument(
        "--sla", nargs="+", default=[], metavar="SLA", help='fastgen-4, mlperf-llama2-70b, "ttft<2s, tpot<100ms"'
    )
    args = parser.parse_args()
    slas = [parse(name) for name in args.sla]
    logs = [log for _, log in store.load_folder(args.folder)]
    if not logs:
        raise no_logs(args.folder)
    for log in logs:
        for words in advice.of_point(log) if log.status == "ok" else [str(log.failure)]:
            print(f"{name_of(log)}: {words}")
    print(report(logs, slas))
    return 0
