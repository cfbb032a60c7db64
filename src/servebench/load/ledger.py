"""What the load processes of an open loop know in common, and the one rule by which each of them decides.

Arrivals are numbered in the order of their times, whichever process sends them. Number k may leave when fewer
than `most` of those before it have not ended: k - ended < most. So requests leave first come, first served, and
no more than `most` are in flight. A request goes to the server with the fewest in flight, of all processes; among
equals to the next in turn, by its number. What happens is the same with one process or many.

A process writes to its own block of the shared file alone, so that no count is lost; to look at the servers and
to take one is one step under a lock. Whoever ends a request wakes those whose next one may leave now.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from servebench.load.protocol import ENDED, FIRST_WORKER, KEPT_STAMPS, SERVERS, STAMPS, WAITS, Task, slots


class Ledger:
    """The counts of all processes that share an open loop; one object in each of them."""

    def __init__(self, shared: memoryview, task: Task, most: int | None) -> None:
        size = slots(len(task.urls))
        starts = [FIRST_WORKER + number * size for number in task.peers]
        self.blocks = [shared[start : start + size] for start in starts]
        me = task.peers.index(task.number)
        self.mine, self.most = self.blocks[me], most
        self.servers, self.lock_fd = range(len(task.urls)), task.lock_fd if len(task.peers) > 1 else -1
        self.wake_fd = task.wake_fds[me] if self.lock_fd >= 0 else -1
        self.others = [(b, fd) for b, fd in zip(self.blocks, task.wake_fds, strict=False) if fd != self.wake_fd]

    def has_place(self, number: int) -> bool:
        """May this arrival leave, as far as the limit goes?"""
        return self.most is None or number - self._ended() < self.most

    def place_since_ns(self, number: int) -> int:
        """Of an arrival that has a place: the stamp of the answer that left it; 0 where it was always there."""
        if self.most is None or number < self.most:
            return 0
        later = min(self._ended() - (number - self.most + 1), KEPT_STAMPS - 1)  # ends behind the one that left it
        return sorted(stamp for block in self.blocks for stamp in _last_stamps(block, later + 1))[-1 - later]

    def wait(self, number: int | None) -> None:
        """Say which arrival of this process is the next that waits for a place, to be woken when there is one."""
        self.mine[WAITS] = 0 if number is None else number + 1

    def take(self, number: int) -> int:
        """A server for this arrival."""
        with self._alone():
            busy = [sum(block[SERVERS + s] for block in self.blocks) for s in self.servers]
            server = min(self.servers, key=lambda s: (busy[s], (s - number) % len(busy)))
            self.mine[SERVERS + server] += 1
        return server

    def free(self, server: int, stamp_ns: int) -> None:
        """A request ended, with an answer of this stamp."""
        mine = self.mine
        mine[SERVERS + server] -= 1
        mine[STAMPS + mine[ENDED] % KEPT_STAMPS] = stamp_ns
        mine[ENDED] += 1
        if self.most:
            may_leave = self._ended() + self.most
            for block, fd in self.others:
                if 0 < block[WAITS] <= may_leave:
                    os.eventfd_write(fd, 1)

    def _ended(self) -> int:
        return sum(block[ENDED] for block in self.blocks)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self.lock_fd < 0 or len(self.servers) == 1:
            yield
            return
        fcntl.lockf(self.lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.lock_fd, fcntl.LOCK_UN)


def _last_stamps(block: memoryview, most: int) -> list[int]:
    ended = block[ENDED]
    return [block[STAMPS + i % KEPT_STAMPS] for i in range(max(0, ended - most), ended)]
