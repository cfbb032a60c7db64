"""Questions beside the load: one whenever so many of its requests have ended, in a process that does only that."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from servebench.load.client import Client, State
from servebench.load.closed_loop import CONNECTS_AT_ONCE, HOUSEKEEPING_S
from servebench.load.exchange import Exchange
from servebench.load.protocol import CHECKED, DONE, Task

MAX_CLIENTS = 64  # of each server


class CheckLoop:
    """Decides when which question is asked. The worker's event loop calls it.

    A question goes to the server that its conversation names, so that it meets the same one alone and under load.
    """

    spin_ns = 0  # it never waits without sleep

    def __init__(self, task: Task, shared: memoryview, new_client: Callable[[int, int], Client]) -> None:
        self.task, self.new_client = task, new_client
        self.mine = task.counters(shared, task.number)
        self.load = [task.counters(shared, worker) for worker in task.peers]
        self.clients = [new_client(number, server) for number, server in task.clients]
        self.free: list[list[Client]] = [[client] for client in self.clients]  # of each server
        self.questions = deque(task.measured)
        self.asked = 0

    def wait_s(self) -> float:
        return HOUSEKEEPING_S

    def start_due(self, reads: int) -> None:
        """Ask what may be asked by now: the first question after half as many requests as between two."""
        done = sum(block[DONE] for block in self.load)
        while self.questions and self.asked + 0.5 <= done * self.task.checks_per_request:
            client = self._free_client(self.questions[0].conversation % len(self.free))
            if not client:
                return
            self.asked += 1
            client.start(self.questions.popleft(), "check", 0)

    def _free_client(self, server: int) -> Client | None:
        if self.free[server]:
            return self.free[server].pop()
        if len(self.clients) >= MAX_CLIENTS * len(self.free):
            return None
        self.clients.append(self.new_client(len(self.clients), server))
        return self.clients[-1]

    def do_housekeeping(self, now_ns: int) -> None:
        """Connect before the load begins."""
        for client in self.clients[:CONNECTS_AT_ONCE]:
            if client.state is State.CLOSED and not client.exchange and now_ns >= client.pause_until_ns:
                client.open()

    def never_sent(self) -> Iterator[Exchange]:
        """Questions that were not asked are no failures."""
        return iter(())

    def on_end(self, client: Client, exchange: Exchange) -> None:
        self.mine[CHECKED] += 1
        self.free[client.server].append(client)
