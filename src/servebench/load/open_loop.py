"""The open loop: requests leave at times that were set beforehand, whether the last ones were answered or not.

Connections are a pool that grows as it must. Where requests in flight are limited, further requests wait. Their
wait is in the log: each has the time that it was scheduled for and the time that it was sent. Who sends which
arrival was settled beforehand; when it may leave, and to which server, ledger.py decides for all processes alike.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from time import time_ns
from typing import NamedTuple

import msgspec

from servebench.load import protocol
from servebench.load.client import Client, State
from servebench.load.closed_loop import CONNECTS_AT_ONCE, HOUSEKEEPING_S
from servebench.load.exchange import Exchange
from servebench.load.http import Answer
from servebench.load.ledger import Ledger
from servebench.load.protocol import Arrivals, Job, Pace, Task
from servebench.load.read_loop import Poller
from servebench.log.result import Phase

OTHER_FILES = 64  # open files that are no connections
PR_SET_TIMERSLACK = 29


def wake_up_sharply() -> None:
    """Linux ends waits up to 50 us late, to save wake-ups; from here on not those of this process."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)


class Arrival(NamedTuple):
    number: int  # among those of all workers
    at_ns: int  # after the start
    phase: Phase
    job: Job


class OpenLoop:
    """Decides what is sent when, and over which connection. The worker's event loop calls it."""

    def __init__(
        self, task: Task, pace: Pace, shared: memoryview, poller: Poller, new_client: Callable[[int, int], Client]
    ) -> None:
        self.task, self.pace, self.shared, self.poller, self.new_client = task, pace, shared, poller, new_client
        self.counters = task.counters(shared, task.number)
        self.ledger = Ledger(shared, task, pace.max_in_flight)
        if self.ledger.wake_fd >= 0:
            poller.epoll.register(self.ledger.wake_fd, select.EPOLLIN)
            poller.watched[self.ledger.wake_fd] = self._on_wake

        servers = range(len(task.urls))
        self.clients = [new_client(number, server) for number, server in task.clients]
        self.free: list[list[Client]] = [[c for c in self.clients if c.server == s] for s in servers]
        self.busy = [0 for _ in servers]  # requests in flight by server, of this worker
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_clients = min(files - OTHER_FILES, pace.max_in_flight or files)

        self.start_ns = 0  # what arrivals count from; 0 until the parent sets it
        self.window_known = False  # has the parent said when the window opens?
        self.window_ns = 0  # when it opens, after the start
        self.lead_in_from_ns = 0  # when its lead-in begins, after the start
        self.gap_filler_arrivals = self.lead_in_arrivals = 0  # of all workers
        self.warming_up: set[int] = set()  # ids of the requests whose ends open the window
        self.fillers = task.fillers()
        self.arrivals = self._arrivals()
        self.next = next(self.arrivals, None)
        self.due: deque[Arrival] = deque()  # those that wait for a place
        self.spin_ns = 0  # spent in waits without sleep
        wake_up_sharply()

    # Which arrivals there are.

    def _arrivals(self) -> Iterator[Arrival]:
        """This worker's arrivals in order; those of the end come again and again."""
        pace, fillers = self.pace, self.fillers
        for number, at_ns in _once(pace.warmup):
            job = next(fillers)
            self.warming_up.add(job.id)
            yield Arrival(number, at_ns, "warmup", job)
        before = pace.warmup.total
        for number, at_ns in _again(pace.gap_filler):
            if self.window_known and at_ns >= self.lead_in_from_ns:
                break
            yield Arrival(before + number, at_ns, "warmup", next(fillers))
        before += self.gap_filler_arrivals + self.lead_in_arrivals
        for number, at_ns in self._lead_in():
            yield Arrival(before + number, self.window_ns + at_ns, "warmup", next(fillers))
        for (number, at_ns), job in zip(_once(pace.measured), self.task.measured, strict=True):
            yield Arrival(before + number, self.window_ns + at_ns, "measured", job)
        before += pace.measured.total
        for number, at_ns in _again(pace.cooldown):
            yield Arrival(before + number, self.window_ns + at_ns, pace.phase or "cooldown", next(fillers))

    def _lead_in(self) -> Iterator[tuple[int, int]]:
        """The last measured arrivals, as if they came before the first too, once or in several periods.

        Numbers and times count from the first measured arrival, so both are negative.
        """
        measured = self.pace.measured
        for period in range(-(-self.lead_in_arrivals // max(1, measured.total)), 0, -1):
            for number, at_ns in _once(measured):
                ahead = period * measured.total - number
                if ahead <= self.lead_in_arrivals:
                    yield -ahead, at_ns - period * self.pace.period_ns

    def _look_for_window(self) -> None:
        """See whether the parent opened the window; then drop an arrival of the gap filler that is too late."""
        window = self.shared[protocol.WINDOW_NS : protocol.LEAD_IN_NS + 1]
        opens_ns, self.gap_filler_arrivals, self.lead_in_arrivals, lead_in_ns = window
        self.window_known = bool(opens_ns)
        if self.window_known:
            self.window_ns = opens_ns - self.start_ns
            self.lead_in_from_ns = self.window_ns - lead_in_ns
            if self.next and self.next.at_ns >= self.lead_in_from_ns:
                self.next = next(self.arrivals, None)

    # What the event loop calls.

    def _on_wake(self, earliest_ns: int) -> None:
        """Another worker left a place, which start_due will find."""
        os.eventfd_read(self.ledger.wake_fd)

    def wait_s(self) -> float:
        """Wait until the next arrival or a ready socket: epoll counts in ms, a select on it in us."""
        self.start_ns = self.start_ns or self.shared[protocol.START_NS]
        if not (self.start_ns and self.next):
            return HOUSEKEEPING_S
        begin_ns, due_ns = time_ns(), self.start_ns + self.next.at_ns
        if (sleep_ns := due_ns - self.pace.spin_ns - begin_ns) > 0:
            select.select([self.poller.epoll], (), (), min(sleep_ns / 1e9, HOUSEKEEPING_S))
            return 0
        while time_ns() < due_ns and not self.poller.epoll.poll(0, 1):
            pass
        self.spin_ns += time_ns() - begin_ns
        return 0

    def start_due(self, reads: int) -> None:
        """Send what is due, and what waited for a place."""
        if not self.start_ns:
            return
        if not self.window_known and self.pace.gap_filler.total:
            self._look_for_window()
        now_ns = time_ns()
        while self.next and self.start_ns + self.next.at_ns <= now_ns:
            self.due.append(self.next)
            self.next = next(self.arrivals, None)
        while self.due:
            number = self.due[0].number
            self.ledger.wait(number)  # before the look: whoever leaves a place after it wakes us
            if not self.ledger.has_place(number) or sum(self.busy) >= self.max_clients:
                return
            self._send(self.due.popleft())
            self.ledger.wait(None)

    def _send(self, arrival: Arrival) -> None:
        job, server = self._scheduled(arrival), self.ledger.take(arrival.number)
        due_ns = max(self.start_ns + arrival.at_ns, self.ledger.place_since_ns(arrival.number))
        self.busy[server] += 1
        self._take_client(server).start(job, arrival.phase, due_ns)

    def _scheduled(self, arrival: Arrival) -> Job:
        return msgspec.structs.replace(arrival.job, scheduled_ns=self.start_ns + arrival.at_ns)

    def _take_client(self, server: int) -> Client:
        """A free client, if possible one that is connected."""
        free = self.free[server]
        for i in range(len(free) - 1, -1, -1):
            if free[i].state is State.IDLE:
                return free.pop(i)
        return free.pop() if free else self._add_client(server)

    def _add_client(self, server: int) -> Client:
        client = self.new_client(self.task.number + self.task.client_step * len(self.clients), server)
        self.clients.append(client)
        return client

    def do_housekeeping(self, now_ns: int) -> None:
        """Keep connections open for the requests to come, and say how many are in flight."""
        self.counters[protocol.IN_FLIGHT] = sum(self.busy) + len(self.due)
        connecting = sum(c.state in (State.CONNECTING, State.HANDSHAKING) for c in self.clients)
        for server, free in enumerate(self.free):
            room = max(0, self.max_clients - sum(self.busy))
            wanted = min(max(protocol.SPARE_CONNECTIONS, self.busy[server] // 8), room)
            free += [self._add_client(server) for _ in range(wanted - len(free))]
            for client in free[-wanted:] if wanted else ():
                rested = client.state is State.CLOSED and now_ns >= client.pause_until_ns
                if rested and connecting < CONNECTS_AT_ONCE:
                    connecting += 1
                    client.open()

    def never_sent(self) -> Iterator[Exchange]:
        """Measured requests that still wait when the point is stopped."""
        for arrival in self.due:
            if arrival.phase == "measured":
                job, at_ns = self._scheduled(arrival), self.start_ns + arrival.at_ns
                exchange = Exchange(job, "measured", self.clients[0].number, 0, Answer(), at_ns)
                exchange.ended_ns, exchange.error = time_ns(), "cancelled"
                yield exchange

    def on_end(self, client: Client, exchange: Exchange) -> None:
        """Free a client whose request ended. Its wait for a place is no lateness."""
        self.busy[client.server] -= 1
        self.free[client.server].append(client)
        stamps = exchange.answer.segments.stamp_ns
        self.ledger.free(client.server, stamps[-1] if not exchange.error else time_ns())
        if exchange.job.id in self.warming_up:
            self.warming_up.remove(exchange.job.id)
            self.counters[protocol.WARMED] += 1
        exchange.late_ns = exchange.sent_ns - exchange.due_ns


def _once(arrivals: Arrivals) -> Iterator[tuple[int, int]]:
    """(number among them, time) of each."""
    return zip(count(arrivals.first, arrivals.step), arrivals.at_ns, strict=False)


def _again(arrivals: Arrivals) -> Iterator[tuple[int, int]]:
    """The same, again and again."""
    for again in count() if arrivals.at_ns else ():
        for number, at_ns in _once(arrivals):
            yield number + again * arrivals.total, at_ns + again * arrivals.span_ns
