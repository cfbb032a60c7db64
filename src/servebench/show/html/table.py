"""The table of the report: a row a point, its numbers as means over its runs, sorted and filtered by report.js."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html import escape
from typing import NamedTuple

from servebench.analysis import metrics, stats, trust
from servebench.analysis.differences import differing_within, settings
from servebench.analysis.metrics import FIRST_ANSWER
from servebench.figures.selection import load_size, load_text
from servebench.log.schema import Log
from servebench.show.spreadsheet import Cell, client
from servebench.show.terminal import significant

CONFIGURATION = {
    "backend": "backend",
    "model": "model",
    "tp_size": "TP size",
    "num_replicas": "replicas",
    "max_ragged_batch_size": "batch",
    "mean_prompt_length": "prompt",
    "mean_max_new_tokens": "generation",
    "scenario": "scenario",
    "dataset": "dataset",
}
TEXTS = ("backend", "model", "scenario", "dataset")
NUMBERS = (  # columns of the spreadsheet
    *("request_throughput_per_s", "output_token_throughput_per_s", "ttft_p50_s", "ttft_p99_s"),
    *(FIRST_ANSWER, "tpot_p50_s", "tpot_p99_s", "e2e_latency_p50_s", "e2e_latency_p99_s"),
)


class Run(NamedTuple):
    """One log: its file, the log without its requests, its numbers as in the spreadsheet, its warnings."""

    name: str
    log: Log
    row: dict[str, Cell]
    warnings: list[str]


Runs = list[Run]


class Column(NamedTuple):
    """A column of the table: its head, and of a point the HTML and (for numbers) the value it is sorted by."""

    head: str
    cell: Callable[[Runs], tuple[str, float | None]]
    numeric: bool = True

    def html(self, runs: Runs) -> str:
        text, value = self.cell(runs)
        if not self.numeric:
            return f'<td class="words">{text}</td>'
        return f'<td data-value="{"" if value is None else value}">{text}</td>'


def table(points: list[Runs]) -> str:
    shown = _columns(points)
    heads = [(escape(column.head), "" if column.numeric else ' class="words"') for column in shown]
    titles = "".join(f"<th{side}><button>{head}</button></th>" for head, side in heads)
    boxes = "".join(
        f'<th{side}><input aria-label="{head}: only" placeholder="filter"></th>' for head, side in heads
    )
    body = "".join(_row(number, runs, shown) for number, runs in enumerate(points))
    return f"<thead><tr>{titles}</tr><tr>{boxes}</tr></thead><tbody>{body}</tbody>"


def _row(number: int, runs: Runs, shown: list[Column]) -> str:
    first, *rest = shown
    link = f'<td class="words"><a href="#point-{number}">{first.cell(runs)[0]}</a></td>'
    return f"<tr>{link}{''.join(column.html(runs) for column in rest)}</tr>\n"


def common(points: list[Runs]) -> str:
    """The configuration that is the same everywhere."""
    row, differing = points[0][0].row, _differing(points)
    same = [name for name in CONFIGURATION if name not in differing and row[name] is not None]
    return escape(", ".join(f"{CONFIGURATION[name]} {row[name]}" for name in same))


def _differing(points: list[Runs]) -> list[str]:
    """What of the configuration is not the same everywhere (the backend is always shown)."""
    return [k for k in CONFIGURATION if k == "backend" or len({runs[0].row[k] for runs in points}) > 1]


def _columns(points: list[Runs]) -> list[Column]:
    thinks = metrics.thinks_first([run.row for runs in points for run in runs])
    return [
        *(_configured(name) for name in _differing(points)),
        *(_setting(name) for name in differing_within(runs[0].log for runs in points)),
        Column("load", lambda runs: (load_text(runs[0].log.run), load_size(runs[0].log))),
        Column("runs", lambda runs: (str(len(runs)), len(runs))),
        Column("failed", _failed),
        *(_measured(name) for name in NUMBERS if name != FIRST_ANSWER or thinks),
        Column("client", _client, numeric=False),
        Column("decides nothing", _decides_nothing, numeric=False),
    ]


def _configured(name: str) -> Column:
    numeric = name not in TEXTS

    def cell(runs: Runs) -> tuple[str, float | None]:
        value = runs[0].row[name]
        return escape("-" if value is None else str(value)), (
            float(value) if numeric and value is not None else None
        )

    return Column(CONFIGURATION[name], cell, numeric)


def _setting(name: str) -> Column:
    """A setting that points of one backend do not share."""
    return Column(name, lambda runs: (escape(settings(runs[0].log)[name].removeprefix(f"{name} ")), None), False)


def _measured(name: str) -> Column:
    """A column of the spreadsheet; a percentile too few samples tell has a "~", what is not stationary a "?"."""
    label, percentile = metrics.named(name).label, re.search(r"_p(\d+)_", name)
    needed = stats.SAMPLES_NEEDED[int(percentile[1])] if percentile else 0

    def cell(runs: Runs) -> tuple[str, float | None]:
        values = [float(value) for run in runs if (value := run.row[name]) is not None]
        drifting = stats.majority(sum(run.row["not_stationary"] is not None for run in runs), len(runs))
        interval = stats.t_interval(values, stationary=not drifting)
        if interval is None:
            return "-", None
        samples = min(float(run.row["effective_samples"] or 0) for run in runs)
        weak = ("~" if samples < needed else "") + ("?" if drifting else "")
        spread = f" <small>±{significant(interval.half)}</small>" if interval.known else ""
        return significant(interval.mean) + weak + spread, interval.mean

    return Column(f"{label} P{percentile[1]} (s)" if percentile else label, cell)


def _failed(runs: Runs) -> tuple[str, float]:
    failed, requests = (sum(int(run.row[name] or 0) for run in runs) for name in ("failed", "requests"))
    if any(run.log.status != "ok" for run in runs):
        return "<b>point failed</b>", 1.0
    return (f"<b>{failed}/{requests}</b>" if failed else f"0/{requests}"), failed / max(1, requests)


def _client(runs: Runs) -> tuple[str, None]:
    verdict = client([run.log.quality.verdict for run in runs])
    words = re.sub(r"(client-limited):.*", r"\1", verdict)
    words += ", overloaded" if any(run.log.quality.overloaded for run in runs) else ""
    return escape(words), None


def _decides_nothing(runs: Runs) -> tuple[str, None]:
    """Why numbers of the point decide nothing; a reason that only a few runs have comes with their number."""
    counts = Counter(mark for run in runs for mark in str(run.row["decides_nothing"] or "").split(", ") if mark)
    counts.update("stand-in" for run in runs if run.row["stand_in"])
    return escape(", ".join(trust.in_runs(mark, n, len(runs)) for mark, n in counts.items())), None
