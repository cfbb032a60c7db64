"""What the terminal shows while a benchmark runs: points done, the time left, and the point that is measured.

The time left follows from how long runs took so far: those of the nearest load, of the same server and kind of
requests if there are any. Before the first run has ended the one that is measured tells, from its own requests.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from math import log
from typing import NamedTuple

from servebench.cli import live
from servebench.load.fleet import Progress
from servebench.log.config import Clients, Rate, RunConfig, ServerConfig
from servebench.log.schema import Log
from servebench.plan.strategies import Search, UntilCi
from servebench.plan.sweep import Point, ServerPlan
from servebench.show.layouts import server_name
from servebench.show.points import load_words
from servebench.show.tables import duration, latency, significant

NARROW = 100  # columns, below which only numbers say how far a plan is


def requests_about(run: RunConfig) -> int:
    """With those of the warm-up and the cooldown."""
    clients = run.load.num_clients if isinstance(run.load, Clients) else 1
    return run.num_requests + clients * (run.warmup + 1)


class Known(NamedTuple):
    """A run of which is known how fast its requests went."""

    server: ServerConfig
    run: RunConfig
    per_s: float  # all of its requests over the time that it took


def seconds(server: ServerConfig, run: RunConfig, known: Iterable[Known]) -> float | None:
    """About how long a run takes. None where nothing is known that it could follow from."""
    if isinstance(run.load, Rate):
        return (run.num_requests + run.warmup) / run.load.request_rate
    alike = [each for each in known if each.run.load.kind == run.load.kind]
    if not alike:
        return None

    def distance(each: Known) -> tuple[bool, bool, float]:
        return (
            each.run.requests != run.requests,
            each.server != server,
            abs(log(run.load.size / each.run.load.size)),
        )

    nearest = min(alike, key=distance)
    more = run.load.size / nearest.run.load.size
    # Twice the clients make between no and twice as many requests/s.
    return requests_about(run) / (nearest.per_s * (more**0.5 if isinstance(run.load, Clients) else more))


def known_from(logs: Iterable[Log]) -> list[Known]:
    """From earlier logs, also those read without their requests: the window holds as many ends as are measured."""
    found = []
    for each in logs:
        if each.status == "ok" and each.window_ns:
            window_s = (each.window_ns[1] - each.window_ns[0]) / 1e9
            found.append(Known(each.server, each.run, each.run.num_requests / max(window_s, 1e-3)))
    return found


class SweepProgress:
    """How far a plan is. Shows it in the live line."""

    def __init__(self, plan: Sequence[ServerPlan], earlier: Iterable[Log] = ()) -> None:
        self.todo = {p.path: p for server_plan in plan for p in server_plan.points if p.pending}
        self.searches = any(isinstance(server_plan.strategy, Search) for server_plan in plan)
        self.unit = "runs" if any(p.run.repetition for p in self.todo.values()) else "points"
        known_end = not any(isinstance(server_plan.strategy, UntilCi) for server_plan in plan)
        self.of = f"/{len(self.todo)}" if known_end else f" of at most {len(self.todo)}"
        self.done = 0
        self.known = known_from(earlier)
        self.starts_s: dict[str, float] = {}  # how long servers took to start, by name
        self.current: Point | None = None
        self.since_s = 0.0
        self._show_ahead(None)

    def starting(self, server: ServerConfig) -> None:
        """A server is started, or attached to."""
        if not live.terminal() and not server.urls:
            live.write(f"{server_name(server)}: starting")

    def begin(self, point: Point) -> None:
        self.current, self.since_s = point, time.monotonic()
        self.todo.setdefault(point.path, point)
        live.show(load_words(point.run), "preparing its requests")

    def end(self, point: Point, log: Log) -> None:
        self.todo.pop(point.path, None)
        self.done += 1
        if log.status == "ok" and self.current:
            took_s = max(time.monotonic() - self.since_s, 1e-3)
            self.known.append(Known(point.server, point.run, requests_about(point.run) / took_s))
            self.starts_s.setdefault(server_name(point.server), log.server_facts.start_s)
        self.current = None
        self._show_ahead(self.left_s(None))
        live.clear()

    def watch(self, load: Progress) -> None:
        """Called several times a second while a point is measured."""
        assert self.current
        self._show_ahead(self.left_s(load))
        live.show(*words(self.current.run, load))

    def left_s(self, load: Progress | None) -> float | None:
        """About how long the rest takes; None where that is not known yet, or a search decides it."""
        if self.searches:
            return None
        known, point = self.known, self.current
        measuring = load if load and load.done and load.phase == "measuring" else None
        if measuring and point and not known:
            known = [Known(point.server, point.run, measuring.done / measuring.passed_s)]
        times_s = {path: seconds(p.server, p.run, known) for path, p in self.todo.items()}
        if point and measuring:
            times_s[point.path] = (measuring.of - measuring.done) * measuring.passed_s / measuring.done
        elif point and (whole_s := times_s.get(point.path)):
            times_s[point.path] = max(0.0, whole_s - (time.monotonic() - self.since_s))
        left_s = [each for each in times_s.values() if each is not None]
        return sum(left_s) + self._starts_left_s() if len(left_s) == len(times_s) else None

    def _starts_left_s(self) -> float:
        usual_s = sum(self.starts_s.values()) / max(1, len(self.starts_s))
        names = {server_name(p.server) for p in self.todo.values() if not p.server.urls}
        here = {server_name(self.current.server)} if self.current else set()
        return usual_s * len(names - self.starts_s.keys() - here)

    def _show_ahead(self, left_s: float | None) -> None:
        narrow = (live.width() or NARROW) < NARROW
        of = " points done" if self.searches else self.of if narrow else f"{self.of} {self.unit}"
        left = () if left_s is None or not self.todo else (f"about {duration(max(1, left_s))} left",)
        live.LINE.ahead = (f"{self.done}{of}", *left)


def words(run: RunConfig, load: Progress) -> list[str]:
    """How far a point is, what matters most first."""
    name = load_words(run)
    if load.phase != "measuring":
        return [f"{name} {load.phase}", f"{load.done}/{load.of}"]
    rate = load.done / max(load.passed_s, 1e-3)
    times = {"TTFT" if run.stream else "E2E": load.ttft_s, "TPOT": load.tpot_s if run.stream else None}
    failed = f"{load.failed} failed"
    return [
        f"{name} {load.done}/{load.of}",
        failed if load.failed else "",
        f"{significant(rate, 2)} req/s" if load.done else "",
        *(f"{label} {latency(known, 2)}" for label, known in times.items() if known is not None),
        "" if load.failed else failed,
    ]
