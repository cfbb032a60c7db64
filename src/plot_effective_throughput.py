#!/usr/bin/env python3
"""Effective throughput: requests/s whose first token and whose every later token came in time.

    python src/plot_effective_throughput.py --backend vllm fastgen --log_dir results/

DeepSpeed-FastGen's SLAs: the prompt is processed at 512 tokens/s or more, and the generation runs at r tokens/s or
more, by the moving average of the gaps between tokens (ema) or by their running sum (cum). A panel a rate.
"""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from servebench import figures, sla
from servebench.figures import Series
from servebench.records import Log


def sla_of(kind: str, prompt_rate: float, rate: float, span: int) -> sla.Met:
    """Prompt and generation SLA together."""

    def met(log: Log) -> np.ndarray:
        generation = sla.meets_ema(log, rate, span) if kind == "ema" else sla.meets_cumulative(log, rate)
        return sla.meets_prompt(log, prompt_rate) & generation

    return met


def draw(ax: Axes, all_series: list[Series], met: sla.Met) -> None:
    """Answers that came whole (not streamed) say nothing of tokens: such points are left out."""
    for series in all_series:
        figures.draw_curve(
            ax, series, clients, lambda log: sla.effective_throughput(log, met) if log.run.stream else None
        )
    ax.set_ylim(bottom=0)
    ax.set_xlim(left=0)
    figures.whole_numbers(ax.xaxis)


def clients(log: Log) -> float:
    return float(log.run.num_clients)


def main() -> None:
    parser = figures.parser(__doc__, "goodtput")
    parser.add_argument(
        "--sla_prompt_tokens_per_sec", type=float, default=sla.PROMPT_RATE, metavar="R", help="[512]"
    )
    parser.add_argument("--sla_gen_tokens_per_sec", type=float, nargs="+", default=sla.GENERATION_RATES,
                        metavar="R", help="a panel each [1 2 3 4 6 8]")  # fmt: skip
    parser.add_argument("--ema_span", type=int, default=sla.EMA_SPAN, metavar="N", help="tokens [16]")
    args = parser.parse_args()
    figures.style()
    folders = figures.chosen(args)
    every_log = [log for logs in folders.values() for log in logs]
    for key in figures.group(every_log, figures.configuration):
        all_series = figures.curves(folders, lambda log, key=key: figures.configuration(log) == key)
        for kind in ("ema", "cum"):
            figure = panels(
                all_series, kind, args.sla_gen_tokens_per_sec, args.sla_prompt_tokens_per_sec, args.ema_span
            )
            figure.suptitle(
                f"{figures.figure_title(key)}\nSLA: prompt {args.sla_prompt_tokens_per_sec:g} tokens/s, "
                f"generation as in each panel ({'moving average' if kind == 'ema' else 'running sum'})",
                fontsize=10,
            )
            figures.note_hollow(figure, all_series)
            figures.save(figure, args, f"{figures.figure_name(key)}-{kind}")


def panels(all_series: list[Series], kind: str, rates: list[float], prompt_rate: float, span: int) -> plt.Figure:
    """One panel a generation rate, on common axes."""
    columns = min(3, len(rates))
    rows = math.ceil(len(rates) / columns)
    size = (max(6.4, 3.2 * columns), 2.6 * rows + 1.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(rates) :]:
        ax.remove()
    for ax, rate in zip(axes.flat, rates, strict=False):
        draw(ax, all_series, sla_of(kind, prompt_rate, rate, span))
        ax.set_title(f"{rate:g} tokens/s")
    figure.supxlabel("Clients", fontsize=11)
    figure.supylabel("Effective throughput (requests/s)", fontsize=11)
    axes.flat[0].legend()
    return figure


if __name__ == "__main__":
    main()
