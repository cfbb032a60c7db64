"""How well a number is known: intervals from repeated runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Two-sided 95 % points of Student's t by degrees of freedom, 1 to 30.
T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Interval(NamedTuple):
    """A mean over runs and its 95 % interval, in the unit of its values."""

    mean: float
    low: float
    high: float
    runs: int


def t_interval(values: Sequence[float]) -> Interval | None:
    """From one value a run. None without values; of a single run the interval is not known (low, high are nan)."""
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    degrees = len(values) - 1
    t = T95[degrees - 1] if degrees <= len(T95) else 1.96 + 2.4 / degrees
    half = t * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half, len(values))
