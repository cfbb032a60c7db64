#!/usr/bin/env python3
"""Throughput-latency curves: how long requests take (mean E2E latency) at the throughput that the server reaches.

    python src/plot_th_lat.py --backend vllm fastgen --log_dir results/

One figure a model, server and pair of lengths; one curve a backend; one point a load.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from matplotlib.axes import Axes

from servebench import commandline, curves, figures, metrics, selection
from servebench.curves import Series
from servebench.records import Log

THROUGHPUTS = {"window": metrics.request_throughput, "blog": metrics.blog_throughput}


def latency_s(log: Log) -> float | None:
    return metrics.mean(metrics.each(log, metrics.e2e_s))


def draw(ax: Axes, all_series: list[Series], throughput: str) -> None:
    """Curves in the order of load, each point with its load."""
    for series in all_series:
        placed = series.within(series.placed(THROUGHPUTS[throughput], latency_s))
        figures.draw_placed(ax, placed, series, "e2e")
        figures.mark(ax, placed, series, "e2e", lambda log: f"{selection.load_of(log):g}")
    figures.explain(ax, f"numbers: {selection.load_axis(all_series[0].points[0].log).lower()}")
    ax.set(xlabel="Throughput (requests/s)", ylabel="Mean E2E latency (s)")
    figures.from_zero(ax)


def main() -> None:
    parser = figures.parser(__doc__, "throughput_latency")
    ways = "window: completed in the steady window; blog: clients / mean latency [window]"
    parser.add_argument("--throughput", choices=THROUGHPUTS, default="window", help=ways)
    args = parser.parse_args()
    for group in curves.groups(args, selection.CONFIGURATION):
        with figures.page(args, group) as figure:
            draw(figure.subplots(), group.series, args.throughput)


if __name__ == "__main__":
    commandline.run(main)
