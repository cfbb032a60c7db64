"""Where ticks stand: at the measured loads, at round numbers, and never so close that their labels touch.

Times are written in ms on an axis that ends below 1 s, and in s on every other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.ticker import (
    AutoLocator,
    FixedLocator,
    Formatter,
    Locator,
    LogFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

SPAN = 16  # from the smallest to the largest value of an axis: from here on it is one of powers of two
EM = 0.64  # width of a digit, in font sizes
STEPS = [1, 2, 2.5, 5, 10]  # between ticks, times a power of ten
WITHIN_DECADES = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))


class Plain(Formatter):
    """Numbers as people write them: 0.5, 1000; never powers of ten."""

    def __init__(self, factor: float = 1) -> None:
        self.factor = factor

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x * self.factor:.6g}" if abs(x * self.factor) < 1e6 else f"{x * self.factor:.0f}"


class AtValues(Locator):
    """Ticks at these values where labels have room: first those that most points have, then the largest."""

    def __init__(self, on: Axis, counts: Counter[float]) -> None:
        self.on, self.values = on, sorted(counts, key=lambda value: (-counts[value], -value))

    def __call__(self) -> list[float]:
        chosen: list[float] = []
        for value in _in_view(self.on, self.values):
            if fits(self.on, [*chosen, value]):
                chosen.append(value)
        return sorted(chosen)


class Round(Locator):
    """Round numbers on a linear axis, as many as have room."""

    def __init__(self, on: Axis) -> None:
        self.on = on

    def __call__(self) -> list[float]:
        return next(found for found in self._candidates() if fits(self.on, found))

    def _candidates(self) -> Iterator[list[float]]:
        low, high = sorted(self.on.get_view_interval())
        for most in range(max(1, min(9, self.on.get_tick_space())), 0, -1):
            yield _in_view(self.on, MaxNLocator(most, steps=STEPS).tick_values(low, high))
        yield [high]


class Decades(Locator):
    """Round numbers on an axis of powers of ten: few for each power where there are many powers."""

    def __init__(self, on: Axis) -> None:
        self.on = on

    def __call__(self) -> list[float]:
        found = [ticks for ticks in self._candidates() if fits(self.on, ticks)]
        return next((ticks for ticks in found if len(ticks) > 2), max(found, key=len, default=[]))

    def _candidates(self) -> Iterator[list[float]]:
        low, high = sorted(self.on.get_view_interval())
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        for every in (3, 2):
            yield _in_view(self.on, powers[::every])
        for steps in WITHIN_DECADES:
            yield _in_view(self.on, np.outer(powers, steps).ravel())
        for most in (6, 5, 4, 3):
            yield _in_view(self.on, MaxNLocator(most, steps=STEPS).tick_values(low, high))


def at_values(axis: Axis, values: Sequence[float]) -> None:
    """Ticks at what was measured, a value for each point; an axis of powers of two where it spans many of them."""
    if min(values) > 0 and max(values) >= SPAN * min(values):
        scale = axis.axes.set_xscale if isinstance(axis, XAxis) else axis.axes.set_yscale
        scale("log", base=2)
    axis.set_major_locator(AtValues(axis, Counter(values)))
    axis.set_major_formatter(Plain())
    axis.set_minor_locator(FixedLocator(sorted(set(values))))
    axis.set_minor_formatter(NullFormatter())


def finish(ax: Axes) -> None:
    """Give the axes that chose no ticks of their own theirs; times below 1 s in ms."""
    for axis in (ax.xaxis, ax.yaxis):
        if isinstance(axis.get_major_formatter(), ScalarFormatter | LogFormatter):
            axis.set_major_formatter(Plain(1e3 if in_ms(axis) else 1))
            if in_ms(axis):
                axis.set_label_text(axis.get_label_text().replace("(s", "(ms"))
        if isinstance(axis.get_major_locator(), AutoLocator):
            axis.set_major_locator(Round(axis))
        elif isinstance(axis.get_major_locator(), LogLocator):
            axis.set_major_locator(Decades(axis))
            axis.set_minor_locator(NullLocator())


def in_ms(axis: Axis) -> bool:
    """Is it an axis of times that are written in ms?"""
    return axis.get_label_text().endswith(("(s)", "(s/token)")) and max(axis.get_view_interval()) < 1


def fits(axis: Axis, ticks: Sequence[float]) -> bool:
    """Do the labels of these ticks stand apart?"""
    middles, halves = _places(axis, ticks), _halves(axis, ticks)
    sides = sorted(zip(middles, halves, strict=True))
    return all(a + half_a < b - half_b for (a, half_a), (b, half_b) in pairwise(sides))


def _halves(axis: Axis, ticks: Sequence[float]) -> np.ndarray:
    """Half of what each label takes along the axis with its gap, in pixels. Shape (ticks,)."""
    labels = axis.get_major_formatter().format_ticks(list(ticks))
    em = float(axis.get_major_ticks(1)[0].label1.get_fontsize()) * axis.axes.figure.dpi / 72
    sizes = [(len(label) + 1) * EM if isinstance(axis, XAxis) else 1.5 for label in labels]
    return em * np.array(sizes) / 2


def _places(axis: Axis, ticks: Sequence[float]) -> np.ndarray:
    """Where they stand along the axis, in pixels. Shape (ticks,)."""
    box = axis.axes.bbox
    low, high = axis.get_transform().transform(np.array(axis.get_view_interval(), dtype=float))
    at = axis.get_transform().transform(np.array(ticks, dtype=float))
    length = box.width if isinstance(axis, XAxis) else box.height
    return np.asarray((at - low) / (high - low) * length)


def _in_view(axis: Axis, values: Sequence[float] | np.ndarray) -> list[float]:
    low, high = sorted(axis.get_view_interval())
    slack = (high - low) * 1e-9
    return [float(value) for value in values if low - slack <= value <= high + slack]
