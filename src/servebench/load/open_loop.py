"""The open loop: requests leave at times that were set beforehand, whether the last ones were answered or not.

Connections are a pool that grows as it must. Where requests in flight are limited, more of them wait, and their
wait is in the log: each has the time that it was scheduled for and the time that it was sent.
"""

from __future__ import annotations

import ctypes
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
from servebench.load.protocol import IN_FLIGHT, SPARE_CONNECTIONS, START, Job, Pace
from servebench.load.route import Route
from servebench.load.wire import State
from servebench.records import Phase

if TYPE_CHECKING:
    from servebench.load.worker import Worker

OTHER_FILES = 64
PR_SET_TIMERSLACK = 29


def wake_up_sharply() -> None:
    """Linux ends waits up to 50 us late, to save wake-ups; not those of this process from here on."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)


class Arrival(NamedTuple):
    at_ns: int  # after the start
    phase: Phase
    job: Job


class OpenLoop:
    """Decides what is sent when, and over which connection. Driven by the worker's loop."""

    def __init__(self, worker: Worker, routes: list[Route], pace: Pace) -> None:
        self.worker, self.routes, self.pace, self.task = worker, routes, pace, worker.task
        self.clients = [Client(number, server, routes[server], worker) for number, server in self.task.clients]
        self.free: list[list[Client]] = [[c for c in self.clients if c.server == s] for s in range(len(routes))]
        self.busy, self.sent = [0] * len(routes), [0] * len(routes)  # requests by server: in flight, ever
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = min(files - OTHER_FILES, pace.most_in_flight or files)
        self.arrivals = self._arrivals()
        self.next = next(self.arrivals, None)
        self.waiting: deque[Arrival] = deque()
        self.freed_ns: deque[int] = deque()  # since when there is room for those that wait
        self.start_ns = 0  # what arrivals count from
        wake_up_sharply()

    def _arrivals(self) -> Iterator[Arrival]:
        """This worker's arrivals in order; those of the end come again and again."""
        pace, always = self.pace, self.pace.phase
        for at_ns in pace.warmup_ns:
            yield Arrival(at_ns, always or "warmup", self.worker.spare_job())
        for at_ns, job in zip(pace.counted_ns, self.task.counted, strict=True):
            yield Arrival(at_ns, always or "measured", job)
        for again in count() if pace.hold_ns else ():
            for at_ns in pace.hold_ns:
                yield Arrival(at_ns + again * pace.hold_span_ns, always or "hold", self.worker.spare_job())

    def patience_s(self) -> float:
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
        now_ns = time_ns()
        while self.waiting and self.freed_ns:
            arrival, freed_ns = self.waiting.popleft(), self.freed_ns.popleft()
            self._send(arrival, due_ns=max(freed_ns, self.start_ns + arrival.at_ns))
        while self.next and self.start_ns + self.next.at_ns <= now_ns:
            if sum(self.busy) < self.most:
                self._send(self.next, due_ns=self.start_ns + self.next.at_ns)
            else:
                self.waiting.append(self.next)
            self.next = next(self.arrivals, None)

    def _send(self, arrival: Arrival, due_ns: int) -> None:
        """To the server with the fewest requests of ours in flight."""
        server = min(range(len(self.routes)), key=lambda s: (self.busy[s], self.sent[s]))
        self.busy[server] += 1
        self.sent[server] += 1
        job = msgspec.structs.replace(arrival.job, scheduled_ns=self.start_ns + arrival.at_ns)
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
                if (
                    client.state is State.CLOSED
                    and now_ns >= client.pause_until_ns
                    and connecting < CONNECTS_AT_ONCE
                ):
                    connecting += 1
                    client.open()

    def never_sent(self) -> Iterator[Exchange]:
        """Counted requests that still wait, when the point is stopped."""
        for arrival in self.waiting:
            if arrival.phase == "measured":
                at_ns = self.start_ns + arrival.at_ns
                job = msgspec.structs.replace(arrival.job, scheduled_ns=at_ns)
                client = self.clients[0]
                yield Exchange(
                    job, arrival.phase, client.number, 0, 0, at_ns, time_ns(), 0, 0, 0, Answer(), "cancelled"
                )

    def ended(self, client: Client, exchange: Exchange) -> int:
        """Free a client whose request ended. Returns how late the request was, ns, its wait for a place apart."""
        self.busy[client.server] -= 1
        self.free[client.server].append(client)
        if len(self.waiting) > len(self.freed_ns):
            self.freed_ns.append(exchange.answer.pieces.stamp_ns[-1] if not exchange.error else time_ns())
        return exchange.sent_ns - client.due_ns
