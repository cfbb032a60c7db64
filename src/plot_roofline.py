#!/usr/bin/env python3
"""Roofline: output tokens/s a GPU against requests in flight, below the most that its memory and arithmetic allow.

    python src/plot_roofline.py --backend vllm sglang --log_dir results/

One figure per model and pair of lengths. Servers whose GPUs or parameters are not known are named and left out.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

import sys

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from msgspec.structs import replace

from servebench.analysis import roofline, throughput
from servebench.analysis.roofline import Roofline
from servebench.cli import commandline
from servebench.figures import curves, plotting
from servebench.figures.axes import quantity
from servebench.figures.curves import Series
from servebench.figures.page import page, plot_parser
from servebench.figures.selection import LAYOUT, LENGTHS, LOAD_KIND, MODEL
from servebench.log.schema import Log

PER_GPU = quantity("throughput_per_gpu")


def in_flight(log: Log) -> float | None:
    """Requests on one replica."""
    found = throughput.effective_concurrency(log)
    return found and found / log.server.num_replicas


def draw(ax: Axes, known: list[tuple[Series, Roofline]]) -> None:
    points = [[p for p in series.plot_points(in_flight, PER_GPU.of) if p.y.mean > 0] for series, _ in known]
    ends = [p.x.mean for own in points for p in own] or [1.0]
    b = np.geomspace(min(ends) / 1.3, 2 * max(ends), 200)
    for (series, limit), own in zip(known, points, strict=True):
        best = max(own, key=lambda p: p.y.mean, default=None)
        share = best and f", {best.y.mean / limit.tokens_per_s(np.array(best.x.mean)):.0%}"
        plotting.draw_curve(ax, replace(series, label=series.label + (share or "")), own, PER_GPU.column)
    limits = dict.fromkeys(limit for _, limit in known)
    allowed = np.array([limit.tokens_per_s(b) for limit in limits])
    for number, (limit, most) in enumerate(zip(limits, allowed, strict=True)):
        line = {"color": plt.rcParams["text.color"], "linestyle": ("-", "--", ":", "-.")[number % 4]}
        ax.plot(b, most, linewidth=1.4, label=f"limit of {limit.gpu}, {limit.form or '16-bit'} weights", **line)
        plotting.explain(ax, words(limit, b))
    plotting.explain(ax, "%: of the limit, at the point with the most tokens/s")
    ax.fill_between(b, allowed.max(axis=0), 2 * allowed.max(), color=plt.rcParams["grid.color"], zorder=0)
    ax.set(xscale="log", yscale="log", xlim=(b[0], b[-1]), ylim=(None, 2 * allowed.max()))
    ax.set(xlabel="Requests in flight on a replica", ylabel="Output tokens/s a GPU")
    ax.figure.set_size_inches(7.2, 4.8 + 0.2 * len(known))  # type: ignore[union-attr]


def words(limit: Roofline, b: np.ndarray) -> str:
    """What a limit is made of, and what sets it where."""
    memory_s, arithmetic_s = limit.step_s(b)
    by_memory = int((memory_s >= arithmetic_s).sum())
    knee = f"memory up to {b[by_memory - 1]:.3g} requests, beyond by arithmetic" if by_memory else "arithmetic"
    kv = (
        "KV cache unknown, left out"
        if limit.kv_bytes is None
        else f"KV cache {limit.kv_bytes / 1e6:.3g} MB a request"
    )
    return (
        f"{limit.gpu}: {limit.bandwidth / 1e9:.0f} GB/s, {limit.operations / 1e12:.0f} TFLOP/s; "
        f"{limit.parameters / 1e9:.3g}B parameters of {limit.weight_bytes:g} bytes "
        f"({limit.form or 'assumed'}), {kv}; limited by {'memory' if by_memory == len(b) else knee}"
    )


def main() -> None:
    args = plot_parser(__doc__, "roofline").parse_args()
    drawn, whys = False, []
    for group in curves.groups(args, (MODEL, *LENGTHS, LOAD_KIND), curve_by=LAYOUT):
        found = [(series, roofline.of_log(series.log)) for series in group.series]
        known = [(series, limit) for series, limit in found if isinstance(limit, Roofline)]
        without = [f"{series.label}: no limit, {why}" for series, why in found if isinstance(why, str)]
        whys += without
        if not known:
            continue
        drawn = True
        with page(args, group) as figure:
            draw(ax := figure.subplots(), known)
            for why in without:
                plotting.explain(ax, why, gid=plotting.LEFT_OUT)
    if not drawn:
        print(f"nothing to draw: {'; '.join(dict.fromkeys(whys))}", file=sys.stderr)


if __name__ == "__main__":
    commandline.run(main)
