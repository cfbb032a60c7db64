"""The closed loop: N clients, each of which sends its next request when its last one ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from servebench.load.client import Client
from servebench.load.exchange import Exchange
from servebench.load.protocol import MEASURE, WARM_UP, WARMED, Job
from servebench.load.route import Route
from servebench.load.wire import State
from servebench.log.schema import Phase

if TYPE_CHECKING:
    from servebench.load.worker import Worker

CONNECTS_AT_ONCE = 32
STARTS_AT_ONCE = 16  # requests sent in one pass of the loop, or an eighth of its reads: tokens come first
HOUSEKEEPING_S = 0.02


class ClosedLoop:
    """Decides which client sends what, and when. Driven by the worker's loop."""

    def __init__(self, worker: Worker, routes: list[Route]) -> None:
        self.worker, self.task = worker, worker.task
        self.clients = [Client(number, server, routes[server], worker) for number, server in self.task.clients]
        self.waiting = dict.fromkeys(self.clients)  # for a connection, a pause to end, the warm-up to begin
        self.counted = deque(self.task.counted)
        self.turns: dict[int, deque[Job]] = {client.number: deque() for client in self.clients}
        self.warmed_of = dict.fromkeys(self.turns, 0)
        self.starts: deque[tuple[Client, int]] = deque()  # clients to send their next request, due since then (ns)

    def wait_s(self) -> float:
        """How long the loop may wait for its sockets."""
        return 0 if self.starts else HOUSEKEEPING_S

    def start_due(self, reads: int) -> None:
        """Send what is due, after a pass of so many reads."""
        if self.starts:
            for _ in range(min(len(self.starts), max(STARTS_AT_ONCE, reads // 8))):
                self._deal(*self.starts.popleft())

    def keep_house(self, now_ns: int, phase: int) -> None:
        """Connect a few, deal to those who wait."""
        rested = [c for c in self.waiting if now_ns >= c.pause_until_ns]
        if phase >= WARM_UP:
            for client in rested:
                del self.waiting[client]
                self.starts.append((client, now_ns))
            return
        connecting = sum(c.state in (State.CONNECTING, State.HANDSHAKING) for c in self.waiting)
        for client in [c for c in rested if c.state is State.CLOSED][: CONNECTS_AT_ONCE - connecting]:
            client.open()

    def never_sent(self) -> Iterator[Exchange]:
        """Requests that should have left: none, since all wait for their clients."""
        return iter(())

    def ended(self, client: Client, exchange: Exchange) -> int:
        """Let a client go on whose request ended. Returns how late the request was, ns."""
        self.warmed_of[client.number] += 1
        if self.warmed_of[client.number] == self.task.warmup:
            self.worker.add(WARMED, 1)
        turns = self.turns[client.number]
        spare = exchange.phase != "measured"
        think_ns = turns[0].think_ns if turns else exchange.job.think_ns if spare else 0
        if exchange.error:
            self.waiting[client] = None
        elif think_ns:
            client.pause_until_ns = exchange.answer.pieces.stamp_ns[-1] + think_ns
            self.waiting[client] = None
        else:
            self.starts.append((client, exchange.answer.pieces.stamp_ns[-1]))
        return exchange.late_ns

    def _deal(self, client: Client, due_ns: int) -> None:
        """The next request: a counted one while there are any and counting has begun, else a spare one."""
        phase: Phase = "warmup"
        turns = self.turns[client.number]
        if self.worker.phase() == MEASURE:
            phase = "measured" if turns or self.counted else "cooldown"
        if phase == "measured":
            job = turns.popleft() if turns else self._next_conversation(turns)
        else:
            job = self.worker.spare_job()
        client.start(job, phase, due_ns)

    def _next_conversation(self, turns: deque[Job]) -> Job:
        """Its first request; those that follow are this client's too."""
        job = self.counted.popleft()
        while self.counted and self.counted[0].conversation == job.conversation:
            turns.append(self.counted.popleft())
        return job
