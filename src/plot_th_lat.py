#!/usr/bin/env python3
"""Throughput-latency curves: how long requests take (mean E2E latency) at the throughput that the server reaches.

    python src/plot_th_lat.py --backend vllm fastgen --log_dir results/

One figure a model, server and pair of lengths; one curve a backend; one point a number of clients.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from servebench import figures, metrics
from servebench.figures import Series
from servebench.records import Log

THROUGHPUTS = {"window": metrics.request_throughput, "blog": metrics.blog_throughput}


def latency_s(log: Log) -> float | None:
    return metrics.mean(metrics.each(log, metrics.e2e_s))


def draw(ax: Axes, all_series: list[Series], throughput: str) -> None:
    """Curves in the order of load, each point with its number of clients."""
    for series in all_series:
        for log, x, y in figures.draw_curve(ax, series, THROUGHPUTS[throughput], latency_s):
            style = {"fontsize": 8, "color": series.color, "textcoords": "offset points"}
            ax.annotate(str(log.run.num_clients), (x, y), (4, 4), **style)
    ax.set(xlabel="Throughput (requests/s)", ylabel="Mean E2E latency (s)")
    ax.legend(title="numbers: clients", title_fontsize=9)


def main() -> None:
    parser = figures.parser(__doc__, "throughput_latency")
    ways = "window: completed in the steady window; blog: clients / mean latency [window]"
    parser.add_argument("--throughput", choices=THROUGHPUTS, default="window", help=ways)
    args = parser.parse_args()
    figures.style()
    folders = figures.chosen(args)
    every_log = [log for logs in folders.values() for log in logs]
    for key in figures.group(every_log, figures.configuration):
        all_series = figures.curves(folders, lambda log, key=key: figures.configuration(log) == key)
        figure, ax = plt.subplots()
        draw(ax, all_series, args.throughput)
        figures.limit_axes(ax, folders)
        ax.set_title(figures.figure_title(key))
        figures.note_hollow(figure, all_series)
        figures.save(figure, args, figures.figure_name(key))


if __name__ == "__main__":
    main()
