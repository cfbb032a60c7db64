"""The way to a server, and what is learnt of it: which of its addresses answers, and whether it keeps a connection
open after an answer."""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from time import time_ns
from typing import TYPE_CHECKING

from servebench.load.http import Http1
from servebench.load.read_loop import Poller
from servebench.load.wire import Connection, Endpoint

if TYPE_CHECKING:
    from servebench.load.http2 import Http2

TRIAL_NS = 200_000_000  # how long the first connection is watched


@dataclass(eq=False)
class Route:
    """The way to one server. `http` makes what a new connection speaks.

    Some servers (llama.cpp's) close after an answer without saying so; a request that is sent into the close may
    or may not have been read. So the first connection that brought an answer is watched for a while before any
    connection is used again.
    """

    server: int
    endpoint: Endpoint
    tls: ssl.SSLContext | None
    http: Callable[[], Http1 | Http2]
    reuse: bool | None = None  # does the server keep connections open? None until that is known
    address: int = 0  # which of the endpoint's addresses to connect to
    trial: Connection | None = None  # the connection that is watched, or was
    trial_end_ns: int = 0

    def refused(self, address: int) -> None:
        """Connect to the next address from now on, if this one is still the choice."""
        if self.address == address:
            self.address = (address + 1) % len(self.endpoint.addresses)

    def try_reuse(self, connection: Connection, poller: Poller) -> None:
        """Watch what becomes of this connection; one of them is enough."""
        poller.forget(connection)
        if self.trial:
            connection.close()
            return
        self.trial, self.trial_end_ns = connection, time_ns() + TRIAL_NS
        # It is ready when it is closed or reset, or has bytes that nobody asked for.
        poller.watch(connection, select.EPOLLIN, lambda _: self._decide(False, poller))

    def end_trial(self, now_ns: int, poller: Poller) -> None:
        """Take it that the server keeps connections open, if this one has been open for long enough."""
        if self.reuse is None and self.trial and now_ns > self.trial_end_ns:
            self._decide(True, poller)

    def _decide(self, reuse: bool, poller: Poller) -> None:
        assert self.trial
        self.reuse = reuse
        poller.forget(self.trial)
        self.trial.close()
