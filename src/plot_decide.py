#!/usr/bin/env python3
"""Which server to run: what each one serves within limits, a GPU or for a dollar, the best one on top.

    python src/plot_decide.py --sla "ttft_p99<2s, tpot_p99<100ms" --log_dir results/
    python src/plot_decide.py --objective cost --gpu_hour_price 2.5

One figure per model and pair of lengths, a row for each server, ranked as `servebench decide` does.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from servebench.analysis import cost, limits
from servebench.analysis.capacity import interval
from servebench.analysis.sla import goals
from servebench.cli import commandline
from servebench.errors import InputError
from servebench.figures import curves, plotting
from servebench.figures.curves import Group
from servebench.figures.page import page, plot_parser
from servebench.figures.selection import LAYOUT, LENGTHS, LOAD_KIND, MODEL
from servebench.show.candidates import OBJECTIVES, Candidate, Decision, Question, of_logs
from servebench.show.decide import sentence
from servebench.show.tables import significant

USUAL = "ttft_p90<2s, tpot_p90<100ms"
FAR = 10  # times its estimate: an interval that ends beyond is cut off
LETTERS = 36  # of a server's name, in a line


def values_of(decision: Decision) -> list[np.ndarray]:
    """What the rows show: the estimate of each candidate that keeps the limits, then its draws."""
    meets = [each for each in decision.candidates if each.meets]
    if decision.question.objective != "cost":
        return [each.value for each in meets]
    if unknown := [each.log for each in meets if each.dollars is None]:
        raise InputError(f"--objective cost: {cost.why_unknown(unknown[0])}")
    return [each.dollars for each in meets if each.dollars is not None]


def draw(ax: Axes, decision: Decision, group: Group) -> None:
    values, by_cost = values_of(decision), decision.question.objective == "cost"
    ends = [_ends(each, by_cost) for each in decision.candidates[: len(values)]]
    most = 1.08 * max(
        high if high < FAR * drawn[0] else drawn[0] for drawn, (_, high) in zip(values, ends, strict=True)
    )
    for row, (drawn, (low, high)) in enumerate(zip(values, ends, strict=True)):
        each, best = decision.candidates[row], values[0][0]
        close, look = row > 0 and not decision.beaten[row], group.look_of(each.log)
        mark: dict[str, Any] = {"color": look.color, "clip_on": False, "linestyle": ""}
        paper = {"markerfacecolor": plt.rcParams["axes.facecolor"]} if close else {}
        ax.hlines(
            row, low, min(high, most), color=look.color, linewidth=2.2, alpha=0.5 if decision.beaten[row] else 1
        )
        label = None if row else sentence(decision)
        ax.plot(drawn[0], row, look.marker, label=label, markersize=7 if row else 9, **mark, **paper)
        for at, sign in [(most, ">")] * bool(high > most) + [(0, "<")] * (by_cost and each.capacity.at_least):
            ax.plot(at, row, sign, **mark)
        least = ("at most " if by_cost else "at least ") * each.capacity.at_least
        share = f"{significant(drawn[0] / best)} {'times' if by_cost else 'of'} the best" if row else "the best"
        words = f"{least}{significant(drawn[0])}, {'not distinguishable' if close else share}"
        ax.text(1.03, row, words, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    ax.axvspan(*np.clip(ends[0], 0, most), color=plt.rcParams["grid.color"], zorder=0)
    names = [fill(each.name, LETTERS, break_on_hyphens=False) for each in decision.candidates[: len(values)]]
    ax.set(xlim=(0, most), ylim=(len(names) - 0.4, -0.6), yticks=range(len(names)), yticklabels=names)
    ax.grid(axis="y", visible=False)
    what = "$ per million output tokens" if by_cost else f"Requests/s{' a GPU' * decision.per_gpu}"
    ax.set_xlabel(fill(f"{what} within {limits.joined(decision.question.limits).replace(',', ', ')}", 60))
    lines = 1 + max(name.count("\n") for name in names)
    ax.figure.set_size_inches(8.0, 2.6 + (0.16 + 0.14 * lines) * len(names))  # type: ignore[union-attr]


def _ends(of: Candidate, by_cost: bool) -> tuple[float, float]:
    """The interval of its value, or of what its tokens cost: nothing at least, where more load may give more."""
    if not by_cost or of.dollars is None:
        return of.ends
    low, high = interval(of.dollars)
    return 0.0 if of.capacity.unbounded else low, high


def explain(ax: Axes, decision: Decision) -> None:
    """What marks mean, and who is not there."""
    plotting.explain(ax, "95 % interval; shaded: that of the best", marker="_", markersize=11)
    if decision.rivals:
        paper = plt.rcParams["axes.facecolor"]
        plotting.explain(ax, "hollow: not distinguishable from the best", marker="o", markerfacecolor=paper)
    if none := [each.name for each in decision.candidates if not each.meets]:
        plotting.explain(ax, f"no load that keeps the limits: {'; '.join(none)}")
    for name, why in decision.left_out.items():
        plotting.explain(ax, f"{name} left out: {why}", gid=plotting.LEFT_OUT)


def main() -> None:
    parser = plot_parser(__doc__, "decide")
    add = parser.add_argument
    add("--sla", default=USUAL, metavar="LIMITS", help=f'what a load has to keep, in quotes ["{USUAL}"]')
    add("--objective", choices=OBJECTIVES[:2], default=OBJECTIVES[0], help=f"what is best [{OBJECTIVES[0]}]")
    args = parser.parse_args()
    question = Question(goals(args.sla, "--sla"), args.objective)
    suffix = "" if args.objective == OBJECTIVES[0] else f"-{args.objective}"
    for group in curves.groups(args, (MODEL, *LENGTHS, LOAD_KIND), curve_by=LAYOUT, with_failed=True):
        decision = of_logs(group.logs, question)[0]
        with page(args, group, suffix) as figure:
            ax = figure.subplots()
            if decision.best:
                draw(ax, decision, group)
            else:
                group.note(sentence(decision))
            explain(ax, decision)


if __name__ == "__main__":
    commandline.run(main)
