#!/usr/bin/env python3
"""Percentiles against load: P50, P90 and P99 of the time to first token and of the time per output token.

    python src/plot_load_percentiles.py --backend vllm fastgen --log_dir results/

One figure a model, server and pair of lengths; one curve a backend and percentile. A cross marks a percentile that
the requests of a run are too few to carry (P50 needs 11, P90 64, P99 662).
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from msgspec.structs import replace

from servebench.analysis import metrics, samples, stats
from servebench.analysis.metrics import OfRequests
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.curves import Point, Series
from servebench.figures.page import page, plot_parser

PERCENTILES = {99: "-", 90: "--", 50: ":"}
LATENCIES = ("ttft_s", "tpot_s")
ANSWER = "time_to_first_answer_token_s"


def thinks_first(all_series: list[Series]) -> bool:
    """Do answers begin with reasoning, so that their first token is not that of the answer?"""
    logs = [log for series in all_series for point in series.points for log in point.runs]
    return any(r.first_answer_event != 0 for log in logs for r in samples.succeeded(log) if r.streamed)


def enough_requests(point: Point, metric: OfRequests, q: int) -> bool:
    return all(stats.enough_for_percentile(metric.sample(log), q) for log in point.runs)


def draw(ax: Axes, all_series: list[Series], metric: OfRequests) -> None:
    """The percentiles of one latency on an axis of powers of ten, since they lie far apart."""
    cross = {"marker": "x", "color": plt.rcParams["text.color"], "markersize": 4, "linestyle": ""}
    for q, linestyle in PERCENTILES.items():
        plotting.explain(ax, f"P{q}", linestyle=linestyle)
    for q, linestyle in PERCENTILES.items():
        for series in all_series:
            points = series.plot_points(selection.load_size, metric.column(f"p{q}"))
            curve = replace(series, linestyle=linestyle)
            points = plotting.draw_curve(ax, curve, points, metric.name, labelled=False)
            few = [p for p in points if not enough_requests(p.point, metric, q)]
            if few:
                ax.plot(*plotting.means(few), **cross)
                plotting.explain(ax, "too few requests for this percentile", **cross)
            if q == max(PERCENTILES):
                plotting.label_points(ax, series, points, metric.name)
    plotting.whole_numbers(ax.xaxis)
    ax.set(yscale="log", xlabel=selection.load_axis(all_series[0].log), ylabel=metric.axis)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def main() -> None:
    args = plot_parser(__doc__, "load_percentiles").parse_args()
    for group in curves.groups(args, selection.CONFIGURATION):
        with page(args, group) as figure:
            figure.set_size_inches(8.0, 4.4)
            panels = (*LATENCIES, ANSWER) if thinks_first(group.series) else LATENCIES
            axes: Sequence[Axes] = figure.subplots(1, len(panels))
            for ax, name in zip(axes, panels, strict=True):
                draw(ax, group.series, metrics.OF_REQUESTS[name])


if __name__ == "__main__":
    commandline.run(main)
