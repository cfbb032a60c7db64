"""Two sets of results side by side: is B better or worse than A, and could the data have told?

    servebench compare results/vllm results/sglang
    servebench compare results/ --filter_a backend=vllm tp_size=2 --filter_b backend=sglang tp_size=1

A and B are folders of logs, or filters choose them from one folder. Settings that are the same within each side,
but differ between the two, are compared: engines, versions, sizes, options. Settings that vary within a side, such
as loads, are matched. Both sides must do the same work; API and streaming may differ, with a note.

The first sentence is the answer. The table has one row per point, A -> B, at most ten without --all; --wide has
every ratio with its 95 % interval. Intervals come from repeated runs (--runs 5 or more); for a single run from its
batches, if it has 100 requests, and only for means and medians; with --paired from the ratios of runs with the
same prompts, measured in turn (servebench paired). `servebench gate` judges results, for CI.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from servebench.analysis import cost, filters, limits, metrics, sla, trust
from servebench.analysis.metrics import OfRequests
from servebench.analysis.sla import Sla
from servebench.cli import commandline
from servebench.errors import InputError
from servebench.log import evaluation
from servebench.log.schema import Log, model_name
from servebench.show import answers, matching, points, ratios, scores, tables
from servebench.show.matching import Pair
from servebench.show.points import Runs
from servebench.show.ratios import ALIKE, Comparison
from servebench.show.tables import Column
from servebench.show.winner import THROUGHPUT, TOLD, Sides, metric_words, sentence

STREAMED = ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s")
WHOLE = ("e2e_latency_p50_s", "e2e_latency_p99_s")  # of answers that came whole
SLA = "effective_throughput["
MOST = 10  # rows, and points that are listed, without --all
MARKS = {"better": "+", "worse": "-", "different": "!", ALIKE: "="}
COLOURS = {"better": "green", "worse": "red", "different": "yellow"}
LEGEND = {
    "+": "+ B is better",
    "-": "- B is worse",
    "!": "! B is different",
    "=": "= not distinguishable",
    "?": "? cannot tell",
}


# The table.


def table(sides: Sides, pairs: Sequence[Pair]) -> str:
    """A row a point: A -> B of each metric, and a mark that says which is better."""
    columns = [Column("", left=True, cut=True)]
    known = [m for m in sides.shown if any(row.ratio is not None for row in sides.of(m))]
    rest = (*STREAMED[1:], *metrics.COSTS)
    columns += [Column(_head(metric), drop=i if metric in rest else 0) for i, metric in enumerate(known)]
    cells = {(row.point, row.metric): _cell(row) for row in sides.rows}
    per_gpu = {row.point: _cell(row) for row in sides.per_gpu}
    columns += [Column("req/s\nper GPU", drop=1)] if per_gpu else []
    rows: list[tables.Row] = []
    for group, of_group in groupby(pairs, key=lambda pair: pair.group):
        rows += [group] if group else []
        for pair in of_group:
            of_gpu = [per_gpu[pair.name]] if per_gpu else []
            rows.append([pair.load, *(cells[pair.name, metric] for metric in known), *of_gpu])
    names = {pair.name for pair in pairs}
    shown = [row for row in [*sides.rows, *sides.per_gpu] if row.point in names and row.metric in known]
    marks = {_mark(row) for row in shown}
    legend = [words for mark, words in LEGEND.items() if mark in marks]
    legend += [] if tables.fits(columns, rows) else ["--wide shows what does not fit here"]
    return f"{tables.table(columns, rows)}\n{', '.join(legend)}"


def _head(column: str) -> str:
    metric, of_sla = metrics.named(column), column.partition("[")[2].partition("]")[0]
    if of_sla:
        return "\n".join(["req/s within", *of_sla.replace(",", ",\n").split("\n")])
    if not isinstance(metric, OfRequests):
        return metric.short or metric.label
    statistic = column.removeprefix(metric.stem).removesuffix(metric.unit).strip("_")
    return f"{metric.label} {statistic}\n{'ms' if metric.unit == '_s' else ''}".strip()


def _cell(row: Comparison) -> str:
    """`480→250 +`."""
    show = tables.ms if metrics.named(row.metric).unit == "_s" else tables.significant
    return f"{show(row.a)}→{show(row.b)} {tables.paint(_mark(row), COLOURS.get(row.verdict, 'dim'))}"


def _mark(row: Comparison) -> str:
    return MARKS.get(row.verdict, "?")


def wide(sides: Sides) -> str:
    """A row a point and metric: the ratio, its interval, and the smallest difference that would have shown."""
    columns = [Column("point", left=True, cut=True), Column("metric", left=True)]
    columns += [Column("A"), Column("B"), Column("B/A"), Column("95 % interval")]
    columns += [Column("sees", drop=2), Column("from", drop=1), Column("verdict", left=True, cut=True)]
    shown = [row for row in sides.rows if row.metric in sides.shown]
    with_unit = {name: _head(name).replace("\n", " ") for name in metrics.COSTS}
    rows = [[row.point, with_unit.get(row.metric) or metric_words(row.metric), *_numbers(row)] for row in shown]
    sees = "sees: the smallest difference that would have shown; one verdict in 20 is wrong by chance"
    return f"{tables.table(columns, rows)}\n{tables.wrapped(sees)}"


def _numbers(row: Comparison) -> list[str]:
    i = row.interval
    show = tables.latency if metrics.named(row.metric).unit == "_s" else tables.significant
    numbers = [show(row.a), show(row.b), "-" if row.ratio is None else f"{row.ratio:.3f}"]
    span = [f"{i.low:.3f} to {i.high:.3f}", f"{i.sees:.2g}%"] if i else ["", ""]
    return [*numbers, *span, tables.counted(i.runs, row.evidence.removesuffix("s")) if i else "", row.verdict]


def chosen(sides: Sides, everything: bool) -> list[Pair]:
    """The points to show: all, or MOST of them spread evenly over their order, the first and the last included."""
    pairs = sides.found.pairs
    if everything or len(pairs) <= MOST:
        return pairs
    return [pairs[round(i * (len(pairs) - 1) / (MOST - 1))] for i in range(MOST)]


# The command.


def load(
    folder: Path, wanted: Sequence[tuple[str, Any]], option: str, price: float | None, slas: Sequence[Sla]
) -> dict[Path, Log]:
    """The logs of a folder that a filter lets through, failed ones too. Raises InputError if all failed."""
    logs = dict(filters.passing(folder, wanted, price, lambda log: ratios.prepare(log, *slas)))
    if not any(log.status == "ok" for log in logs.values()):
        correct = f"correct {option}" if wanted else "give a folder that run_benchmark.py wrote to"
        raise InputError(f"no measured points in {folder}; {correct}")
    return logs


def sides_of(args: argparse.Namespace, slas: Sequence[Sla]) -> tuple[Runs, Runs]:
    """The logs of A and of B. Raises InputError where nothing tells them apart."""
    a, b = (
        load(folder, args.filter + own, option if own else "--filter", args.gpu_hour_price, slas)
        for folder, own, option in ((args.a, args.filter_a, "--filter_a"), (args.b, args.filter_b, "--filter_b"))
    )
    if both := a.keys() & b.keys():
        raise InputError(f"{tables.counted(len(both), 'log')} would be in A and in B; {_choice(list(both), a)}")
    return list(a.values()), list(b.values())


def _choice(both: Sequence[Path], a: dict[Path, Log]) -> str:
    """Filters that would tell two sides apart, by the first setting of the servers that varies."""
    logs = [a[path] for path in both]
    names = points.varying(logs)[:1]
    other = [log for log in logs if points.values(log, names) != points.values(logs[0], names)][:1]
    if not other:
        return "give another folder as B"
    filters_ = [
        matching.filter_for(log, names, letter) for log, letter in zip([logs[0], *other], "ab", strict=True)
    ]
    return f"say what to compare, as in {' '.join(filters_)}"


def main() -> int:
    args = _parser().parse_args()
    args.b = args.b or args.a
    slas = [sla.parse(name) for name in args.sla]
    sides = compared(
        *sides_of(args, slas), (str(args.a), str(args.b)), args.paired, slas, args.metric, args.across
    )
    print(as_json(sides) if args.json else text(sides, args.all, args.wide))
    if not args.json:
        scored = evaluation.read(args.a) + evaluation.read(args.b)
        servers = [log for pair in sides.found.pairs for log in (pair.a[0], pair.b[0])]
        for words in scores.of_logs(scored, servers):
            print(tables.wrapped(words))
    return 0


def compared(
    a: Runs,
    b: Runs,
    otherwise: tuple[str, str],
    paired: bool = False,
    slas: Sequence[Sla] = (),
    metric: Sequence[str] = (),
    across: str = "",
) -> Sides:
    """All logs of A and of B, failed ones too. `otherwise`: their names where what differs gives them none."""
    found = matching.matched(a, b, across=across)
    rows = ratios.compare(found.pairs, slas, paired)
    return Sides(matching.names_of(found, otherwise), found, rows, _shown(rows, metric))


def text(sides: Sides, everything: bool = False, in_full: bool = False) -> str:
    """The sentence, the table, and what a reader has to know besides."""
    shown = chosen(sides, everything)
    hidden = 0 if in_full else len(sides.found.pairs) - len(shown)
    rest = [tables.wrapped(words) for words in _rest(sides, hidden, everything)]
    head = [
        tables.wrapped(f"{_reliable(sides)}{sentence(sides)}.{_answers(sides)}"),
        tables.wrapped(_asked(sides)),
        "",
    ]
    return "\n".join([*head, wide(sides) if in_full else table(sides, shown), *rest])


def _reliable(sides: Sides) -> str:
    """That other programs took the cores, if they did."""
    pairs = sides.found.pairs
    busy = sum(any(map(trust.host_contended, (*pair.a, *pair.b))) for pair in pairs)
    of = f"at {busy} of {tables.counted(len(pairs), 'point')}" if len(pairs) > 1 else "meanwhile"
    return f"Not reliable: other programs took the cores {of} (host-contended). " if busy else ""


def _answers(sides: Sides) -> str:
    """Which side answers worse, if one does: a faster one is not better then."""
    a = [log for pair in sides.found.pairs for log in pair.a]
    b = [log for pair in sides.found.pairs for log in pair.b]
    words = answers.worse(a, b, sides.names) or answers.worse(b, a, sides.names[::-1])
    return f" But {words}." if words else ""


def _asked(sides: Sides) -> str:
    """What A and B are, and what both were asked."""
    pairs = sides.found.pairs
    models = {model_name(pair.a[0].server.model) for pair in pairs}
    requests = {points.asked(pair.a[0].run)[0] for pair in pairs}
    runs = sorted({len(side) for pair in pairs for side in (pair.a, pair.b)})
    counted = f"{'-'.join(map(str, dict.fromkeys((runs[0], runs[-1]))))} run{'s' * (runs[-1] > 1)} each"
    alike = [next(iter(values)) for values in (models, requests) if len(values) == 1]
    return f"A {sides.names[0]}, B {sides.names[1]}; {', '.join([*alike, counted])}"


def _rest(sides: Sides, hidden: int, everything: bool) -> list[str]:
    """What a reader has to know besides: what cannot be judged, what else differs, what is not compared."""
    lines = [f"--all shows the other {tables.counted(hidden, 'point')}, --wide the intervals"] if hidden else []
    lines += _untold(sides, everything)
    lines += [f"note: {note}" for note in matching.notes(sides.found, sides.names)]
    for why, alone in sides.found.alone.items():
        lines.append(f"not compared, {why}: {tables.counted(len(alone), 'point')}: {_listed(alone, everything)}")
    return lines


def _untold(sides: Sides, everything: bool) -> Iterator[str]:
    """What cannot be judged, why, and of which points: a line for each reason and metrics."""
    of_points: dict[tuple[str, str], list[str]] = {}
    for row in sides.rows:
        if row.metric in sides.shown and row.verdict not in (*TOLD, "not known"):
            of_points.setdefault((sides.said(row.verdict), row.point), []).append(metric_words(row.metric))
    alike: dict[tuple[str, str], list[str]] = {}
    for (why, point), of in of_points.items():
        what = "" if len(of) == len(sides.shown) else f"{', '.join(of)} at "
        alike.setdefault((why, what), []).append(point)
    for (why, what), of in alike.items():
        yield f"cannot tell ({why}): {what}{_listed(of, everything)}"


def _listed(names: Sequence[str], everything: bool) -> str:
    shown = list(names) if everything else list(names[:MOST])
    more = len(names) - len(shown)
    return "; ".join(shown) + (f"; and {more} more (--all)" if more else "")


def as_json(sides: Sides) -> str:
    names = ("point", "metric", "a", "b", "ratio", "evidence", "verdict")
    rows = []
    for row in sides.rows:
        i = row.interval
        rows.append({name: getattr(row, name) for name in names} | {"low": i and i.low, "high": i and i.high})
    said: dict[str, Any] = {"answer": sentence(sides), "a": sides.names[0], "b": sides.names[1], "rows": rows}
    said |= {"notes": matching.notes(sides.found, sides.names), "not_compared": sides.found.alone}
    return msgspec.json.format(msgspec.json.encode(said)).decode()


def _shown(rows: Sequence[Comparison], asked: Sequence[str]) -> list[str]:
    """The metrics to show: those asked for, else the main ones and those of SLAs. Raises InputError."""
    names = list(dict.fromkeys(row.metric for row in rows))
    if asked:
        return [_named(name, names) for name in asked]
    streamed = any(row.ratio is not None for row in rows if row.metric == STREAMED[0])
    return [
        THROUGHPUT,
        *(STREAMED if streamed else WHOLE),
        *_first_answer(rows),
        *(n for n in metrics.COSTS if any(row.ratio is not None for row in rows if row.metric == n)),
        *(n for n in names if n.startswith(SLA)),
    ]


def _named(name: str, columns: Sequence[str]) -> str:
    """The column of this name, whose unit may be left out."""
    try:
        column = limits.column_of(name)
    except ValueError as error:
        raise InputError(f"--metric {name}: {error}") from None
    if column not in columns:
        stem = metrics.named(column).stem
        alike = [each for each in columns if metrics.named(each).stem == stem]
        raise InputError(f"--metric {name} is ambiguous; give one of {', '.join(alike)}")
    return column


def _first_answer(rows: Sequence[Comparison]) -> list[str]:
    """The time to the first answer token, where it differs from TTFT."""
    names = (metrics.FIRST_ANSWER, "ttft_p50_s")
    answer, first = ([(row.a, row.b) for row in rows if row.metric == name] for name in names)
    return [] if answer == first else [metrics.FIRST_ANSWER]


class Gone(argparse.Action):
    """An option that another command has now."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any) -> None:
        instead = 'servebench gate B --baseline A --limits "ttft_p99<+5%, request_throughput>-5%"'
        parser.error(f"--fail_if is now a separate command: {instead}")


def _parser() -> argparse.ArgumentParser:
    parser = commandline.Parser(description=__doc__)
    add, of_metric = parser.add_argument, "columns to show, such as ttft_p99 [the main ones]"
    add("a", type=commandline.folder, metavar="A", help="folder of logs")
    add(
        "b",
        type=commandline.folder,
        metavar="B",
        nargs="?",
        help="folder of logs; without it, filters choose both sides from A",
    )
    filters.add_filter(parser, "--filter")
    filters.add_filter(parser, "--filter_a", "logs of A")
    filters.add_filter(parser, "--filter_b", "logs of B")
    cost.add_price(parser)
    add("--paired", action="store_true", help="take runs of the same number as pairs")
    add(
        "--sla",
        nargs="+",
        default=[],
        metavar="SLA",
        help='add effective throughput under these SLAs: fastgen-4, "ttft<2s"',
    )
    add("--metric", nargs="+", default=[], metavar="NAME", help=of_metric)
    matching.add_across(parser)
    add("--all", action="store_true", help=f"every point, even if there are more than {MOST}")
    add("--wide", action="store_true", help="one row per metric, with ratios and intervals")
    add("--json", action="store_true", help="all of it as JSON")
    add("--fail_if", nargs="*", action=Gone, help=argparse.SUPPRESS)
    return parser
