"""What a server can serve within limits, and how well that is known, from the loads that were measured.

The capacity is the requests/s at the highest load that keeps every limit, or at a lower one that gives far
more (SLOWS). Between the highest measured load that keeps them and the lowest that does not, log(percentile /
limit) is taken to rise over log(load), the later the steeper (CURVE), and the load where it crosses 0 is
rounded down to whole clients. So do latencies over clients: from those in a straight line to those of a server
that is full from where they begin to rise. Beyond the highest load nothing is assumed: there a server reaches
"at least" that much, if it still gains from more load.

How well it is known comes from DRAWS draws of everything that could be otherwise:

    a percentile    how many requests lie above the true one is binomial, of as many as these are worth
                    (stats.independent). Where none does, it is beyond the largest value: by an exponential step in
                    a tail as heavy as that of the largest ones, as far as these tell (a gamma distribution)
    more load       makes nothing easier: percentiles are evened out so that they only rise
    requests/s      by the spread of E2E latencies in a closed loop; in an open one it is what was offered
    repeated runs   by what runs of one point differ more than that, over all points of all servers together;
                    before there are any, by GUESSED
    the curve       between two loads it may bend: the share of the way is raised to a power (lognormal, CURVE)

These were set by benchmarks/deciding.py; docs/intervals.md says how often the intervals hold.

A load at which the server ended, more requests failed than may, or requests in flight kept growing is taken to
exceed the limits. The draws come from a fixed seed, so that the same logs always give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import log, sqrt
from typing import NamedTuple

import numpy as np

from servebench.analysis import latency, samples, sla, stationarity, stats, throughput, trust
from servebench.analysis.cache import derived
from servebench.analysis.limits import Limit
from servebench.log.config import Rate
from servebench.log.schema import Log

Runs = list[Log]  # of one point
DRAWS = 4000
CURVE = (-0.35, 0.5)  # mean and deviation of the log of the power
FURTHER = 1.2  # times the rate of the highest load, in draws in which it keeps limits that it seems to exceed
GROWS = 1.05  # a server gains from more load if the highest one gives more than this times the one below it
SLOWS = 1.2  # more load slows a server down if a lower one gives this many times the highest within the limits
FAR_WITHIN = -1.0  # log of a value over its limit
EXCEEDED = log(10)  # of a load that a server cannot sustain
WRONG = 1e4  # likewise, of one whose answers are worth nothing: so are those of any load between
WORST_S = 1e6  # what a failed request counts as
TAIL = 0.2  # of the values, that tell how heavy their tail is
FEWEST = 8  # likewise


class Chance(NamedTuple):
    """Where draws come from, and how many are wanted."""

    rng: np.random.Generator
    draws: int


@dataclass(frozen=True)
class Noise:
    """What repeated runs of a point differ, beyond what each run says of itself: a variance of logs."""

    variance: float = 0.0
    degrees: int = 1  # of freedom

    def drawn(self, chance: Chance, runs: int) -> np.ndarray:
        """Of the mean of so many runs. Shape (draws,)."""
        return np.asarray(chance.rng.standard_t(self.degrees, chance.draws) * sqrt(self.variance / runs))


GUESSED = Noise(0.02**2, 3)  # before repeated runs tell


@dataclass(frozen=True)
class Noises:
    """Of requests/s, and of each limit's value."""

    rate: Noise = Noise()
    limits: tuple[Noise, ...] = ()


@dataclass(frozen=True)
class Loads:
    """The loads of a server that may decide, the lowest first. Of each the estimate, then draws."""

    points: Sequence[Runs]
    sizes: np.ndarray  # (loads,)
    rates: np.ndarray  # requests/s (loads, 1 + draws)
    excess: np.ndarray  # log of each value over its limit (limits, loads, 1 + draws)
    of_time: np.ndarray  # is it a limit of a time? (limits,)
    weights: np.ndarray  # requests that succeeded, 1 at least (loads,)
    noise: Noise  # of mean E2E latencies
    settled: np.ndarray  # does it count within the limits, too? (loads,)

    @property
    def open_loop(self) -> bool:
        return self.points[0][0].run.open_loop

    def fewer(self, draws: int) -> Loads:
        """With the first of the draws alone, where many limits are asked about."""
        kept = {name: getattr(self, name)[..., : 1 + draws] for name in ("rates", "excess")}
        return replace(self, **kept)

    def within(self, times: float | Sequence[float]) -> Loads:
        """With the limits of times multiplied, without the loads that keep them but had not settled."""
        shifted = self.excess - (np.log(times) * self.of_time)[:, None, None]
        excess = np.where(np.isin(self.excess, (EXCEEDED, WRONG)), self.excess, shifted)
        counts = self.settled | (excess[:, :, 0] > 0).any(axis=0)
        rows = np.flatnonzero(counts) if counts.any() else np.array([0])
        per_load = {name: getattr(self, name)[rows] for name in ("sizes", "rates", "weights", "settled")}
        return replace(self, points=[self.points[i] for i in rows], excess=excess[:, rows], **per_load)

    def at(self, size: float, of_log: Callable[[Log], float | None]) -> float | None:
        """A number of the server at a load, in a straight line between those that were measured; None: unknown."""
        low = max(0, int(np.searchsorted(self.sizes, size, side="right")) - 1)
        high = low if self.sizes[low] == size else min(low + 1, len(self.sizes) - 1)
        ends = [value for i in (low, high) if (value := _mean(map(of_log, self.points[i]))) is not None]
        return float(np.interp(size, self.sizes[[low, high]], ends)) if len(ends) == 2 else None


@dataclass(frozen=True)
class Capacity:
    """Of a server within limits: the estimate, then draws. Shapes (1 + draws,)."""

    loads: Loads
    sizes: np.ndarray  # the highest load; 0 where none keeps the limits
    rates: np.ndarray  # requests/s there
    open: np.ndarray  # no load exceeds the limits, and more load may give more
    below: float | None  # the highest measured load that keeps the limits
    above: float | None  # the lowest that does not

    @property
    def size(self) -> float:
        return float(self.sizes[0])

    @property
    def rate(self) -> float:
        return float(self.rates[0])

    @property
    def unbounded(self) -> bool:
        """Has what it may serve no upper end?"""
        return bool(self.open[1:].mean() > 0.025)

    @property
    def at_least(self) -> bool:
        """Does the highest measured load keep the limits, and might a higher one serve more?"""
        return bool(self.open[0])

    def prompt_at(self, rate: float | None) -> float:
        """The lowest measured load that serves this rate, or of all."""
        return float(self.loads.sizes[self._reaches(rate)])

    def promptness(self, rate: float | None) -> np.ndarray:
        """1 / mean E2E latency at that load. 0 where that is beyond the capacity."""
        beyond = self.rates < rate if rate else self.sizes < self.loads.sizes[0]
        chance = Chance(np.random.default_rng(0), len(self.rates) - 1)
        took_s = _means(self.loads.points[self._reaches(rate)], samples.mean_e2e_s, self.loads.noise, chance)
        return np.where(beyond, 0.0, 1 / took_s)

    def _reaches(self, rate: float | None) -> int:
        return int((self.loads.rates[:, 0] >= (rate or 0.0)).argmax())


def interval(drawn: np.ndarray, level: float = 0.05) -> tuple[float, float]:
    """The 95 % interval that these draws have; the first is the estimate."""
    low, high = np.quantile(drawn[1:], [level / 2, 1 - level / 2], method="nearest")
    return float(low), float(high)


# From logs to loads.


@derived
def asked_of(run: Log, *limits: Limit) -> None:
    """All that is asked of the requests of a run. It stays with the log (cache.py), so that they may go."""
    loads_of([[run]], limits, Noises(), draws=0)
    throughput.output_token_throughput(run)


def why_left_out(runs: Runs, limits: Sequence[Limit]) -> str:
    """Why a point says nothing about the limits; "" if it does. One that had not settled may only exceed them."""
    if _died(runs):
        return ""
    if why := _why_unknown(runs, limits):
        return why
    settled = _steady(runs) or exceeded(runs, limits)
    return "" if settled or any(_seen(runs, limit) > 0 for limit in limits) else "not settled"


def _why_unknown(runs: Runs, limits: Sequence[Limit]) -> str:
    """Why its requests/s or what the limits are of is not the server's, or not known."""
    columns = ("request_throughput_per_s", *(limit.column for limit in limits))
    doubt = next((found for name in columns if (found := trust.of_point(runs, name))), None)
    rate = any(throughput.request_throughput(log) for log in runs)
    if doubt and not (rate and trust.wrong_answers(runs)):  # too much load, whatever else may be said of it
        return doubt.kind
    if not rate:
        return "without a window"
    if any(not len(sla.of_requests(runs, limit)) for limit in limits):
        return "without such times"
    return ""


def exceeded(runs: Runs, limits: Sequence[Limit] = ()) -> str:
    """Why this load is more than the server can sustain, whatever its latencies say; "" if it is not.

    How many requests may fail, a limit of the error rate says; without one, FAILED_SHARE of them.
    """
    if _died(runs):
        return str(runs[0].failure)
    if stats.majority(sum(log.quality.overloaded for log in runs), len(runs)):
        return "requests in flight kept growing"
    if why := trust.wrong_answers(runs):
        return why
    may = next((limit.value for limit in limits if limit.metric.name == "failed_share"), trust.FAILED_SHARE)
    failed, n = samples.failed_of(*runs)
    return f"{failed} of {n} requests failed" if failed > may * n else ""


def _died(runs: Runs) -> bool:
    """Did the server end under this load, or fail most of its requests, in every run?"""
    words = ("the server ended", " requests failed", "every request failed")
    return all(run.status != "ok" and any(each in str(run.failure) for each in words) for run in runs)


def _steady(runs: Runs) -> bool:
    """Did most runs settle? That their requests are alike is in what they are worth."""
    whys = [str(stationarity.why_not_stationary(run)) for run in runs]
    return not stats.majority(sum(why.endswith((" never settled", " drifted")) for why in whys), len(runs))


def loads_of(
    points: Sequence[Runs], limits: Sequence[Limit], noises: Noises, seed: int = 0, draws: int = DRAWS
) -> Loads | None:
    """Of the points of one server of which something is known; None of none."""
    by_size = sorted(points, key=lambda runs: runs[0].run.load.size)
    known = [_counted(runs) or runs for runs in by_size if _died(runs) or _counted(runs)]
    points = [runs for runs in known if _died(runs) or not _why_unknown(runs, limits)]
    while points and _died(points[0]):
        points = points[1:]
    if not points:
        return None
    chance = Chance(np.random.default_rng(seed), draws)
    rates: list[np.ndarray] = []
    for runs in points:  # what a server that ended would have served nobody knows: as much as below
        rates.append(rates[-1] if _died(runs) else _means(runs, _rate, noises.rate, chance))
    excess = [
        [_excess(runs, limit, limits, noise, chance) for runs in points]
        for limit, noise in zip(limits, noises.limits or [Noise()] * len(limits), strict=True)
    ]
    sizes = np.array([float(runs[0].run.load.size) for runs in points])
    of_time = np.array([limit.metric.name != "failed_share" for limit in limits])
    settled = np.array([_steady(runs) or bool(exceeded(runs, limits)) for runs in points])
    weights = np.array([max(1.0, n - failed) for failed, n in (samples.failed_of(*runs) for runs in points)])
    return Loads(points, sizes, np.array(rates), np.array(excess), of_time, weights, noises.rate, settled)


def _counted(runs: Runs) -> Runs:
    """The runs without those that failed or that something else than the server made, if any are left."""
    good = [run for run in runs if run.status == "ok"]
    trusted = [run for run in good if not any(trust.doubts(run))]
    return good if trust.wrong_answers(good) else trusted or good


def noises_of(points: Sequence[Runs], limits: Sequence[Limit]) -> Noises:
    """From all points that were measured several times."""
    repeated = [good for runs in points if len(good := _counted(runs)) > 1 and not why_left_out(good, limits)]
    few = Chance(np.random.default_rng(0), 200)

    def of_run(log: Log, limit: Limit) -> tuple[float, float]:
        drawn = _percentiles([log], limit, few)
        return float(drawn[0]), float(drawn[1:].var())

    rates = [[(log(_rate(run) or 1), _own_error(run) ** 2) for run in p] for p in repeated]
    sustained = [runs for runs in repeated if not exceeded(runs, limits)]
    of_limits = [[[of_run(run, limit) for run in runs] for runs in sustained] for limit in limits]
    return Noises(_noise(rates), tuple(map(_noise, of_limits)))


def _noise(points: Sequence[Sequence[tuple[float, float]]]) -> Noise:
    """From (log of the value, its own variance) of each run."""
    degrees = sum(len(runs) - 1 for runs in points) + GUESSED.degrees
    spread = sum(float(np.var([value for value, _ in runs])) * len(runs) for runs in points)
    own = sum(float(np.mean([own for _, own in runs])) * (len(runs) - 1) for runs in points)
    guessed = GUESSED.variance * GUESSED.degrees
    return Noise(max(0.0, guessed + spread - own) / degrees, degrees)


def _means(runs: Runs, of_log: Callable[[Log], float | None], noise: Noise, chance: Chance) -> np.ndarray:
    """Of a point: the mean over its runs, then draws."""
    mean = _mean(map(of_log, runs)) or 0.0
    if of_log is _rate and _offered(runs[0]):
        return np.full(1 + chance.draws, mean)
    own = sqrt(sum(_own_error(run) ** 2 for run in runs)) / len(runs)
    drawn = chance.rng.normal(0, own, chance.draws) + noise.drawn(chance, len(runs))
    return np.concatenate([[mean], mean * np.exp(drawn)])


@derived
def _worth(run: Log, limit: Limit) -> float:
    """How many independent values those of a run are worth; of a limit its name says of which values."""
    return sla.worth(sla.of_requests([run], limit))


@derived
def _rate(run: Log) -> float | None:
    """Requests/s. Of clients by Little's law: a short window, opened by the last first answer, shows 1 % fewer."""
    took_s, in_flight = samples.mean_e2e_s(run), throughput.effective_concurrency(run)
    if run.run.open_loop or not took_s or not in_flight or samples.failed_of(run)[0]:
        return _offered(run) or throughput.request_throughput(run)
    return in_flight / took_s


def _offered(run: Log) -> float | None:
    """Requests/s at which all were sent, if they were."""
    load = run.run.load
    return load.request_rate if isinstance(load, Rate) and not load.ramp_from else None


@derived
def _own_error(run: Log) -> float:
    """Relative standard error of requests/s (in a closed loop of mean E2E latency, too), from one run."""
    took_s = samples.each(run, latency.e2e_s, by_time=True)
    if not len(took_s):
        return 1.0
    return float(took_s.std() / took_s.mean()) / sqrt(stats.independent(took_s))


def _excess(runs: Runs, limit: Limit, limits: Sequence[Limit], noise: Noise, chance: Chance) -> np.ndarray:
    if exceeded(runs, limits):
        return np.full(1 + chance.draws, WRONG if trust.wrong_answers(runs) else EXCEEDED)
    found = _percentiles(runs, limit, chance)
    found[1:] += noise.drawn(chance, len(runs))
    return found


def _seen(runs: Runs, limit: Limit) -> float:
    return float(_percentiles(runs, limit, Chance(np.random.default_rng(0), 0))[0])


def _percentiles(runs: Runs, limit: Limit, chance: Chance) -> np.ndarray:
    """log(value / limit) of a point: the estimate, then draws. Of an error rate, value / limit - 1.

    Where no request failed, none is taken to: a few requests cannot tell a small share from none.
    """
    if limit.metric.name == "failed_share":
        failed, n = samples.failed_of(*runs)
        shares = chance.rng.beta(failed + 0.5, n - failed + 0.5, chance.draws) * (failed > 0)
        return np.concatenate([[failed / max(1, n)], shares]) / limit.value - 1
    of_runs = [sla.of_requests([run], limit) for run in runs]
    share = sla.needed_share(limit) or 0.0
    worth, rng = max(1, round(sum(_worth(run, limit) for run in runs))), chance.rng
    logs = np.log(np.clip(np.sort(np.concatenate(of_runs)), 1e-9, WORST_S))
    above = rng.binomial(worth, 1 - share, chance.draws)  # so many values lie above the true percentile
    places = len(logs) * (1 - (above + rng.random(chance.draws)) / worth)
    highest = logs[-max(FEWEST, int(TAIL * len(logs))) :]
    gaps, expected = max(1, len(highest) - 1), worth * (1 - share)
    heavy = float((highest - highest[0]).sum()) / gaps
    none, further = above == 0, np.zeros(chance.draws)
    beyond = np.log1p(rng.exponential(size=int(none.sum())) / expected)
    further[none] = beyond * gaps / rng.gamma(gaps, size=len(beyond))
    found = np.interp(np.concatenate([[share * len(logs) - 0.5], places]), np.arange(len(logs)), logs)
    return np.asarray(found + heavy * np.concatenate([[max(0, log(0.5 / expected))], further]) - log(limit.value))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# From loads to the capacity.


def capacity(loads: Loads, times: float | Sequence[float] = 1.0, seed: int = 1) -> Capacity:
    """`times`: the limits of latencies are multiplied by it, or each limit by its own."""
    rng = np.random.default_rng(seed)
    loads = loads.within(times)
    rising = np.max([_rising(each, loads.weights) for each in loads.excess], axis=0)
    count = len(loads.sizes)
    first = np.where((rising > 0).any(axis=0), (rising > 0).argmax(axis=0), count)  # that does not keep them
    low, high = np.clip(first - 1, 0, count - 1), np.clip(first, 0, count - 1)
    size, rate = _between(loads, low, high, _way(rising, low, high, rng), rng)
    _below_the_lowest(loads, first == 0, size, rate, rng)
    _where_less_gives_more(loads, first, size, rate)
    known = [float(loads.sizes[i]) if 0 <= i < count else None for i in (int(first[0]) - 1, int(first[0]))]
    grows = count == 1 or loads.rates[-1, 0] > GROWS * loads.rates[-2, 0]
    beyond = (first == count) & grows
    if first[0] < count:  # most draws know a load that exceeds the limits; in these it lies a little higher
        rate[beyond] *= rng.uniform(1, FURTHER, int(beyond.sum()))
        beyond[:] = False
    return Capacity(loads, size, rate, beyond, *known)


def _rising(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """More load is never easier: the nearest values that only rise (isotonic regression). Shape as it came.

    Draws in which they fall only far within the limits stay as they are, for speed.
    """
    falls = ((np.diff(values, axis=0) < 0) & (values[:-1] > FAR_WITHIN)).any(axis=0)
    some, found = values[:, falls], values.copy()
    evened = np.full_like(some, -np.inf)
    for i in range(len(some)):
        means = np.cumsum(weights[i:, None] * some[i:], axis=0) / np.cumsum(weights[i:])[:, None]
        evened[i:] = np.maximum(evened[i:], np.minimum.accumulate(means[::-1])[::-1])
    found[:, falls] = evened
    return found


def _way(rising: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which share of the way from one load to the next the limits allow. Shape (1 + draws,)."""
    below, above = -_rows(rising, low), _rows(rising, high)
    straight = np.where(low < high, below / np.maximum(below + above, 1e-12), 0.0)
    bent = np.exp(np.concatenate([[CURVE[0]], rng.normal(*CURVE, rising.shape[1] - 1)]))
    return np.asarray(np.clip(straight, 0, 1) ** bent)


def _between(
    loads: Loads, low: np.ndarray, high: np.ndarray, way: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(the load, requests/s there)."""
    sizes = loads.sizes
    size = sizes[low] * (sizes[high] / sizes[low]) ** way
    if not loads.open_loop:
        size = np.maximum(np.floor(size + 1e-9), sizes[low])
    part = (size - sizes[low]) / np.maximum(sizes[high] - sizes[low], 1e-12)
    latency = sizes[:, None] / loads.rates
    straight = _rows(latency, low) * (1 - part) + _rows(latency, high) * part
    kinked = np.minimum(straight, np.maximum(_rows(latency, low), size / _rows(loads.rates, high)))
    bent = np.concatenate([[0.25], rng.uniform(size=len(size) - 1) ** 2])
    return size, size / (straight + bent * (kinked - straight))


def _below_the_lowest(
    loads: Loads, none: np.ndarray, size: np.ndarray, rate: np.ndarray, rng: np.random.Generator
) -> None:
    """Where the lowest load exceeds the limits already, in place: what a lower one would do is not known."""
    nothing_lower = loads.sizes[0] == 1 and not loads.open_loop
    rate[none] *= 0.0 if nothing_lower else rng.uniform(size=int(none.sum()))
    size[none] = 0.0
    if none[0]:
        rate[0] = 0.0


def _where_less_gives_more(loads: Loads, first: np.ndarray, size: np.ndarray, rate: np.ndarray) -> None:
    """A server that more load slows down is best at a lower one, in place.

    By no less than SLOWS: of several loads that give the same, chance makes one seem the best.
    """
    within = loads.rates[: int(first[0]), 0]
    if len(within) and within.max() > SLOWS * rate[0]:
        best = int(within.argmax())
        reached = first > best
        size[reached], rate[reached] = loads.sizes[best], loads.rates[best, reached]


def _rows(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Of each draw its value in this row."""
    return np.asarray(np.take_along_axis(values, at[None], axis=0)[0])
