"""The energy of one GPU over a window, from samples of its energy counter, checked with those of its power."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LONGEST_GAP_S = 0.5  # between power readings; over a longer time nobody knows what the power was
TOLERANCE = 0.1  # by which counter and power readings may differ
AVERAGED_S = 1.0  # a reading is the mean over so long on some GPUs, so that it lags behind

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
    counter, power = ((at[known := np.isfinite(values)], values[known]) for values in (counter_j, power_w))
    counted, read = _by_counter(counter, power, length), _by_power(power, length)
    if not len(counter[0]):
        verdict = f"invalid: {read}" if isinstance(read, str) else "ok: by power readings"
        return Energy(None, _number(read), verdict if len(power[0]) else "unknown")
    lag_j = AVERAGED_S * np.ptp(power[1]) if len(power[1]) else 0.0
    return Energy(_number(counted), _number(read), _verdict(counted, read, lag_j))


def _number(found: float | str) -> float | None:
    return None if isinstance(found, str) else found


def _verdict(counted: float | str, read: float | str, lag_j: float) -> str:
    """`lag_j`: by how much the readings may be wrong since they lag behind."""
    if isinstance(counted, str):
        return f"invalid: {counted}"
    if isinstance(read, str):
        return f"ok: not checked, {read}"
    if abs(counted - read) > TOLERANCE * max(counted, read) + lag_j:
        return f"invalid: the energy counter says {counted:.0f} J, the power readings {read:.0f} J"
    return "ok"


def _by_counter(counter: Samples, power: Samples, length: float) -> float | str:
    """The increase over the window; or why there is none.

    The counter is asked seconds apart, since that may take milliseconds. Between two samples it grows as the
    integral of the power readings does.
    """
    at, values = counter
    first, last = np.searchsorted(at, 0, "right") - 1, np.searchsorted(at, length, "left")
    if first < 0 or last == len(at):
        return "no samples of the energy counter around the window"
    at, values = at[first : last + 1], values[first : last + 1]
    if np.any(np.diff(values) < 0):
        return "the energy counter went back"
    if max(_longest_gap(power, *at[:2]), _longest_gap(power, *at[-2:])) > LONGEST_GAP_S:
        return "no samples around an edge of the window"
    start, end = np.interp(_integral(power, np.array([0, length])), _integral(power, at), values)
    return float(end - start)


def _by_power(power: Samples, length: float) -> float | str:
    """The integral of the readings; or why there is none."""
    gap = _longest_gap(power, 0, length)
    if gap > LONGEST_GAP_S:
        return f"no power readings for {gap:.1f} s"
    return float(np.diff(_integral(power, np.array([0, length])))[0])


def _longest_gap(power: Samples, start: float, end: float) -> float:
    at, _ = power
    return float(np.max(np.diff(np.concatenate([[start], at[(start < at) & (at < end)], [end]]))))


def _integral(power: Samples, until: np.ndarray) -> np.ndarray:
    """Of the power until each of these times, with straight lines between the readings."""
    times = np.union1d(power[0], until)
    watts = np.interp(times, *power)
    total = np.append(0, np.cumsum((watts[1:] + watts[:-1]) / 2 * np.diff(times)))
    return np.asarray(total[np.searchsorted(times, until)])
