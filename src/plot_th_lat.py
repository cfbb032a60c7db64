#!/usr/bin/env python3
"""Throughput-latency curves: how long requests take (mean E2E latency) at the throughput that the server reaches.

    python src/plot_th_lat.py --backend vllm fastgen --log_dir results/

One figure a model, server and pair of lengths; one curve a backend; one point a load.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from matplotlib.axes import Axes

from servebench.analysis import metrics
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.curves import Series
from servebench.figures.page import page, plot_parser

THROUGHPUTS = {"window": "request_throughput_per_s", "blog": "blog_throughput_per_s"}
LATENCY = "e2e_latency_mean_s"


def draw(ax: Axes, all_series: list[Series], throughput: str) -> None:
    """Curves in the order of load, each point with its load."""
    for series in all_series:
        points = series.plot_points(THROUGHPUTS[throughput], LATENCY)
        points = [p for p in points if p.x.mean <= series.x_max and p.y.mean <= series.y_max]
        plotting.draw_curve(ax, series, points, LATENCY, selection.load_name)
    plotting.explain(ax, f"numbers: {selection.load_axis(all_series[0].log).lower()}")
    xlabel = metrics.named(THROUGHPUTS[throughput]).axis
    ax.set(xlabel=xlabel, ylabel=f"Mean {metrics.named(LATENCY).axis}")
    plotting.start_at_zero(ax)


def main() -> None:
    parser = plot_parser(__doc__, "throughput_latency")
    ways = "window: completed in the steady window; blog: clients / mean latency [window]"
    parser.add_argument("--throughput", choices=THROUGHPUTS, default="window", help=ways)
    args = parser.parse_args()
    for group in curves.groups(args, selection.CONFIGURATION):
        with page(args, group) as figure:
            draw(figure.subplots(), group.series, args.throughput)


if __name__ == "__main__":
    commandline.run(main)
