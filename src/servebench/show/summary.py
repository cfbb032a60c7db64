"""The results of a folder in the terminal: a table, the result, and what is wrong.

    servebench summary results/
    servebench summary results/ --wide                        every column: p90, the window, what the client says
    servebench summary results/ --json                        every metric of every point
    servebench summary results/ --sla fastgen-4 "ttft<2s, tpot<100ms"    and the requests/s that meet these SLAs

A row is a point: one load on one server. Latencies are in ms. Several runs of a point give a mean with its 95 %
interval where the line has room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from servebench.analysis import cost, metrics, samples, sla, stationarity, stats, throughput, trust
from servebench.analysis.answers import checked
from servebench.analysis.cache import derived
from servebench.analysis.filters import add_filter, passing
from servebench.analysis.metrics import OfPoint, OfRequests
from servebench.analysis.sla import Sla, parse
from servebench.cli import commandline
from servebench.errors import InputError, no_logs
from servebench.figures.selection import load_text
from servebench.log import evaluation
from servebench.log.config import ServerConfig
from servebench.log.schema import Log, Quality
from servebench.show import advice, answers, layouts, matching, scores, tables, terminal, verdict
from servebench.show.layouts import Layout, Runs, Study
from servebench.show.tables import significant
from servebench.show.verdict import SearchResult

CLIENTS_OVER_LATENCY, TOKENS = (
    metrics.OF_POINT[name] for name in ("blog_throughput_per_s", "output_token_throughput_per_s")
)
NOTES = {  # of the marks that a table may have
    "(±": "(±): estimated from parts of a single run; several runs (--runs 5) are more reliable",
    "~": "~: too few requests for a reliable percentile (p50 needs 11, p90 64, p99 662)",
    "client-limited": "client-limited: the client was the bottleneck; such a point decides nothing",
    "buffered": "buffered: an answer's tokens came all at once; something collects them on the way",
    "% cached": "cached: that share of the prompts was in the server's prefix cache; give another --seed",
    "overloaded": "overloaded: requests in flight kept growing; latencies only tell how long the point took",
    "not settled": "not settled, so no interval: use more --num_requests or a lower load",
    **{
        kind: f"{kind}: {each.what}; {each.remedy}, then --overwrite_results"
        for kind, each in trust.OF_MACHINE.items()
    },
    "stand-in": "stand-in: MII around a stand-in for DeepSpeed's engine; says nothing about DeepSpeed-FastGen",
}


NOTE = tables.Column("note", left=True, cut=True)


class Intervals(IntEnum):
    """Which intervals the cells show."""

    NONE = 0
    OF_RUNS = 1
    OF_PARTS = 2  # of single runs too


class Column(NamedTuple):
    """A column, and its cell from the measured runs of a point, at least one."""

    shape: tables.Column
    cell: Callable[[Runs], str]


def table(
    logs: list[Log], slas: Sequence[Sla] = (), searches: Sequence[SearchResult] = (), wide: bool = False
) -> str:
    """A table of each study: a row a point, below the name of its layout; what all have in common stands above."""
    found = layouts.studies(logs, with_failed=True)
    text = "\n\n".join(_study_table(study, slas, searches, wide) for study in found)
    marks = " ".join(mark for study in found for runs in study.points for mark in advice.marks(runs))
    return "\n".join([text, *(tables.wrapped(note) for mark, note in NOTES.items() if mark in f"{text} {marks}")])


def _study_table(study: Study, slas: Sequence[Sla], searches: Sequence[SearchResult], wide: bool) -> str:
    points = study.points
    limit = 10**6 if wide else tables.width()
    one = f", {_named(study.layouts[0])}" if len(study.layouts) == 1 else ""
    several = {len(runs) for runs in points}
    each = f", {max(several)} runs of each" if len(several) == 1 and max(several) > 1 else ""
    head = tables.wrapped(f"{study.model}, {study.asked}{one}{each}")
    for intervals in (Intervals.OF_PARTS,) if wide else (Intervals.OF_RUNS, Intervals.NONE):
        columns = _columns(points, slas, searches, wide, intervals)
        rows = [row for layout in study.layouts for row in _rows(layout, columns, named=not one)]
        shapes = [*(column.shape for column in columns), NOTE]
        if tables.fits(shapes, rows, limit):
            break
    dropped = not wide and not intervals and any(len(runs) > 1 for runs in points)
    hint = "\n--wide shows the intervals" if dropped else ""
    return f"{head}\n{tables.table(shapes, rows, limit)}{hint}"


def _rows(layout: Layout, columns: Sequence[Column], named: bool) -> Iterable[tables.Row]:
    if named:
        yield tables.paint(tables.cut(_named(layout), tables.width()), "bold")
    for runs in layout.points:
        good = [log for log in runs if log.status == "ok"]
        first, *others = columns
        numbers = [column.cell(good) if good else "" if column.shape.left else "-" for column in others]
        yield [first.cell(runs), *numbers, note(runs)]


def _named(layout: Layout) -> str:
    return ", ".join(filter(None, [layout.name, layout.started]))


# Columns.


def _columns(
    points: list[Runs], slas: Sequence[Sla], searches: Sequence[SearchResult], wide: bool, intervals: Intervals
) -> list[Column]:
    """The load first; behind them all stands the note."""
    unlike = wide or len({len(runs) for runs in points}) > 1
    return [
        Column(tables.Column("load"), lambda runs: load_text(runs[0].run)),
        *([Column(tables.Column("runs", drop=2), lambda runs: str(len(runs)))] if unlike else []),
        *(_searched(search) for search in verdict.by_limits(searches)),
        *(_every_number(intervals) if wide else _main_numbers(points, intervals)),
        *_costs(points, intervals),
        *_answers(points),
        *(Column(tables.Column(f"{sla.name}\nreq/s"), partial(_mean, sla.throughput, intervals)) for sla in slas),
        Column(tables.Column("failed"), partial(_failed, always=wide)),
        *(_of_client() if wide else []),
    ]


def _main_numbers(points: list[Runs], intervals: Intervals) -> list[Column]:
    shown = terminal.shown_latencies([log for runs in points for log in runs])
    return [
        Column(tables.Column("req/s"), partial(_rate, terminal.REQUESTS, intervals)),
        Column(tables.Column("tok/s", drop=3), partial(_rate, TOKENS, intervals)),
        *(_percentile_column(metric, q, intervals) for metric in shown for q in (50, 99)),
    ]


def _every_number(intervals: Intervals) -> list[Column]:
    rates = [terminal.REQUESTS, CLIENTS_OVER_LATENCY, TOKENS]
    return [
        *(
            Column(tables.Column(metric.short or metric.label), partial(_rate, metric, intervals))
            for metric in rates
        ),
        *(
            _percentile_column(metric, q, intervals)
            for metric in (terminal.TTFT, terminal.TPOT, terminal.E2E)
            for q in (50, 90, 99)
        ),
        Column(
            tables.Column("window\ns"),
            lambda runs: significant(sum(throughput.window_s(log) or 0 for log in runs)),
        ),
    ]


def _costs(points: list[Runs], intervals: Intervals) -> list[Column]:
    """Energy and $ of tokens, each where any log knows it."""
    good = [log for runs in points for log in runs if log.status == "ok"]
    return [
        Column(tables.Column(metric.short, drop=1), partial(_mean, metric.function, intervals))
        for metric in map(metrics.OF_POINT.__getitem__, metrics.COSTS)
        if any(metric.function(log) is not None for log in good)
    ]


def _answers(points: list[Runs]) -> list[Column]:
    """The share of questions that were answered right under load, where any were asked."""
    asked = [found for runs in points if (found := checked(runs))]
    return [Column(tables.Column("right"), _right)] if asked else []


def _right(runs: Runs) -> str:
    found = checked(runs)
    return f"{found.share:.0%}" if found else ""


def _percentile_column(metric: OfRequests, q: int, intervals: Intervals) -> Column:
    return Column(tables.Column(f"{metric.label}\np{q} ms"), partial(_percentile, metric, q, intervals))


def _of_client() -> list[Column]:
    """What the client says of itself, the worst of the runs."""

    def column(head: str, of: Callable[[Quality], float | None], form: Callable[[float], str]) -> Column:
        def worst(runs: Runs) -> str:
            known = [value for log in runs if (value := of(log.quality)) is not None]
            return form(max(known)) if known else "-"

        return Column(tables.Column(head), worst)

    return [
        Column(tables.Column("client", left=True), lambda runs: runs[0].quality.verdict.partition(":")[0]),
        column("in flight", lambda q: q.achieved_concurrency, "{:.1f}".format),
        column("lag p99\nms", lambda q: q.lag_p99_s, _fine_ms),
        column("late p99\nms", lambda q: q.send_late_p99_s, _fine_ms),
        column("RTT\nms", lambda q: q.connect_p50_s, _fine_ms),
        column("merged", lambda q: q.merged_share, "{:.2%}".format),
        column("unstamped", lambda q: q.unstamped_share, "{:.2%}".format),
        column("client\nCPU", lambda q: max(q.worker_cpu_share, default=None), "{:.0%}".format),
        column("host\nCPU", lambda q: q.host_cpu_share, "{:.0%}".format),
        column("others\nCPU", lambda q: q.others_cpu_share, "{:.0%}".format),
    ]


def _fine_ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def _searched(search: SearchResult) -> Column:
    """What a search says of the loads that it tried, and the values that it judged: of all runs' requests."""
    says = {name: each for each in search.loads for name in each.logs}
    colours = {"meets": "green", "does not meet": "red", "unknown": "yellow"}

    def cell(runs: Runs) -> str:
        found = next((says[log.file_name] for log in runs if log.file_name in says), None)
        if not found:
            return ""
        if not found.says:
            return significant(next(iter(found.seen.values()), None))
        values = [verdict.value_of(name, seen) for name, seen in found.seen.items() if seen is not None]
        return tables.paint(f"{found.says} ({', '.join(values)})" if values else found.says, colours[found.says])

    return Column(tables.Column(search.searched.replace(",", "\n").replace("\n ", "\n"), left=True), cell)


# Cells.


def _rate(metric: OfPoint, intervals: Intervals, runs: Runs) -> str:
    return _mean(metric.function, intervals, runs, lambda log: metric.batches(log).get(metric.name))


def _percentile(metric: OfRequests, q: int, intervals: Intervals, runs: Runs) -> str:
    def batches(log: Log) -> np.ndarray | None:
        return metric.batches(log).get(metric.column(f"p{q}"))

    return terminal.weakness(metric, runs, q) + _mean(
        partial(metric.percentile, q=q), intervals, runs, batches, tables.ms
    )


def _mean(
    of_log: Callable[[Log], float | None],
    intervals: Intervals,
    runs: Runs,
    batches: Callable[[Log], np.ndarray | None] = lambda log: None,
    form: Callable[..., str] = significant,
) -> str:
    """The mean over runs, with its interval if they have settled; (±) is that of one run's parts."""
    interval = stationarity.interval(runs, of_log)
    mean = form(interval and interval.mean)
    if not interval or not intervals or not stationarity.stationary(runs):
        return mean
    if interval.known:
        return f"{mean} ±{form(interval.half, digits=2)}"
    of_batches = batches(runs[0]) if intervals is Intervals.OF_PARTS and len(runs) == 1 else None
    within = None if of_batches is None else stats.t_interval(of_batches.tolist())
    return mean + (f" (±{form(within.half, digits=2)})" if within else "")


def _failed(runs: Runs, always: bool) -> str:
    """`3/120` requests."""
    failed, counted = samples.failed_of(*runs)
    text = f"{failed}/{counted}" if failed or always else ""
    return tables.paint(text, "red") if failed else text


def note(runs: Runs) -> str:
    """Why numbers of the point decide nothing, and what else makes them doubtful."""
    failed = all(log.status != "ok" for log in runs)
    return tables.paint(", ".join(advice.marks(runs)), "red" if failed else "yellow")


# What is wrong.


def warnings(logs: Iterable[Log]) -> list[str]:
    """Of every point; those that differ in their numbers alone together."""
    alike: dict[str, list[str]] = {}
    for log in logs:
        for words in advice.of_point(log) if log.status == "ok" else [f"failed: {log.failure}"]:
            alike.setdefault(terminal.without_numbers(words), []).append(f"{terminal.name_of(log)}: {words}")
    lines = [first + (f" ({len(more)} more alike)" if more else "") for first, *more in alike.values()]
    return lines


# As JSON.


def document(logs: list[Log], slas: Sequence[Sla], searches: Sequence[SearchResult]) -> dict[str, Any]:
    """Every point with all metrics by the names of docs/metrics.md, s."""
    found = layouts.studies(logs, with_failed=True)
    places = [(study, layout, runs) for study in found for layout in study.layouts for runs in layout.points]
    return {
        "points": [_point(study, layout, runs, slas) for study, layout, runs in places],
        "result": verdict.result(layouts.studies(logs)),
        "searches": searches,
        "warnings": advice.of_sweep(logs),
    }


def _point(study: Study, layout: Layout, runs: Runs, slas: Sequence[Sla]) -> dict[str, Any]:
    good = [log for log in runs if log.status == "ok"]
    values = [metrics.values(log) | sla.values(log, slas) for log in good]
    known = metrics.intervals(values, stationarity.stationary(good)) if good else {}
    failed, counted = samples.failed_of(*good)
    server, load = layout.log.server, runs[0].run.load
    return {
        "model": study.model,
        "asked": study.asked,
        "layout": layout.name,
        "backend": server.backend,
        "tp_size": server.tp_size,
        "num_replicas": server.num_replicas,
        "gpus": layout.gpus,
        "load": {"kind": load.kind, "size": load.size},
        "status": "ok" if good else "failed",
        "failure": None if good else runs[0].failure,
        "runs": len(good),
        "requests": counted,
        "failed": failed,
        "metrics": {name: known[name].mean if name in known else None for name in (values[0] if values else ())},
        "intervals": {name: [each.low, each.high] for name, each in known.items() if each.known},
        "marks": advice.marks(runs),
        "warnings": [words for log in good for words in advice.of_point(log)],
        "logs": [f"{log.server.engine}/{log.file_name}" for log in runs],
    }


# Before and after.


def report(
    logs: list[Log], slas: Sequence[Sla] = (), searches: Sequence[SearchResult] = (), wide: bool = False
) -> str:
    """The table, and what is wrong."""
    said = [*warnings(logs), *advice.of_sweep(logs)]
    asked = filter(None, (answers.table(study.layouts) for study in layouts.studies(logs)))
    lines = [f"\n{text}\n" for text in asked]
    lines += [tables.wrapped(f"{tables.paint('warning', 'yellow')}: {words}") for words in said]
    return "\n".join([table(logs, slas, searches, wide), *lines])


def ending(logs: list[Log], searches: Sequence[SearchResult], folder: Path) -> str:
    """The result in a sentence or two, the scores of servers, and what to type next."""
    studies, streamed = layouts.studies(logs), any(log.run.stream for log in logs)
    said = [search.words for search in searches] or verdict.result(studies)
    steps = verdict.next_steps(folder, _comparable(studies), streamed, searches)
    scored = scores.lines(evaluation.read(folder))
    return "\n".join(["", *map(tables.wrapped, [*said, *scored]), steps])


def _comparable(studies: Sequence[Study]) -> list[ServerConfig]:
    """The servers of the study with most layouts; of two that cannot be compared only the first."""
    layouts_of = max((study.layouts for study in studies), key=len, default=())
    try:
        sides = [[log for runs in layout.points for log in runs] for layout in layouts_of[:2]]
        if len(sides) == 2:
            matching.matched(*sides)
    except InputError:
        layouts_of = layouts_of[:1]
    return [layout.log.server for layout in layouts_of]


@derived
def _prepare(log: Log, as_json: bool, wide: bool, *slas: Sla) -> None:
    """What is asked of all logs together is asked of each."""
    document([log], slas, []) if as_json else report([log], slas, wide=wide)


def main() -> int:
    parser = commandline.Parser(description=__doc__)
    add = parser.add_argument
    commandline.add_folder(parser)
    add("--sla", nargs="+", default=[], metavar="SLA", help='fastgen-4, mlperf-llama2-70b, "ttft<2s, tpot<100ms"')
    add("--wide", action="store_true", help="every column, however wide the terminal is")
    add("--json", action="store_true", help="one JSON document with every metric of every point, in s")
    add_filter(parser, "--filter")
    cost.add_price(parser)
    args = parser.parse_args()
    folder = Path(args.folder)
    slas = [parse(name) for name in args.sla]
    needs = args.json, args.wide, *slas
    found = passing(folder, args.filter, args.gpu_hour_price, lambda log: _prepare(log, *needs))
    logs = [log for _, log in found]
    if not logs:
        raise no_logs(folder)
    searches = verdict.searches(folder)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(document(logs, slas, searches)), indent=2).decode())
        return 0
    print(report(logs, slas, searches, args.wide))
    print(ending(logs, searches, folder))
    return 0
