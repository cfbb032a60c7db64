"""Labels of points that cover nothing: each goes to a free side of its point, or is hidden where no side is free.

Crowded ends of curves are why: at saturation five client counts lie within a few pixels.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.text import Annotation

LABEL, WARNING = "label", "warning"  # a warning is moved, but never hidden
SIDES = [(1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)]
DISTANCES_PT = {LABEL: (4.0, 9.0), WARNING: (4.0, 9.0, 24.0)}  # from a point to its label's nearest edge
COVERED, TOUCHING = 1, 100  # cost of a piece of line or a marker below a label; of another label, or of the edge
TOO_MUCH = 4  # a label that costs so much is hidden


def add(ax: Axes, text: str, at: tuple[float, float], kind: str = LABEL, color: str | None = None) -> None:
    """Write beside a point; `place` finds the side when everything is drawn."""
    style = {"ha": "center", "va": "center", "fontsize": 8, "gid": kind} | ({"color": color} if color else {})
    ax.annotate(text, at, (0, 9), textcoords="offset points", **style)  # type: ignore[arg-type]


def of(ax: Axes) -> list[Annotation]:
    """The labels of the axes."""
    return [text for text in ax.texts if isinstance(text, Annotation) and text.get_gid()]


def place(ax: Axes) -> None:
    """Move every label of the axes; warnings choose first, then the last point of a curve before the first."""
    drawn, placed = _drawn(ax), np.empty((0, 4))
    for label in sorted(reversed(of(ax)), key=lambda label: label.get_gid() != WARNING):
        boxes = _boxes(ax, label)
        costs = {
            offset: _cost(ax, box, drawn, placed) + number // len(SIDES)  # the nearer is the better
            for number, (offset, box) in enumerate(boxes.items())
        }
        best = min(costs, key=lambda offset: costs[offset])
        if costs[best] >= TOO_MUCH and label.get_gid() != WARNING:
            label.set_visible(False)
        else:
            label.xyann = best
            placed = np.vstack([placed, boxes[best]])


def _boxes(ax: Axes, label: Annotation) -> dict[tuple[float, float], np.ndarray]:
    """Where a label could lie, the nearest first: its middle from its point in pt -> x0, y0, x1, y1 in pixels."""
    pixels, extent = ax.figure.dpi / 72, label.get_window_extent()
    point, half = ax.transData.transform(label.xy), np.array([extent.width, extent.height]) / 2
    boxes = {}
    for far, (x, y) in product(DISTANCES_PT[str(label.get_gid())], SIDES):
        offset = (x, y) * (half / pixels + np.array([far, far * (0.6 if x else 1)]))
        boxes[float(offset[0]), float(offset[1])] = _around(point + offset * pixels, half)
    return boxes


def _cost(ax: Axes, box: np.ndarray, drawn: np.ndarray, placed: np.ndarray) -> int:
    x0, y0, x1, y1 = ax.bbox.extents
    outside = bool(box[0] < x0 or box[1] < y0 or box[2] > x1 + 4 or box[3] > y1 + 4)
    return COVERED * _overlaps(box, drawn) + TOUCHING * (_overlaps(box, placed) + outside)


def _overlaps(box: np.ndarray, others: np.ndarray) -> int:
    apart = (others[:, :2] >= box[2:]).any(axis=1) | (others[:, 2:] <= box[:2]).any(axis=1)
    return int((~apart).sum())


def _drawn(ax: Axes) -> np.ndarray:
    """Lines, markers and error bars as small boxes of pixels. Shape (boxes, 4)."""
    paths = [np.asarray(line.get_xydata(), dtype=float) for line in ax.lines]
    bars = [bar for found in ax.collections if isinstance(found, LineCollection) for bar in found.get_segments()]
    boxes = [np.empty((0, 4))]
    for path in [*paths, *bars]:
        pixels = ax.transData.transform(path[np.isfinite(path).all(axis=1)]) if len(path) else np.empty((0, 2))
        boxes += [_around(pixels, 4.0), *(_around(_along(a, b), 1.5) for a, b in pairwise(pixels))]
    return np.vstack(boxes)


def _along(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Points every 4 pixels from a to b. Shape (n, 2)."""
    return np.linspace(a, b, max(2, int(np.hypot(*(b - a)) / 4)))


def _around(middles: np.ndarray, half: float | np.ndarray) -> np.ndarray:
    """Boxes with these middles. Shape (..., 4)."""
    return np.concatenate([middles - half, middles + half], axis=-1)
