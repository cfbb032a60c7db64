#!/usr/bin/env python3
"""Tensor parallelism: mean E2E latency and TFLOP/s per GPU against clients and each other, a curve a tp_size.

    python src/plot_tp_sizes.py --backend vllm fastgen --log_dir results/

TFLOP/s per GPU = parameters x (prompt + generated tokens) x 2 x requests/s / GPUs; parameters by the model's name.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from collections.abc import Sequence

from matplotlib.axes import Axes

from servebench.analysis import metrics
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.curves import Series
from servebench.figures.page import page, plot_parser
from servebench.figures.selection import BATCH, LENGTHS, LOAD_KIND, MODEL, REPLICAS, TP_SIZE

LATENCY, TFLOPS = "e2e_latency_mean_s", "tflops_per_gpu"


def draw(axes: Sequence[Axes], all_series: list[Series]) -> None:
    """Latency and TFLOP/s per GPU against the load on the first two, against each other on the third."""
    for series in all_series:
        plotting.draw_curve(axes[0], series, series.plot_points(selection.load_size, LATENCY), LATENCY)
    known = [series for series in all_series if series.plot_points(selection.load_size, TFLOPS)]
    for ax in () if known else axes[1:]:
        ax.text(0.5, 0.5, "the model's name does not\ntell its parameters", ha="center", transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])
    for series in known:
        plotting.draw_curve(axes[1], series, series.plot_points(selection.load_size, TFLOPS), TFLOPS)
        plotting.draw_curve(axes[2], series, series.plot_points(TFLOPS, LATENCY), LATENCY, selection.load_name)
    load = selection.load_axis(all_series[0].log)
    latency, tflops = f"Mean {metrics.named(LATENCY).axis}", metrics.named(TFLOPS).label
    axes[0].set(xlabel=load, ylabel=latency)
    axes[1].set(xlabel=load, ylabel=tflops)
    axes[2].set(xlabel=f"{tflops} (numbers: {load.lower()})", ylabel=latency)
    for ax in axes if known else axes[:1]:
        plotting.start_at_zero(ax)
    for ax in axes[: 2 if known else 1]:
        plotting.whole_numbers(ax.xaxis)


def main() -> None:
    args = plot_parser(__doc__, "tp_sizes").parse_args()
    for group in curves.groups(args, (MODEL, BATCH, REPLICAS, *LENGTHS, LOAD_KIND), curve_by=TP_SIZE):
        with page(args, group) as figure:
            figure.set_size_inches(8.0, 7.2)
            panels = figure.subplot_mosaic([["latency", "tflops"], ["both", "both"]], height_ratios=(2, 3))
            draw(list(panels.values()), group.series)


if __name__ == "__main__":
    commandline.run(main)
