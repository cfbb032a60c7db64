"""What scripts draw on axes: curves with intervals, labels of points, entries of the legend, limits and ticks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from servebench.figures import labels, theme
from servebench.figures.curves import PlotPoint, Point, Series
from servebench.figures.selection import load_name
from servebench.log.schema import Log

Name = Callable[[Log], str]
LEFT_OUT = "left out"  # gid of a legend entry that says why there is no curve


def draw_curve(
    ax: Axes, series: Series, points: list[PlotPoint], metric: str, name: Name | None = None, labelled: bool = True
) -> list[PlotPoint]:
    """A line through means over runs, with their 95 % intervals and labels. Points that decide nothing are hollow.

    `metric` is what may be in doubt (trust.py); each point is labelled with its `name`. Returns the points drawn.
    """
    if not points:
        explain_absence(ax, series)
    points = without_buffered(ax, series, points, metric)
    if not points:
        return []
    style = {"color": series.color, "marker": series.marker, "linestyle": series.linestyle}
    ax.plot(*means(points), label=series.label, **style)  # type: ignore[arg-type]
    draw_hollow(ax, series, [p for p in points if p.point.doubt(metric)], metric)
    known = [p for p in points if p.x.known or p.y.known]
    if known:
        half = [[p.x.half for p in known], [p.y.half for p in known]]
        ax.errorbar(*means(known), xerr=half[0], yerr=half[1], fmt="none", ecolor=series.color, elinewidth=1.1)
        explain_intervals(ax)
    if labelled:
        label_points(ax, series, points, metric, name)
    return points


def without_buffered(ax: Axes, series: Series, points: list[PlotPoint], metric: str) -> list[PlotPoint]:
    """Leave out points whose tokens came all at once, where times of tokens are drawn: no scale shows both."""
    loads = [load_name(p.point.log) for p in points if p.point.is_buffered(metric)]
    if loads:
        explain(ax, f"{series.label} at {', '.join(loads)}: buffered, left out", gid=LEFT_OUT)
    return [p for p in points if not p.point.is_buffered(metric)]


def draw_hollow(ax: Axes, series: Series, points: list[PlotPoint], metric: str) -> None:
    """Points that decide nothing."""
    if points:
        paper = plt.rcParams["axes.facecolor"]
        style = {"color": series.color, "marker": series.marker, "markerfacecolor": paper}
        ax.plot(*means(points), linestyle="", zorder=3, **style)
        explain_doubts(ax, [p.point for p in points], metric)


def label_points(ax: Axes, series: Series, points: list[PlotPoint], metric: str, name: Name | None = None) -> None:
    """Beside each point: its name, why it is in doubt, what share of it failed."""
    for p in points:
        doubt, overloaded = p.point.doubt(metric), p.point.overloaded
        cached = doubt.mark if doubt and doubt.kind == "cached" else ""
        named = with_failures(name(p.point.log) if name else "", p.point)
        words = ", ".join(filter(None, [named, cached, "overloaded" * overloaded]))
        if words:
            kind = labels.WARNING if p.point.failed_share or overloaded else labels.LABEL
            color = theme.readable(series.color, plt.rcParams["text.color"])
            labels.add(ax, words, (p.x.mean, p.y.mean), kind, color)


def with_failures(words: str, point: Point) -> str:
    """Words about a point, with the share of its requests that failed, if any did."""
    failed = f"{point.failed_share * 100:.2g}% failed" if point.failed_share else ""
    return ", ".join(filter(None, [words, failed]))


def means(points: list[PlotPoint]) -> tuple[list[float], list[float]]:
    """Their x and y, as plot() takes them."""
    return [p.x.mean for p in points], [p.y.mean for p in points]


def explain(ax: Axes, words: str, **style: object) -> None:
    """Add a legend entry that is not a curve but says what a mark means."""
    ax.plot([], [], label=words, **({"linestyle": "", "color": plt.rcParams["xtick.color"]} | style))


def explain_absence(ax: Axes, series: Series) -> None:
    """Say in the legend why a curve has no point here (page() says it on the terminal too)."""
    whole = all(not log.run.stream for point in series.points for log in point.runs)
    buffered = all(point.is_buffered("tpot") for point in series.points)
    why = "whole answers, no token times" if whole else "buffered" if buffered else "no such numbers in its logs"
    explain(ax, f"{series.label}: {why}", gid=LEFT_OUT)


def explain_doubts(ax: Axes, points: Iterable[Point], metric: str) -> None:
    """Say in the legend why points are hollow."""
    kinds = sorted({doubt.kind for point in points if (doubt := point.doubt(metric))})
    paper = plt.rcParams["axes.facecolor"]
    explain(ax, f"decides nothing: {', '.join(kinds)}", marker="o", markerfacecolor=paper)


def explain_intervals(ax: Axes) -> None:
    explain(ax, "95 % interval over runs", marker="|", markersize=11)


def start_at_zero(ax: Axes) -> None:
    """Both axes from 0, with room beyond the largest values, also where there is but one point."""
    ax.update_datalim([(0, 0)])
    ax.autoscale_view()
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)


def whole_numbers(axis: Axis, most: int = 9) -> None:
    """Ticks for what is counted."""
    axis.set_major_locator(MaxNLocator(most, integer=True))
