"""The way to a server, and what is learnt of it: which of its addresses answers, and whether it keeps a connection
open after an answer."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from time import time_ns
from typing import TYPE_CHECKING

from servebench.load.http import Http1
from servebench.load.wire import Connection, Endpoint

if TYPE_CHECKING:
    from servebench.load.http2 import Http2
    from servebench.load.worker import Worker

PROBE_NS = 200_000_000  # how long the first connection is watched


@dataclass(eq=False)
class Route:
    """The way to one server. `reuse`: does it keep connections open after an answer? None until that is known.
    `http` makes what a new connection speaks.

    Some servers (llama.cpp's) close after an answer without saying so; a request that is sent into the close
    may or may not have been read. So the first connection is watched for a while before any is used again.
    """

    endpoint: Endpoint
    tls: ssl.SSLContext | None
    http: Callable[[], Http1 | Http2]
    reuse: bool | None = None
    at: int = 0  # which of the endpoint's addresses to connect to

    def refused(self, at: int) -> None:
        """Connect to the next address from now on, if this one is still the choice."""
        if self.at == at:
            self.at = (at + 1) % len(self.endpoint.addresses)


class Probe:
    """The first connection that brought an answer: is it closed now, or does it stay open?"""

    def __init__(self, route: Route, connection: Connection, worker: Worker) -> None:
        self.route, self.connection, self.worker = route, connection, worker
        self.end_ns = time_ns() + PROBE_NS

    def on_ready(self, floor_ns: int) -> None:
        self.decide(stays_open=False)  # closed or reset, or bytes that nobody asked for

    def decide(self, stays_open: bool) -> None:
        self.route.reuse = stays_open
        self.worker.forget(self.connection)
        self.connection.close()
