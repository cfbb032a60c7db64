"""Two sets of results side by side: is B better or worse than A, and could the data have told?

    python -m servebench compare results/vllm results/fastgen
    python -m servebench compare before/ after/ --fail_if "ttft_p99 > 1.05" "request_throughput < 0.95"

A and B are folders of logs, of one backend or of several. Where one has several settings of a load, filters
choose: --filter_a 'engine_args=["--enforce-eager"]' --filter_b 'engine_args=[]'; A and B may then be one folder.
For every point and metric: the ratio B/A, its 95 % interval, and a verdict. The interval comes from repeated runs
(--runs 5 or more); of single runs from the means of their batches, which takes 100 requests and means or medians;
with --paired from the ratios of runs of the same prompts, taken in turn (servebench paired). Unlike workloads are
refused; how they were asked (API, streaming) may differ, and is said. A --fail_if fails when the interval lies
beyond its bound, and when nothing tells that it does not, as of a point that failed; where the interval reaches to
both sides it says "cannot tell" and does not fail.
Exit status: 0, 1 when a --fail_if fails, 2 bad input.
"""

from __future__ import annotations

import argparse
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from tabulate import tabulate

from servebench.analysis import filters, metrics, samples, sla, stationarity, stats, trust
from servebench.analysis.metrics import OfRequests, Values
from servebench.analysis.sla import Sla
from servebench.analysis.stats import Interval
from servebench.cli import commandline
from servebench.errors import InputError
from servebench.log import store
from servebench.log.schema import Log
from servebench.show.matching import Runs, left_out, matched, notes

METRICS = (*metrics.HEADLINES, "itl_p99_s")
MIN_PAIRS = 6  # for a verdict at 5 %: of five even the signs alone could not say it
OPERATORS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Comparison:
    """One metric of one point. `a`, `b`: means over runs; interval and evidence where the data have any."""

    point: str
    metric: str  # a column of summary.csv
    a: float | None
    b: float | None
    interval: Interval | None  # of B/A
    evidence: str  # what the interval comes from: runs, pairs or batches
    stationary: bool
    doubt: str | None = None  # why it decides nothing

    @property
    def ratio(self) -> float | None:
        """B/A; 1 where both are 0. None where one is not known."""
        if self.a is None or self.b is None:
            return None
        if self.interval:
            return self.interval.mean
        return self.b / self.a if self.a else 1.0 if not self.b else float("inf")

    @property
    def verdict(self) -> str:
        """better, worse, different (a metric with no good side), not distinguishable, or why it is not known."""
        if self.ratio is None:
            return "not known"
        if self.doubt:
            return self.doubt
        if not self.stationary:
            return "not stationary"
        if not self.interval:
            return "no interval: more --runs" if self.a != self.b else "not distinguishable"
        if self.evidence == "pairs" and self.interval.runs < MIN_PAIRS:
            return f"takes {MIN_PAIRS} pairs"
        if self.interval.low <= 1 <= self.interval.high:
            return "not distinguishable"
        good = metrics.named(self.metric).better
        if not good:
            return "different"
        return "better" if (self.interval.low > 1) == (good == "more") else "worse"


def compare(a: Runs, b: Runs, slas: Sequence[Sla], paired: bool) -> list[Comparison]:
    """Every metric of every common point."""
    return [row for name, ours, theirs in matched(a, b) for row in _point(name, ours, theirs, slas, paired)]


def _point(name: str, a: Runs, b: Runs, slas: Sequence[Sla], paired: bool) -> list[Comparison]:
    evidence = "pairs" if paired else "batches" if min(len(a), len(b)) == 1 else "runs"
    if paired:
        shared = {log.run.repetition for log in a} & {log.run.repetition for log in b}
        a, b = ([log for log in runs if log.run.repetition in shared] for runs in (a, b))
    elif evidence == "batches":
        a, b = a[:1], b[:1]
    stationary = stationarity.stationary(a) and stationarity.stationary(b)
    of_a, of_b = ([metrics.values(log) | sla.values(log, slas) for log in runs] for runs in (a, b))
    means_a, means_b = (metrics.intervals(runs, stationary) for runs in (of_a, of_b))
    ratios = _of_batches(a[0], b[0]) if evidence == "batches" else _of_runs(of_a, of_b, paired)
    return [
        Comparison(
            point=name,
            metric=metric,
            a=means_a[metric].mean if metric in means_a else None,
            b=means_b[metric].mean if metric in means_b else None,
            interval=ratios.get(metric),
            evidence=evidence,
            stationary=stationary,
            doubt=_doubt(a, b, metric),
        )
        for metric in of_a[0]
    ]


def _doubt(a: Runs, b: Runs, metric: str) -> str | None:
    """Why this metric of A or of B decides nothing: where some failed, latencies are those of the others."""
    of_requests = isinstance(metrics.named(metric), OfRequests)
    for side, runs in (("A", a), ("B", b)):
        if found := trust.of_point(runs, metric):
            return f"{side}: {found.mark}"
        failed = max(map(samples.failed_share, runs))
        if failed > trust.FAILED_SHARE and of_requests:
            return f"{side}: {failed:.0%} failed"
        if any(log.quality.overloaded for log in runs) and of_requests:
            return f"{side}: overloaded"
    return None


def _of_runs(a: list[Values], b: list[Values], paired: bool) -> dict[str, Interval | None]:
    """B/A from one value a run, of metrics that every run has."""
    ratio = stats.ratio_of_pairs if paired else stats.ratio_of_means
    found = {name: [[v for run in runs if (v := run[name]) is not None] for runs in (a, b)] for name in a[0]}
    return {name: ratio(*known) for name, known in found.items() if [*map(len, known)] == [len(a), len(b)]}


def _of_batches(a: Log, b: Log) -> dict[str, Interval | None]:
    """B/A from the batches of single runs."""
    of_a, of_b = metrics.batch_values(a), metrics.batch_values(b)
    common = of_a.keys() & of_b.keys()
    return {name: stats.ratio_of_means(of_a[name].tolist(), of_b[name].tolist()) for name in common}


# Limits for CI.


@dataclass(frozen=True)
class FailIf:
    """`ttft_p99 > 1.05`: the ratio B/A that is a failure."""

    text: str
    metric: str
    holds: Callable[[Any, Any], bool]
    bound: float

    def judge(self, row: Comparison) -> str | None:
        """failed, or cannot tell, and why. None where it passes, and for rows of other metrics."""
        if not _is_column(self.metric, row.metric):
            return None
        where = f"{self.text}: {row.point} is at {'not known' if row.ratio is None else f'{row.ratio:.3f}'}"
        interval = row.interval if row.stationary and not row.doubt else None
        if interval is None:
            words = f"{where} ({row.verdict})"
            if row.doubt or row.ratio is None or self.holds(row.ratio, self.bound):
                return f"failed: {words}"
            certain = row.ratio == 1 and row.a == row.b  # as 0 of 0 failed
            return None if certain else f"cannot tell: {words}"
        ends = [self.holds(end, self.bound) for end in (interval.low, interval.high)]
        words = f"{where}, {interval.low:.3f} .. {interval.high:.3f} ({row.verdict})"
        return f"failed: {words}" if all(ends) else f"cannot tell: {words}" if any(ends) else None


def parse_fail_if(text: str, columns: Sequence[str]) -> FailIf:
    """Raises InputError for another form, or another metric than these."""
    found = re.fullmatch(r"\s*(\S+)\s*(>=|<=|>|<)\s*(\d*\.?\d+)\s*", text)
    if not found:
        raise InputError(f"--fail_if {text!r} is no limit; write METRIC > RATIO, as in 'ttft_p99 > 1.05'")
    if not any(_is_column(found[1], column) for column in columns):
        raise InputError(f"--fail_if {text!r}: no metric has this name; there are {', '.join(columns)}")
    return FailIf(text, found[1], OPERATORS[found[2]], float(found[3]))


def _is_column(name: str, column: str) -> bool:
    """The unit may be left out."""
    return column in (name, *(name + unit for unit in metrics.UNITS))


# The table and the command.


def table(rows: list[Comparison]) -> str:
    """What the names of all points begin with stands above it."""
    names = {row.point: row.point.split("-") for row in rows}
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*names.values(), strict=False))
    shared = "-".join(parts[0] for parts in alike) if len(names) > 1 else ""
    header = ["point", "metric", "A", "B", "B/A", "95 % interval", "sees", "from", "verdict"]
    cells = [[row.point[len(shared) :].strip("-"), row.metric, *_cells(row)] for row in rows]
    return f"{shared}\n" + tabulate(cells, header, disable_numparse=True, stralign="right")


def _cells(row: Comparison) -> list[str]:
    numbers = ["-" if value is None else f"{value:#.4g}" for value in (row.a, row.b, row.ratio)]
    i = row.interval
    span = [f"{i.low:.3f} .. {i.high:.3f}", f"{(i.high / i.low) ** 0.5 - 1:.1%}"] if i else ["-", "-"]
    return [*numbers, *span, f"{i.runs} {row.evidence}" if i else "-", row.verdict]


def load(folder: Path, wanted: Sequence[tuple[str, Any]] = ()) -> Runs:
    """The logs of a folder that a filter lets through, failed ones too. Raises InputError if all failed."""
    logs = [log for _, log in store.load_folder(folder) if filters.passes(log, wanted)]
    if not measured(logs):
        correct = "correct --filter" if wanted else "give a folder that run_benchmark.py wrote to"
        raise InputError(f"no measured points in {folder}; {correct}")
    return logs


def measured(logs: Runs) -> Runs:
    return [log for log in logs if log.status == "ok"]


def main() -> int:
    args = _parser().parse_args()
    all_a, all_b = load(args.a, args.filter + args.filter_a), load(args.b, args.filter + args.filter_b)
    a, b = measured(all_a), measured(all_b)
    rows = compare(a, b, [sla.parse(name) for name in args.sla], args.paired)
    names = list(dict.fromkeys(row.metric for row in rows))
    limits = [parse_fail_if(text, names) for text in args.fail_if]
    shown = _shown(rows, names, args.metric)
    unmatched = left_out(all_a, all_b)
    print(f"A {args.a}, B {args.b}")
    print(table([row for row in rows if row.metric in shown]))
    print("sees: the smallest difference that would have been told apart; one verdict in 20 is wrong by chance")
    print("".join(f"note: {note}\n" for note in [*notes(a, b), *unmatched]), end="")
    judged = _judged(limits, rows, unmatched)
    print("".join(f"{verdict}\n" for verdict in judged), end="")
    return int(any(verdict.startswith("failed") for verdict in judged))


def _parser() -> argparse.ArgumentParser:
    parser = commandline.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("a", type=commandline.folder, help="folder of logs")
    add("b", type=commandline.folder, help="another")
    add("--paired", action="store_true", help="take runs of the same number as pairs")
    of_sla = "as in servebench summary: their effective throughput too"
    add("--sla", nargs="+", default=[], metavar="SLA", help=of_sla)
    of_metric = "columns of summary.csv to show [the main ones, those of --sla]"
    add("--metric", nargs="+", metavar="NAME", help=of_metric)
    bound = "end with status 1 if B/A is so anywhere"
    add("--fail_if", nargs="+", default=[], metavar='"NAME > RATIO"', help=bound)
    filters.add_filter(parser, "--filter")
    filters.add_filter(parser, "--filter_a", "logs of A")
    filters.add_filter(parser, "--filter_b", "logs of B")
    return parser


def _shown(rows: list[Comparison], names: list[str], asked: list[str] | None) -> list[str]:
    """The metrics to show: those asked for, else the main ones and those of SLAs. Raises InputError."""
    if unknown := [name for name in asked or () if name not in names]:
        raise InputError(f"--metric {unknown[0]}: no metric has this name; there are {', '.join(names)}")
    return asked or [*METRICS, *_first_answer(rows), *(name for name in names if "[" in name)]


def _first_answer(rows: list[Comparison]) -> list[str]:
    """The time to the first answer token, where it differs from TTFT."""
    names = (metrics.FIRST_ANSWER, "ttft_p50_s")
    answer, first = ([(row.a, row.b) for row in rows if row.metric == name] for name in names)
    return [] if answer == first else [metrics.FIRST_ANSWER]


def _judged(limits: list[FailIf], rows: list[Comparison], unmatched: list[str]) -> list[str]:
    """What each limit says of every point, those that failed included."""
    judged = [verdict for limit in limits for row in rows if (verdict := limit.judge(row))]
    return judged + [f"failed: {words}" for words in unmatched if limits and " failed in " in words]
