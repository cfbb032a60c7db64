#!/usr/bin/env python3
"""Effective throughput: requests/s with the first token and every later token in time.

    python src/plot_effective_throughput.py --backend vllm fastgen --log_dir results/

DeepSpeed-FastGen's SLAs: the prompt is processed at 512 tokens/s or more, and the generation runs at r tokens/s or
more, by the moving average of the gaps between tokens (ema) or by their running sum (cum). One panel per rate.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from servebench.analysis import deadlines, latency, metrics, samples
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection, ticks
from servebench.figures.axes import LOAD, Coordinate
from servebench.figures.curves import PlotPoint, Series
from servebench.figures.page import page, plot_parser
from servebench.log.schema import Log

RATE = commandline.Number(float, 1e-3)  # tokens/s
EFFECTIVE = metrics.named("effective_throughput")
KINDS = {"ema": "moving average", "cum": "running sum"}


def effective(log: Log, kind: str, prompt_rate: float, rate: float, span: int) -> float | None:
    """Requests/s that meet both SLAs. None for non-streamed answers, which have no token times."""
    if not log.run.stream:
        return None
    average = kind == "ema"
    generation = deadlines.meets_ema(log, rate, span) if average else deadlines.meets_cumulative(log, rate)
    return deadlines.effective_throughput(log, lambda log: deadlines.meets_prompt(log, prompt_rate) & generation)


def fastest(all_series: list[Series], kind: str, prompt_rate: float, rate: float, span: int) -> str:
    """What to write where no request met the SLA: how near the fastest came to what all of them missed."""
    logs = [log for series in all_series for point in series.points for log in point.runs]
    done = [(r, ttft) for log in logs for r in samples.succeeded(log) if (ttft := latency.ttft_s(r))]
    gaps_s = [gap_s for log in logs for gap_s in slowest_gap_s(log, kind, span)]
    rates = {
        "prompt": (max((r.prompt_tokens / ttft for r, ttft in done), default=0.0), prompt_rate),
        "generation": (1 / min(gaps_s, default=math.inf), rate),
    }
    missed = [what for what, (reached, asked) in rates.items() if reached < asked] or list(rates)
    reached = {what: f"{rates[what][0]:{'.3g' if rates[what][0] < 1000 else ',.0f'}}" for what in missed}
    words = " and ".join(f"the fastest {what} ran at {number} tokens/s" for what, number in reached.items())
    return f"no request met it: {words}"


def slowest_gap_s(log: Log, kind: str, span: int) -> np.ndarray:
    """Of each request with gaps: by its average, how long a token took where it was slowest. Shape (n,)."""
    gaps = deadlines.largest_ema_s(log, span) if kind == "ema" else deadlines.slowest_start_s(log)
    return gaps[gaps > 0]


def draw(ax: Axes, all_series: list[Series], throughput: Coordinate) -> list[PlotPoint]:
    """A curve for each series; the points drawn."""
    return [
        p
        for series in all_series
        for p in plotting.draw_curve(ax, series, series.plot_points(LOAD.of, throughput), EFFECTIVE.name)
    ]


def panels(figure: Figure, all_series: list[Series], slas: Mapping[float, dict[str, Any]]) -> None:
    """One panel a generation rate, on common axes."""
    columns = min(3, len(slas))
    rows = math.ceil(len(slas) / columns)
    figure.set_size_inches(max(6.4, 2.6 * columns), 2.3 * rows + 1.6)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(slas) :]:
        ax.remove()
    reached: list[float] = []
    for ax, (rate, sla) in zip(axes.flat, slas.items(), strict=False):
        points = draw(ax, all_series, partial(effective, **sla))
        if points and not any(p.y.mean for p in points):
            plotting.write_across(ax, fastest(all_series, **sla))
        reached += [p.y.mean for p in points]
        ax.set_title(f"generation {rate:g} tokens/s")
    loads = [selection.load_size(point.log) for series in all_series for point in series.points]
    ticks.at_values(axes[0, 0].xaxis, loads)
    for ax in axes.flat[: len(slas)]:  # now that the highest of all panels is known
        plotting.start_at_zero(ax)
    if not any(reached):
        axes[0, 0].set(ylim=(0, 1), yticks=[0])
    axes[-1, columns // 2].set_xlabel(selection.load_axis(all_series[0].log))
    for ax in axes[:, 0]:
        ax.set_ylabel("Requests/s in time")


def main() -> None:
    parser = plot_parser(__doc__, "goodput", by=True)
    add = parser.add_argument
    prompt, rates = deadlines.PROMPT_RATE, deadlines.GENERATION_RATES
    add("--sla_prompt_tokens_per_sec", type=RATE, default=prompt, metavar="R", help="[512]")
    gen = "a panel each [1 2 3 4 6 8]"
    add("--sla_gen_tokens_per_sec", type=RATE, nargs="+", default=rates, metavar="R", help=gen)
    add("--ema_span", type=commandline.Number(int, 1), default=deadlines.EMA_SPAN, metavar="N", help="tokens [16]")
    args = parser.parse_args()
    sla = {"prompt_rate": args.sla_prompt_tokens_per_sec, "span": args.ema_span}
    for group in curves.groups(args, selection.CONFIGURATION):
        for kind, words in KINDS.items():
            with page(args, group, f"-{kind}") as figure:
                slas = {rate: {"kind": kind, "rate": rate, **sla} for rate in args.sla_gen_tokens_per_sec}
                panels(figure, group.series, slas)
                plotting.explain(figure.axes[0], f"SLA: prompt {sla['prompt_rate']:g} tokens/s, {words}")


if __name__ == "__main__":
    commandline.run(main)
