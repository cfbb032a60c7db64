"""The closed loop: N clients, each of which sends its next request when its last one ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from servebench.load.client import Client, State
from servebench.load.exchange import Exchange
from servebench.load.protocol import MEASURE, PHASE, WARM_UP, WARMED, Job, Task
from servebench.log.result import Phase

CONNECTS_AT_ONCE = 32
STARTS_AT_ONCE = 16  # requests sent in one pass of the loop, or an eighth of its reads: tokens come first
HOUSEKEEPING_S = 0.02


class ClosedLoop:
    """Decides which client sends what, and when. The worker's event loop calls it."""

    spin_ns = 0  # it never waits without sleep

    def __init__(self, task: Task, shared: memoryview, new_client: Callable[[int, int], Client]) -> None:
        self.task, self.shared, self.counters = task, shared, task.counters(shared, task.number)
        self.clients = [new_client(number, server) for number, server in task.clients]
        self.waiting = dict.fromkeys(self.clients)  # for a connection, a pause to end, the warm-up to begin
        self.starts: deque[tuple[Client, int]] = deque()  # clients to send their next request, due since then (ns)
        self.fillers = task.fillers()
        self.measured = deque(task.measured)  # jobs that no client has taken yet
        self.conversation_of: dict[int, deque[Job]] = {client.number: deque() for client in self.clients}
        self.ended_of = dict.fromkeys(self.conversation_of, 0)  # requests by client

    def wait_s(self) -> float:
        """How long the loop may wait for its sockets."""
        return 0 if self.starts else HOUSEKEEPING_S

    def start_due(self, reads: int) -> None:
        """Send what is due, after a pass of so many reads."""
        if self.starts:
            for _ in range(min(len(self.starts), max(STARTS_AT_ONCE, reads // 8))):
                self._start(*self.starts.popleft())

    def do_housekeeping(self, now_ns: int) -> None:
        """Connect a few clients; from the warm-up on, let those go on whose pause is over."""
        rested = [c for c in self.waiting if now_ns >= c.pause_until_ns]
        if self.shared[PHASE] >= WARM_UP:
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

    def on_end(self, client: Client, exchange: Exchange) -> None:
        """Let a client go on whose request ended."""
        self.ended_of[client.number] += 1
        if self.ended_of[client.number] == self.task.warmup:
            self.counters[WARMED] += 1
        conversation = self.conversation_of[client.number]
        filler = exchange.phase != "measured"
        think_ns = conversation[0].think_ns if conversation else exchange.job.think_ns if filler else 0
        if exchange.error:
            self.waiting[client] = None
        elif think_ns:
            client.pause_until_ns = exchange.answer.segments.stamp_ns[-1] + think_ns
            self.waiting[client] = None
        else:
            self.starts.append((client, exchange.answer.segments.stamp_ns[-1]))

    def _start(self, client: Client, due_ns: int) -> None:
        """Send the next request: while we measure a measured one, if any is left, else a filler."""
        phase: Phase = "warmup"
        conversation = self.conversation_of[client.number]
        if self.shared[PHASE] == MEASURE:
            phase = "measured" if conversation or self.measured else "cooldown"
        if phase == "measured":
            job = conversation.popleft() if conversation else self._next_conversation(conversation)
        else:
            job = next(self.fillers)
        client.start(job, phase, due_ns)

    def _next_conversation(self, conversation: deque[Job]) -> Job:
        """Its first request; this client also sends those that follow."""
        job = self.measured.popleft()
        while self.measured and self.measured[0].conversation == job.conversation:
            conversation.append(self.measured.popleft())
        return job
