"""Non-blocking connections whose bytes come with the kernel's receive time.

SO_TIMESTAMPNS makes `recvmsg` return the bytes together with the time when the kernel received the newest of them
(CLOCK_REALTIME). A reader that wakes up late reads the same time. Where the kernel gives no stamp, the reader
takes the time itself, and `Segment.stamped` says so.

Nearly every token is read and stamped in read_loop.py; here the head of an answer, its end, TLS and HTTP/2.
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
from time import time_ns
from typing import NamedTuple
from urllib.parse import urlsplit

SO_TIMESTAMPNS = 35  # not in the socket module; Linux on every architecture that Python's wheels are built for
TCP_INFO_BYTES_ACKED = 120  # offset of tcpi_bytes_acked in struct tcp_info (Linux >= 4.1)
READ_SIZE = 16384
CONTROL_SIZE = socket.CMSG_SPACE(16)
unpack_timespec = struct.Struct("@qq").unpack


class Segment(NamedTuple):
    """The bytes of one read. The newest of them arrived at `stamp_ns`, all of them after `earliest_ns`."""

    data: bytes
    stamp_ns: int
    earliest_ns: int
    stamped: bool


class Segments:
    """The segments of one answer as columns: an object for each would cost memory and time.

    `data`, `stamp_ns` and `earliest_ns` (int64) have one entry for each segment.
    """

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.stamp_ns, self.earliest_ns = array("q"), array("q")

    def add(self, segment: Segment) -> None:
        self.data.append(segment.data)
        self.stamp_ns.append(segment.stamp_ns)
        self.earliest_ns.append(segment.earliest_ns)

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, looked up once. A name may have several addresses, and the server listen on one."""

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
    """A socket to hold open: while it exists the kernel keeps stamping, so that no first stamp is missed."""
    dummy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ask_for_stamps(dummy)
    return dummy


def ask_for_stamps(sock: socket.socket) -> None:
    with suppress(OSError):  # not Linux: every segment will say that it is not stamped
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def read_stamped(sock: socket.socket, earliest_ns: int) -> Segment:
    """Raises BlockingIOError when nothing is there; empty data is the end of the stream.

    `read_loop.read` decodes stamps in the same way, without this call: it would cost time at every token.
    """
    data, control, _, _ = sock.recvmsg(READ_SIZE, CONTROL_SIZE)
    if control:
        seconds, ns = unpack_timespec(control[0][2])
        return Segment(data, seconds * 1_000_000_000 + ns, earliest_ns, True)
    return Segment(data, time_ns(), earliest_ns, False)


class Connection:
    """Plain TCP. `connect`, `handshake`, `flush` return True when done, else are to be called again when ready."""

    def __init__(self, endpoint: Endpoint, at: int) -> None:
        family, self.address = endpoint.addresses[at]
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask_for_stamps(self.sock)
        self.outgoing = memoryview(b"")
        # earliest_ns of a read that may have left something unread: that is earliest_ns of the next read too.
        self.unread_since_ns = 0

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

    def queue(self, data: bytes) -> None:
        """Queue this behind what is queued already; `flush` sends it."""
        self.outgoing = memoryview(bytes(self.outgoing) + data if self.outgoing else data)

    def flush(self) -> bool:
        """Hand what is queued to the kernel."""
        try:
            sent = self.sock.send(self.outgoing)
        except BlockingIOError:
            return False
        self.outgoing = self.outgoing[sent:]
        return not self.outgoing

    def read(self, earliest_ns: int) -> Segment:
        segment = read_stamped(self.sock, self.unread_since_ns or earliest_ns)
        self.unread_since_ns = segment.earliest_ns if len(segment.data) == READ_SIZE else 0
        return segment

    def bytes_acked(self) -> int | None:
        """How many bytes the server's kernel has confirmed; None where this kernel does not say."""
        try:
            info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except (AttributeError, OSError):
            return None
        end = TCP_INFO_BYTES_ACKED + 8
        return int(struct.unpack_from("=Q", info, TCP_INFO_BYTES_ACKED)[0]) if len(info) >= end else None

    def close(self) -> None:
        self.sock.close()


class TlsConnection(Connection):
    """TLS over the same sockets. The ciphertext is stamped, before it is decrypted."""

    def __init__(self, endpoint: Endpoint, at: int, context: ssl.SSLContext) -> None:
        super().__init__(endpoint, at)
        self.arriving, self.leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.arriving, self.leaving, server_hostname=endpoint.host)

    def handshake(self) -> bool:
        """Raises OSError when the server went away, and ssl.SSLError when its certificate is refused."""
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
        super().queue(self.leaving.read())
        return self.flush() and done

    def queue(self, data: bytes) -> None:
        self.tls.write(data)
        super().queue(self.leaving.read())

    def read(self, earliest_ns: int) -> Segment:
        cipher = super().read(earliest_ns)
        if not cipher.data:
            return cipher
        self.arriving.write(cipher.data)
        plain = bytearray()
        try:
            while block := self.tls.read(READ_SIZE):
                plain += block
        except ssl.SSLZeroReturnError:
            pass  # the server closed TLS; if nothing came before, empty data says so
        except ssl.SSLWantReadError:
            if not plain:  # half a record, or a record of the protocol itself
                raise BlockingIOError from None
        return cipher._replace(data=bytes(plain))


def open_connection(endpoint: Endpoint, at: int, context: ssl.SSLContext | None) -> Connection:
    """A connection to address number `at` of the endpoint."""
    return TlsConnection(endpoint, at, context) if endpoint.tls and context else Connection(endpoint, at)
