"""When requests should leave in an open loop: absolute times, drawn beforehand from the seed.

All times are drawn at once and dealt to the load processes afterwards, so the number of processes does not matter.
The same seed gives the same pattern at every rate, only faster or slower. It is stretched so that the measured
requests come at exactly the asked rate: 150 Poisson arrivals would miss it by a standard deviation of 8 %.

How long a warm-up must last is known only when the server has answered: the window opens once the first requests
have ended, so that as many requests end in it as arrive. Until then a gap filler sends on at the warm-up's rate.
Behind it comes a lead-in, for as long as an answer took: the last gaps of the measured requests. So one whole
period of arrivals ends in the window, and a server that keeps up shows the rate that was offered. Both belong to
the warm-up; the measured requests and the gaps between them are the same whenever the window opens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from servebench.log.config import Rate, RunConfig, Trace
from servebench.workload.seed import Stream

MIN_COOLDOWN = 100  # arrivals after the measured ones; they repeat for as long as a measured request is under way
GAP_FILLER = 100  # arrivals between warm-up and measured ones; they repeat too
MIN_GAP = 1e-6  # of a mean of 1: the smallest bursty gaps would be 0, and could not be stretched


class Schedule(NamedTuple):
    """Arrival times in s after the start: `warmup` of them, then the `measured` ones, then those of the cooldown.

    The gap filler begins at the time of the first measured arrival, which then leaves later, as do all behind it.
    """

    times_s: np.ndarray
    warmup: int
    measured: int
    gap_filler_s: np.ndarray
    gap_filler_span_s: float  # after this time the gap filler begins again
    period_s: float = 0.0  # first measured arrival to the first of the cooldown; 0: there can be no lead-in

    def opening_ns(self, after_ns: int) -> tuple[int, int]:
        """The gap filler's first arrival at or after this time: (its number, its time), ns after the start."""
        filler_ns, span = np.rint(self.gap_filler_s * 1e9).astype(np.int64), round(self.gap_filler_span_s * 1e9)
        rounds, rest = divmod(max(0, after_ns - int(filler_ns[0])), span)
        place = int(np.searchsorted(filler_ns - filler_ns[0], rest))
        if place == len(filler_ns):
            rounds, place = rounds + 1, 0
        return rounds * len(filler_ns) + place, int(filler_ns[place]) + rounds * span

    def lead_in(self, for_ns: int) -> tuple[int, int]:
        """(arrivals, their duration in ns): the end of a period, then whole ones, for at least `for_ns`."""
        if not (for_ns and self.period_s):
            return 0, 0
        periods, rest_s = divmod(for_ns / 1e9, self.period_s)
        measured_s = self.times_s[self.warmup : self.warmup + self.measured] - self.times_s[self.warmup]
        first = max(0, int(np.searchsorted(measured_s, self.period_s - rest_s, side="right")) - 1)
        arrivals = int(periods) * self.measured + self.measured - first
        return arrivals, round(((periods + 1) * self.period_s - measured_s[first]) * 1e9)

    @property
    def window_s(self) -> tuple[float, float]:
        """First measured arrival to the first of the cooldown: as many gaps as measured requests."""
        return float(self.times_s[self.warmup]), float(self.times_s[self.warmup + self.measured])

    @property
    def cooldown_span_s(self) -> float:
        """After this time the arrivals of the cooldown begin again."""
        cooldown = self.times_s[self.warmup + self.measured - 1 :]
        return float(cooldown[-1] - cooldown[0])


def draw_schedule(run: RunConfig) -> Schedule:
    """The arrivals of a run whose load is a Rate."""
    load, end = run.load, run.warmup + run.num_requests
    assert isinstance(load, Rate)
    rng = np.random.default_rng([run.seed, run.repetition, Stream.ARRIVALS])
    gaps = _gaps(load, end + max(MIN_COOLDOWN, run.num_requests), rng)
    gaps[run.warmup + 1 : end + 1] *= run.num_requests / gaps[run.warmup + 1 : end + 1].sum()
    unit = np.cumsum(gaps)
    times_s = _at_rate(load, unit - unit[0], run.warmup, run.num_requests)
    filler_gaps = _gaps(load, GAP_FILLER, rng)
    filler_gaps_s = filler_gaps / filler_gaps.mean() / (load.ramp_from or load.request_rate)
    period_s = 0.0 if load.ramp_from else float(times_s[end] - times_s[run.warmup])
    return _with_gap_filler(times_s, run, filler_gaps_s, period_s)


def trace_schedule(times_s: np.ndarray, run: RunConfig) -> Schedule:
    """A trace's own times, at the speed of a run whose load is a Trace. Gap filler and cooldown have its mean gap.

    The first run.warmup times are the warm-up's, so that the measured requests leave as they did.
    """
    assert isinstance(run.load, Trace)
    times = (times_s - times_s[0]) / run.load.trace_speed
    gap = max(1e-6, float(times[-1]) / max(1, len(times) - 1))
    cooldown = times[-1] + gap * np.arange(1, MIN_COOLDOWN + 1)
    return _with_gap_filler(np.concatenate([times, cooldown]), run, np.full(GAP_FILLER, gap))


def _with_gap_filler(times_s: np.ndarray, run: RunConfig, gaps_s: np.ndarray, period_s: float = 0.0) -> Schedule:
    filler_s = times_s[run.warmup] + np.cumsum(gaps_s) - gaps_s
    return Schedule(times_s, run.warmup, run.num_requests, filler_s, float(gaps_s.sum()), period_s)


def _gaps(load: Rate, n: int, rng: np.random.Generator) -> np.ndarray:
    """n gaps of mean 1: constant, gamma, or exponential (Poisson arrivals). Shape (n,)."""
    if load.arrival == "constant":
        return np.ones(n)
    shape = load.burstiness if load.arrival == "gamma" else 1.0  # Poisson: gamma of shape 1 is exponential
    return np.maximum(rng.gamma(shape, 1 / shape, n), MIN_GAP)


def _at_rate(load: Rate, unit: np.ndarray, warmup: int, measured: int) -> np.ndarray:
    """Turns arrival times at rate 1 into times at the load's rate, which may grow over the measured requests.

    While the rate grows from a to b within T s, a t + (b - a) t^2 / 2T requests are expected in the first t s. The
    times at rate 1 say how many are due, and this solves for t.
    """
    if load.ramp_from is None:
        return unit / load.request_rate
    a, b = load.ramp_from, load.request_rate
    ramp_s = 2 * measured / (a + b)
    begin = unit[warmup]
    due = unit - begin  # since the ramp began
    bend = (b - a) / (2 * ramp_s)
    inside = (np.sqrt(a * a + 4 * bend * np.clip(due, 0, measured)) - a) / (2 * bend)
    before, after = (begin + np.minimum(due, 0)) / a, np.maximum(due - measured, 0) / b
    return np.asarray(before + inside + after)
