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


Z95 = 1.959964  # two-sided 95 % point of the normal distribution


def wilson_interval(met: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, from met of n; (0, 1) of none."""
    if not n:
        return 0.0, 1.0
    share, weight = met / n, Z95**2 / n
    middle = (share + weight / 2) / (1 + weight)
    half = Z95 * (share * (1 - share) / n + weight / (4 * n)) ** 0.5 / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)
