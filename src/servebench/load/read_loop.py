"""The sockets that an event loop waits for, and how nearly every token is read.

`read` takes more of a chunked answer over plain TCP with as few calls as can be. What an event touches costs as
much as what it does: with a thousand streams, nothing is in the processor's cache when a stream's turn comes. So a
stream is one tuple here, and its segments are columns.
"""

from __future__ import annotations

import select
from array import array
from collections.abc import Callable
from time import time_ns
from typing import Any, Protocol

from servebench.load.wire import CONTROL_SIZE, READ_SIZE, Connection, Segment, Segments, unpack_timespec


class Receiver(Protocol):
    """Whoever waits for an answer: it gets what is not read here."""

    connection: Connection | None

    def receive(self, segment: Segment) -> None: ...
    def lost(self, error: OSError) -> None: ...


# An answer under way: recvmsg of its socket; appends to the columns of its segments; its receiver, for all else.
Stream = tuple[
    Callable[[int, int], Any], Callable[[bytes], None], Callable[[int], None], Callable[[int], None], Receiver
]


class Poller:
    """Knows which socket is waited for, and what to call when it is ready."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.masks: dict[int, int] = {}  # by file descriptor, as the other two
        self.watched: dict[int, Callable[[int], None]] = {}  # on_ready(earliest_ns)
        self.streams: dict[int, Stream] = {}  # looked up before `watched`
        self.lag_ns = array("q")  # of every read: when we read it, minus its stamp
        self.unstamped = 0  # reads

    def watch(self, connection: Connection, mask: int, on_ready: Callable[[int], None]) -> None:
        """Call on_ready(earliest_ns) when the connection is ready as mask says; nothing came before that time."""
        fd = connection.sock.fileno()
        known = self.masks.get(fd)
        if known is None:
            self.epoll.register(fd, mask)
        elif known != mask:
            self.epoll.modify(fd, mask)
        self.masks[fd], self.watched[fd] = mask, on_ready
        self.streams.pop(fd, None)

    def add_stream(self, connection: Connection, segments: Segments, receiver: Receiver) -> None:
        """Let `read` take the rest of the answer on a connection that is watched."""
        columns = segments.data.append, segments.stamp_ns.append, segments.earliest_ns.append
        self.streams[connection.sock.fileno()] = connection.sock.recvmsg, *columns, receiver

    def forget(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        if self.masks.pop(fd, None) is not None:
            self.epoll.unregister(fd)
            del self.watched[fd]
            self.streams.pop(fd, None)

    def record_lag(self, segment: Segment) -> None:
        self.lag_ns.append(time_ns() - segment.stamp_ns)
        self.unstamped += not segment.stamped

    def restart_records(self) -> None:
        del self.lag_ns[:]  # in place: the loop holds on to it
        self.unstamped = 0


def read(
    ready: list[tuple[int, int]],
    streams: dict[int, Stream],
    watched: dict[int, Callable[[int], None]],
    earliest_ns: int,
    record_lag_ns: Callable[[int], None],
) -> None:
    """Serve the sockets that epoll reports: streams here, others as they are watched.

    Nothing had come before earliest_ns.
    """
    for fd, _ in ready:
        found = streams.get(fd)
        if found is None:
            on_ready = watched.get(fd)
            if on_ready:
                on_ready(earliest_ns)
            continue
        recvmsg, keep, keep_stamp, keep_earliest, receiver = found
        try:
            data, control, _, _ = recvmsg(READ_SIZE, CONTROL_SIZE)
        except BlockingIOError:
            continue
        except OSError as error:
            receiver.lost(error)
            continue
        if not control:  # the end, or a kernel that does not stamp
            receiver.receive(Segment(data, time_ns(), earliest_ns, False))
            continue
        seconds, ns = unpack_timespec(control[0][2])  # as in wire.read_stamped, without a call
        stamp_ns = seconds * 1_000_000_000 + ns
        if 5 <= len(data) < READ_SIZE and data[-4:] != b"\r\n\r\n":  # not the end, as Answer.add has it
            record_lag_ns(time_ns() - stamp_ns)
            keep(data)
            keep_stamp(stamp_ns)
            keep_earliest(earliest_ns)
            continue
        assert receiver.connection
        receiver.connection.unread_since_ns = earliest_ns if len(data) == READ_SIZE else 0
        receiver.receive(Segment(data, stamp_ns, earliest_ns, True))
