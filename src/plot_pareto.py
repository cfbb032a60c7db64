#!/usr/bin/env python3
"""Pareto frontier: what a GPU yields (output tokens/s) against what a user sees (tokens/s, the median request).

    python src/plot_pareto.py --backend vllm fastgen --log_dir results/

One figure a model and pair of lengths, over all tensor parallel sizes, replicas and loads. The line joins the
points that no other of the same backend beats both ways; the others are faint.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from matplotlib.axes import Axes

from servebench.analysis import metrics
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.curves import PlotPoint, Series
from servebench.figures.page import page, plot_parser
from servebench.figures.selection import LENGTHS, LOAD_KIND, MODEL
from servebench.log.schema import Log

PER_USER, PER_GPU = "interactivity_p50_per_s", "throughput_per_gpu_per_s"


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
        points = plotting.without_buffered(ax, series, series.plot_points(PER_USER, PER_GPU), PER_USER)
        doubtful = [p for p in points if p.point.doubt(PER_USER)]  # such a point beats none
        best = frontier([p for p in points if p not in doubtful] or doubtful)
        beaten = [p for p in points if p not in best + doubtful]
        ax.plot(*plotting.means(beaten), series.marker, color=series.color, alpha=0.3, markersize=4)
        plotting.draw_curve(ax, series, best, PER_USER, name)
        plotting.draw_hollow(ax, series, doubtful, PER_USER)
    plotting.explain(ax, "beaten both ways", marker="o", alpha=0.3, markersize=4)
    plotting.explain(ax, f"labels: TP size × replicas, {selection.load_axis(all_series[0].log).lower()}")
    ax.set(xlabel=f"{metrics.named(PER_USER).axis} (median)", ylabel=metrics.named(PER_GPU).label)
    plotting.start_at_zero(ax)


def main() -> None:
    args = plot_parser(__doc__, "pareto").parse_args()
    for group in curves.groups(args, (MODEL, *LENGTHS, LOAD_KIND)):
        with page(args, group) as figure:
            draw(figure.subplots(), group.series)


if __name__ == "__main__":
    commandline.run(main)
