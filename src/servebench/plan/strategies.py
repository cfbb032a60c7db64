"""Which run comes next, from the logs so far.

A strategy is a pure function of its history: it starts nothing, reads no file, and asks for ordinary runs.

    Grid        every point, --runs times: all points once before any again
    UntilCi     likewise, until each point is known to within --target_ci
    MaxSearch   the highest load that meets the limits of --find_max
    PeakSearch  the load with the highest effective throughput (--find_peak)
Both searches double the load until it is too much, and then halve the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from servebench.analysis import deadlines, sla, throughput, trust
from servebench.analysis.limits import Limit, joined
from servebench.analysis.target_ci import why_stop
from servebench.log.config import Clients, Load, Rate, RunConfig, ServerConfig
from servebench.log.schema import Log
from servebench.plan.options import TargetCi

CLOSE = 1.04  # a search ends when two loads are this close, as a ratio
DOUBLINGS, HALVINGS = 20, 8  # from the first load
IDLE = 0.1  # requests in flight on average
PEAK = "peak fastgen-"  # before its rate, in Verdict.searched
PAST_PEAK = 0.95  # of the best value: below it the load is too much


class History:
    """The logs of one server so far, by what was asked for."""

    def __init__(self) -> None:
        self.logs: dict[bytes, Log] = {}

    def add(self, run: RunConfig, log: Log) -> None:
        self.logs[run_key(run)] = log

    def of(self, run: RunConfig) -> Log | None:
        return self.logs.get(run_key(run))

    def earlier(self, run: RunConfig) -> list[Log]:
        """The successful logs of the same point's runs before this one."""
        before = (self.of(replace(run, repetition=number)) for number in range(run.repetition))
        return [log for log in before if log and log.status == "ok"]


def run_key(run: RunConfig) -> bytes:
    """Equal for equal runs, which cannot be hashed: their extra_body is a dict."""
    return msgspec.json.encode(run, order="sorted")


class LoadResult(msgspec.Struct, frozen=True):
    """One load of a search: what its logs say together."""

    load: float
    runs: int
    says: str  # "meets", "does not meet", "unknown"; of a peak: "" or "unknown"
    why: str = ""  # it is unknown, or is overloaded
    seen: dict[str, float | None] = {}  # of each limit the percentile (s) or share; of a peak its requests/s
    logs: list[str] = []


class Verdict(msgspec.Struct, frozen=True):
    """What a search found. `show/verdict.py` says it in words."""

    searched: str  # the limits of --find_max, or "peak" and its SLA
    unit: str
    best: float | None  # the highest load that meets the limits, or that with the peak
    server: ServerConfig
    run: RunConfig  # of the lowest load
    loads: list[LoadResult]


@dataclass(frozen=True)
class Grid:
    """Every one of these runs, in their order."""

    runs: Sequence[RunConfig]
    reads_requests: ClassVar[bool] = False  # does it look at requests, or only at how a run ended?

    def next(self, history: History) -> RunConfig | None:
        """The next run, None when there is none."""
        return next((run for run in self.runs if not history.of(run) and not self.enough(run, history)), None)

    def enough(self, run: RunConfig, history: History) -> str | None:
        """Why no such run is needed after the earlier ones of its point, in words."""
        return None

    def verdicts(self, server: ServerConfig, history: History) -> list[Verdict]:
        """What was found beyond the logs themselves."""
        return []


@dataclass(frozen=True)
class UntilCi(Grid):
    """Every run in turn, but those of a point that is known well enough."""

    target: TargetCi
    reads_requests: ClassVar[bool] = True

    def enough(self, run: RunConfig, history: History) -> str | None:
        return why_stop(history.earlier(run), self.target.target_ci, self.target.min_runs, self.target.max_runs)


Steps = Generator[RunConfig, Log, None]  # yields a run, is sent its log
Measured = list[tuple[RunConfig, Log]]


@dataclass(frozen=True)
class Search(Grid):
    """One search from each of `runs`: all kinds of requests, at the lowest load. `with_load` changes the load."""

    loads: Sequence[float]
    with_load: Callable[[RunConfig, Load], RunConfig]
    reads_requests: ClassVar[bool] = True

    def next(self, history: History) -> RunConfig | None:
        wanted = (self._replayed(first, history)[1] for first in self.runs)
        return next((run for run in wanted if run), None)

    def verdicts(self, server: ServerConfig, history: History) -> list[Verdict]:
        replayed = (self._replayed(first, history)[0] for first in self.runs)
        return [self._verdict(server, measured) for measured in replayed if measured]

    def _replayed(self, first: RunConfig, history: History) -> tuple[Measured, RunConfig | None]:
        """(the runs that the search asked for and that are measured, the next one; None at its end)."""
        measured: Measured = []
        steps = self._steps(first)
        try:
            run = next(steps)
            while log := history.of(run):
                measured.append((run, log))
                run = steps.send(log)
            return measured, run
        except StopIteration:
            return measured, None

    def _verdict(self, server: ServerConfig, measured: Measured) -> Verdict:
        by_load: dict[float, list[Log]] = {}
        for run, log in sorted(measured, key=lambda pair: (pair[0].load.size, pair[0].repetition)):
            by_load.setdefault(run.load.size, []).append(log)
        loads = [self._look(load, logs) for load, logs in by_load.items()]
        lowest = min(measured, key=lambda pair: pair[0].load.size)[0]
        unit = "requests/s" if lowest.open_loop else "clients"
        return Verdict(self._name(), unit, self._best(loads), server, lowest, loads)

    # What a search for limits and one for the peak have in common.

    def _at(self, first: RunConfig, load: float, repetition: int = 0) -> RunConfig:
        asked: Load = Clients(num_clients=round(load))
        if isinstance(first.load, Rate):
            asked = replace(first.load, request_rate=load)
        return replace(self.with_load(first, asked), repetition=repetition)

    def _highest_load(self) -> float:
        return float(max(self.loads) if len(self.loads) > 1 else min(self.loads) * 2.0**DOUBLINGS)

    def _lowest_load(self, first: RunConfig) -> float:
        return min(self.loads) / 2.0**HALVINGS if first.open_loop else 1.0

    # What each search has to implement.

    def _steps(self, first: RunConfig) -> Steps:
        raise NotImplementedError

    def _name(self) -> str:
        raise NotImplementedError

    def _look(self, load: float, logs: list[Log]) -> LoadResult:
        raise NotImplementedError

    def _best(self, loads: list[LoadResult]) -> float | None:
        raise NotImplementedError


def idle(log: Log) -> bool:
    """Was the server idle nearly all the time? A lower rate is no lighter load then."""
    in_flight = throughput.effective_concurrency(log)
    return log.run.open_loop and in_flight is not None and in_flight < IDLE


def close(low: float, high: float, open_loop: bool) -> bool:
    return high / low <= CLOSE or (not open_loop and high - low <= 1)


def middle(low: float, high: float, open_loop: bool) -> float:
    return rounded((low * high) ** 0.5, True) if open_loop else float((low + high) // 2)


def rounded(load: float, open_loop: bool) -> float:
    """Rates to four digits, as they are written into the name of the log."""
    return float(f"{load:.4g}") if open_loop else float(round(load))


@dataclass(frozen=True)
class MaxSearch(Search):
    """Stops at the first load whose verdict is unknown: higher loads cannot be judged."""

    limits: tuple[Limit, ...]

    def _steps(self, first: RunConfig) -> Steps:
        low: float | None = None
        high: float | None = None
        load: float | None = float(min(self.loads))
        while load:
            runs: list[Log] = []
            while (verdict := sla.decide(runs, self.limits) if runs else None) is None:
                runs.append((yield self._at(first, load, len(runs))))
            if isinstance(verdict, str):
                return
            low, high = (load, high) if verdict else (low, load)
            load = None if low is None and idle(runs[-1]) else self._next_load(first, low, high)

    def _next_load(self, first: RunConfig, low: float | None, high: float | None) -> float | None:
        """After the highest load that met the limits and the lowest that did not; None if these are close."""
        if low is not None and high is not None:
            between = not close(low, high, first.open_loop)
            return middle(low, high, first.open_loop) if between else None
        load = (
            max(self._lowest_load(first), (high or 0) / 2) if low is None else min(2 * low, self._highest_load())
        )
        return None if load in (low, high) else rounded(load, first.open_loop)

    def _name(self) -> str:
        return joined(self.limits)

    def _look(self, load: float, logs: list[Log]) -> LoadResult:
        verdict = sla.decide(logs, self.limits)
        says = "meets" if verdict is True else "does not meet" if verdict is False else "unknown"
        why = "" if isinstance(verdict, bool) else verdict or "interrupted"
        if verdict is False and any(log.quality.overloaded for log in logs):
            why = "overloaded"
        elif verdict is False:
            why = trust.wrong_answers(logs)
        seen = {limit.name: _finite(sla.seen(logs, limit)) for limit in self.limits}
        return LoadResult(load, len(logs), says, why, seen, [log.file_name for log in logs])

    def _best(self, loads: list[LoadResult]) -> float | None:
        return max((each.load for each in loads if each.says == "meets"), default=None)


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else round(value, 6)


@dataclass(frozen=True)
class PeakSearch(Search):
    """Requests/s that meet FastGen's SLAs, generation at `rate` tokens/s."""

    rate: float

    def _steps(self, first: RunConfig) -> Steps:
        values: dict[float, float | None] = {}
        load = float(min(self.loads))
        while load not in values:
            log = yield self._at(first, load)
            values[load] = value = self._value(log)
            best = max(filter(None, values.values()), default=0.0)
            if value and value >= PAST_PEAK * best:
                load = rounded(min(2 * load, self._highest_load()), first.open_loop)
            elif value == best == 0 and not idle(log):
                load = rounded(max(self._lowest_load(first), load / 2), first.open_loop)
        while missing := self._beside_the_best(first, values):
            for load in missing:
                values[load] = self._value((yield self._at(first, load)))

    def _beside_the_best(self, first: RunConfig, values: dict[float, float | None]) -> list[float]:
        """Loads between the best one and its neighbours that were not looked at, and the one below all."""
        known = {load: value for load, value in values.items() if value}
        if not known:
            return []
        best, open_loop = max(known, key=lambda load: known[load]), first.open_loop
        gaps = [pair for pair in pairwise(sorted(values)) if best in pair and not close(*pair, open_loop)]
        beside = [middle(*pair, open_loop) for pair in gaps]
        below = rounded(max(self._lowest_load(first), best / 2), open_loop)
        beside += [below] if best == min(values) else []
        return [load for load in beside if load not in values]

    def _value(self, log: Log) -> float | None:
        """Requests/s that meet the SLAs; None where that is unknown."""
        if _doubt(log):
            return None
        return deadlines.effective_throughput(log, sla.parse(f"fastgen-{self.rate:g}").met) or 0.0

    def _name(self) -> str:
        return f"{PEAK}{self.rate:g}"

    def _look(self, load: float, logs: list[Log]) -> LoadResult:
        why, seen = _doubt(logs[0]), {"effective_throughput_per_s": self._value(logs[0])}
        return LoadResult(load, 1, "unknown" if why else "", why, seen, [logs[0].file_name])

    def _best(self, loads: list[LoadResult]) -> float | None:
        values = {each.load: value for each in loads if (value := each.seen["effective_throughput_per_s"])}
        return max(values, key=lambda load: values[load], default=None)


def _doubt(log: Log) -> str:
    """Why it is not known which of its requests meet FastGen's SLAs."""
    return trust.doubt(log, "ttft") or trust.doubt(log, "itl") or ""
