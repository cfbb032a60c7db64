"""The load at which something happens: `--find_max` the highest that meets limits, `--find_peak` the best one.

Both double the load until it is too much and then halve the gap. They yield the points to measure one by one and
read their logs, which are ordinary ones: a search that was interrupted goes on, one that is done measures nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import msgspec

from servebench.analysis import deadlines, sla, throughput, trust
from servebench.log import store
from servebench.log.identity import fingerprint
from servebench.log.schema import Log, RunConfig, ServerConfig
from servebench.plan.arguments import Settings
from servebench.plan.sweep import Plan, Point, clients_load, make_point, rate_load

CLOSE = 1.04  # ratio of two loads between which none is looked for
DOUBLINGS, HALVINGS = 20, 8  # from the first load
OF_LOAD = {"num_clients", "request_rate", "num_requests", "warmup"}  # of a run's identity
IDLE = 0.1  # requests in flight on average
PAST_PEAK = 0.95  # of the best value: below it the load is too much

Verdict = bool | str  # does a load meet the limits; or why that is not known
T = TypeVar("T")
Asking = Generator["Point", None, T]  # yields points to measure, returns what their logs say


class Search:
    """One search: on one server, with requests of one kind. `points` collects what it looked at."""

    def __init__(self, settings: Settings, like: Point, points: list[Point]) -> None:
        self.settings, self.like, self.points = settings, like, points
        self.open_loop = like.run.open_loop
        self.loads = settings.request_rate or settings.num_clients
        self.limits = sla.parse_limits(settings.find_max) if settings.find_max else ()
        self.most = max(self.loads) if len(self.loads) > 1 else min(self.loads) * 2.0**DOUBLINGS
        self.least = min(self.loads) / 2.0**HALVINGS if self.open_loop else 1

    def points_to_measure(self) -> Iterator[Point]:
        """Each must have been measured and saved before the next is asked for."""
        yield from self._peak() if self.settings.find_peak else self._highest()

    def _highest(self) -> Iterator[Point]:
        """Ends where a load says nothing: above it nothing can be known, below it lies what is."""
        low: float | None = None
        high: float | None = None
        load: float | None = float(min(self.loads))
        while load:
            verdict = yield from self._meets(load)
            if isinstance(verdict, str):
                return
            low, high = (load, high) if verdict else (low, load)
            load = None if low is None and self._idle() else self._next(low, high)

    def _idle(self) -> bool:
        """Was the server idle nearly all the time under the last load? A lower rate is no lighter one then."""
        in_flight = throughput.effective_concurrency(store.load(self.points[-1].path))
        return self.open_loop and in_flight is not None and in_flight < IDLE

    def _next(self, low: float | None, high: float | None) -> float | None:
        """After the highest load that met the limits and the lowest that did not; None: all is known."""
        if low is None or high is None:
            load = max(self.least, (high or 0) / 2) if low is None else min(2 * low, self.most)
            return None if load in (low, high) else self._rounded(load)
        return None if self._close(low, high) else self._rounded(self._middle(low, high))

    def _meets(self, load: float) -> Asking[Verdict]:
        runs: list[Log] = []
        verdict: Verdict | None = None
        while verdict is None:
            runs.append((yield from self._log(load, len(runs))))
            verdict = sla.decide(runs, self.limits)
        return verdict

    def _peak(self) -> Iterator[Point]:
        values: dict[float, float | None] = {}
        load = float(min(self.loads))
        while load not in values:
            values[load] = yield from self._value(load)
            value, best = values[load], max(filter(None, values.values()), default=0.0)
            if value and value >= PAST_PEAK * best:
                load = self._rounded(min(2 * load, self.most))
            elif value == best == 0 and not self._idle():
                load = self._rounded(max(self.least, load / 2))
        while missing := self._beside_the_best(values):
            for load in missing:
                values[load] = yield from self._value(load)

    def _beside_the_best(self, values: dict[float, float | None]) -> list[float]:
        """Loads between the best one and its neighbours that were not looked at, and the one below all."""
        known = {load: value for load, value in values.items() if value}
        if not known:
            return []
        best = max(known, key=lambda load: known[load])
        gaps = [pair for pair in pairwise(sorted(values)) if best in pair and not self._close(*pair)]
        beside = [self._rounded(self._middle(*pair)) for pair in gaps]
        beside += [self._rounded(max(self.least, best / 2))] if best == min(values) else []
        return [load for load in beside if load not in values]

    def _value(self, load: float) -> Asking[float | None]:
        """Requests/s that meet the SLAs; None where the point says nothing."""
        return value_of(self.settings, (yield from self._log(load, 0)))

    def _log(self, load: float, repetition: int) -> Asking[Log]:
        run, environment = self._run(load, repetition), self.like.identity["environment"]
        point = make_point(self.settings, self.like.server, run, environment)
        self.points.append(point)
        if point.pending:
            yield point
        return store.load(point.path)

    def _run(self, load: float, repetition: int) -> RunConfig:
        settings = self.settings
        about = rate_load(settings, load) if self.open_loop else clients_load(settings, round(load))
        if self.limits and not settings.num_requests:
            about["num_requests"] = max(about["num_requests"], sla.requests_needed(self.limits))
        about |= {"repetition": repetition, "stop_when_overloaded": self.open_loop}
        return msgspec.structs.replace(self.like.run, **about)

    def _close(self, low: float, high: float) -> bool:
        return high / low <= CLOSE or (not self.open_loop and high - low <= 1)

    def _middle(self, low: float, high: float) -> float:
        return (low * high) ** 0.5 if self.open_loop else (low + high) // 2

    def _rounded(self, load: float) -> float:
        """Rates to four digits, as they are written into the name of the log."""
        return float(f"{load:.4g}") if self.open_loop else float(round(load))


def value_of(settings: Settings, log: Log) -> float | None:
    """Requests/s that meet FastGen's SLAs, generation at settings.find_peak tokens/s; None where it is unknown."""
    if _doubt(log):
        return None
    return deadlines.effective_throughput(log, sla.parse(f"fastgen-{settings.find_peak:g}").met) or 0.0


def _doubt(log: Log) -> str:
    """Why it is not known which of its requests meet FastGen's SLAs."""
    return trust.doubt(log, "ttft") or trust.doubt(log, "itl") or ""


def searches(settings: Settings, points: list[Point]) -> list[Search]:
    """One for every kind of requests in the plan, whose points are replaced by those that are looked at."""
    kinds: dict[tuple[object, ...], Point] = {}
    for point in points:
        kinds.setdefault(_kind(point.run), point)
    points.clear()
    return [Search(settings, like, points) for like in kinds.values()]


def _kind(run: RunConfig) -> tuple[object, ...]:
    return run.mean_prompt_length, run.mean_max_new_tokens, run.scenario


def points_to_measure(settings: Settings, points: list[Point]) -> Iterator[Point]:
    """What of a server's points is to be measured: those that are pending, or those that a search asks for."""
    if not (settings.find_max or settings.find_peak):
        yield from [point for point in points if point.pending]
        return
    for search in searches(settings, points):
        yield from search.points_to_measure()


# What was found.


class Looked(msgspec.Struct, frozen=True):
    """One load of a search: what its logs say together."""

    load: float
    runs: int
    says: str  # "meets", "does not meet", "unknown"; of a peak: "" or "unknown"
    why: str = ""  # it is unknown, or is overloaded
    seen: dict[str, float | None] = {}  # percentile (s) of each limit; of a peak requests/s that meet the SLAs
    logs: list[str] = []


class Conclusion(msgspec.Struct, frozen=True):
    """What one search found, kept beside its logs in searches/."""

    searched: str  # the limits of --find_max, or "peak" and its SLA
    words: str
    unit: str
    best: float | None  # the highest load that meets the limits, or that with the peak
    server: ServerConfig
    run: RunConfig  # of the first load
    loads: list[Looked]
    path: Path


def conclusions(plan: Plan, settings: Settings) -> list[Conclusion]:
    """What each search found, from its logs."""
    found: dict[tuple[int, tuple[object, ...]], dict[float, list[Point]]] = {}
    for number, (_, points) in enumerate(plan if settings.find_max or settings.find_peak else ()):
        for point in (p for p in points if p.path.exists()):
            loads = found.setdefault((number, _kind(point.run)), {})
            loads.setdefault(point.run.request_rate or point.run.num_clients, []).append(point)
    batches = len({server.max_ragged_batch_size for server, _ in plan}) > 1
    return [_conclusion(settings, dict(sorted(loads.items())), batches) for loads in found.values()]


def _conclusion(settings: Settings, points: dict[float, list[Point]], batches: bool) -> Conclusion:
    (first, *_), *_ = points.values()
    look = _look_for_peak if settings.find_peak else _look_for_limits
    loads = [look(settings, load, some, [store.load(p.path) for p in some]) for load, some in points.items()]
    unit = "requests/s" if settings.request_rate else "clients"
    best, words = (_peak_in if settings.find_peak else _highest_in)(settings, loads, unit)
    searched = f"peak fastgen-{settings.find_peak:g}" if settings.find_peak else settings.find_max
    server, run = first.server, first.run
    of = f"{server.backend} tp{server.tp_size}{f' batch {server.max_ragged_batch_size}' if batches else ''}"
    lengths = f"prompt {run.mean_prompt_length}  gen {run.mean_max_new_tokens}"
    of += f" x{server.num_replicas}  {Path(run.dataset).stem or run.scenario or lengths}"
    what = {name: value for name, value in first.identity["run"].items() if name not in OF_LOAD}
    mark = fingerprint(first.identity | {"run": what, "searched": searched})
    stem = first.path.name.partition(f"-{''.join(run.load)}")[0]
    path = first.path.parent / "searches" / f"{stem}-{mark[:6]}.json"
    return Conclusion(searched, f"{of}: {words}", unit, best, server, run, loads, path)


def _look_for_limits(settings: Settings, load: float, points: list[Point], runs: list[Log]) -> Looked:
    wanted = sla.parse_limits(settings.find_max)
    verdict = sla.decide(runs, wanted)
    says = "meets" if verdict is True else "does not meet" if verdict is False else "unknown"
    why = "" if isinstance(verdict, bool) else verdict or "interrupted"
    if verdict is False and any(log.quality.overloaded for log in runs):
        why = "overloaded"
    seen = {str(limit): _finite(limit.seen_s(runs)) for limit in wanted}
    return Looked(load, len(runs), says, why, seen, [p.path.name for p in points])


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else round(value, 6)


def _highest_in(settings: Settings, loads: list[Looked], unit: str) -> tuple[float | None, str]:
    low = max((each for each in loads if each.says == "meets"), key=lambda each: each.load, default=None)
    above = [each for each in loads if low is None or each.load > low.load]
    if low is None and all(each.says == "does not meet" for each in above):
        return None, f"no load meets {settings.find_max}, not even {above[0].load:g} {unit}{_seen(above[0])}"
    if low is None:
        return None, f"no load is known to meet {settings.find_max}{_edge(above, unit)}"
    meets = f"{low.load:g} {unit} meets {settings.find_max}{_seen(low)}"
    return low.load, f"{meets}{_edge(above, unit) or ', and no more was tried'}"


def _edge(above: list[Looked], unit: str) -> str:
    """The lowest load that does not meet the limits, and the lowest of which nothing is known."""
    missed = next((each for each in above if each.says == "does not meet"), None)
    unknown = next((each for each in above if each.says == "unknown"), None)
    words = f"; {missed.load:g} does not{_seen(missed)}" if missed else ""
    return words + _unknown_at(unknown, unit) + (", nor above" if unknown and not missed else "")


def _unknown_at(looked: Looked | None, unit: str) -> str:
    return f"; at {looked.load:g} {unit} nothing is known ({looked.why})" if looked else ""


def _seen(looked: Looked) -> str:
    if looked.says == "does not meet" and looked.why:
        return f" ({looked.why})"
    runs = f" over {looked.runs} runs" if looked.runs > 1 else ""
    times = [f"{name} {'unknown' if t is None else f'{t:.3g} s'}" for name, t in looked.seen.items()]
    return f" ({', '.join(times)}{runs})"


def _look_for_peak(settings: Settings, load: float, points: list[Point], runs: list[Log]) -> Looked:
    why, seen = _doubt(runs[0]), {"effective_throughput_per_s": value_of(settings, runs[0])}
    return Looked(load, 1, "unknown" if why else "", why, seen, [points[0].path.name])


def _peak_in(settings: Settings, loads: list[Looked], unit: str) -> tuple[float | None, str]:
    values = {each.load: value for each in loads if (value := each.seen["effective_throughput_per_s"])}
    rest = _unknown_at(next((each for each in loads if each.says == "unknown"), None), unit)
    if not values:
        least = f", not even {loads[0].load:g} {unit}" if loads[0].says != "unknown" else ""
        nothing = f"no load has requests that meet FastGen's SLAs at {settings.find_peak:g} tokens/s"
        return None, f"{nothing}{least}{rest}"
    best = max(values, key=lambda load: values[load])
    return best, f"the peak of effective throughput is {values[best]:.4g} requests/s, at {best:g} {unit}{rest}"


def save(found: Iterable[Conclusion]) -> None:
    for conclusion in found:
        fields = msgspec.structs.asdict(conclusion)
        del fields["path"]
        store.write_whole(conclusion.path, msgspec.json.format(msgspec.json.encode(fields), indent=2))
