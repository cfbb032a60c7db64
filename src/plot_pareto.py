#!/usr/bin/env python3
"""Pareto frontier: what a GPU yields (output tokens/s) against what a user sees (tokens/s, the median request).

    python src/plot_pareto.py --backend vllm fastgen --log_dir results/

One figure a model and pair of lengths, over all tensor parallel sizes, replicas and loads. The line joins the
points that no other of the same backend beats both ways; the others are faint.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from matplotlib.axes import Axes

from servebench.analysis import latency, samples, stats, throughput
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.curves import PlotPoint, Series
from servebench.figures.page import page, plot_parser
from servebench.figures.selection import LENGTHS, LOAD_KIND, MODEL
from servebench.log.schema import Log

METRIC = "interactivity"


def per_user(log: Log) -> float | None:
    """Interactivity of the median request, tokens/s."""
    return stats.percentile(samples.each(log, latency.interactivity_per_s), 50)


def frontier(points: list[PlotPoint]) -> list[PlotPoint]:
    """Those that no other one equals or beats both ways, from the slowest user to the fastest."""
    best: list[PlotPoint] = []
    for p in sorted(points, key=lambda p: (-p.x.mean, -p.y.mean)):
        if not best or p.y.mean > best[-1].y.mean:
            best.append(p)
    return best[::-1]


def name(log: Log) -> str:
    return f"TP{log.server.tp_size}×{log.server.num_replicas}, {selection.load_name(log)}"


def draw(ax: Axes, all_series: list[Series]) -> None:
    for series in all_series:
        points = series.plot_points(per_user, throughput.throughput_per_gpu)
        points = plotting.without_buffered(ax, points, series, METRIC)
        doubtful = [p for p in points if p.point.doubt(METRIC)]  # such a point beats none
        best = frontier([p for p in points if p not in doubtful] or doubtful)
        beaten = [p for p in points if p not in best + doubtful]
        ax.plot(*plotting.means(beaten), series.marker, color=series.color, alpha=0.3, markersize=4)
        plotting.draw_points(ax, best, series, METRIC)
        plotting.label_points(ax, best, series, METRIC, name)
        plotting.draw_hollow(ax, doubtful, series, METRIC)
    plotting.explain(ax, "beaten both ways", marker="o", alpha=0.3, markersize=4)
    plotting.explain(ax, f"labels: TP size × replicas, {selection.load_axis(all_series[0].log).lower()}")
    ax.set(xlabel="Tokens/s per user (median)", ylabel="Output tokens/s per GPU")
    plotting.start_at_zero(ax)


def main() -> None:
    args = plot_parser(__doc__, "pareto").parse_args()
    for group in curves.groups(args, (MODEL, *LENGTHS, LOAD_KIND)):
        with page(args, group) as figure:
            draw(figure.subplots(), group.series)


if __name__ == "__main__":
    commandline.run(main)
