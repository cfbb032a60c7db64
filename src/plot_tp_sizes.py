#!/usr/bin/env python3
"""Tensor parallelism: mean E2E latency and TFLOP/s per GPU against clients, a curve a tp_size.

    python src/plot_tp_sizes.py --backend vllm fastgen --log_dir results/

TFLOP/s per GPU = parameters x (prompt + generated tokens) x 2 x requests/s / GPUs; parameters by the model's name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from servebench import figures, metrics
from servebench.figures import Series
from servebench.records import Log, model_label

LINESTYLES = ("-", "--", ":", "-.")


def family(log: Log) -> tuple[Any, ...]:
    """What the curves of one figure have in common."""
    server, run = log.server, log.run
    sizes = (server.max_ragged_batch_size, server.num_replicas)
    return (model_label(server.model), *sizes, run.mean_prompt_length, run.mean_max_new_tokens)


def clients(log: Log) -> float:
    return float(log.run.num_clients)


def latency_s(log: Log) -> float | None:
    return metrics.mean(metrics.each(log, metrics.e2e_s))


def by_tp_size(folders: dict[str, list[Log]], key: tuple[Any, ...]) -> list[Series]:
    """A backend's colour, a line style a tp_size."""
    sizes = sorted({log.server.tp_size for logs in folders.values() for log in logs if family(log) == key})
    return [
        replace(series, label=f"{series.label} TP {size}", linestyle=LINESTYLES[i % len(LINESTYLES)])
        for i, size in enumerate(sizes)
        for series in figures.curves(
            folders, lambda log, size=size: family(log) == key and log.server.tp_size == size
        )
    ]


def draw(axes: tuple[Axes, Axes], all_series: list[Series]) -> None:
    for series in all_series:
        figures.draw_curve(axes[0], series, clients, latency_s)
        figures.draw_curve(axes[1], series, clients, metrics.tflops_per_gpu)
    axes[0].set(xlabel="Clients", ylabel="Mean E2E latency (s)")
    axes[1].set(xlabel="Clients", ylabel="TFLOP/s per GPU")
    for ax in axes:
        ax.set_xlim(left=0)
        figures.whole_numbers(ax.xaxis)
        ax.set_ylim(bottom=0)
    axes[0].legend()
    if not axes[1].lines or not any(len(line.get_xdata()) for line in axes[1].lines):
        axes[1].text(
            0.5, 0.5, "the model's name does not\ntell its parameters", ha="center", transform=axes[1].transAxes
        )


def main() -> None:
    args = figures.parser(__doc__, "tp_sizes").parse_args()
    figures.style()
    folders = figures.chosen(args)
    every_log = [log for logs in folders.values() for log in logs]
    for key in figures.group(every_log, family):
        model, batch, replicas, prompt, generated = key
        all_series = by_tp_size(folders, key)
        figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2))
        draw(axes, all_series)
        figure.suptitle(
            f"{model}, {replicas} replicas, prompt {prompt}, generation {generated} tokens", fontsize=11
        )
        figures.note_hollow(figure, all_series)
        figures.save(figure, args, f"{model}-bs{batch}-replicas{replicas}-prompt{prompt}-gen{generated}")


if __name__ == "__main__":
    main()
