"""How well a number is known: intervals from repeated runs; inside one run batch means, trends and warm-up.

Requests of one run are correlated, so a run is the unit of evidence. What a single run can say of itself comes
from the means of its batches, and only of means and medians.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import ceil, inf
from typing import NamedTuple

import numpy as np

# Two-sided 95 % points of Student's t by degrees of freedom, 1 to 30.
T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
# Effective samples that a percentile needs before it means something (MLPerf LoadGen, 99 % confidence).
SAMPLES_NEEDED = {50: 11, 90: 64, 95: 130, 99: 662, 99.9: 6636}

BATCHES = 20
MIN_FOR_BATCHES = 5 * BATCHES  # values that batches can be made of
T99_TREND = 2.878  # two-sided 99 % point of Student's t with BATCHES - 2 degrees of freedom
DRIFT = 0.1  # change over the series, as a share of its mean, below which a trend does not matter
CORRELATED = 1.587  # 95 % point of chi-square with BATCHES - 1 degrees of freedom, over these degrees
MIN_EFFECTIVE = 2.5 * BATCHES  # below it the batches themselves are correlated: 20 of them always seem some 20


def percentile(values: np.ndarray, q: float) -> float | None:
    return float(np.percentile(values, q)) if len(values) else None


def mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


class Interval(NamedTuple):
    """A mean over runs and its 95 % interval, in the unit of its values; low and high are nan if unknown."""

    mean: float
    low: float
    high: float
    runs: int

    @property
    def known(self) -> bool:
        return self.low == self.low

    @property
    def half(self) -> float:
        return self.high - self.mean

    @property
    def sees(self) -> float:
        """Of a ratio: the smallest difference, in %, that would have been told apart."""
        return 100 * (math.sqrt(self.high / self.low) - 1)


def majority(some: int, of: int) -> bool:
    """Are these more than half? What one run of several shows does not mark the point."""
    return 2 * some > of


def t_interval(values: Sequence[float], stationary: bool = True) -> Interval | None:
    """From one value a run. None without values; of one run, or of runs that drift, low and high are nan."""
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) == 1 or not stationary:
        return Interval(mean, float("nan"), float("nan"), len(values))
    half = t95(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half, len(values))


def t95(degrees: int) -> float:
    """Two-sided 95 % point of Student's t."""
    return T95[degrees - 1] if degrees <= len(T95) else 1.96 + 2.4 / degrees


def ratio_of_means(a: Sequence[float], b: Sequence[float]) -> Interval | None:
    """Mean of b / mean of a, of two or more independent values of each: Welch's interval of the ratio's log.

    None where the values cannot tell. `runs` is the smaller number of values.
    """
    means = [float(np.mean(values)) if len(values) > 1 else 0.0 for values in (a, b)]
    if min(means) <= 0:
        return None
    errors = [float(np.var(v, ddof=1)) / len(v) / mean**2 for v, mean in zip((a, b), means, strict=True)]
    spread = sum(errors)
    shares = [e**2 / (len(v) - 1) for e, v in zip(errors, (a, b), strict=True)]
    degrees = int(spread**2 / sum(shares)) if spread else len(a) + len(b) - 2
    half = t95(max(degrees, 1)) * spread**0.5
    ratio = means[1] / means[0]
    return Interval(ratio, ratio * float(np.exp(-half)), ratio * float(np.exp(half)), min(len(a), len(b)))


def ratio_of_pairs(a: Sequence[float], b: Sequence[float]) -> Interval | None:
    """Geometric mean of b / a, value by value: Student's interval of the logs. None where they cannot tell."""
    if len(a) < 2 or min(*a, *b) <= 0:
        return None
    logs = t_interval(np.log(np.divide(b, a)).tolist())
    return logs and Interval(float(np.exp(logs.mean)), float(np.exp(logs.low)), float(np.exp(logs.high)), len(a))


def batches(values: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean) -> np.ndarray:
    """The statistic of each of BATCHES successive batches of the same size; a rest at the end is left out."""
    size = len(values) // BATCHES
    return np.array([statistic(values[i * size : (i + 1) * size]) for i in range(BATCHES if size else 0)])


def effective_samples(values: np.ndarray) -> float:
    """How many independent values would know the mean as well as these, by the variance of their batch means.

    Between 1 and the number of values. Too few values for batches are taken for independent.
    """
    means = batches(values)
    spread = float(np.var(means, ddof=1)) if len(values) >= MIN_FOR_BATCHES else 0.0
    if not spread:
        return float(len(values))
    return float(np.clip(np.var(values, ddof=1) / spread * BATCHES, 1, len(values)))


def independent(values: np.ndarray) -> float:
    """How many independent values these are worth: as many as they are, unless their batches show otherwise.

    They stand in the order of time. Batch means of independent values spread by more than CORRELATED times what
    the values themselves let one expect in 5 % of all cases only.
    """
    effective = effective_samples(values)
    return effective if len(values) > CORRELATED * effective else float(len(values))


def enough_for_percentile(values: np.ndarray, q: float) -> bool:
    """Are these enough effective samples, in the order of sending, for this percentile?"""
    return effective_samples(values) >= SAMPLES_NEEDED[q]


def settled_at(values: np.ndarray) -> float:
    """Share of the series to cut so that the rest knows its mean best (MSER-5). Above 0.5 it never settled.

    0 where the cut moves the mean by less than DRIFT: MSER takes a change however small for the end of a warm-up.
    """
    means = values[: len(values) // 5 * 5].reshape(-1, 5).mean(axis=1)[::-1]
    n = np.arange(1, len(means) + 1)
    variance = np.cumsum(means**2) / n - (np.cumsum(means) / n) ** 2
    error = (np.maximum(variance, 0) / n)[5:]  # of the last six means on, seven, ... all
    if not len(error):
        return 0.0
    cut = len(error) - 1 - int(np.flatnonzero(error == error.min())[-1])
    moved = means[: len(means) - cut].mean() - means.mean()
    return cut / len(means) if abs(moved) > DRIFT * abs(means.mean()) else 0.0


def drifts(values: np.ndarray) -> bool:
    """Is there a trend (slope test on batch means, 1 %) that changes the series by more than DRIFT of its mean?"""
    means = batches(values)
    if len(values) < MIN_FOR_BATCHES or not means.any():
        return False
    at = np.arange(BATCHES) - (BATCHES - 1) / 2
    slope = (means * at).sum() / (at**2).sum()
    rest = means - means.mean() - slope * at
    error = np.sqrt((rest**2).sum() / (BATCHES - 2) / (at**2).sum())
    return bool(abs(slope) > T99_TREND * error and abs(slope) * BATCHES > DRIFT * abs(means.mean()))


Z95 = 1.959964  # two-sided 95 % point of the normal distribution


def wilson_interval(met: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, from met of n; (0, 1) of none."""
    if not n:
        return 0.0, 1.0
    share, weight = met / n, Z95**2 / n
    middle = (share + weight / 2) / (1 + weight)
    half = Z95 * (share * (1 - share) / n + weight / (4 * n)) ** 0.5 / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def quantile_interval(values: np.ndarray, share: float, independent: float) -> tuple[float, float]:
    """The 95 % interval of the value that this share of the requests stays below; infinite where they are too few.

    Its ends are the order statistics at which Wilson's interval of the share that lies below them, from so many
    independent values, just reaches `share`: a limit is beyond the interval exactly if Wilson's says so.
    """
    if not len(values):
        return -inf, inf
    ordered = np.sort(values)
    half = Z95 * (share * (1 - share) / independent) ** 0.5
    low, high = (ceil(len(ordered) * end - 1e-9) for end in (share - half, share + half))
    return float(ordered[low - 1]) if low > 0 else -inf, float(ordered[high - 1]) if high <= len(ordered) else inf
