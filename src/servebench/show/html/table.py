"""The points of a study as a table: a row a load, grouped by layout; report.js sorts, filters and folds it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import msgspec

from servebench.analysis import metrics, stats
from servebench.analysis.metrics import FIRST_ANSWER
from servebench.figures.selection import KINDS_OF_LOAD, load_size
from servebench.show.html.groups import RATE, Group
from servebench.show.html.read import Point
from servebench.show.tables import counted, ms, significant


class Column(NamedTuple):
    """A column of the table: its head, and of a point the HTML and (for numbers) the value it is sorted by."""

    key: str  # the same column in the table of layouts has the same
    head: str
    unit: str
    tip: str  # the whole definition
    cell: Callable[[Point], tuple[str, float | None]]
    numeric: bool = True

    @property
    def derived(self) -> bool:
        return self.tip.startswith("Derived")

    def th(self, inside: str) -> str:
        kind = "words" if not self.numeric else "derived" if self.derived else ""
        return f'<th scope="col" data-key="{self.key}" class="{kind}" title="{escape(self.tip)}">{inside}</th>'

    def title(self) -> str:
        return f"{escape(self.head)}<small>{escape(self.unit)}</small>"

    def td(self, point: Point) -> str:
        text, value = self.cell(point)
        if not self.numeric:
            return f'<td class="words">{text}</td>'
        kind = ' class="derived"' if self.derived else ""
        return f'<td{kind} data-value="{"" if value is None else value}">{text}</td>'


def table(groups: Sequence[Group]) -> str:
    """The points of these layouts. The numbers that report.js chooses by stand in attributes of the rows."""
    shown = columns(groups)
    titles = "".join(column.th(f"<button type=button>{column.title()}</button>") for column in shown)
    boxes = "".join(
        f'<td><input aria-label="filter {escape(column.head)}" placeholder="filter"></td>' for column in shown
    )
    bodies = "".join(_body(group, i, shown) for i, group in enumerate(groups))
    return f'<thead><tr>{titles}</tr><tr class="filters needs-js">{boxes}</tr></thead>{bodies}'


def _body(group: Group, number: int, shown: Sequence[Column]) -> str:
    """A layout: its name, which folds it, and its rows."""
    gpus = counted(group.gpus, "GPU") if group.gpus else ""
    facts = filter(None, [counted(len(group.points), "point"), gpus, group.layout.started])
    name = f"{escape(group.layout.name)} <small>{', '.join(facts)}</small>"
    fold = f'<button type=button aria-expanded="true">{name}</button>'
    head = f'<th colspan="{len(shown)}" scope="rowgroup">{fold}</th>'
    rows = "".join(_row(point, shown) for point in group.points)
    return f'<tbody data-layout="{number}"><tr class="group">{head}</tr>{rows}</tbody>\n'


def _row(point: Point, shown: Sequence[Column]) -> str:
    numbers = escape(msgspec.json.encode(point.numbers).decode())
    cells = "".join(column.td(point) for column in shown)
    return f'<tr id="row-{point.number}" data-numbers="{numbers}">{cells}</tr>\n'


def columns(groups: Sequence[Group]) -> list[Column]:
    """Those that these layouts can fill."""
    points = [point for group in groups for point in group.points]
    rows = [run.row for point in points for run in point.runs]
    gpus = {point.number: group.gpus for group in groups for point in group.points}
    names = ["ttft_p50_s", "ttft_p99_s", FIRST_ANSWER, "tpot_p50_s", "tpot_p99_s"]
    names += ["e2e_latency_p50_s", "e2e_latency_p99_s"]
    names = [name for name in names if name != FIRST_ANSWER or metrics.thinks_first(rows)]
    asked = "What was asked for. A click leads to every number of the point."
    counts = "Runs of this load; numbers are their means, ± is the 95 % interval."
    failed = "Requests that failed, of those that count; latencies leave them out."
    trust = "What is wrong with the point; with words here, it meets no limit and is never the best."
    return [
        Column("load", "load", KINDS_OF_LOAD[points[0].log.run.load.kind].unit, asked, _load),
        Column("runs", "runs", "", counts, lambda point: (str(len(point.runs)), len(point.runs))),
        _measured(RATE, "req/s"),
        *_per_gpu("per_gpu", "req/s", RATE, gpus),
        _measured("output_token_throughput_per_s", "tok/s"),
        *_per_gpu("tokens_per_gpu", "tok/s", "output_token_throughput_per_s", gpus),
        *(_measured(name) for name in names if any(row[name] is not None for row in rows)),
        *(_cost(name) for name in metrics.COSTS if any(row[name] is not None for row in rows)),
        *([_measured("check_share", "right")] if any(row["check_share"] is not None for row in rows) else []),
        Column("failed", "failed", "of requests", failed, _failed),
        Column("trust", "trust", "", trust, _trust, numeric=False),
    ]


def _load(point: Point) -> tuple[str, float]:
    size = load_size(point.log)
    return f'<a href="#point-{point.number}">{size:g}</a>', size


def _per_gpu(key: str, head: str, name: str, gpus: dict[int, int | None]) -> list[Column]:
    """A rate by GPU, where the logs know how many there were."""

    def cell(point: Point) -> tuple[str, float | None]:
        rate, number = point.mean(name), gpus[point.number]
        value = None if rate is None or not number else rate / number
        return significant(value), value

    tip = f"Derived: {metrics.named(name).label} / GPUs (TP size x replicas)."
    return [Column(key, head, "a GPU", tip, cell)] if any(gpus.values()) else []


def _cost(name: str) -> Column:
    """Energy or $ of tokens, its head on two lines."""
    head, _, unit = metrics.OF_POINT[name].short.partition("\n")
    return _measured(name, head)._replace(unit=unit)


def _measured(name: str, head: str = "") -> Column:
    """A column of the spreadsheet, latencies in ms. "~": a percentile of too few requests; "?": not settled."""
    metric, percentile = metrics.named(name), re.search(r"_p(\d+)_", name)
    needed = stats.SAMPLES_NEEDED[int(percentile[1])] if percentile else 0
    show = ms if percentile else significant

    def cell(point: Point) -> tuple[str, float | None]:
        runs = point.measured
        values = [float(value) for run in runs if (value := run.row[name]) is not None]
        drifting = stats.majority(sum(run.row["not_stationary"] is not None for run in runs), len(runs))
        interval = stats.t_interval(values, stationary=not drifting)
        if interval is None:
            return "-", None
        weak = ("~" if point.samples < needed else "") + ("?" if drifting else "")
        spread = f" <small>±{show(interval.half, 2)}</small>" if interval.known else ""
        return show(interval.mean) + weak + spread, interval.mean * (1e3 if percentile else 1)

    definition = " ".join((metric.function.__doc__ or "").split())
    label = head or f"{metric.label} p{percentile[1] if percentile else ''}"
    return Column(name, label, "ms" if percentile else "", definition, cell)


def _failed(point: Point) -> tuple[str, float]:
    failed, requests = (sum(int(run.row[name] or 0) for run in point.runs) for name in ("failed", "requests"))
    text = f"{failed}/{requests}" if requests else "-"
    return (f"<b>{text}</b>" if failed else text), failed / max(1, requests)


def _trust(point: Point) -> tuple[str, None]:
    return (f"<b>{escape(', '.join(point.marks))}</b>" if point.marks else "ok"), None
