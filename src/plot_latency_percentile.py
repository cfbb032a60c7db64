#!/usr/bin/env python3
"""Token latency percentiles: p50, p90 and p95 of the time between tokens, one bar per backend.

    python src/plot_latency_percentile.py --backend vllm fastgen --log_dir results/

One figure per model, server, pair of lengths and number of clients. Percentiles of too few gaps are hatched.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

from servebench.analysis import cache, latency, samples, stats
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection, ticks
from servebench.figures.curves import Series
from servebench.figures.page import page, plot_parser
from servebench.log.schema import Log

COUNT = commandline.Number(int, 0)
PERCENTILES = (50, 90, 95)
Gaps = Callable[[Log], np.ndarray]


@cache.once_a_log
def token_latencies_s(log: Log, skip_head_token_num: int, skip_request_num: int) -> np.ndarray:
    """Gaps between events, without the first of each request and without the first requests. Shape (gaps,)."""
    requests = samples.succeeded(log)[skip_request_num:]
    gaps = [latency.itl_s(r)[max(0, skip_head_token_num - 1) :] for r in requests]
    return np.concatenate([np.empty(0), *gaps])


def percentile(gaps: Gaps, q: int, log: Log) -> float | None:
    return stats.percentile(gaps(log), q)


def draw(ax: Axes, all_series: list[Series], gaps: Gaps) -> None:
    """Bars grouped by percentile, with their values. Series without a time between tokens are left out."""
    known = [series for series in all_series if any(len(gaps(log)) for log in series.points[0].runs)]
    for series in all_series:
        if series not in known:
            plotting.explain_absence(ax, series, "itl_s")
    width = 0.8 / max(1, len(known))
    bars = [
        draw_bars(ax, series, gaps, (i - (len(known) - 1) / 2) * width, width * 0.92)
        for i, series in enumerate(known)
    ]
    if any(bar.get_hatch() for bar in ax.patches):
        style = {"color": plt.rcParams["xtick.color"], "edgecolor": plt.rcParams["axes.facecolor"], "hatch": "//"}
        ax.bar([0], [0], label="too few gaps for a reliable percentile", **style)
    ax.set_xticks(range(len(PERCENTILES)), [f"p{q}" for q in PERCENTILES])
    ax.grid(axis="x", visible=False)
    ax.set(ylabel="Inter-token latency (s)")
    ax.margins(y=0.12)
    ax.set_ylim(bottom=0)  # an interval may reach below
    factor = 1e3 if ticks.in_ms(ax.yaxis) else 1
    for of_series in bars:
        words = [f"{bar.get_height() * factor:.3g}" for bar in of_series]
        ax.bar_label(of_series, words, fontsize=8, padding=2, rotation=90 if len(known) > 4 else 0)


def draw_bars(ax: Axes, series: Series, gaps: Gaps, shift: float, width: float) -> BarContainer:
    """A bar a percentile, with its interval over runs. Hollow: it decides nothing. Hatched: too few gaps."""
    point = series.points[0]
    intervals = [interval for q in PERCENTILES if (interval := point.interval(partial(percentile, gaps, q)))]
    fewest = min(len(gaps(log)) for log in point.runs)
    paper = plt.rcParams["axes.facecolor"]
    doubt = point.doubt("itl")
    fill, edge = (paper, series.color) if doubt else (series.color, paper)
    several = all(interval.known for interval in intervals)
    bars = ax.bar(
        np.arange(len(intervals)) + shift,
        [interval.mean for interval in intervals],
        width,
        yerr=[interval.half for interval in intervals] if several else None,
        label=plotting.with_failures(series.label, point),
        color=fill,
        edgecolor=edge,
        ecolor=plt.rcParams["text.color"],
        hatch=["//" if fewest < stats.SAMPLES_NEEDED[q] else "" for q in PERCENTILES],
    )
    if several:
        plotting.explain_intervals(ax)
    if doubt:
        plotting.explain_doubts(ax, [point], "itl")
    return bars


def main() -> None:
    parser = plot_parser(__doc__, "percentile_token_latency", by=True)
    add = parser.add_argument
    add("--skip_head_token_num", type=COUNT, default=1, metavar="N", help="first tokens left out [1]")
    add("--skip_request_num", type=COUNT, default=1, metavar="N", help="first requests left out [1]")
    args = parser.parse_args()
    skipped = {name: getattr(args, name) for name in ("skip_head_token_num", "skip_request_num")}
    for group in curves.groups(args, (*selection.CONFIGURATION, selection.LOAD)):
        with page(args, group) as figure:
            draw(figure.subplots(), group.series, partial(token_latencies_s, **skipped))


if __name__ == "__main__":
    commandline.run(main)
