#!/usr/bin/env python3
"""Pareto frontier: what a GPU yields (output tokens/s) against what a user sees (tokens/s, the median request).

    python src/plot_pareto.py --backend vllm fastgen --log_dir results/
    python src/plot_pareto.py --x ttft_p99 --y throughput_per_gpu --by layout

One figure per model and pair of lengths, over all tensor parallel sizes, replicas and loads. The line joins the
points that no other of the same backend beats on both axes; the others are faint.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from typing import Any

from matplotlib.axes import Axes

from servebench.cli import commandline
from servebench.errors import InputError
from servebench.figures import curves, plotting, selection
from servebench.figures.axes import Quantity
from servebench.figures.curves import PlotPoint, Series
from servebench.figures.page import page, plot_parser
from servebench.figures.selection import LENGTHS, LOAD_KIND, MODEL
from servebench.log.schema import Log

PER_USER, PER_GPU = "interactivity_p50", "throughput_per_gpu"
SIGNS = {"more": 1, "less": -1}


def frontier(points: list[PlotPoint], x: Quantity, y: Quantity) -> list[PlotPoint]:
    """Those that no other one equals or beats both ways, in the order of x."""
    across, up = (SIGNS[str(quantity.better)] for quantity in (x, y))
    best: list[PlotPoint] = []
    for p in sorted(points, key=lambda p: (-across * p.x.mean, -up * p.y.mean)):
        if not best or up * p.y.mean > up * best[-1].y.mean:
            best.append(p)
    return sorted(best, key=lambda p: p.x.mean)


def name(log: Log) -> str:
    return f"TP{log.server.tp_size}×{log.server.num_replicas}, {selection.load_name(log)}"


def draw(ax: Axes, all_series: list[Series], x: Quantity, y: Quantity, name: plotting.Name = name) -> None:
    judged = plotting.judged(x, y)
    for series in all_series:
        points = plotting.without_buffered(ax, series, series.plot_points(x.of, y.of), judged)
        doubtful = [p for p in points if p.point.doubt(judged)]  # such a point beats none
        best = frontier([p for p in points if p not in doubtful] or doubtful, x, y)
        beaten = [p for p in points if p not in best + doubtful]
        faint: dict[str, Any] = {"alpha": 0.3, "markersize": 4, "linestyle": ""}
        if beaten:
            ax.plot(*plotting.means(beaten), marker=series.marker, color=series.color, **faint)
            plotting.explain(ax, "faint: beaten on both axes", marker="o", **faint)
        plotting.draw_curve(ax, series, best, plotting.lacking(series, x, y), name)
        plotting.draw_hollow(ax, series, doubtful, judged)
    load = selection.load_axis(all_series[0].log).lower()
    plotting.explain(
        ax, f"numbers: {load}" if name is selection.load_name else f"labels: TP size × replicas, {load}"
    )
    plotting.label_axes(ax, all_series, x, y)


def main() -> None:
    args = plot_parser(__doc__, "pareto", x=PER_USER, y=PER_GPU, by=True).parse_args()
    for option, quantity in (("--x", args.x), ("--y", args.y)):
        if not quantity.better:
            raise InputError(f"{option} {quantity.name}: neither more nor less of it is better; give {PER_GPU}")
    for group in curves.groups(args, (MODEL, *LENGTHS, LOAD_KIND)):
        with page(args, group) as figure:
            of_point = selection.load_name if args.by and args.by.name == "layout" else name
            draw(figure.subplots(), group.series, args.x, args.y, of_point)


if __name__ == "__main__":
    commandline.run(main)
