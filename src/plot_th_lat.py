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
from servebench.figures import curves, page, selection
from servebench.figures.curves import Series

THROUGHPUTS = {"window": metrics.request_throughput, "blog": metrics.blog_throughput}


def draw(ax: Axes, all_series: list[Series], throughput: str) -> None:
    """Curves in the order of load, each point with its load."""
    for series in all_series:
        placed = series.within(series.placed(THROUGHPUTS[throughput], metrics.mean_e2e_s))
        page.draw_placed(ax, placed, series, "e2e")
        page.mark(ax, placed, series, "e2e", selection.load_name)
    page.explain(ax, f"numbers: {selection.load_axis(all_series[0].points[0].log).lower()}")
    ax.set(xlabel="Throughput (requests/s)", ylabel="Mean E2E latency (s)")
    page.from_zero(ax)


def main() -> None:
    parser = page.parser(__doc__, "throughput_latency")
    ways = "window: completed in the steady window; blog: clients / mean latency [window]"
    parser.add_argument("--throughput", choices=THROUGHPUTS, default="window", help=ways)
    args = parser.parse_args()
    for group in curves.groups(args, selection.CONFIGURATION):
        with page.page(args, group) as figure:
            draw(figure.subplots(), group.series, args.throughput)


if __name__ == "__main__":
    commandline.run(main)
