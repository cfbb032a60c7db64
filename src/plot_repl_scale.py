#!/usr/bin/env python3
"""Replica scaling: throughput against the number of replicas, at a fixed number of clients a replica.

    python src/plot_repl_scale.py --backend fastgen vllm --clients_per_replica 4 8

The grey line is what the smallest number of replicas would reach if it scaled perfectly.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from servebench import figures, metrics
from servebench.figures import Series
from servebench.records import Log, model_label


def clients_per_replica(log: Log) -> float:
    return log.run.num_clients / log.server.num_replicas


def family(log: Log) -> tuple[Any, ...]:
    """What the curves of one figure have in common."""
    server, run = log.server, log.run
    lengths = (run.mean_prompt_length, run.mean_max_new_tokens)
    return (
        model_label(server.model),
        server.tp_size,
        server.max_ragged_batch_size,
        *lengths,
        clients_per_replica(log),
    )


def replicas(log: Log) -> float:
    return float(log.server.num_replicas)


def draw(ax: Axes, all_series: list[Series]) -> None:
    for series in all_series:
        points = figures.draw_curve(ax, series, replicas, metrics.request_throughput)
        if points:
            _, fewest, rate = points[0]
            most = points[-1][1]
            ax.plot([fewest, most], [rate, rate * most / fewest], ":", color="#999999", linewidth=1.2, zorder=0)
    ax.set(xlabel="Replicas", ylabel="Throughput (requests/s)")
    ax.set_xlim(left=0)
    figures.whole_numbers(ax.xaxis)
    ax.set_ylim(bottom=0)
    ax.legend(title="dotted: perfect scaling", title_fontsize=9)


def main() -> None:
    parser = figures.parser(__doc__, "repl_scale")
    parser.add_argument(
        "--clients_per_replica", type=float, nargs="+", metavar="N", help="a figure each [all measured]"
    )
    args = parser.parse_args()
    figures.style()
    folders = figures.chosen(args)
    every_log = [log for logs in folders.values() for log in logs]
    for key in figures.group(every_log, family):
        model, tp_size, batch, prompt, generated, load = key
        all_series = curves(folders, key)
        if args.clients_per_replica and load not in args.clients_per_replica:
            continue
        figure, ax = plt.subplots()
        draw(ax, all_series)
        ax.set_title(
            f"{model}, TP {tp_size}, {load:g} clients a replica\nprompt {prompt}, generation {generated} tokens"
        )
        figures.note_hollow(figure, all_series)
        figures.save(
            figure,
            args,
            f"{model}-tp{tp_size}-bs{batch}-prompt{prompt}-gen{generated}-clients_per_replica{load:g}",
        )


def curves(folders: dict[str, list[Log]], key: tuple[Any, ...]) -> list[Series]:
    return figures.curves(folders, lambda log: family(log) == key)


if __name__ == "__main__":
    main()
