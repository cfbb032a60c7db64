"""What the load processes of an open loop know in common, and the rule by which each of them decides.

Arrivals are numbered in the order of their times, whichever process sends them. Number k may leave when fewer than
`limit` of the arrivals before it are still under way: k - ended < limit. So requests leave first come, first
served, and no more than `limit` are in flight. A request goes to the server with the fewest in flight, of all
processes; among equals to the next in turn, by its number. What happens is the same with one process or many.

A process writes only to its own block of the shared file, so that no count is lost. It looks at the servers and
takes one under a lock. Whoever ends a request wakes those whose next request may now leave.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from servebench.load.protocol import ENDED, SERVERS, STAMPS, STAMPS_IN_RING, WAITS, Task


class Ledger:
    """The counts of all processes that share an open loop, as one of them sees them."""

    def __init__(self, shared: memoryview, task: Task, limit: int | None) -> None:
        self.blocks = [task.counters(shared, worker) for worker in task.peers]
        me = task.peers.index(task.number)
        self.mine, self.limit = self.blocks[me], limit
        self.servers, self.lock_fd = range(len(task.urls)), task.lock_fd if len(task.peers) > 1 else -1
        self.wake_fd = task.wake_fds[me] if self.lock_fd >= 0 else -1
        self.others = [(b, fd) for b, fd in zip(self.blocks, task.wake_fds, strict=False) if fd != self.wake_fd]

    def has_place(self, number: int) -> bool:
        """May this arrival leave, as far as the limit goes?"""
        return self.limit is None or number - self._ended() < self.limit

    def place_since_ns(self, number: int) -> int:
        """When the answer came that gave this arrival its place, which it has; 0 where there always was one."""
        if self.limit is None or number < self.limit:
            return 0
        later = min(self._ended() - (number - self.limit + 1), STAMPS_IN_RING - 1)  # answers that ended after it
        return sorted(stamp for block in self.blocks for stamp in _last_stamps(block, later + 1))[-1 - later]

    def wait(self, number: int | None) -> None:
        """Say which arrival of this process waits next for a place, to be woken when there is one."""
        self.mine[WAITS] = 0 if number is None else number + 1

    def take(self, number: int) -> int:
        """Choose a server for this arrival."""
        with self._locked():
            busy = [sum(block[SERVERS + s] for block in self.blocks) for s in self.servers]
            server = min(self.servers, key=lambda s: (busy[s], (s - number) % len(busy)))
            self.mine[SERVERS + server] += 1
        return server

    def free(self, server: int, stamp_ns: int) -> None:
        """A request ended at this time."""
        mine = self.mine
        mine[SERVERS + server] -= 1
        mine[STAMPS + mine[ENDED] % STAMPS_IN_RING] = stamp_ns
        mine[ENDED] += 1
        if self.limit:
            may_leave = self._ended() + self.limit
            for block, fd in self.others:
                if 0 < block[WAITS] <= may_leave:
                    os.eventfd_write(fd, 1)

    def _ended(self) -> int:
        return sum(block[ENDED] for block in self.blocks)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self.lock_fd < 0 or len(self.servers) == 1:
            yield
            return
        fcntl.lockf(self.lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.lock_fd, fcntl.LOCK_UN)


def _last_stamps(block: memoryview, n: int) -> list[int]:
    ended = block[ENDED]
    return [block[STAMPS + i % STAMPS_IN_RING] for i in range(max(0, ended - n), ended)]
