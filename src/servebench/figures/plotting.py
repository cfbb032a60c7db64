"""What scripts draw on axes: curves with intervals, labels of points, entries of the legend, limits and ticks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from textwrap import fill

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from servebench.analysis import metrics, trust
from servebench.figures import labels, theme, ticks
from servebench.figures.axes import LOAD, Quantity
from servebench.figures.curves import PlotPoint, Point, Series
from servebench.figures.selection import load_name
from servebench.log.schema import Log

Name = Callable[[Log], str]
LEFT_OUT = "left out"  # gid of a legend entry that says why there is no curve
DOUBTS = {  # in a legend; trust.py has each kind
    "client-limited": "the client was the bottleneck",
    **{kind: each.what for kind, each in trust.OF_MACHINE.items()},
    "buffered": "the tokens of an answer came all at once",
    "cached": "a cache held the prompts",
    "worse answers": "answers are worse than they should be",
}


def draw_quantities(
    ax: Axes, all_series: list[Series], x: Quantity, y: Quantity, name: Name | None = load_name
) -> None:
    """A curve for each series, y over x, with labelled axes. Points are named where no axis shows their load."""
    loads = [{load_name(point.log) for point in series.points} for series in all_series if len(series.points) > 1]
    name = None if LOAD in (x, y) or (loads and all(len(of_curve) == 1 for of_curve in loads)) else name
    for series in all_series:
        points = [
            p for p in series.plot_points(x.of, y.of) if p.x.mean <= series.x_max and p.y.mean <= series.y_max
        ]
        points = sorted(points, key=lambda p: p.x.mean) if x.fields else points
        draw_curve(ax, series, points, lacking(series, x, y), name)
    if name is load_name:
        explain(ax, f"numbers: {LOAD.label(all_series[0].log).lower()}")
    label_axes(ax, all_series, x, y)


def judged(x: Quantity, y: Quantity) -> str:
    """The column to ask whether a point with these coordinates can be trusted: one of tokens, if there is one."""
    columns = [q.column for q in (y, x) if q.column]
    return next((c for c in columns if metrics.named(c).of_tokens), columns[0] if columns else "failed_share")


def lacking(series: Series, x: Quantity, y: Quantity) -> str:
    """The column that none of its points has, which is why there is no curve; else the one to ask for trust."""
    none = (q.column for q in (y, x) if q.column and not any(point.interval(q.of) for point in series.points))
    return next(none, judged(x, y))


def label_axes(ax: Axes, all_series: list[Series], x: Quantity, y: Quantity) -> None:
    """Labels, ticks at loads and settings, and zero where the axis is linear."""
    logs = [point.log for series in all_series for point in series.points]
    for axis, quantity in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.set_label_text(quantity.label(logs[0]))
        if quantity.fields and not isinstance(quantity.of, str):
            ticks.at_values(axis, [value for log in logs if (value := quantity.of(log)) is not None])
    start_at_zero(ax)


def draw_curve(
    ax: Axes, series: Series, points: list[PlotPoint], metric: str, name: Name | None = None, labelled: bool = True
) -> list[PlotPoint]:
    """A line through means over runs, with their 95 % intervals and labels. Points that decide nothing are hollow.

    `metric` is what may be in doubt (trust.py); each point is labelled with its `name`. Returns the points drawn.
    """
    if not points:
        explain_absence(ax, series, metric)
    points = without_buffered(ax, series, points, metric)
    if not points:
        return []
    ax.plot(*means(points), label=series.label, **line_style(series))  # type: ignore[arg-type]
    draw_hollow(ax, series, [p for p in points if p.point.doubt(metric)], metric)
    known = [p for p in points if p.x.known or p.y.known]
    if known:
        half = [[p.x.half for p in known], [p.y.half for p in known]]
        ax.errorbar(*means(known), xerr=half[0], yerr=half[1], fmt="none", ecolor=series.color, elinewidth=1.1)
        explain_intervals(ax)
    if labelled:
        label_points(ax, series, points, metric, name)
    return points


def line_style(series: Series) -> dict[str, str]:
    names = ("color", "marker", "fillstyle", "linestyle")
    return {name: getattr(series, name) for name in names} | {"markerfacecoloralt": plt.rcParams["axes.facecolor"]}


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


def explain_absence(ax: Axes, series: Series, metric: str) -> None:
    """Say in the legend why a curve has no point here (page() says it on the terminal too)."""
    whole = all(not log.run.stream for point in series.points for log in point.runs)
    what = metrics.named(metric)
    buffered = what.of_tokens and all(point.is_buffered(metric) for point in series.points)
    without = "whole answers, no token times" if whole and what.of_tokens else f"no {what.label} in its logs"
    explain(ax, f"{series.label}: {'buffered' if buffered else without}", gid=LEFT_OUT)


def explain_empty(ax: Axes) -> None:
    """Say in a panel without data why it is empty, as the legend does."""
    why = [str(line.get_label()) for line in ax.lines if line.get_gid() == LEFT_OUT]
    drawn = [*ax.patches, *ax.collections, *(line for line in ax.lines if len(line.get_xdata()))]  # type: ignore[arg-type]
    if why and not drawn:
        write_across(ax, "\n".join(dict.fromkeys(why)))
        ax.minorticks_off()
        ax.set(xticks=[], yticks=[])


def write_across(ax: Axes, words: str) -> None:
    """Write in the middle of a panel that has nothing to show."""
    letters = int(ax.get_position().width * ax.figure.bbox.width / ax.figure.dpi * 11)
    text = "\n".join(fill(line, letters) for line in words.splitlines())
    style = {"ha": "center", "va": "center", "fontsize": 9, "color": plt.rcParams["xtick.color"]}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, **style)


def explain_doubts(ax: Axes, points: Iterable[Point], metric: str) -> None:
    """Say in the legend why points are hollow."""
    kinds = sorted({doubt.kind for point in points if (doubt := point.doubt(metric))})
    paper = plt.rcParams["axes.facecolor"]
    words = ", ".join(DOUBTS.get(kind, kind) for kind in kinds)
    explain(ax, f"hollow: {words}", marker="o", markerfacecolor=paper)


def explain_intervals(ax: Axes) -> None:
    explain(ax, "95 % interval over runs", marker="|", markersize=11)


def start_at_zero(ax: Axes) -> None:
    """Linear axes from 0, with room beyond the largest values, also where there is but one point."""
    linear = [scale == "linear" for scale in (ax.get_xscale(), ax.get_yscale())]
    ax.update_datalim([(0, 0)], *linear)
    ax.autoscale_view()
    if linear[0]:
        ax.set_xlim(left=0)
    if linear[1]:
        ax.set_ylim(bottom=0)


def whole_numbers(axis: Axis, most: int = 9) -> None:
    """Ticks for what is counted."""
    axis.set_major_locator(MaxNLocator(most, integer=True))
