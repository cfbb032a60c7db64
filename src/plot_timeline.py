#!/usr/bin/env python3
"""Timeline of one run: every request as a line from sent to its last token, and how many ran at once below.

    python src/plot_timeline.py --backend vllm --filter num_clients=8

One figure a model, server and pair of lengths, of the first run at the highest load; a column a backend. Ramp and
drain, which no throughput is taken from, are shaded; the steady window lies between them.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from textwrap import fill
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from servebench.analysis import latency
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.curves import Series
from servebench.figures.page import page, plot_parser
from servebench.log.schema import Log, Result

WAITING, GENERATING, FAILED = "#9AA0A6", "#0072B2", "#D7263D"


class Span(NamedTuple):
    """When a request was sent, when its first event came and when it ended: s after the first one was sent."""

    sent: float
    first: float
    last: float
    failed: bool
    cut_off: bool  # it had not ended when the point had


def spans(log: Log) -> list[Span]:
    """Every request of the run, warm-up too, in the order of sending."""
    results = sorted(log.results, key=lambda r: r.sent_ns)
    end_ns = max(latency.end_ns(r) for r in results)
    return [_span(r, results[0].sent_ns, max(end_ns, log.window_ns[1] if log.window_ns else 0)) for r in results]


def _span(r: Result, start_ns: int, end_ns: int) -> Span:
    """One that was cut off was in flight to the end, and without a token it waited that long."""
    cut_off = r.finish_reason == "cancelled"
    last_ns = end_ns if cut_off else latency.end_ns(r)
    first_ns = r.sent_ns + r.event_ns[0] if r.event_ns else last_ns
    sent, first, last = ((t - start_ns) / 1e9 for t in (r.sent_ns, first_ns, last_ns))
    return Span(sent, first, last, r.error is not None, cut_off)


def running(requests: list[Span]) -> tuple[np.ndarray, np.ndarray]:
    """Requests in flight from each moment on at which one was sent or ended: (s, requests)."""
    changes = sorted([(r.sent, 1) for r in requests] + [(r.last, -1) for r in requests if not r.cut_off])
    return np.array([at for at, _ in changes]), np.cumsum([step for _, step in changes])


def draw_lines(ax: Axes, row: np.ndarray, start: np.ndarray, end: np.ndarray, **look: Any) -> None:
    """hlines() takes four times as long, since it allows for times that are masked."""
    ends = [np.column_stack([at, row]) for at in (start, end)]
    ax.add_collection(LineCollection(np.stack(ends, axis=1), **look))


def draw_requests(ax: Axes, requests: list[Span]) -> None:
    row = np.arange(len(requests))
    sent, first, last, failed, _ = (np.array(column) for column in zip(*requests, strict=True))
    look = {"linewidth": max(0.4, min(3.0, 160 / len(requests)))}
    draw_lines(ax, row, sent, first, color=WAITING, label="waiting for the first token", **look)
    draw_lines(ax, row, first, last, color=GENERATING, label="generating", **look)
    if failed.any():
        draw_lines(ax, row[failed], sent[failed], last[failed], color=FAILED, **look)
        ax.plot(last[failed], row[failed], "x", color=FAILED, label="failed")
    ax.margins(y=0.02)


def shade(ax: Axes, window_s: tuple[float, float] | None, end_s: float) -> None:
    """Ramp and drain, on either side of the steady window."""
    for outside in ((0.0, window_s[0]), (window_s[1], end_s)) if window_s else ():
        color = plt.rcParams["xtick.color"]
        ax.axvspan(*outside, color=color, alpha=0.18, linewidth=0, label="ramp and drain", zorder=0)


def draw(axes: tuple[Axes, Axes], log: Log) -> None:
    """Requests on the first, how many of them run on the second."""
    requests = spans(log)
    start_ns = min(r.sent_ns for r in log.results)
    window = (log.window_ns[0] - start_ns, log.window_ns[1] - start_ns) if log.window_ns else None
    draw_requests(axes[0], requests)
    axes[1].step(*running(requests), where="post", color=GENERATING, linewidth=1.2)
    for ax in axes:
        shade(ax, (window[0] / 1e9, window[1] / 1e9) if window else None, max(r.last for r in requests))
        ax.margins(x=0)


def columns(figure: Figure, all_series: list[Series]) -> None:
    figure.set_size_inches(min(8.0, 4.6 + 1.8 * len(all_series)), 5.6)
    axes = figure.subplots(2, len(all_series), sharex="col", sharey="row", height_ratios=(3, 1), squeeze=False)
    for column, series in zip(axes.T, all_series, strict=True):
        draw(tuple(column), series.log)
        column[0].set_title(fill(series.label, max(12, 80 // len(all_series))))
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_ylabel("Request, in the order of sending")
    axes[1, 0].set_ylim(bottom=0)
    axes[1, 0].set_ylabel("Running")
    figure.supxlabel("Time since the first request (s)", fontsize=10)
    plotting.whole_numbers(axes[0, 0].yaxis)
    plotting.whole_numbers(axes[1, 0].yaxis, 4)


def main() -> None:
    parser = plot_parser(__doc__, "timeline")
    curves.add_every_load(parser)
    args = parser.parse_args()
    one_of = (selection.LOAD, selection.REPETITION)
    for group in curves.groups(args, selection.CONFIGURATION, one_of=one_of):
        with page(args, group) as figure:
            columns(figure, group.series)


if __name__ == "__main__":
    commandline.run(main)
