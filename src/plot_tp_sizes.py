#!/usr/bin/env python3
"""Tensor parallelism: mean E2E latency and TFLOP/s per GPU against clients, a curve a tp_size.

    python src/plot_tp_sizes.py --backend vllm fastgen --log_dir results/

TFLOP/s per GPU = parameters x (prompt + generated tokens) x 2 x requests/s / GPUs; parameters by the model's name.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from collections.abc import Sequence

from matplotlib.axes import Axes

from servebench import commandline, curves, figures, metrics, selection
from servebench.curves import Series
from servebench.records import Log
from servebench.selection import BATCH, KIND, LENGTHS, MODEL, REPLICAS, TP_SIZE


def latency_s(log: Log) -> float | None:
    return metrics.mean(metrics.each(log, metrics.e2e_s))


def draw(axes: Sequence[Axes], all_series: list[Series]) -> None:
    """Latency on the first, TFLOP/s per GPU on the second."""
    for series in all_series:
        figures.draw_curve(axes[0], series, selection.load_of, latency_s)
        figures.draw_curve(axes[1], series, selection.load_of, metrics.tflops_per_gpu)
    load_axis = selection.load_axis(all_series[0].points[0].log)
    axes[0].set(xlabel=load_axis, ylabel="Mean E2E latency (s)")
    axes[1].set(xlabel=load_axis, ylabel="TFLOP/s per GPU")
    for ax in axes:
        figures.counted_from_zero(ax)
    if not any(series.placed(selection.load_of, metrics.tflops_per_gpu) for series in all_series):
        why = "the model's name does not\ntell its parameters"
        axes[1].text(0.5, 0.5, why, ha="center", transform=axes[1].transAxes)
        axes[1].set(xticks=[], yticks=[])


def main() -> None:
    args = figures.parser(__doc__, "tp_sizes").parse_args()
    for group in curves.groups(args, (MODEL, BATCH, REPLICAS, *LENGTHS, KIND), by=TP_SIZE):
        with figures.page(args, group) as figure:
            figure.set_size_inches(8.0, 4.2)
            draw(figure.subplots(1, 2), group.series)


if __name__ == "__main__":
    commandline.run(main)
