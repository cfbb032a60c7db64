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
from servebench.figures import curves, page, selection
from servebench.figures.curves import Placed, Series
from servebench.figures.selection import KIND, LENGTHS, MODEL
from servebench.log.schema import Log

METRIC = "interactivity"


def per_user(log: Log) -> float | None:
    """Interactivity of the median request, tokens/s."""
    return metrics.percentile(metrics.interactivity(log), 50)


def frontier(placed: list[Placed]) -> list[Placed]:
    """Those that no other one equals or beats both ways, from the slowest user to the fastest."""
    kept: list[Placed] = []
    for p in sorted(placed, key=lambda p: (-p.x.mean, -p.y.mean)):
        if not kept or p.y.mean > kept[-1].y.mean:
            kept.append(p)
    return kept[::-1]


def name(log: Log) -> str:
    return f"TP{log.server.tp_size}×{log.server.num_replicas}, {selection.load_name(log)}"


def draw(ax: Axes, all_series: list[Series]) -> None:
    for series in all_series:
        placed = page.told_apart(ax, series.placed(per_user, metrics.throughput_per_gpu), series, METRIC)
        doubtful = [p for p in placed if p.point.doubt(METRIC)]  # such a point beats none
        best = frontier([p for p in placed if p not in doubtful] or doubtful)
        beaten = [p for p in placed if p not in best + doubtful]
        ax.plot(*page.middles(beaten), series.marker, color=series.color, alpha=0.3, markersize=4)
        page.draw_placed(ax, best, series, METRIC)
        page.mark(ax, best, series, METRIC, name)
        page.draw_hollow(ax, doubtful, series, METRIC)
    page.explain(ax, "beaten both ways", marker="o", alpha=0.3, markersize=4)
    page.explain(ax, f"labels: TP size × replicas, {selection.load_axis(all_series[0].points[0].log).lower()}")
    ax.set(xlabel="Tokens/s per user (median)", ylabel="Output tokens/s per GPU")
    page.from_zero(ax)


def main() -> None:
    args = page.parser(__doc__, "pareto").parse_args()
    for group in curves.groups(args, (MODEL, *LENGTHS, KIND)):
        with page.page(args, group) as figure:
            draw(figure.subplots(), group.series)


if __name__ == "__main__":
    commandline.run(main)
