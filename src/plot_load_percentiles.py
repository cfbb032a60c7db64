#!/usr/bin/env python3
"""Latency percentiles against load: p50 and p99 of the time to first token and of the time per output token.

    python src/plot_load_percentiles.py --backend vllm fastgen --log_dir results/
    python src/plot_load_percentiles.py --y ttft e2e_latency --percentiles 50 90 99 --by tp_size

One figure per model, server and pair of lengths; one curve per backend and percentile. A cross marks a percentile
from too few requests to be reliable (p50 needs 11 in each run, p90 64, p95 130, p99 662).
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from msgspec.structs import replace

from servebench.analysis import samples, stats
from servebench.analysis.metrics import OfRequests
from servebench.cli import commandline
from servebench.figures import axes, curves, plotting, selection
from servebench.figures.axes import LOAD
from servebench.figures.curves import PlotPoint, Point, Series
from servebench.figures.page import page, plot_parser

LINESTYLES = {99: "-", 95: "-.", 90: "--", 50: ":"}
PERCENTILES = (50, 99)
LATENCIES = ("ttft", "tpot")
ANSWER = "time_to_first_answer_token"
FAR_APART = 10  # from the least to the largest value: from here on the axis is one of powers of ten


def thinks_first(all_series: list[Series]) -> bool:
    """Do answers begin with reasoning, so that their first token is not that of the answer?"""
    logs = [log for series in all_series for point in series.points for log in point.runs]
    return any(r.first_answer_event != 0 for log in logs for r in samples.succeeded(log) if r.streamed)


def enough_requests(point: Point, metric: OfRequests, q: int) -> bool:
    return all(stats.enough_for_percentile(metric.sample(log), q) for log in point.runs)


def draw(ax: Axes, all_series: list[Series], metric: OfRequests, percentiles: Sequence[int] = PERCENTILES) -> None:
    """The percentiles of one latency, on an axis of powers of ten if they lie far apart."""
    linestyles = {q: line for q, line in LINESTYLES.items() if q in percentiles}
    drawn = []
    for q, linestyle in linestyles.items():
        plotting.explain(ax, f"p{q}", linestyle=linestyle)
    for q, linestyle in linestyles.items():
        for series in all_series:
            drawn += draw_percentile(ax, replace(series, linestyle=linestyle), metric, q, q == max(percentiles))
    values = [p.y.mean for p in drawn if p.y.mean > 0]
    if values and max(values) > FAR_APART * min(values):
        ax.set_yscale("log")
    y = axes.quantity(metric.column(f"p{max(percentiles)}"))
    plotting.label_axes(ax, all_series, LOAD, y)
    ax.set_ylabel(metric.axis or metric.label)


def draw_percentile(ax: Axes, series: Series, metric: OfRequests, q: int, labelled: bool) -> list[PlotPoint]:
    """One curve, with crosses where it is not reliable."""
    points = series.plot_points(LOAD.of, metric.column(f"p{q}"))
    points = plotting.draw_curve(ax, series, points, metric.name, labelled=labelled)
    few = [p for p in points if not enough_requests(p.point, metric, q)]
    if few:
        cross = {"marker": "x", "color": plt.rcParams["text.color"], "markersize": 4, "linestyle": ""}
        ax.plot(*plotting.means(few), **cross)
        plotting.explain(ax, "too few requests for a reliable percentile", **cross)
    return points


def main() -> None:
    parser = plot_parser(__doc__, "load_percentiles", by=True)
    add = parser.add_argument
    what = "latencies, one panel each: ttft, tpot, e2e_latency, itl, ... [ttft tpot]"
    add("--y", nargs="+", type=axes.latency, metavar="NAME", help=what)
    which = "percentiles to draw, one line each [50 99]"
    add("--percentiles", nargs="+", type=int, choices=sorted(LINESTYLES), default=PERCENTILES, help=which)
    args = parser.parse_args()
    for group in curves.groups(args, selection.CONFIGURATION):
        with page(args, group) as figure:
            usual = (*LATENCIES, ANSWER) if thinks_first(group.series) else LATENCIES
            panels = args.y or [axes.latency(name) for name in usual]
            figure.set_size_inches(max(6.4, min(8.0, 4.0 * len(panels))), 4.4)
            for ax, metric in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
                draw(ax, group.series, metric, args.percentiles)


if __name__ == "__main__":
    commandline.run(main)
