"""When requests should leave, for the open loop: absolute times, drawn beforehand from the seed.

All times are drawn at once and dealt to the load processes afterwards, so that the stream does not depend on how
many there are. The same seed gives the same pattern at every rate, only faster or slower. It is stretched so that
the counted requests come at the asked rate exactly: 150 Poisson arrivals would miss it by 8 %, as a deviation.

How long a warm-up must last is known only when the server has answered: the window opens once the first requests
have ended, so that as many requests end in it as arrive. Until then arrivals of a bridge go on at the warm-up's
rate, and then, for as long as an answer took, the gaps of the counted requests, backwards and again and again.
What ends in the window are then the arrivals of one whole turn, and a server that keeps up shows the rate that was
offered. All these arrivals are part of the warm-up; the counted requests and the gaps between them are the same
whenever the window opens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from servebench.log.schema import RunConfig

LEAST_HOLD = 100  # arrivals after the counted ones; they are repeated for as long as a counted one is under way
BRIDGE = 100  # arrivals between warm-up and counted ones, likewise repeated
STREAM = 1  # of the seed's random numbers: others draw lengths and texts
LEAST_GAP = 1e-6  # of a mean of 1; bursty gaps are so small that none would be left to stretch


class Schedule(NamedTuple):
    """Arrival times in s after the start: the first `warmup` are not counted, nor those after `counted` more.

    The bridge begins with the time of the first counted one, which then leaves later, and so do those behind it.
    """

    times_s: np.ndarray
    warmup: int
    counted: int
    bridge_s: np.ndarray
    bridge_span_s: float  # after which the bridge begins again
    turn_s: float = 0.0  # from the first counted arrival to the first behind them, where a window may be led in

    def opening_ns(self, after_ns: int) -> tuple[int, int]:
        """The first arrival of the bridge at or behind this time: (its number, its time), ns after the start."""
        bridge, span = np.rint(self.bridge_s * 1e9).astype(np.int64), round(self.bridge_span_s * 1e9)
        again, rest = divmod(max(0, after_ns - int(bridge[0])), span)
        place = int(np.searchsorted(bridge - bridge[0], rest))
        again, place = (again + 1, 0) if place == len(bridge) else (again, place)
        return again * len(bridge) + place, int(bridge[place]) + again * span

    def led_in(self, for_ns: int) -> tuple[int, int]:
        """(arrivals, their time in ns): whole turns and the last of one, which lead the window in that long."""
        if not (for_ns and self.turn_s):
            return 0, 0
        turns, rest_s = divmod(for_ns / 1e9, self.turn_s)
        counted_s = self.times_s[self.warmup : self.warmup + self.counted] - self.times_s[self.warmup]
        first = max(0, int(np.searchsorted(counted_s, self.turn_s - rest_s, side="right")) - 1)
        arrivals = int(turns) * self.counted + self.counted - first
        return arrivals, round(((turns + 1) * self.turn_s - counted_s[first]) * 1e9)

    @property
    def window_s(self) -> tuple[float, float]:
        """First counted arrival to the first behind them: so many requests, so many gaps."""
        return float(self.times_s[self.warmup]), float(self.times_s[self.warmup + self.counted])

    @property
    def hold_span_s(self) -> float:
        """After which the arrivals behind the counted ones begin again."""
        hold = self.times_s[self.warmup + self.counted - 1 :]
        return float(hold[-1] - hold[0])


def draw_schedule(run: RunConfig) -> Schedule:
    """Arrivals at run.request_rate."""
    assert run.request_rate
    n = run.warmup + run.num_requests + max(LEAST_HOLD, run.num_requests)
    rng = np.random.default_rng([run.seed, run.repetition, STREAM])
    gaps, behind = _gaps(run, n, rng), run.warmup + run.num_requests
    gaps[run.warmup + 1 : behind + 1] *= run.num_requests / gaps[run.warmup + 1 : behind + 1].sum()
    unit = np.cumsum(gaps)
    times_s, gaps = _at_rate(unit - unit[0], run), _gaps(run, BRIDGE, rng)
    turn_s = 0.0 if run.ramp_from else float(times_s[behind] - times_s[run.warmup])
    return _bridged(times_s, run, gaps / gaps.mean() / (run.ramp_from or run.request_rate), turn_s)


def _bridged(times_s: np.ndarray, run: RunConfig, gaps_s: np.ndarray, turn_s: float = 0.0) -> Schedule:
    bridge_s = times_s[run.warmup] + np.cumsum(gaps_s) - gaps_s
    return Schedule(times_s, run.warmup, run.num_requests, bridge_s, float(gaps_s.sum()), turn_s)


def _gaps(run: RunConfig, n: int, rng: np.random.Generator) -> np.ndarray:
    """n gaps of mean 1. Shape (n,)."""
    if run.arrival == "constant":
        return np.ones(n)
    shape = run.burstiness if run.arrival == "gamma" else 1.0
    return np.maximum(rng.gamma(shape, 1 / shape, n), LEAST_GAP)


def _at_rate(unit: np.ndarray, run: RunConfig) -> np.ndarray:
    """Times of a stream of rate 1 -> times at the rate, which may grow over the counted requests.

    While the rate grows from a to b within T s, a t + (b - a) t^2 / 2T requests are expected in the first t s; the
    stream of rate 1 tells how many are due, and this solves for when.
    """
    assert run.request_rate
    if run.ramp_from is None:
        return unit / run.request_rate
    a, b, counted = run.ramp_from, run.request_rate, run.num_requests
    ramp_s = 2 * counted / (a + b)
    begin = unit[run.warmup]
    due = unit - begin  # since the ramp began
    bend = (b - a) / (2 * ramp_s)
    inside = (np.sqrt(a * a + 4 * bend * np.clip(due, 0, counted)) - a) / (2 * bend)
    before, after = (begin + np.minimum(due, 0)) / a, np.maximum(due - counted, 0) / b
    return np.asarray(before + inside + after)


def trace_schedule(times_s: np.ndarray, run: RunConfig) -> Schedule:
    """A trace's own times, run.trace_speed times as fast; behind its end, and in the bridge, its mean gap goes on.

    The first run.warmup times are the warm-up's, so counted requests leave as they did, one after the other.
    """
    assert run.trace_speed
    times = (times_s - times_s[0]) / run.trace_speed
    gap = max(1e-6, float(times[-1]) / max(1, len(times) - 1))
    hold = times[-1] + gap * np.arange(1, LEAST_HOLD + 1)
    return _bridged(np.concatenate([times, hold]), run, np.full(BRIDGE, gap))
