"""The load at which something happens: `--find_max` the highest that meets limits, `--find_peak` the best one.

Both double the load until it is too much and then halve the gap. They yield the points to measure one by one and
read their logs, which are ordinary ones: a search that was interrupted goes on, one that is done measures nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import pairwise

import msgspec

from servebench import limits, records, sla
from servebench.arguments import Settings
from servebench.records import Log, RunConfig, ServerConfig
from servebench.sweep import Plan, Point, clients_load, make_point, rate_load

CLOSE = 1.04  # ratio of two loads between which none is looked for
DOUBLINGS, HALVINGS = 20, 8  # from the first load
PAST_PEAK = 0.95  # of the best value: below it the load is too much

Asking = Generator[Point, None, float]  # yields points to measure, returns what they say


class Search:
    """One search: on one server, with requests of one kind. `points` collects what it looked at."""

    def __init__(self, settings: Settings, server: ServerConfig, like: RunConfig, points: list[Point]) -> None:
        self.settings, self.server, self.like, self.points = settings, server, like, points
        self.loads = settings.request_rate or settings.num_clients
        self.limits = limits.parse_limits(settings.find_max) if settings.find_max else ()
        self.most = max(self.loads) if len(self.loads) > 1 else min(self.loads) * 2.0**DOUBLINGS
        self.least = min(self.loads) / 2.0**HALVINGS if self.like.open_loop else 1

    def points_to_measure(self) -> Iterator[Point]:
        """Each must have been measured and saved before the next is asked for."""
        yield from self._peak() if self.settings.find_peak else self._highest()

    def _highest(self) -> Iterator[Point]:
        low: float | None = None
        high: float | None = None
        load: float | None = float(min(self.loads))
        while load:
            if (yield from self._meets(load)):
                low = load
            else:
                high = load
            load = self._next(low, high)

    def _next(self, low: float | None, high: float | None) -> float | None:
        """After the highest load that met the limits and the lowest that did not; None: all is known."""
        if low is None or high is None:
            load = max(self.least, (high or 0) / 2) if low is None else min(2 * low, self.most)
            return None if load in (low, high) else self._rounded(load)
        return None if self._close(low, high) else self._rounded(self._middle(low, high))

    def _meets(self, load: float) -> Asking:
        runs: list[Log] = []
        verdict = None
        while verdict is None:
            runs.append((yield from self._log(load, len(runs))))
            verdict = limits.decide(runs, self.limits)
        return verdict

    def _peak(self) -> Iterator[Point]:
        values: dict[float, float] = {}
        load = float(min(self.loads))
        while load not in values:
            values[load] = yield from self._value(load)
            if values[load] >= PAST_PEAK * max(values.values()):
                load = self._rounded(min(2 * load, self.most))
        while missing := self._beside_the_best(values):
            for load in missing:
                values[load] = yield from self._value(load)

    def _beside_the_best(self, values: dict[float, float]) -> list[float]:
        """Loads between the best one and its neighbours that were not looked at."""
        best = max(values, key=lambda load: values[load])
        gaps = [pair for pair in pairwise(sorted(values)) if best in pair and not self._close(*pair)]
        return [middle for pair in gaps if (middle := self._rounded(self._middle(*pair))) not in values]

    def _value(self, load: float) -> Asking:
        return effective(self.settings, (yield from self._log(load, 0)))

    def _log(self, load: float, repetition: int) -> Generator[Point, None, Log]:
        point = make_point(self.settings, self.server, self._run(load, repetition))
        self.points.append(point)
        if point.pending:
            yield point
        return records.load(point.path)

    def _run(self, load: float, repetition: int) -> RunConfig:
        settings = self.settings
        about = rate_load(settings, load) if self.like.open_loop else clients_load(settings, round(load))
        if self.limits and not settings.num_requests:
            about["num_requests"] = max(about["num_requests"], limits.requests_needed(self.limits))
        early = self.like.open_loop
        return msgspec.structs.replace(self.like, **about, repetition=repetition, stop_when_overloaded=early)

    def _close(self, low: float, high: float) -> bool:
        return high / low <= CLOSE or (not self.like.open_loop and high - low <= 1)

    def _middle(self, low: float, high: float) -> float:
        return (low * high) ** 0.5 if self.like.open_loop else (low + high) // 2

    def _rounded(self, load: float) -> float:
        """Rates to four digits, as they are written into the name of the log."""
        return float(f"{load:.4g}") if self.like.open_loop else float(round(load))


def effective(settings: Settings, log: Log) -> float:
    """Requests/s that meet FastGen's SLAs, with settings.find_peak tokens/s as the generation SLA."""
    return sla.effective_throughput(log, sla.parse(f"fastgen-{settings.find_peak:g}").met) or 0.0


def searches(settings: Settings, server: ServerConfig, points: list[Point]) -> list[Search]:
    """One for every kind of requests in the plan, whose points are replaced by those that are looked at."""
    kinds: dict[tuple[object, ...], RunConfig] = {}
    for point in points:
        run = point.run
        kinds.setdefault((run.mean_prompt_length, run.mean_max_new_tokens, run.scenario), run)
    points.clear()
    return [Search(settings, server, like, points) for like in kinds.values()]


def points_to_measure(settings: Settings, server: ServerConfig, points: list[Point]) -> Iterator[Point]:
    """What of a server's points is to be measured: those that are pending, or those that a search asks for."""
    if not (settings.find_max or settings.find_peak):
        yield from [point for point in points if point.pending]
        return
    for search in searches(settings, server, points):
        yield from search.points_to_measure()


def conclusions(plan: Plan, settings: Settings) -> list[str]:
    """What each search found, from its logs."""
    found: dict[str, dict[float, list[Log]]] = {}
    for server, points in plan if settings.find_max or settings.find_peak else ():
        for point in (p for p in points if p.path.exists()):
            run = point.run
            kind = f"{server.backend} tp{server.tp_size} x{server.num_replicas}"
            kind += f"  {run.scenario or f'prompt {run.mean_prompt_length}  gen {run.mean_max_new_tokens}'}"
            runs = found.setdefault(kind, {}).setdefault(run.request_rate or run.num_clients, [])
            runs.append(records.load(point.path))
    return [f"{kind}: {_conclusion(settings, logs)}" for kind, logs in found.items()]


def _conclusion(settings: Settings, logs: dict[float, list[Log]]) -> str:
    unit = " requests/s" if settings.request_rate else " clients"
    if settings.find_peak:
        values = {load: effective(settings, first) for load, (first, *_) in logs.items()}
        best = max(values, key=lambda load: values[load])
        return f"the peak of effective throughput is {values[best]:.4g} requests/s, at {best:g}{unit}"
    wanted = limits.parse_limits(settings.find_max)
    good = [load for load, runs in logs.items() if limits.decide(runs, wanted)]
    bad = [load for load in logs if load not in good]
    if not good:
        return f"no load meets {settings.find_max}, not even {min(bad):g}{unit}"
    above = f"; {min(bad):g} does not" if bad else ", and no more was tried"
    return f"{max(good):g}{unit} meets {settings.find_max}{above}"
