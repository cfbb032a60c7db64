#!/usr/bin/env python3
"""Distributions of TTFT, TPOT, ITL and E2E latency: the share of requests (ITL: of gaps) that took no longer.

    python src/plot_cdf.py --backend vllm fastgen --filter num_clients=16

One figure per model, server and pair of lengths, of the highest load; one curve per backend, over all of its runs,
with each run thin behind it. A failed request never ends, so a curve with failed requests ends below 100 %.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from servebench.analysis import metrics, samples
from servebench.analysis.metrics import OfRequests
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.curves import Series
from servebench.figures.page import page, plot_parser

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_latency_s")
DOUBTED = (0, (1, 3))  # the line of what decides nothing
MOST_STEPS = 500  # of a curve; more could not be seen


def steps(values: np.ndarray, reached: float) -> tuple[np.ndarray, np.ndarray]:
    """The distribution of values that ends at the share `reached`: (value, share not above it)."""
    shares = np.linspace(0, 1, min(len(values), MOST_STEPS) + 1)
    return np.quantile(values, shares, method="inverted_cdf"), shares * reached


def draw(ax: Axes, all_series: list[Series], metric: OfRequests) -> None:
    for series in all_series:
        draw_series(ax, series, metric)
    ax.set_xlabel(metric.axis)
    ax.set_ylim(0, 1.02)
    ax.set_xlim(left=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def draw_series(ax: Axes, series: Series, metric: OfRequests) -> None:
    """All runs together, and each of several thin behind them."""
    point = series.points[0]
    runs = [metric.sample(log) for log in point.runs]
    together = np.concatenate(runs)
    if not len(together):
        plotting.explain_absence(ax, series, metric.name)
        return
    style: dict[str, Any] = {"color": series.color, "drawstyle": "steps-post", "linestyle": series.linestyle}
    if doubt := point.doubt(metric.name):
        style["linestyle"] = DOUBTED
        plotting.explain(ax, f"dotted: {plotting.DOUBTS.get(doubt.kind, doubt.kind)}", linestyle=DOUBTED)
    if len(runs) > 1:
        for run, log in zip(runs, point.runs, strict=True):
            if len(run):
                ax.plot(*steps(run, 1 - samples.failed_share(log)), linewidth=0.6, alpha=0.5, **style)
        plotting.explain(ax, "a run", linestyle="-", linewidth=0.6)
    label = plotting.with_failures(series.label, point)
    ax.plot(*steps(together, 1 - point.failed_share), label=label, **style)


def main() -> None:
    args = plot_parser(__doc__, "cdf", every_load=True, by=True).parse_args()
    for group in curves.groups(args, selection.CONFIGURATION, pick_highest=(selection.LOAD,)):
        with page(args, group) as figure:
            figure.set_size_inches(8.0, 5.6)
            for ax, name in zip(figure.subplots(2, 2).flat, LATENCIES, strict=True):
                draw(ax, group.series, metrics.OF_REQUESTS[name])
                ax.set_ylabel("Cumulative share")


if __name__ == "__main__":
    commandline.run(main)
