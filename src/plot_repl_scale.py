#!/usr/bin/env python3
"""Replica scaling: throughput against the number of replicas, at a fixed number of clients per replica.

    python src/plot_repl_scale.py --backend fastgen vllm --clients_per_replica 4 8

The dotted line is what the smallest number of replicas would reach if it scaled perfectly.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

import sys

from matplotlib.axes import Axes

from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.axes import quantity
from servebench.figures.curves import Series
from servebench.figures.page import page, plot_parser
from servebench.figures.selection import BATCH, LENGTHS, MODEL, REPLICAS, TP_SIZE, Trait
from servebench.log.schema import Log

THROUGHPUT = "request_throughput_per_s"


def load_per_replica(log: Log) -> float:
    return selection.load_size(log) / log.server.num_replicas


LOAD = Trait(
    lambda log: (log.run.load.kind, load_per_replica(log)),
    "{0[0]}_per_replica{0[1]:g}",
    "{0[0]} {0[1]:g} a replica",
)
FAMILY = (MODEL, TP_SIZE, BATCH, *LENGTHS, LOAD)


def draw(ax: Axes, all_series: list[Series]) -> None:
    for series in all_series:
        points = series.plot_points(lambda log: log.server.num_replicas, THROUGHPUT)
        if plotting.draw_curve(ax, series, points, THROUGHPUT):
            fewest, rate, most = points[0].x.mean, points[0].y.mean, points[-1].x.mean
            ax.plot([fewest, most], [rate, rate * most / fewest], ":", color=series.color, linewidth=1.2)
            plotting.explain(ax, "perfect scaling", linestyle=":")
    plotting.label_axes(ax, all_series, quantity("num_replicas"), quantity(THROUGHPUT))


def main() -> None:
    parser = plot_parser(__doc__, "repl_scale")
    what = "a figure each [all measured]"
    parser.add_argument(
        "--clients_per_replica", type=commandline.Number(float, 1e-3), nargs="+", metavar="N", help=what
    )
    args = parser.parse_args()
    found: set[float] = set()
    for group in curves.groups(args, FAMILY, must_vary=REPLICAS):
        load = load_per_replica(group.log)
        found.add(load)
        if args.clients_per_replica and load not in args.clients_per_replica:
            continue
        with page(args, group) as figure:
            draw(figure.subplots(), group.series)
    if found and args.clients_per_replica and not found & set(args.clients_per_replica):
        there = ", ".join(f"{load:g}" for load in sorted(found))
        print(f"nothing to draw: --clients_per_replica has none of {there}, which were measured", file=sys.stderr)


if __name__ == "__main__":
    commandline.run(main)
