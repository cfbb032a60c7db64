"""How nearly every token is read: more of a chunked answer over plain TCP, with as few calls as can be.

What an event touches costs as much as what it does: of a thousand streams, nothing is in a processor's cache when
its turn comes. So a stream is one tuple here, and its pieces are columns.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import TYPE_CHECKING, Any

from servebench.load.wire import CONTROL_SIZE, READ_SIZE, Connection, Piece, unpack_timespec

if TYPE_CHECKING:
    from servebench.load.client import Client

# Of an answer under way: recvmsg of its socket; appends to the columns of its pieces; its client, for all else.
Stream = tuple[
    Callable[[int, int], Any], Callable[[bytes], None], Callable[[int], None], Callable[[int], None], "Client"
]


def stream(client: Client, connection: Connection) -> Stream:
    """What `read` needs for the rest of this client's answer."""
    pieces = client.answer.pieces
    columns = pieces.data.append, pieces.stamp_ns.append, pieces.floor_ns.append
    return connection.sock.recvmsg, *columns, client


def read(
    ready: list[tuple[int, int]],
    streams: dict[int, Stream],
    watched: dict[int, Callable[[int], None]],
    floor_ns: int,
    note_lag: Callable[[int], None],
) -> None:
    """Serve the sockets that epoll reports: streams here, others as they are watched.

    Nothing had come before floor_ns.
    """
    for fd, _ in ready:
        found = streams.get(fd)
        if found is None:
            on_ready = watched.get(fd)
            if on_ready:
                on_ready(floor_ns)
            continue
        recvmsg, keep, keep_stamp, keep_floor, client = found
        try:
            data, control, _, _ = recvmsg(READ_SIZE, CONTROL_SIZE)
        except BlockingIOError:
            continue
        except OSError as error:
            client.lost(error)
            continue
        if not control:  # the end, or a kernel that does not stamp
            client.take(Piece(data, time_ns(), floor_ns, False))
            continue
        seconds, ns = unpack_timespec(control[0][2])
        stamp_ns = seconds * 1_000_000_000 + ns
        if 5 <= len(data) < READ_SIZE and data[-4:] != b"\r\n\r\n":  # not the end, as Answer.add has it
            note_lag(time_ns() - stamp_ns)
            keep(data)
            keep_stamp(stamp_ns)
            keep_floor(floor_ns)
            continue
        assert client.connection
        client.connection.behind_ns = floor_ns if len(data) == READ_SIZE else 0
        client.take(Piece(data, stamp_ns, floor_ns, True))
