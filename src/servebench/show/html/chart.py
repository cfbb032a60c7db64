"""The chart of the first screen: latency against throughput of every layout, as SVG that the page draws itself.

report.js moves the line of a limit in it, by the scale that the chart carries.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from servebench.analysis import metrics
from servebench.figures import styles
from servebench.figures.styles import Style
from servebench.show import tables
from servebench.show.html.groups import RATE, Group
from servebench.show.html.read import Point
from servebench.show.tables import significant

Scale = Callable[[float], float]  # of a value, where it stands
WIDTH, HEIGHT = 620, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 604, 34, 250  # the axes
LATENCIES = ("ttft_p99_s", "e2e_latency_p99_s")  # the latter where answers came whole
MARKERS = {
    "o": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0",
    "s": "M-4-4h8v8h-8z",
    "^": "M0-5L5 4h-10z",
    "v": "M0 5L5-4h-10z",
    "D": "M0-5.5L5.5 0L0 5.5L-5.5 0z",
    "P": "M-2-5h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    "X": "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0z",
}
DASHES = {"-": "none", "--": "7 4", ":": "2 3", "-.": "7 3 2 3"}


class Place(NamedTuple):
    """Where a point stands: throughput and latency."""

    point: Point
    x: float
    y: float


def styles_of(groups: Sequence[Group]) -> list[Style]:
    """Hue and marker by engine, shade and line by layout."""
    seen: Counter[str] = Counter()
    found = []
    for group in groups:
        backend = group.layout.log.server.backend
        found.append(styles.variant(styles.BACKENDS.get(backend, styles.ANY_OTHER), seen[backend]))
        seen[backend] += 1
    return found


def swatch(style: Style) -> str:
    """The line and marker of a layout, beside its name."""
    drawn = _line("M1 6H33", style) + _marker(17, 6, style)
    return f'<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true">{drawn}</svg>'


def chart(groups: Sequence[Group], per_gpu: bool) -> str:
    """ "" where no point has both numbers."""
    for latency in LATENCIES:
        places = [list(_places(group, latency, per_gpu)) for group in groups]
        if any(places):
            return _drawn(groups, places, latency, per_gpu)
    return ""


def _places(group: Group, latency: str, per_gpu: bool) -> Iterator[Place]:
    for point in group.points:
        rate, seconds = point.mean(RATE), point.mean(latency)
        if rate and seconds:
            yield Place(point, rate / (group.gpus or 1) if per_gpu else rate, seconds)


def _drawn(groups: Sequence[Group], places: list[list[Place]], latency: str, per_gpu: bool) -> str:
    every = [place for of_group in places for place in of_group]
    most, low, high = max(p.x for p in every) * 1.04, min(p.y for p in every) / 1.2, max(p.y for p in every) * 1.2

    def at_x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * value / most

    def at_y(seconds: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * math.log(seconds / low) / math.log(high / low)

    curves = [
        _curve(group, of_group, style, at_x, at_y)
        for group, of_group, style in zip(groups, places, styles_of(groups), strict=True)
    ]
    rows = "".join(_row(at_y(value), f"{value * 1e3:g}") for value in log_ticks(low, high))
    feet = "".join(_foot(at_x(value), f"{value:g}") for value in ticks(most))
    name = metrics.named(latency).label
    metric = latency.removesuffix("_s").replace("e2e_latency", "e2e")
    scale = f'data-metric="{metric}" data-low="{low}" data-high="{high}" data-top="{TOP}" data-bottom="{BOTTOM}"'
    words = f"{name} p99 (ms, log scale) against requests/s{' a GPU' if per_gpu else ''}"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}" {scale}>'
        f'<text x="8" y="16">{name} p99, ms</text>'
        f'<text x="{RIGHT}" y="{HEIGHT - 6}" class="end">requests/s{" a GPU" if per_gpu else ""}</text>'
        f'{rows}{feet}<g class="limit" visibility="hidden"><path d="M{LEFT} 0H{RIGHT}"/>'
        f'<text x="{RIGHT}" y="-5" class="end"></text></g>{"".join(curves)}</svg>'
    )


def _curve(group: Group, places: list[Place], style: Style, at_x: Scale, at_y: Scale) -> str:
    spots = [(place, at_x(place.x), at_y(place.y)) for place in places]
    line = _line("M" + "L".join(f"{x:.1f} {y:.1f}" for _, x, y in spots), style) if spots else ""
    return line + "".join(_spot(group, place, x, y, style) for place, x, y in spots)


def _spot(group: Group, place: Place, x: float, y: float, style: Style) -> str:
    """A point that leads to its row; hollow if it decides nothing."""
    doubts = f" ({', '.join(place.point.marks)})" if place.point.marks else ""
    load = f"load {place.point.log.run.load.size:g}: {significant(place.x)} requests/s, {tables.latency(place.y)}"
    title = f"<title>{escape(f'{group.layout.name}, {load}{doubts}')}</title>"
    hollow = place.point.rate is None
    return f'<a href="#row-{place.point.number}">{title}{_marker(x, y, style, hollow)}</a>'


def _line(path: str, style: Style) -> str:
    return f'<path class="curve" d="{path}" stroke="{style.color}" stroke-dasharray="{DASHES[style.linestyle]}"/>'


def _marker(x: float, y: float, style: Style, hollow: bool = False) -> str:
    kind = ' class="hollow"' if hollow else f' fill="{style.color}"'
    shape = MARKERS.get(style.marker, MARKERS["o"])
    return f'<path d="{shape}" transform="translate({x:.1f} {y:.1f})" stroke="{style.color}"{kind}/>'


def _row(y: float, words: str) -> str:
    line = f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
    return f'{line}<text x="{LEFT - 8}" y="{y + 4:.1f}" class="end">{words}</text>'


def _foot(x: float, words: str) -> str:
    return f'<text x="{x:.1f}" y="{BOTTOM + 18}" class="middle">{words}</text>'


def ticks(most: float) -> list[float]:
    """Four to eight round numbers from 0."""
    step = 10 ** math.floor(math.log10(most / 4))
    step *= next(n for n in (1, 2, 5, 10) if most / (n * step) <= 8)
    return [round(i * step, 12) for i in range(int(most / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the bounds: powers of ten alone if that is enough, else more of each."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10)), tuple(n / 10 for n in range(10, 100))):
        found = [n * 10.0**power for power in powers for n in digits if low <= n * 10.0**power <= high]
        if len(found) >= 4:
            return found[:: math.ceil(len(found) / 8)]
    return found
