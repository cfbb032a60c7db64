#!/usr/bin/env python3
"""Tensor parallelism: mean E2E latency and TFLOP/s per GPU against clients and each other, one curve per TP size.

    python src/plot_tp_sizes.py --backend vllm fastgen --log_dir results/

TFLOP/s per GPU = parameters x (prompt + generated tokens) x 2 x requests/s / GPUs; parameters by the model's name.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from collections.abc import Sequence

from matplotlib.axes import Axes

from servebench.cli import commandline
from servebench.figures import curves, plotting
from servebench.figures.axes import LOAD, quantity
from servebench.figures.curves import Series
from servebench.figures.page import page, plot_parser
from servebench.figures.selection import BATCH, LENGTHS, LOAD_KIND, MODEL, REPLICAS, TP_SIZE

LATENCY, TFLOPS = map(quantity, ("e2e_latency_mean", "tflops_per_gpu"))


def draw(axes: Sequence[Axes], all_series: list[Series]) -> None:
    """Latency and TFLOP/s per GPU against the load on the first two, against each other on the third."""
    plotting.draw_quantities(axes[0], all_series, LOAD, LATENCY)
    known = [series for series in all_series if series.plot_points(LOAD.of, TFLOPS.of)]
    for ax in () if known else axes[1:]:
        plotting.explain(ax, "the model's name does not tell its parameters", gid=plotting.LEFT_OUT)
    if known:
        plotting.draw_quantities(axes[1], known, LOAD, TFLOPS)
        plotting.draw_quantities(axes[2], known, TFLOPS, LATENCY)


def main() -> None:
    args = plot_parser(__doc__, "tp_sizes").parse_args()
    for group in curves.groups(args, (MODEL, BATCH, REPLICAS, *LENGTHS, LOAD_KIND), curve_by=TP_SIZE):
        with page(args, group) as figure:
            figure.set_size_inches(8.0, 7.2)
            panels = figure.subplot_mosaic([["latency", "tflops"], ["both", "both"]], height_ratios=(2, 3))
            draw(list(panels.values()), group.series)


if __name__ == "__main__":
    commandline.run(main)
