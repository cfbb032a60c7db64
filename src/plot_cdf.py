#!/usr/bin/env python3
"""Distributions of TTFT, TPOT, ITL and E2E latency: the share of requests (ITL: of gaps) that took no longer.

    python src/plot_cdf.py --backend vllm fastgen --filter num_clients=16

One figure a model, server and pair of lengths, of the highest load; one curve a backend, over all of its runs,
with each run thin behind it. A failed request never ends, so where some failed a curve does not reach 100 %.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from servebench.analysis import latency, samples
from servebench.cli import commandline
from servebench.figures import curves, page, selection
from servebench.figures.curves import Series
from servebench.log.schema import Log

Samples = Callable[[Log], np.ndarray]
DOUBTED = (0, (1, 3))  # the line of what decides nothing
MOST_STEPS = 500  # of a curve; more could not be seen
PANELS: dict[str, tuple[str, Samples]] = {
    "TTFT (s)": ("ttft", partial(samples.each, of_request=latency.ttft_s)),
    "TPOT (s/token)": ("tpot", partial(samples.each, of_request=latency.tpot_s)),
    "ITL (s)": ("itl", partial(samples.each, of_request=latency.itl_s)),
    "E2E latency (s)": ("e2e_latency", partial(samples.each, of_request=latency.e2e_s)),
}


def steps(values: np.ndarray, reached: float) -> tuple[np.ndarray, np.ndarray]:
    """The distribution of values that ends at the share `reached`: (value, share not above it)."""
    shares = np.linspace(0, 1, min(len(values), MOST_STEPS) + 1)
    return np.quantile(values, shares, method="inverted_cdf"), shares * reached


def draw(ax: Axes, all_series: list[Series], metric: str, samples: Samples) -> None:
    for series in all_series:
        draw_series(ax, series, metric, [samples(log) for log in series.points[0].runs])
    ax.set_ylim(0, 1.02)
    ax.set_xlim(left=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1))


def draw_series(ax: Axes, series: Series, metric: str, runs: list[np.ndarray]) -> None:
    """All runs together, and each of several thin behind them."""
    together, point = np.concatenate(runs), series.points[0]
    if not len(together):
        page.leave_out(ax, series)
        return
    look: dict[str, Any] = {"color": series.color, "drawstyle": "steps-post", "linestyle": series.linestyle}
    if doubt := point.doubt(metric):
        look["linestyle"] = DOUBTED
        page.explain(ax, f"decides nothing: {doubt.kind}", linestyle=DOUBTED)
    several = len(runs) > 1
    for run, log in zip(runs, point.runs, strict=True):
        if several and len(run):
            ax.plot(*steps(run, 1 - samples.failed_share(log)), linewidth=0.6, alpha=0.5, **look)
    if several:
        page.explain(ax, "a run", linestyle="-", linewidth=0.6)
    label = page.with_failures(series.label, point)
    ax.plot(*steps(together, 1 - point.failed_share), label=label, **look)


def main() -> None:
    parser = page.parser(__doc__, "cdf")
    curves.add_every_load(parser)
    args = parser.parse_args()
    for group in curves.groups(args, selection.CONFIGURATION, one_of=(selection.LOAD,)):
        with page.page(args, group) as figure:
            figure.set_size_inches(8.0, 5.6)
            for ax, (label, panel) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
                draw(ax, group.series, *panel)
                ax.set(xlabel=label)
            figure.supylabel("Share that took no longer", fontsize=10)


if __name__ == "__main__":
    commandline.run(main)
