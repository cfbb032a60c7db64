"""How nearly every token is read: more of a chunked answer over plain TCP, with as few calls as can be."""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import TYPE_CHECKING

from servebench.load.wire import CONTROL_SIZE, READ_SIZE, Connection, Piece, unpack_timespec

if TYPE_CHECKING:
    from servebench.load.client import Client


def fast_reader(client: Client, connection: Connection) -> Callable[[int], None]:
    """What to call with the floor when the connection is ready: `Client._receive` without its calls."""
    recvmsg, note_lag = connection.sock.recvmsg, client.worker.lag_ns.append
    pieces = client.answer.pieces
    keep, keep_stamp, keep_floor = pieces.data.append, pieces.stamp_ns.append, pieces.floor_ns.append

    def receive(floor_ns: int) -> None:
        try:
            data, control, _, _ = recvmsg(READ_SIZE, CONTROL_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            client.lost(error)
            return
        if not control:  # the end, or a kernel that does not stamp
            client.take(Piece(data, time_ns(), floor_ns, False))
            return
        seconds, ns = unpack_timespec(control[0][2])
        stamp_ns = seconds * 1_000_000_000 + ns
        note_lag(time_ns() - stamp_ns)
        if 5 <= len(data) < READ_SIZE and data[-4:] != b"\r\n\r\n":  # not the end, as Answer.add has it
            keep(data)
            keep_stamp(stamp_ns)
            keep_floor(floor_ns)
            return
        connection.behind_ns = floor_ns if len(data) == READ_SIZE else 0
        client.take(Piece(data, stamp_ns, floor_ns, True))

    return receive
