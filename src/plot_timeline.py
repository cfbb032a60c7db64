#!/usr/bin/env python3
"""Timeline of one run: every request as a line from sent to its last token; below, what ran at once and on what.

    python src/plot_timeline.py --backend vllm --filter num_clients=8

One figure per model, server and pair of lengths, of the first run at the highest load; one column per backend.
Ramp and drain, which count in no throughput, are shaded; the steady window lies between them. Where a log has
samples of engine and GPUs: requests by the engine's own count, the KV cache in use, the power of all GPUs.
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
from servebench.log.schema import Log
from servebench.log.telemetry import Series as Samples

WAITING, GENERATING, FAILED = "#9AA0A6", "#0072B2", "#D7263D"
# Panels below those of the requests, where any log has samples for it: columns, each with color and label.
PANELS: dict[str, dict[str, tuple[str, str | None]]] = {
    "In the engine": {
        "running": (GENERATING, "running, by the engine's count"),
        "waiting": ("#D55E00", "waiting, by the engine's count"),
    },
    "KV cache (%)": {"kv_cache_usage": ("#009E73", None)},
    "Power (W)": {"power_w": ("#CC79A7", None)},
}


class Spans(NamedTuple):
    """Of each request when it was sent, when its first event came and when it ended: s after the first was sent.

    Arrays of shape (requests,).
    """

    sent: np.ndarray
    first: np.ndarray
    last: np.ndarray
    failed: np.ndarray
    cut_off: np.ndarray  # it had not ended when the point had


def spans(log: Log) -> Spans:
    """Every request of the run, warm-up too, in the order of sending.

    One that was cut off ran to the end, and one without an event waited as long as it ran.
    """
    results = sorted(log.results, key=lambda r: r.sent_ns)
    sent, last = np.array([(r.sent_ns, latency.end_ns(r)) for r in results]).T
    cut_off = np.array([r.cancelled for r in results])
    last[cut_off] = max(last.max(), log.window_ns[1] if log.window_ns else 0)
    waits = [r.event_ns[0] if r.event_ns else end - r.sent_ns for r, end in zip(results, last, strict=True)]
    failed = np.array([r.error is not None for r in results])
    sent_s, first_s, last_s = ((at - sent[0]) / 1e9 for at in (sent, sent + waits, last))
    return Spans(sent_s, first_s, last_s, failed, cut_off)


def running(requests: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Requests in flight from each moment on at which one was sent or ended: (s, requests)."""
    ended = requests.last[~requests.cut_off]
    at = np.concatenate([requests.sent, ended])
    change = np.repeat([1, -1], [len(requests.sent), len(ended)])
    order = np.lexsort((change, at))
    return at[order], np.cumsum(change[order])


def sampled(samples: Samples, column: str) -> np.ndarray | None:
    """Of each bin the sum of all replicas or GPUs (of shares the mean, in %), nan where one is not known."""
    found = [samples.of(name) for name in samples.columns if name.partition(".")[2] == column]
    if not found:
        return None
    values = np.array(found, dtype=float)
    return np.asarray(100 * values.mean(axis=0) if column == "kv_cache_usage" else values.sum(axis=0))


def lines_of(log: Log, panel: str) -> dict[str, np.ndarray]:
    """What the log has of a panel, by column."""
    found = {column: sampled(log.series, column) for column in PANELS[panel]} if log.series else {}
    return {column: values for column, values in found.items() if values is not None}


def draw_samples(ax: Axes, log: Log, panel: str) -> None:
    """A step a bin, on the clock of the requests."""
    lines = lines_of(log, panel)
    for column, values in lines.items():
        assert log.series
        start_ns = log.series.start_ns - min(r.sent_ns for r in log.results)
        at = (start_ns + log.series.every_ns * np.arange(log.series.bins + 1)) / 1e9
        color, label = PANELS[panel][column]
        ax.stairs(values, at, color=color, label=label, linewidth=1.2, baseline=None)
    if not lines:
        plotting.write_across(ax, "no samples")


def draw_lines(ax: Axes, row: np.ndarray, start: np.ndarray, end: np.ndarray, **style: Any) -> None:
    """hlines() takes four times as long, since it allows for times that are masked."""
    ends = [np.column_stack([at, row]) for at in (start, end)]
    ax.add_collection(LineCollection(list(np.stack(ends, axis=1)), **style))


def draw_requests(ax: Axes, requests: Spans) -> None:
    sent, first, last, failed, _ = requests
    row = np.arange(len(sent))
    width = {"linewidth": max(0.4, min(3.0, 160 / len(sent)))}
    draw_lines(ax, row, sent, first, color=WAITING, label="waiting for the first token", **width)
    draw_lines(ax, row, first, last, color=GENERATING, label="generating", **width)
    if failed.any():
        draw_lines(ax, row[failed], sent[failed], last[failed], color=FAILED, **width)
        ax.plot(last[failed], row[failed], "x", color=FAILED, label="failed")
    ax.margins(y=0.02)


def draw(axes: tuple[Axes, ...], log: Log, panels: tuple[str, ...] = ()) -> None:
    """Requests on the first, how many of them run on the second, samples below; shaded outside of the window."""
    requests = spans(log)
    start_ns = min(r.sent_ns for r in log.results)
    window = [(at - start_ns) / 1e9 for at in log.window_ns or ()]
    draw_requests(axes[0], requests)
    axes[1].step(*running(requests), where="post", color=GENERATING, linewidth=1.2)
    for ax, panel in zip(axes[2:], panels, strict=True):
        draw_samples(ax, log, panel)
    shade = {"color": plt.rcParams["xtick.color"], "alpha": 0.18, "linewidth": 0, "zorder": 0}
    for ax in axes:
        for outside in ((0.0, window[0]), (window[1], max(requests.last))) if window else ():
            ax.axvspan(*outside, label="ramp and drain", **shade)
        ax.margins(x=0)
        ax.set_xlim(0, max(requests.last))  # samples begin before and end after the requests


def columns(figure: Figure, all_series: list[Series]) -> None:
    panels = tuple(panel for panel in PANELS if any(lines_of(series.log, panel) for series in all_series))
    figure.set_size_inches(min(8.0, 4.6 + 1.8 * len(all_series)), 5.6 + 1.3 * len(panels))
    heights = (3, 1, *(1 for _ in panels))
    axes = figure.subplots(
        len(heights), len(all_series), sharex="col", sharey="row", height_ratios=heights, squeeze=False
    )
    for column, series in zip(axes.T, all_series, strict=True):
        draw(tuple(column), series.log, panels)
        column[-1].set_xlabel("Time (s)")
        column[0].set_title(fill(series.label, max(12, 80 // len(all_series))))
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_ylabel("Request, in the order of sending")
    axes[1, 0].set_ylim(bottom=0)
    axes[1, 0].set_ylabel("Running")
    plotting.whole_numbers(axes[0, 0].yaxis)
    plotting.whole_numbers(axes[1, 0].yaxis, 4)
    for ax, panel in zip(axes[2:, 0], panels, strict=True):
        ax.set_ylabel(panel)
        ax.set_ylim(0, 100 if "%" in panel else None)


def main() -> None:
    args = plot_parser(__doc__, "timeline", every_load=True).parse_args()
    load_and_run = (selection.LOAD, selection.REPETITION)
    for group in curves.groups(args, selection.CONFIGURATION, pick_highest=load_and_run):
        with page(args, group) as figure:
            columns(figure, group.series)


if __name__ == "__main__":
    commandline.run(main)
