#!/usr/bin/env python3
"""Throughput-latency curves: how long requests take (mean E2E latency) at the throughput that the server reaches.

    python src/plot_th_lat.py --backend vllm fastgen --log_dir results/

One figure a model, server and pair of lengths; one curve a backend; one point a load.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from matplotlib.axes import Axes

from servebench.analysis import samples, throughput
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.curves import Series
from servebench.figures.page import page, plot_parser

THROUGHPUTS = {"window": throughput.request_throughput, "blog": throughput.blog_throughput}


def draw(ax: Axes, all_series: list[Series], way: str) -> None:
    """Curves in the order of load, each point with its load."""
    for series in all_series:
        points = series.plot_points(THROUGHPUTS[way], samples.mean_e2e_s)
        points = [p for p in points if p.x.mean <= series.x_max and p.y.mean <= series.y_max]
        plotting.draw_points(ax, points, series, "e2e")
        plotting.label_points(ax, points, series, "e2e", selection.load_name)
    plotting.explain(ax, f"numbers: {selection.load_axis(all_series[0].log).lower()}")
    ax.set(xlabel="Throughput (requests/s)", ylabel="Mean E2E latency (s)")
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
