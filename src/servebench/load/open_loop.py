"""The open loop: requests leave at times that were set beforehand, whether the last ones were answered or not.

Connections are a pool that grows as it must. Where requests in flight are limited, more of them wait, and their
wait is in the log: each has the time that it was scheduled for and the time that it was sent. Which arrival is
whose was dealt out beforehand; when it may leave, and to which server, ledger.py says for all processes alike.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from time import time_ns
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from servebench.load.client import Client
from servebench.load.closed_loop import CONNECTS_AT_ONCE, HOUSEKEEPING_S
from servebench.load.exchange import Exchange
from servebench.load.http import Answer
from servebench.load.ledger import Ledger
from servebench.load.protocol import (
    BRIDGED,
    IN_FLIGHT,
    LEAD_NS,
    LED_IN,
    OPENS,
    SPARE_CONNECTIONS,
    START,
    WARMED,
    Job,
    Pace,
    Part,
)
from servebench.load.route import Route
from servebench.load.wire import State
from servebench.log.schema import Phase

if TYPE_CHECKING:
    from servebench.load.worker import Worker

OTHER_FILES = 64
PR_SET_TIMERSLACK = 29


def wake_up_sharply() -> None:
    """Linux ends waits up to 50 us late, to save wake-ups; not those of this process from here on."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)


class Arrival(NamedTuple):
    number: int  # among those of all workers
    at_ns: int  # after the start
    phase: Phase
    job: Job


class OpenLoop:
    """Decides what is sent when, and over which connection. Driven by the worker's loop."""

    def __init__(self, worker: Worker, routes: list[Route], pace: Pace) -> None:
        self.worker, self.routes, self.pace, self.task = worker, routes, pace, worker.task
        self.clients = [Client(number, server, routes[server], worker) for number, server in self.task.clients]
        self.free: list[list[Client]] = [[c for c in self.clients if c.server == s] for s in range(len(routes))]
        self.busy = [0] * len(routes)  # requests in flight by server, of this worker
        self.ledger = Ledger(worker.shared, self.task, pace.most_in_flight)
        if self.ledger.wake_fd >= 0:
            worker.epoll.register(self.ledger.wake_fd, select.EPOLLIN)
            worker.watched[self.ledger.wake_fd] = self._woken
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = min(files - OTHER_FILES, pace.most_in_flight or files)
        self.waiting: deque[Arrival] = deque()
        self.start_ns = 0  # what arrivals count from
        self.opened = False
        self.opens_ns = self.lead_ns = 0  # the window and what leads it in, after the start
        self.bridged = self.led_in = 0  # arrivals before the window, of all workers
        self.first: set[int] = set()  # warm-up requests whose ends open the window
        self.arrivals = self._arrivals()
        self.next = next(self.arrivals, None)
        wake_up_sharply()

    def _arrivals(self) -> Iterator[Arrival]:
        """This worker's arrivals in order; those of the end come again and again."""
        pace, spare_job = self.pace, self.worker.spare_job
        for number, at_ns in _once(pace.warmup):
            job = spare_job()
            self.first.add(job.id)
            yield Arrival(number, at_ns, "warmup", job)
        before = pace.warmup.total
        for number, at_ns in _again(pace.bridge):
            if self.opened and at_ns >= self.lead_ns:
                break
            yield Arrival(before + number, at_ns, "warmup", spare_job())
        before += self.bridged + self.led_in
        for turn in range(-(-self.led_in // max(1, pace.counted.total)), 0, -1):
            for number, at_ns in _once(pace.counted):
                ahead = turn * pace.counted.total - number
                if ahead <= self.led_in:
                    led_ns = self.opens_ns - turn * pace.turn_ns + at_ns
                    yield Arrival(before - ahead, led_ns, "warmup", spare_job())
        for (number, at_ns), job in zip(_once(pace.counted), self.task.counted, strict=True):
            yield Arrival(before + number, self.opens_ns + at_ns, "measured", job)
        before += pace.counted.total
        for number, at_ns in _again(pace.hold):
            yield Arrival(before + number, self.opens_ns + at_ns, pace.phase or "cooldown", spare_job())

    def _woken(self, floor_ns: int) -> None:
        """Another worker left a place, which start_due will find."""
        os.eventfd_read(self.ledger.wake_fd)

    def _look_for_the_opening(self) -> None:
        """The parent says when counted requests begin; an arrival of the bridge behind that does not leave."""
        shared = self.worker.shared
        self.opened = bool(shared[OPENS])
        if self.opened:
            self.bridged, self.led_in = shared[BRIDGED], shared[LED_IN]
            self.opens_ns = shared[OPENS] - self.start_ns
            self.lead_ns = self.opens_ns - shared[LEAD_NS]
            if self.next and self.next.at_ns >= self.lead_ns:
                self.next = next(self.arrivals, None)

    def wait_s(self) -> float:
        """Waits until the next arrival or a ready socket: epoll counts in ms, a select on it in us."""
        self.start_ns = self.start_ns or self.worker.shared[START]
        if not (self.start_ns and self.next):
            return HOUSEKEEPING_S
        begun_ns, due_ns = time_ns(), self.start_ns + self.next.at_ns
        if (sleep_ns := due_ns - self.pace.awake_ns - begun_ns) > 0:
            select.select([self.worker.epoll], (), (), min(sleep_ns / 1e9, HOUSEKEEPING_S))
            return 0
        while time_ns() < due_ns and not self.worker.epoll.poll(0, 1):
            pass
        self.worker.awake_ns += time_ns() - begun_ns
        return 0

    def start_due(self, reads: int) -> None:
        """Send what is due, and what waited for a place."""
        if not self.start_ns:
            return
        if not self.opened and self.pace.bridge.total:
            self._look_for_the_opening()
        now_ns = time_ns()
        while self.next and self.start_ns + self.next.at_ns <= now_ns:
            self.waiting.append(self.next)
            self.next = next(self.arrivals, None)
        while self.waiting:
            number = self.waiting[0].number
            self.ledger.wait(number)  # before the look: whoever leaves a place after it wakes us
            if not self.ledger.has_place(number) or sum(self.busy) >= self.most:
                return
            self._send(self.waiting.popleft())
            self.ledger.wait(None)

    def _send(self, arrival: Arrival) -> None:
        scheduled_ns, server = self.start_ns + arrival.at_ns, self.ledger.take(arrival.number)
        due_ns = max(scheduled_ns, self.ledger.place_since_ns(arrival.number))
        self.busy[server] += 1
        job = msgspec.structs.replace(arrival.job, scheduled_ns=scheduled_ns)
        self._take(server).start(job, arrival.phase, due_ns)

    def _take(self, server: int) -> Client:
        """A free client, if possible one that is connected."""
        free = self.free[server]
        for i in range(len(free) - 1, -1, -1):
            if free[i].state is State.IDLE:
                return free.pop(i)
        return free.pop() if free else self._add(server)

    def _add(self, server: int) -> Client:
        number = self.task.number + self.task.client_step * len(self.clients)
        client = Client(number, server, self.routes[server], self.worker)
        self.clients.append(client)
        return client

    def keep_house(self, now_ns: int, phase: int) -> None:
        """Keep connections open for the requests to come, and say how many are in flight."""
        self.worker.count(IN_FLIGHT, sum(self.busy) + len(self.waiting))
        connecting = sum(c.state in (State.CONNECTING, State.HANDSHAKING) for c in self.clients)
        for server, free in enumerate(self.free):
            room = max(0, self.most - sum(self.busy))
            wanted = min(max(SPARE_CONNECTIONS, self.busy[server] // 8), room)
            free += [self._add(server) for _ in range(wanted - len(free))]
            for client in free[-wanted:] if wanted else ():
                rested = client.state is State.CLOSED and now_ns >= client.pause_until_ns
                if rested and connecting < CONNECTS_AT_ONCE:
                    connecting += 1
                    client.open()

    def never_sent(self) -> Iterator[Exchange]:
        """Counted requests that still wait, when the point is stopped."""
        for arrival in self.waiting:
            if arrival.phase == "measured":
                at_ns = self.start_ns + arrival.at_ns
                job = msgspec.structs.replace(arrival.job, scheduled_ns=at_ns)
                times = (0, at_ns, time_ns(), 0)
                number = self.clients[0].number
                yield Exchange(job, arrival.phase, number, 0, *times, 0, 0, Answer(), "cancelled")

    def ended(self, client: Client, exchange: Exchange) -> int:
        """Free a client whose request ended. Returns how late the request was, ns, its wait for a place apart."""
        self.busy[client.server] -= 1
        self.free[client.server].append(client)
        self.ledger.free(client.server, exchange.answer.pieces.stamp_ns[-1] if not exchange.error else time_ns())
        if exchange.job.id in self.first:
            self.first.remove(exchange.job.id)
            self.worker.add(WARMED, 1)
        return exchange.sent_ns - client.due_ns


def _once(part: Part) -> Iterator[tuple[int, int]]:
    """Its arrivals: (number in the part, time)."""
    return zip(count(part.first, part.step), part.at_ns, strict=False)


def _again(part: Part) -> Iterator[tuple[int, int]]:
    """Its arrivals, again and again."""
    for again in count() if part.at_ns else ():
        for number, at_ns in _once(part):
            yield number + again * part.total, at_ns + again * part.span_ns
