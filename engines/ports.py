"""Ports of a server that takes long to listen on them. Used by mii_server.py."""

import random
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def hold(ports: range) -> Iterator[None]:
    """Keep ports for a gRPC server while it loads. Ends this process when one is taken.

    gRPC shares a port with every socket that shares it too (SO_REUSEPORT): with ours, which is why the server can
    listen on a port that we hold, but also with another benchmark's server. So each is asked for alone first.
    """
    with ExitStack() as held:
        for port in ports:
            try:
                bound(port).close()
                held.enter_context(bound(port, shared=True))
            except OSError as error:
                wanted = f"{len(ports)} in a row are needed, from {ports[0]} on"
                sys.exit(f"port {port} is taken ({error.strerror}); {wanted}")
        yield


def bound(port: int, shared: bool = False) -> socket.socket:
    """A socket on this port of every address, as gRPC's servers are. Raises OSError when it is taken."""
    dual = socket.has_dualstack_ipv6()
    sock = socket.socket(socket.AF_INET6 if dual else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an ended server do not count
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        if dual:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int, step: int) -> int:
    """The first of `count` ports, `step` apart, that are free. They lie below those that the kernel deals out to
    connections, which could take one before the server does."""
    while True:
        first = random.randrange(10_000, 30_000)
        with suppress(OSError, OverflowError):
            for port in range(first, first + count * step, step):
                bound(port).close()
            return first
