"""The energy of one GPU over a window, from samples of its energy counter, checked with those of its power."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

LONGEST_GAP_S = 0.5  # between samples; over a longer time nobody knows what the power was
TOLERANCE = 0.1  # by which counter and power readings may differ
AVERAGED_S = 1.0  # a reading is the mean over so long on some GPUs, so that it lags behind
WRAP_J = 2**32 / 1000  # a counter of 32 bits in mJ begins anew here
WRAP_SLACK_J = 100  # by which a step over the wrap may be larger than twice what the power readings tell

Samples = tuple[np.ndarray, np.ndarray]  # seconds since the window began, values; no NaN


class Energy(NamedTuple):
    """By counter and by power readings, in J; None: unknown. The verdict: "ok...", "invalid: why" or "unknown"."""

    counter_j: float | None
    readings_j: float | None
    verdict: str

    @property
    def joules(self) -> float | None:
        """The energy: by the counter; by the power readings where there is none. None unless the verdict is ok."""
        best = self.readings_j if self.counter_j is None else self.counter_j
        return best if self.verdict.startswith("ok") else None


def energy(at_ns: np.ndarray, counter_j: np.ndarray, power_w: np.ndarray, window_ns: tuple[int, int]) -> Energy:
    """Of samples in the order of time, from before the window to after it, with NaN where a reading is missing."""
    at, length = (at_ns - window_ns[0]) / 1e9, (window_ns[1] - window_ns[0]) / 1e9
    counter, power = _known(at, counter_j), _known(at, power_w)
    counted, read = _by_counter(counter, power, length), _by_power(power, length)
    lag_j = AVERAGED_S * float(np.ptp(power[1])) if len(power[1]) else 0.0
    verdict = _verdict(counted, read, lag_j) if len(counter[0]) else _without_counter(read, len(power[0]))
    return Energy(_number(counted), _number(read), verdict)


def _number(found: float | str) -> float | None:
    return None if isinstance(found, str) else found


def _known(at: np.ndarray, values: np.ndarray) -> Samples:
    known = np.isfinite(values)
    return at[known], values[known]


def _verdict(counted: float | str, read: float | str, lag_j: float) -> str:
    """`lag_j`: by how much the readings may be wrong since they lag behind."""
    if isinstance(counted, str):
        return f"invalid: {counted}"
    if isinstance(read, str):
        return f"ok: not checked, {read}"
    if abs(counted - read) > TOLERANCE * max(counted, read) + lag_j:
        return f"invalid: the energy counter says {counted:.0f} J, the power readings {read:.0f} J"
    return "ok"


def _without_counter(read: float | str, readings: int) -> str:
    if not isinstance(read, str):
        return "ok: by power readings"
    return f"invalid: {read}" if readings else "unknown"


def _by_counter(counter: Samples, power: Samples, length: float) -> float | str:
    """The increase over the window; or why there is none."""
    at, values = _part(counter, length)
    if len(at) < 2:
        return "no samples of the energy counter around the window"
    steps = np.diff(values)
    over_wrap = steps + WRAP_J
    expected = np.array([_trapezoid(power, *span) for span in pairwise(at)])
    wrapped = (steps < 0) & (over_wrap >= 0) & (over_wrap <= 2 * expected + WRAP_SLACK_J)
    if np.any((steps < 0) & ~wrapped):
        return "the energy counter went back"
    steps = np.where(wrapped, over_wrap, steps)
    before, after = _share(power, at[0], at[1], 0), 1 - _share(power, at[-2], at[-1], length)
    if np.isnan(before + after):
        return "no samples around an edge of the window"
    return float(np.sum(steps) - before * steps[0] - after * steps[-1])


def _share(power: Samples, start: float, end: float, at: float) -> float:
    """The share of the energy from start to end that is used until `at`, by the power readings meanwhile.

    Asking for the counter may take milliseconds, so its samples are seconds apart. Over a short time it grows
    evenly enough; nan where nobody knows.
    """
    whole = _trapezoid(power, start, end)
    if whole > 0 and _longest_gap(power, start, end) <= LONGEST_GAP_S:
        return _trapezoid(power, start, at) / whole
    return (at - start) / (end - start) if end - start <= LONGEST_GAP_S else float("nan")


def _longest_gap(power: Samples, start: float, end: float) -> float:
    at, _ = power
    return float(np.max(np.diff(np.concatenate([[start], at[(start < at) & (at < end)], [end]]))))


def _by_power(power: Samples, length: float) -> float | str:
    """The trapezoid of the readings; or why there is none."""
    at, _ = _part(power, length)
    if not len(at):
        return "no power readings around the whole window"
    gap = np.max(np.diff(at))
    return _trapezoid(power, 0, length) if gap <= LONGEST_GAP_S else f"no power readings for {gap:.1f} s"


def _part(samples: Samples, length: float) -> Samples:
    """The samples in the window and one on either side; none if they do not go around it."""
    at, values = samples
    first, last = np.searchsorted(at, 0, "right") - 1, np.searchsorted(at, length, "left")
    part = slice(first, last + 1) if first >= 0 and last < len(at) else slice(0)
    return at[part], values[part]


def _trapezoid(power: Samples, start: float, end: float) -> float:
    """The integral of the readings, with straight lines between them; nan without any."""
    at, values = power
    inside = (start < at) & (at < end)
    times = np.concatenate([[start], at[inside], [end]])
    watts = np.interp(times, at, values) if len(at) else np.full(len(times), np.nan)
    return float(np.sum((watts[1:] + watts[:-1]) / 2 * np.diff(times)))
