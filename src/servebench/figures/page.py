"""What the plot scripts share: their options, the curves of each figure, one look, saving.

A script says what the logs of one of its figures have in common, and draws:

    for group in curves.groups(args, selection.CONFIGURATION):
        with figures.page(args, group) as figure:
            draw(figure.subplots(), group.series)

A figure is drawn from logs alone; this module imports no engine, no server and no load client.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from servebench.cli.commandline import Parser, number
from servebench.errors import InputError
from servebench.figures import labels, selection, theme
from servebench.figures.curves import Group, OfLog, Placed, Series
from servebench.figures.selection import Point
from servebench.log.schema import Log

Name = Callable[[Log], str]
LEFT_OUT = "left out"  # marks the entry of a legend that says why there is no curve
LETTERS = 12  # of a title in an inch; those of a legend are smaller, and stand behind their line
HOW: dict[str, Any] = {
    "png": {"pil_kwargs": {"compress_level": 1}},  # half the time for a third more bytes
    "svg": {"metadata": dict.fromkeys(("Date", "Creator", "Format", "Type"))},  # the same figure is the same file
    "pdf": {},
}


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """The options that every plot script has; figures go to plots/NAME."""
    result = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    selection.add_options(result)
    add = result.add_argument
    out = Path("plots") / name
    add("--out_dir", type=Path, default=out, metavar="DIR", help="where figures go [%(default)s]")
    add("--format", nargs="+", choices=["png", "svg", "pdf"], default=["png"], help="kinds of files [png]")
    follow = "colours of the page; auto: an SVG that follows its reader's choice [light]"
    add("--theme", choices=theme.THEMES, default="light", help=follow)
    add("--title", metavar="TEXT", help="over the figure [what its logs have in common]")
    add("--max_figures", type=number(int, 1), metavar="N", help="draw no more than the first N [all]")
    return result


# Drawing.


def draw_curve(
    ax: Axes, series: Series, x: OfLog, y: OfLog, metric: str, name: Name | None = None
) -> list[Placed]:
    """A curve joined in the order of load, its points marked. Returns them. `metric`: what may be in doubt."""
    placed = series.placed(x, y)
    draw_placed(ax, placed, series, metric)
    mark(ax, placed, series, metric, name)
    return placed


def draw_placed(ax: Axes, placed: list[Placed], series: Series, metric: str) -> None:
    """A line through means over runs, with their 95 % intervals; hollow points that decide nothing (trust.py)."""
    if not placed:
        leave_out(ax, series)
    placed = told_apart(ax, placed, series, metric)
    if not placed:
        return
    look = {"color": series.color, "marker": series.marker}
    ax.plot(*middles(placed), label=series.label, linestyle=series.linestyle, **look)  # type: ignore[arg-type]
    draw_hollow(ax, [p for p in placed if p.point.doubt(metric)], series, metric)
    known = [p for p in placed if p.x.known or p.y.known]
    if known:
        half = [[p.x.half for p in known], [p.y.half for p in known]]
        ax.errorbar(*middles(known), xerr=half[0], yerr=half[1], fmt="none", ecolor=series.color, elinewidth=1.1)
        explain_intervals(ax)


def told_apart(ax: Axes, placed: list[Placed], series: Series, metric: str) -> list[Placed]:
    """Without points whose tokens came all at once, where times of tokens are drawn: no scale shows both."""
    gathered = [p for p in placed if p.point.gathered(metric)]
    if gathered:
        loads = ", ".join(f"{selection.load_of(p.point.log):g}" for p in gathered)
        explain(ax, f"{series.label} at {loads}: buffered, left out", gid=LEFT_OUT)
    return [p for p in placed if p not in gathered]


def draw_hollow(ax: Axes, placed: list[Placed], series: Series, metric: str) -> None:
    """Points that decide nothing."""
    look = {"color": series.color, "marker": series.marker, "markerfacecolor": plt.rcParams["axes.facecolor"]}
    if placed:
        ax.plot(*middles(placed), linestyle="", zorder=3, **look)
        explain_doubts(ax, [p.point for p in placed], metric)


def explain_doubts(ax: Axes, points: Iterable[Point], metric: str) -> None:
    """What is hollow, and why."""
    kinds = sorted({doubt.kind for point in points if (doubt := point.doubt(metric))})
    look = {"marker": "o", "markerfacecolor": plt.rcParams["axes.facecolor"]}
    explain(ax, f"decides nothing: {', '.join(kinds)}", **look)


def leave_out(ax: Axes, series: Series) -> None:
    """Say in the legend that a curve has no point here (page() says it on the terminal too)."""
    whole = all(not log.run.stream for point in series.points for log in point.runs)
    gathered = all(point.gathered("tpot") for point in series.points)
    why = "whole answers, no token times" if whole else "buffered" if gathered else "no such numbers in its logs"
    explain(ax, f"{series.label}: {why}", gid=LEFT_OUT)


def middles(placed: list[Placed]) -> tuple[list[float], list[float]]:
    """Their x and y, as plot() takes them."""
    return [p.x.mean for p in placed], [p.y.mean for p in placed]


def mark(ax: Axes, placed: list[Placed], series: Series, metric: str, name: Name | None = None) -> None:
    """Write its name beside each point, in its colour; why it is in doubt; what share of it failed."""
    for p in placed:
        if p.point.gathered(metric):
            continue  # it is not drawn
        doubt = p.point.doubt(metric)
        more = [doubt.mark if doubt and doubt.kind == "cached" else "", "overloaded" * p.point.overloaded]
        words = ", ".join(filter(None, [with_failures(name(p.point.log) if name else "", p.point), *more]))
        if words:
            kind = labels.WARNING if p.point.failed_share or p.point.overloaded else labels.LABEL
            color = theme.readable(series.color, plt.rcParams["text.color"])
            labels.add(ax, words, (p.x.mean, p.y.mean), kind, color)


def with_failures(words: str, point: Point) -> str:
    """Words about a point, with the share of its requests that failed, where some did."""
    failed = f"{point.failed_share * 100:.2g}% failed" if point.failed_share else ""
    return ", ".join(filter(None, [words, failed]))


def explain(ax: Axes, words: str, **look: object) -> None:
    """An entry of the legend that is no curve: what a mark means."""
    ax.plot([], [], label=words, **({"linestyle": "", "color": plt.rcParams["xtick.color"]} | look))


def explain_intervals(ax: Axes) -> None:
    explain(ax, "95 % interval over runs", marker="|", markersize=11)


def from_zero(ax: Axes) -> None:
    """Both axes from 0, and with room behind the last point and above the highest, also where there is but one."""
    ax.update_datalim([(0, 0)])
    ax.autoscale_view()
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)


def counted_from_zero(ax: Axes) -> None:
    """Axes of a load or another count: from 0, ticks at whole numbers."""
    from_zero(ax)
    whole_numbers(ax.xaxis)


def whole_numbers(axis: Axis, most: int = 9) -> None:
    """Ticks for what is counted."""
    axis.set_major_locator(MaxNLocator(most, integer=True))


@contextmanager
def page(args: argparse.Namespace, group: Group, suffix: str = "") -> Iterator[Figure]:
    """A figure to draw on; it is then finished and saved. One on which nothing was drawn is named instead."""
    if args.theme == "auto" and set(args.format) != {"svg"}:
        raise InputError("--theme auto is for files that can follow their reader; add --format svg")
    with theme.style(args.theme):
        figure = plt.figure()
        yield figure
        if not all(map(_explains, _handles(figure))):
            finish(figure, args.title or group.title)
            save(figure, args, group.name + suffix, [series.color for series in group.series])
        else:
            print(f"nothing to draw: {group.name}{suffix}", file=sys.stderr)
        _say_left_out(figure, group.name + suffix)
        plt.close(figure)


def _say_left_out(figure: Figure, name: str) -> None:
    lines = [line for ax in figure.axes for line in ax.lines if line.get_gid() == LEFT_OUT]
    for words in dict.fromkeys(str(line.get_label()) for line in lines):
        print(f"{name}: {words}", file=sys.stderr)


def finish(figure: Figure, title: str) -> None:
    """What every figure has: title, a legend that covers nothing, labels in free places."""
    _head(figure, title, _handles(figure))
    lay_out(figure)
    labelled = [ax for ax in figure.axes if labels.of(ax)]
    for ax in labelled:
        labels.place(ax)
    if labelled:
        lay_out(figure)  # a label that moved or went away may leave room
    figure.set_layout_engine("none")  # it is laid out; saving would draw everything once more to find that


def lay_out(figure: Figure) -> None:
    """Give the axes their places, which drawing would do too, at twice the time."""
    engine = figure.get_layout_engine()
    assert engine is not None, "the style sheets (theme.py) choose one"
    engine.execute(figure)


def _handles(figure: Figure) -> list[Artist]:
    """What the axes name, once each: curves first, then what explains them (and has no data)."""
    found: dict[str, Artist] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return sorted(found.values(), key=_explains)


def _explains(handle: Artist) -> bool:
    return isinstance(handle, Line2D) and not len(handle.get_xdata())  # type: ignore[arg-type]


def _head(figure: Figure, title: str, handles: list[Artist]) -> None:
    """Title and legend above the axes (a legend keeps its place free, a title beside one does not)."""
    most = int(LETTERS * figure.get_figwidth())
    title = "\n".join(fill(line, most, break_on_hyphens=False) for line in title.splitlines())
    look: dict[str, Any] = {"title": title, "title_fontsize": 11, "alignment": "left", "handlelength": 3.2}
    for columns in range(min(4, len(handles)), 0, -1):
        by_rows = [handle for column in range(columns) for handle in handles[column::columns]]
        names = [fill(str(handle.get_label()), most, break_on_hyphens=False) for handle in by_rows]
        legend = figure.legend(by_rows, names, ncols=columns, loc="outside upper left", **look)
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            return
        legend.remove()


def save(figure: Figure, args: argparse.Namespace, name: str, colors: Iterable[str]) -> None:
    """Write the figure and say where."""
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for kind in args.format:
        path = args.out_dir / f"{name}.{kind}"
        figure.savefig(path, **HOW[kind])
        if args.theme == "auto":
            path.write_text(theme.follow_reader(path.read_text(), colors))
        print(path)
