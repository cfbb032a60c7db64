#!/usr/bin/env python3
"""Token latency percentiles: P50, P90 and P95 of the time between tokens, a bar a backend.

    python src/plot_latency_percentile.py --backend vllm fastgen --log_dir results/

One figure a model, server, pair of lengths and number of clients. A percentile that has too few gaps is hatched.
"""

from __future__ import annotations

import argparse
import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from servebench import figures, metrics
from servebench.figures import Series
from servebench.records import Log

PERCENTILES = (50, 90, 95)
FEWEST_GAPS = 130  # that carry a P95 (MLPerf LoadGen, 99 % confidence)


def token_latencies_s(log: Log, skip_head_token_num: int, skip_request_num: int) -> np.ndarray:
    """Gaps between events, without the first of each request and without the first requests. Shape (gaps,)."""
    requests = metrics.succeeded(log)[skip_request_num:]
    gaps = [metrics.itl_s(r)[max(0, skip_head_token_num - 1) :] for r in requests]
    return np.concatenate([np.empty(0), *gaps])


def draw(ax: Axes, all_series: list[Series], skip_head_token_num: int, skip_request_num: int) -> None:
    """Bars grouped by percentile, with their values."""
    width = 0.8 / len(all_series)
    for i, series in enumerate(all_series):
        gaps = token_latencies_s(series.logs[0], skip_head_token_num, skip_request_num)
        heights = [metrics.percentile(gaps, q) or 0.0 for q in PERCENTILES]
        at = np.arange(len(PERCENTILES)) + (i - (len(all_series) - 1) / 2) * width
        hatch = "//" if len(gaps) < FEWEST_GAPS else None
        fill = series.color if figures.trusted(series.logs[0]) else "white"
        bars = ax.bar(
            at, heights, width * 0.92, label=series.label, color=fill, edgecolor=series.color, hatch=hatch
        )
        ax.bar_label(bars, [f"{height:.3g}" for height in heights], fontsize=8, padding=2)
    ax.set_xticks(range(len(PERCENTILES)), [f"P{q}" for q in PERCENTILES])
    ax.grid(axis="x", visible=False)
    ax.set(ylabel="Inter-token latency (s)")
    ax.margins(y=0.12)
    ax.legend()


def arguments() -> argparse.Namespace:
    parser = figures.parser(__doc__, "percentile_token_latency")
    parser.add_argument(
        "--skip_head_token_num", type=int, default=1, metavar="N", help="first tokens left out [1]"
    )
    parser.add_argument("--skip_request_num", type=int, default=1, metavar="N", help="first requests left out [1]")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    figures.style()
    folders = figures.chosen(args)
    every_log = [log for logs in folders.values() for log in logs]
    for key in figures.group(every_log, lambda log: (*figures.configuration(log), log.run.num_clients)):
        *common, num_clients = key
        all_series = figures.curves(
            folders, lambda log, key=key: (*figures.configuration(log), log.run.num_clients) == key
        )
        skipped = (args.skip_head_token_num, args.skip_request_num)
        all_series = [series for series in all_series if len(token_latencies_s(series.logs[0], *skipped))]
        if not all_series:
            print(f"no times between tokens: {figures.figure_name(tuple(common))}", file=sys.stderr)
            continue
        figure, ax = plt.subplots()
        draw(ax, all_series, *skipped)
        ax.set_title(f"{figures.figure_title(tuple(common))}, {num_clients} clients")
        figures.note_hollow(figure, all_series)
        figures.save(figure, args, f"{figures.figure_name(tuple(common))}-clients{num_clients}")


if __name__ == "__main__":
    main()
