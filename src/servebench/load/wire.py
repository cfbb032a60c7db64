"""Non-blocking connections whose bytes come with the kernel's receive time.

SO_TIMESTAMPNS makes `recvmsg` return, beside the bytes, when the kernel received the newest segment of them
(CLOCK_REALTIME). A reader that wakes up late reads the same time. Where the kernel gives no stamp, the time is
the reader's own and `Piece.stamped` says so.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
from array import array
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from time import time_ns
from typing import NamedTuple
from urllib.parse import urlsplit

SO_TIMESTAMPNS = 35  # not in the socket module; Linux on every architecture that Python's wheels are built for
TCP_INFO_BYTES_ACKED = 120  # offset of tcpi_bytes_acked in struct tcp_info (Linux >= 4.1)
READ_SIZE = 16384
CONTROL_SIZE = socket.CMSG_SPACE(16)
unpack_timespec = struct.Struct("@qq").unpack


class Piece(NamedTuple):
    """Bytes of one read. `floor_ns`: they arrived after this; `stamp_ns`: the newest of them arrived then."""

    data: bytes
    stamp_ns: int
    floor_ns: int
    stamped: bool


class Pieces:
    """The pieces of one answer in columns, since an object for each would cost memory, and time with it.

    `stamp_ns` and `floor_ns` hold int64, one of each a piece.
    """

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.stamp_ns, self.floor_ns = array("q"), array("q")

    def add(self, piece: Piece) -> None:
        self.data.append(piece.data)
        self.stamp_ns.append(piece.stamp_ns)
        self.floor_ns.append(piece.floor_ns)

    def __len__(self) -> int:
        return len(self.data)


class State(Enum):
    """What a connection is about."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    HANDSHAKING = "handshaking"
    IDLE = "idle"
    SENDING = "sending"
    RECEIVING = "receiving"


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, looked up once. Of several addresses of a name it may listen on one only."""

    addresses: tuple[tuple[int, tuple[object, ...]], ...]  # (family, address) of each
    host: str  # for the Host header and TLS
    netloc: str
    path: str
    tls: bool

    @classmethod
    def of(cls, url: str) -> Endpoint:
        """Raises OSError when the host is unknown."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = tuple((family, address) for family, _, _, _, address in found)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(addresses, host, parts.netloc.rpartition("@")[2], path, tls)


def stamped_dummy() -> socket.socket:
    """A socket to hold open: while one exists the kernel keeps stamping on, so that no first stamp is missed."""
    dummy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ask_for_stamps(dummy)
    return dummy


def ask_for_stamps(sock: socket.socket) -> None:
    with suppress(OSError):  # not Linux: every piece will say that it is not stamped
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def read_stamped(sock: socket.socket, floor_ns: int) -> Piece:
    """Raises BlockingIOError when nothing is there; empty data is the end of the stream."""
    data, control, _, _ = sock.recvmsg(READ_SIZE, CONTROL_SIZE)
    if control:
        seconds, ns = unpack_timespec(control[0][2])
        return Piece(data, seconds * 1_000_000_000 + ns, floor_ns, True)
    return Piece(data, time_ns(), floor_ns, False)


class Connection:
    """Plain TCP. `connect`, `handshake` and `flush` return True when done, False to be called again when ready."""

    def __init__(self, endpoint: Endpoint, at: int) -> None:
        family, self.address = endpoint.addresses[at]
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask_for_stamps(self.sock)
        self.outgoing = memoryview(b"")
        self.behind_ns = 0  # the floor of a read that may have left something unread; it is the next read's too

    def connect(self) -> bool:
        """Raises OSError when the server refuses."""
        error = self.sock.connect_ex(self.address)
        if error in (errno.EINPROGRESS, errno.EALREADY):
            return False
        if error in (0, errno.EISCONN):
            return True
        raise OSError(error, os.strerror(error))

    def handshake(self) -> bool:
        return True

    def put(self, data: bytes) -> None:
        """To be sent after what was put before."""
        self.outgoing = memoryview(bytes(self.outgoing) + data if self.outgoing else data)

    def flush(self) -> bool:
        """Hand what was put to the kernel."""
        try:
            sent = self.sock.send(self.outgoing)
        except BlockingIOError:
            return False
        self.outgoing = self.outgoing[sent:]
        return not self.outgoing

    def read(self, floor_ns: int) -> Piece:
        piece = read_stamped(self.sock, self.behind_ns or floor_ns)
        self.behind_ns = piece.floor_ns if len(piece.data) == READ_SIZE else 0
        return piece

    def bytes_acked(self) -> int | None:
        """How many bytes the server's kernel has confirmed; None where this kernel does not tell."""
        try:
            info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except (AttributeError, OSError):
            return None
        end = TCP_INFO_BYTES_ACKED + 8
        return int(struct.unpack_from("=Q", info, TCP_INFO_BYTES_ACKED)[0]) if len(info) >= end else None

    def close(self) -> None:
        self.sock.close()


class TlsConnection(Connection):
    """TLS over the same sockets: what is stamped is the ciphertext, before it is deciphered."""

    def __init__(self, endpoint: Endpoint, at: int, context: ssl.SSLContext) -> None:
        super().__init__(endpoint, at)
        self.arriving, self.leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.arriving, self.leaving, server_hostname=endpoint.host)

    def handshake(self) -> bool:
        """Raises ssl.SSLError, an OSError, when the server's certificate is not to be trusted, or it went away."""
        with suppress(BlockingIOError):
            cipher = self.sock.recv(READ_SIZE)
            if not cipher:
                raise ConnectionResetError(0, "the server closed the connection inside the TLS handshake")
            self.arriving.write(cipher)
        try:
            self.tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        super().put(self.leaving.read())
        return self.flush() and done

    def put(self, data: bytes) -> None:
        self.tls.write(data)
        super().put(self.leaving.read())

    def read(self, floor_ns: int) -> Piece:
        cipher = super().read(floor_ns)
        if not cipher.data:
            return cipher
        self.arriving.write(cipher.data)
        plain = bytearray()
        try:
            while block := self.tls.read(READ_SIZE):
                plain += block
        except ssl.SSLZeroReturnError:
            pass  # the server said goodbye; empty data, if there is none, says so
        except ssl.SSLWantReadError:
            if not plain:  # half a record, or one of the protocol's own
                raise BlockingIOError from None
        return cipher._replace(data=bytes(plain))


def open_connection(endpoint: Endpoint, at: int, context: ssl.SSLContext | None) -> Connection:
    """To one of the endpoint's addresses."""
    return TlsConnection(endpoint, at, context) if endpoint.tls and context else Connection(endpoint, at)
