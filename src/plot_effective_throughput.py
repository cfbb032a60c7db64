#!/usr/bin/env python3
"""Effective throughput: requests/s whose first token and whose every later token came in time.

    python src/plot_effective_throughput.py --backend vllm fastgen --log_dir results/

DeepSpeed-FastGen's SLAs: the prompt is processed at 512 tokens/s or more, and the generation runs at r tokens/s or
more, by the moving average of the gaps between tokens (ema) or by their running sum (cum). A panel a rate.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

import math
from collections.abc import Mapping
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from servebench.analysis import deadlines, metrics
from servebench.cli import commandline
from servebench.figures import curves, plotting, selection
from servebench.figures.curves import Coordinate, Series
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


def draw(ax: Axes, all_series: list[Series], throughput: Coordinate) -> None:
    for series in all_series:
        points = series.plot_points(selection.load_size, throughput)
        plotting.draw_curve(ax, series, points, EFFECTIVE.name)


def panels(figure: Figure, all_series: list[Series], throughputs: Mapping[float, Coordinate]) -> None:
    """One panel a generation rate, on common axes."""
    columns = min(3, len(throughputs))
    rows = math.ceil(len(throughputs) / columns)
    figure.set_size_inches(max(6.4, 2.6 * columns), 2.3 * rows + 1.6)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(throughputs) :]:
        ax.remove()
    for ax, (rate, throughput) in zip(axes.flat, throughputs.items(), strict=False):
        draw(ax, all_series, throughput)
        ax.set_title(f"generation {rate:g} tokens/s")
    for ax in axes.flat[: len(throughputs)]:  # now that the highest of all panels is known
        plotting.start_at_zero(ax)
        plotting.whole_numbers(ax.xaxis)
    figure.supxlabel(selection.load_axis(all_series[0].log), fontsize=10)
    figure.supylabel(EFFECTIVE.axis, fontsize=10)


def main() -> None:
    parser = plot_parser(__doc__, "goodput")
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
            throughputs = {r: partial(effective, kind=kind, rate=r, **sla) for r in args.sla_gen_tokens_per_sec}
            with page(args, group, f"-{kind}") as figure:
                panels(figure, group.series, throughputs)
                plotting.explain(figure.axes[0], f"SLA: prompt {sla['prompt_rate']:g} tokens/s, {words}")


if __name__ == "__main__":
    commandline.run(main)
