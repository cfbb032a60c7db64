#!/usr/bin/env python3
"""Which server wins where: the best one within each pair of limits on TTFT and TPOT, and what it serves there.

    python src/plot_sla_map.py --percentile 99 --log_dir results/
    python src/plot_sla_map.py --sla "ttft_p90<2s, tpot_p90<100ms"

One figure per model and pair of lengths. Numbers are requests/s a GPU (requests/s where the GPUs are not known).
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from servebench.analysis import capacity, limits, sla
from servebench.analysis.limits import Limit
from servebench.cli import commandline
from servebench.figures import curves, plotting
from servebench.figures.curves import Group
from servebench.figures.page import page, plot_parser
from servebench.figures.selection import LAYOUT, LENGTHS, LOAD_KIND, MODEL
from servebench.show.candidates import LEVEL, Candidate, Decision, Question, of_logs, surely_less
from servebench.show.tables import significant

CELLS = 40  # limits along each axis
DRAWS = 500
PLACES = (5, 15, 25, 35)  # of numbers, by cell
PALER = 0.62  # by which each further server of an engine is paler


class Map(NamedTuple):
    """Of each pair of limits on TPOT and TTFT. Shapes (CELLS, CELLS)."""

    winner: np.ndarray  # number of the candidate; -1: none keeps both
    value: np.ndarray  # requests/s (a GPU) of the winner
    close: np.ndarray  # is another one not distinguishable from it?


def axes_of(asked: tuple[Limit, ...], percentile: float) -> list[Limit]:
    """A limit on TTFT and one on TPOT, of the SLA or of this percentile, and the others of the SLA."""
    stems = {limit.metric.stem: limit for limit in reversed(asked)}
    both = [stems.get(stem) or limits.parse(f"{stem}_p{percentile}<1s")[0] for stem in ("ttft", "tpot")]
    return [*both, *(limit for limit in asked if limit not in both)]


def span_s(group: Group, limit: Limit, asked: bool) -> np.ndarray:
    """Limits from below what the fastest point reaches to above what the slowest does. Shape (CELLS,), or (0,)."""
    seen = [value for series in group.series for point in series.points if (value := sla.seen(point.runs, limit))]
    known = [value for value in seen if np.isfinite(value)]
    marks = [*known, limit.value] if asked else known
    return np.geomspace(min(marks) / 1.25, max(marks) * 1.25, CELLS) if known else np.empty(0)


def mapped(decision: Decision, spans: Sequence[np.ndarray]) -> Map:
    """`decision`: of the tightest limits, which the others are times as long as."""
    loads = [each.capacity.loads.fewer(DRAWS) for each in decision.candidates]
    gpus = [(each.gpus or 1) if decision.per_gpu else 1 for each in decision.candidates]
    level, found = LEVEL / max(1, len(loads) - 1), []
    rest = [1.0] * (len(decision.question.limits) - 2)
    for y, x in product(*(span / span[0] for span in reversed(spans))):
        reached = [capacity.capacity(of, (x, y, *rest), i) for i, of in enumerate(loads)]
        values = [each.rates / n for each, n in zip(reached, gpus, strict=True)]
        first = int(np.argmax([drawn[0] for drawn in values]))
        pairs = enumerate(zip(values, reached, strict=True))
        rivals = [i for i, (drawn, of) in pairs if not surely_less(drawn, of.open, values[first], level)]
        meets = values[first][0] > 0
        found.append((first if meets else -1, values[first][0], meets and rivals != [first]))
    return Map(*(np.array(column).reshape(CELLS, CELLS) for column in zip(*found, strict=True)))


def colors(winners: list[Candidate], group: Group) -> list[np.ndarray]:
    """That of each one's engine, paler from winner to winner of one engine."""
    own = [group.look_of(each.log).color for each in winners]
    return [1 - (1 - np.array(to_rgb(color))) * PALER ** own[:i].count(color) for i, color in enumerate(own)]


def draw(ax: Axes, of: Map, spans: Sequence[np.ndarray], decision: Decision, group: Group) -> None:
    paper, ink, grey = (plt.rcParams[name] for name in ("axes.facecolor", "text.color", "grid.color"))
    for name, span, limit in zip("xy", spans, decision.question.limits, strict=False):
        ends, words = (span[0], span[-1]), f"Limit of {limit.metric.label} {limit.statistic} (s)"
        ax.set(**{f"{name}scale": "log", f"{name}lim": ends, f"{name}label": words})
    numbers = sorted({*of.winner[of.winner >= 0]}, key=lambda number: -(of.winner == number).sum())
    winners, cells = [decision.candidates[i] for i in numbers], np.full((CELLS, CELLS, 3), to_rgb(grey))
    for number, each, color in zip(numbers, winners, colors(winners, group), strict=True):
        cells[of.winner == number] = color
        ax.plot([np.nan], [np.nan], "s", color=color, markersize=10, label=each.name)
    ax.pcolormesh(*spans, cells, shading="nearest", edgecolor="face", linewidth=0.3)
    if of.close.any():
        with plt.rc_context({"hatch.color": paper, "hatch.linewidth": 1.2}):
            ax.contourf(*spans, of.close, levels=[0.5, 1.5], colors="none", hatches=["///"])
        plotting.explain(ax, "hatched: another is not distinguishable from it", marker="$///$", markersize=11)
    halo = [patheffects.withStroke(linewidth=2.5, foreground=paper)]
    for y, x in ((y, x) for y, x in product(PLACES, PLACES) if of.winner[y, x] >= 0):
        number = ax.text(spans[0][x], spans[1][y], significant(of.value[y, x]), ha="center", va="center")
        number.set(fontsize=9, color=ink, path_effects=halo)
    plotting.explain(ax, f"numbers: requests/s{' a GPU' * decision.per_gpu}")
    if (of.winner < 0).any():
        plotting.explain(
            ax, "no server keeps both at a load that was measured", marker="s", color=grey, markersize=9
        )
    ax.grid(visible=False)


def main() -> None:
    parser = plot_parser(__doc__, "sla_map")
    add = parser.add_argument
    add(
        "--sla",
        metavar="LIMITS",
        help='marked in the map, such as "ttft_p99<2s, tpot_p99<100ms", in quotes [none]',
    )
    share = commandline.Number(float, 1, 99.99)
    add("--percentile", type=share, default=99, metavar="P", help="of TTFT and TPOT, where no --sla says it [99]")
    args = parser.parse_args()
    asked = sla.goals(args.sla, "--sla") if args.sla else ()
    wanted = axes_of(asked, args.percentile)
    for group in curves.groups(args, (MODEL, *LENGTHS, LOAD_KIND), curve_by=LAYOUT, with_failed=True):
        with page(args, group) as figure:
            ax = figure.subplots()
            spans = [span_s(group, limit, limit in asked) for limit in wanted[:2]]
            if not all(map(len, spans)):
                group.note("no answer has a TTFT and a TPOT to limit: they came whole, or failed")
                continue
            figure.set_size_inches(7.2, 5.6)
            tightest = [replace(limit, value=span[0]) for limit, span in zip(wanted, spans, strict=False)]
            decision = of_logs(group.logs, Question((*tightest, *wanted[2:])))[0]
            if decision.candidates:
                draw(ax, mapped(decision, spans), spans, decision, group)
            for name, why in decision.left_out.items():
                plotting.explain(ax, f"{name} left out: {why}", gid=plotting.LEFT_OUT)
            if all(limit in asked for limit in wanted[:2]):
                mark = {
                    "marker": "x",
                    "color": plt.rcParams["text.color"],
                    "markersize": 9,
                    "markeredgewidth": 2.5,
                }
                ax.plot(wanted[0].value, wanted[1].value, **mark)
                plotting.explain(ax, limits.joined(asked).replace(",", ", "), **mark)


if __name__ == "__main__":
    commandline.run(main)
