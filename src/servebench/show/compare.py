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

from msgspec.structs import asdict, replace
from tabulate import tabulate

from servebench.analysis import differences, filters, metrics, samples, stationarity, stats, trust
from servebench.analysis.sla import Sla, parse
from servebench.analysis.stats import Interval
from servebench.cli import commandline
from servebench.errors import InputError
from servebench.log import identity, schema, store
from servebench.log.schema import Log

METRICS = (*metrics.HEADLINES, "itl_p99_s")
ANSWER = "time_to_first_answer_token_p50_s"  # shown where answers begin with reasoning
FEWEST_PAIRS = 6  # for a verdict at 5 %: of five even the signs alone could not say it
FAILED_SHARE = 0.01  # of the requests, above which the latencies of those that are left are not compared
LATENCIES = ("ttft", "tpot", "itl", "e2e", "time_to_first", "interactivity")
# What was asked of the servers, and when: it has to be alike.
WORKLOAD = (
    *("mean_prompt_length", "prompt_length_var", "max_prompt_length", "mean_max_new_tokens", "max_new_tokens_var"),
    *("num_clients", "num_requests", "warmup", "temperature", "top_p", "respect_eos", "extra_body", "seed"),
    *("request_rate", "trace_speed", "arrival", "burstiness", "ramp_from", "max_concurrency"),
    *("length_distribution", "scenario", "prompt_text", "shared_prefix", "dataset_sha256", "trace_format"),
    *("multi_turn", "think_time", "probe_rate"),
)
# How it was asked, and what the client did when it went wrong: it may differ. (The template of a chat is part of
# the prompt: see _asked.)
CONDITIONS = (
    *("api", "stream", "request_timeout", "max_retries", "stop_when_overloaded", "repetition"),
    "dataset",  # its path; dataset_sha256 says what is in it
)
OPERATORS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
UNITS = r"(_per_s|_s)?"
Runs = list[Log]


@dataclass(frozen=True)
class Comparison:
    """One metric of one point. `a`, `b`: means over runs; interval and evidence where the data have any."""

    point: str
    metric: str
    a: float | None
    b: float | None
    interval: Interval | None
    evidence: str
    settled: bool
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
        """better, worse, not distinguishable, or why it is not known."""
        if self.ratio is None:
            return "not known"
        if self.doubt:
            return self.doubt
        if not self.settled:
            return "not stationary"
        if not self.interval:
            return "no interval: more --runs" if self.a != self.b else "not distinguishable"
        if self.evidence == "pairs" and self.interval.runs < FEWEST_PAIRS:
            return f"takes {FEWEST_PAIRS} pairs"
        if self.interval.low <= 1 <= self.interval.high:
            return "not distinguishable"
        return "better" if (self.interval.low > 1) == metrics.more_is_better(self.metric) else "worse"


# What is compared with what.


def matched(a: Runs, b: Runs) -> list[tuple[str, Runs, Runs]]:
    """(point, its runs in A, its runs in B) of the points that both have. Raises InputError for unlike ones."""
    several = len({log.server.backend for log in a}) > 1 or len({log.server.backend for log in b}) > 1
    of_a, of_b = _by_name(a, several), _by_name(b, several)
    common = [name for name in of_a if name in of_b]
    if not common:
        first, second = next(iter(of_a)), next(iter(of_b))
        raise InputError(f"no point is in both; the first has {first!r}, the second {second!r}")
    for name in common:
        _refuse_unlike(name, of_a[name], of_b[name])
    return [(name, of_a[name], of_b[name]) for name in common]


def _by_name(logs: Runs, with_backend: bool) -> dict[str, Runs]:
    found: dict[str, Runs] = {}
    for runs in identity.by_point(logs):
        name = _name(runs[0], with_backend)
        if name in found:
            what = ", ".join(_unlike(found[name][0], runs[0]) or differences.differing([found[name][0], runs[0]]))
            raise InputError(f"{name}: runs of unlike settings ({what}) in one folder; choose with --filter")
        found[name] = runs
    return found


def _unlike(a: Log, b: Log) -> list[str]:
    """The fields of server and run that are not the same in both."""
    of_a, of_b = (asdict(log.server) | asdict(log.run) for log in (a, b))
    return [name for name in of_a if of_a[name] != of_b[name] and name != "repetition"]


def _name(log: Log, with_backend: bool) -> str:
    """What two points have in common that are to be compared: the name of the log, but for what may differ."""
    name = schema.log_name(log.server, replace(log.run, repetition=0)).removesuffix(".json")
    return f"{log.server.backend}/{name}" if with_backend else name


def _asked(log: Log) -> dict[str, Any]:
    return {name: getattr(log.run, name) for name in WORKLOAD} | {"chat template": log.run.api == "chat"}


def _refuse_unlike(name: str, a: Runs, b: Runs) -> None:
    ours, theirs = _asked(a[0]), _asked(b[0])
    for field in ours:
        if ours[field] != theirs[field]:
            what = f"{field} is {ours[field]} and {theirs[field]}"
            how = "with one --seed, which a running server is else given anew" if field == "seed" else "alike"
            raise InputError(f"{name}: unlike workloads, {what}; measure both {how}")
    hashes = [{log.run.repetition: log.client.get("workload_sha256") for log in runs} for runs in (a, b)]
    for run in hashes[0].keys() & hashes[1].keys():
        if hashes[0][run] != hashes[1][run]:
            alike = "measure both with one --tokenizer and --seed"
            raise InputError(f"{name}: unlike prompts in run {run + 1}; {alike}")
    if not hashes[0].keys() & hashes[1].keys():
        raise InputError(f"{name}: no run has the same prompts in both; measure both with the same --runs")


def notes(a: Runs, b: Runs) -> list[str]:
    """What a reader has to know beside the table: what else differs, and whose times are not the engine's."""
    told = []
    for field in (name for name in CONDITIONS if name != "repetition"):
        values = [sorted({str(getattr(log.run, field)) for log in runs}) for runs in (a, b)]
        if values[0] != values[1]:
            told.append(f"{field}: {', '.join(values[0])} in A, {', '.join(values[1])} in B")
    stand_in = "is the stand-in of FastGen (fastgen-cpu), which says nothing about DeepSpeed-FastGen"
    sides = {"A": a, "B": b}
    return told + [f"{side} {stand_in}" for side, runs in sides.items() if any(map(trust.stand_in, runs))]


def left_out(a: Runs, b: Runs) -> list[str]:
    """Points that are not compared, and why: they failed on one side, or are in one folder alone."""
    several = any(len({log.server.backend for log in runs}) > 1 for runs in (a, b))
    states: list[dict[str, bool]] = [{}, {}]  # of each side: name of a point -> has it a run that was measured
    for state, runs in zip(states, (a, b), strict=True):
        for log in runs:
            name = _name(log, several)
            state[name] = state.get(name, False) or log.status == "ok"
    told = []
    for name in dict.fromkeys([*states[0], *states[1]]):
        ours, theirs = (state.get(name) for state in states)
        failed = [side for side, state in (("A", ours), ("B", theirs)) if state is False]
        if failed:
            told.append(f"{name} failed in {' and '.join(failed)}")
        elif None in (ours, theirs):
            told.append(f"{name} is in {'A' if theirs is None else 'B'} alone")
    return told


# The comparison.


def compare(a: Runs, b: Runs, slas: Sequence[Sla], paired: bool) -> list[Comparison]:
    """Every metric of every common point."""
    return [row for name, ours, theirs in matched(a, b) for row in _point(name, ours, theirs, slas, paired)]


def _point(name: str, a: Runs, b: Runs, slas: Sequence[Sla], paired: bool) -> list[Comparison]:
    if paired:
        shared = {log.run.repetition for log in a} & {log.run.repetition for log in b}
        a, b = ([log for log in runs if log.run.repetition in shared] for runs in (a, b))
    kind, ratio = ("pairs", stats.ratio_of_pairs) if paired else ("runs", stats.ratio_of_means)
    if not paired and min(len(a), len(b)) == 1:
        kind, a, b = "batches", a[:1], b[:1]
    settled = not stationarity.not_stationary(a) and not stationarity.not_stationary(b)
    of_a, of_b = ([metrics.values(log, slas) for log in runs] for runs in (a, b))
    batches = _of_batches(a[0], b[0]) if kind == "batches" else {}
    means_a, means_b = metrics.intervals(of_a, settled), metrics.intervals(of_b, settled)
    return [
        Comparison(
            point=name,
            metric=metric,
            a=means_a[metric].mean if metric in means_a else None,
            b=means_b[metric].mean if metric in means_b else None,
            interval=batches.get(metric) if kind == "batches" else _of_runs(ratio, metric, of_a, of_b),
            evidence=kind,
            settled=settled,
            doubt=_doubt(a, b, metric),
        )
        for metric in of_a[0]
    ]


def _doubt(a: Runs, b: Runs, metric: str) -> str | None:
    """Why this metric of A or of B decides nothing: where some failed, latencies are those of the others."""
    for side, runs in (("A", a), ("B", b)):
        if found := trust.of_point(runs, metric):
            return f"{side}: {found.mark}"
        failed = max(map(samples.failed_share, runs))
        if failed > FAILED_SHARE and metric.startswith(LATENCIES):
            return f"{side}: {failed:.0%} failed"
        if any(log.quality.overloaded for log in runs) and metric.startswith(LATENCIES):
            return f"{side}: overloaded"
    return None


def _of_runs(
    ratio: Callable[[Sequence[float], Sequence[float]], Interval | None],
    metric: str,
    a: list[metrics.Values],
    b: list[metrics.Values],
) -> Interval | None:
    """From one value a run; nothing when a run has none."""
    known = [[v for run in runs if (v := run[metric]) is not None] for runs in (a, b)]
    return ratio(*known) if (len(known[0]), len(known[1])) == (len(a), len(b)) else None


def _of_batches(a: Log, b: Log) -> dict[str, Interval | None]:
    of_a, of_b = metrics.batch_values(a), metrics.batch_values(b)
    return {
        metric: stats.ratio_of_means(of_a[metric].tolist(), of_b[metric].tolist())
        for metric in of_a.keys() & of_b.keys()
    }


# Limits for CI.


@dataclass(frozen=True)
class Limit:
    """`ttft_p99 > 1.05`: the ratio B/A that is a failure."""

    text: str
    metric: str
    holds: Callable[[Any, Any], bool]
    bound: float

    def judge(self, row: Comparison) -> str | None:
        """failed, or cannot tell, and why. None where it passes, and for rows of other metrics."""
        if not re.fullmatch(re.escape(self.metric) + UNITS, row.metric):
            return None
        where = f"{self.text}: {row.point} is at {'not known' if row.ratio is None else f'{row.ratio:.3f}'}"
        beyond = row.ratio is None or self.holds(row.ratio, self.bound)
        told = row.interval if row.settled and not row.doubt else None
        if told is None:
            words = f"{where} ({row.verdict})"
            certain = row.ratio == 1 and row.a == row.b and not row.doubt  # as 0 of 0 failed
            return f"failed: {words}" if beyond or row.doubt else None if certain else f"cannot tell: {words}"
        ends = [self.holds(end, self.bound) for end in (told.low, told.high)]
        span = f"{where}, {told.low:.3f} .. {told.high:.3f} ({row.verdict})"
        return f"failed: {span}" if all(ends) else f"cannot tell: {span}" if any(ends) else None


def parse_limit(text: str, names: Sequence[str]) -> Limit:
    """Raises InputError for what is no limit, or of no metric."""
    found = re.fullmatch(r"\s*(\S+)\s*(>=|<=|>|<)\s*(\d*\.?\d+)\s*", text)
    if not found:
        raise InputError(f"--fail_if {text!r} is no limit; write METRIC > RATIO, as in 'ttft_p99 > 1.05'")
    if not any(re.fullmatch(re.escape(found[1]) + UNITS, name) for name in names):
        raise InputError(f"--fail_if {text!r}: no metric has this name; there are {', '.join(names)}")
    return Limit(text, found[1], OPERATORS[found[2]], float(found[3]))


# What is shown.


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
    """The logs of a folder that a filter lets through, failed ones too. Raises InputError if none was measured."""
    logs = [log for _, log in store.load_folder(folder) if filters.passes(log, wanted)]
    if not measured(logs):
        correct = "correct --filter" if wanted else "give a folder that run_benchmark.py wrote to"
        raise InputError(f"no measured points in {folder}; {correct}")
    return logs


def measured(logs: Runs) -> Runs:
    return [log for log in logs if log.status == "ok"]


def main() -> int:
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
    args = parser.parse_args()
    all_a, all_b = load(args.a, args.filter + args.filter_a), load(args.b, args.filter + args.filter_b)
    a, b = measured(all_a), measured(all_b)
    rows = compare(a, b, [parse(name) for name in args.sla], args.paired)
    names = list(dict.fromkeys(row.metric for row in rows))
    limits = [parse_limit(text, names) for text in args.fail_if]
    thinks = [ANSWER] if any(row.metric == ANSWER and _thinks(row, rows) for row in rows) else []
    shown = args.metric or [*METRICS, *thinks, *(name for name in names if "[" in name)]
    if unknown := [name for name in shown if name not in names]:
        raise InputError(f"--metric {unknown[0]}: no metric has this name; there are {', '.join(names)}")
    print(f"A {args.a}, B {args.b}")
    print(table([row for row in rows if row.metric in shown]))
    print("sees: the smallest difference that would have been told apart; one verdict in 20 is wrong by chance")
    unmatched = left_out(all_a, all_b)
    for note in [*notes(a, b), *unmatched]:
        print(f"note: {note}")
    judged = [verdict for limit in limits for row in rows if (verdict := limit.judge(row))]
    judged += [f"failed: {words}" for words in unmatched if limits and " failed in " in words]
    print(*judged, sep="\n", end="\n" * bool(judged))
    return int(any(verdict.startswith("failed") for verdict in judged))


def _thinks(row: Comparison, rows: list[Comparison]) -> bool:
    """Does the time to the first answer token differ from TTFT?"""
    (ttft,) = [other for other in rows if (other.point, other.metric) == (row.point, "ttft_p50_s")]
    return (row.a, row.b) != (ttft.a, ttft.b)
