"""One client: a connection, and the request that is in flight on it."""

from __future__ import annotations

import select
from collections.abc import Callable
from enum import Enum
from time import time_ns

from servebench.errors import HttpError
from servebench.load import retry
from servebench.load.exchange import Exchange
from servebench.load.protocol import Job, Task
from servebench.load.read_loop import Poller
from servebench.load.route import Route
from servebench.load.wire import Connection, Segment, open_connection
from servebench.log.result import Phase

PAUSE_NS = 100_000_000  # after a failure, so that a dead server does not eat all requests in an instant
NEXT_ADDRESS_S = 3.0  # for a connect, while there are other addresses to try
MAX_RESENDS = 3  # of a request that did not reach the server


class State(Enum):
    """What a client's connection is doing."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    HANDSHAKING = "handshaking"
    IDLE = "idle"
    SENDING = "sending"
    RECEIVING = "receiving"


RECEIVING = State.RECEIVING  # asked for at every event; an attribute of an Enum is slow to look up


class Client:
    """Sends one request after the other, and says how each of them ended. The event loop calls `on_ready`."""

    def __init__(
        self, number: int, route: Route, task: Task, poller: Poller, on_end: Callable[[Client, Exchange], None]
    ) -> None:
        self.number, self.server = number, route.server
        self.route, self.task, self.poller, self.on_end = route, task, poller, on_end
        self.pause_until_ns = 0

        self.state = State.CLOSED
        self.connection: Connection | None = None
        self.address = 0  # of the endpoint's addresses: the one that was tried last
        self.untried_addresses = 0
        self.connect_begin_ns = 0
        self.connect_ns = 0  # how long it took
        self.reused = False  # has the connection brought an answer before?
        self.acked_before = 0  # bytes that the server had confirmed before this request

        self.http = route.http()
        self.exchange: Exchange | None = None  # the request in flight
        self.answer = self.http.answer()
        self.attempt_ns = 0  # when this attempt began
        self.retry_at_ns = 0  # when the next one begins, if it waits for that

    # Connecting, always before a request is sent and outside of its latency.

    def open(self) -> None:
        self.untried_addresses = len(self.route.endpoint.addresses)
        self._connect()

    def _connect(self) -> None:
        route = self.route
        self.address, self.untried_addresses = route.address, self.untried_addresses - 1
        self.connect_begin_ns = time_ns()
        self.state = State.CONNECTING
        try:
            self.connection, http = open_connection(route.endpoint, self.address, route.tls), route.http()
            if http is not self.http:
                self.http, self.answer = http, http.answer()
            self.poller.watch(self.connection, select.EPOLLOUT, self.on_ready)
            self._go_on_connecting()
        except OSError as error:
            self._cannot_connect(error)

    def _go_on_connecting(self) -> None:
        assert self.connection
        if self.state is State.CONNECTING and self.connection.connect():
            self.state = State.HANDSHAKING
        if self.state is State.HANDSHAKING and self.connection.handshake():
            self.connect_ns, self.reused = time_ns() - self.connect_begin_ns, False
            self.state = State.IDLE
            self._send_control()
            if self.exchange:
                self._send()
        if self.state in (State.HANDSHAKING, State.IDLE, State.RECEIVING):
            writing = self.state is State.HANDSHAKING and bool(self.connection.outgoing)
            self._watch(writing)

    def _cannot_connect(self, error: OSError) -> None:
        self.close()
        self.route.refused(self.address)
        if self.untried_addresses:
            self._connect()
            return
        self.pause_until_ns = time_ns() + PAUSE_NS
        if self.exchange:
            self._set_sent()
            self._end(f"cannot connect to {self.route.endpoint.netloc}: {error.strerror or error}")

    def check_timeouts(self, now_ns: int) -> None:
        """Retry when it is time; end an attempt, or a connect without a request, that takes too long."""
        limit_s = self.task.request_timeout_s
        if self.retry_at_ns:
            if now_ns >= self.retry_at_ns:
                self.retry_at_ns, self.attempt_ns = 0, now_ns
                self.open()
        elif self.exchange and now_ns - self.attempt_ns > limit_s * 1e9:
            self.give_up(f"no complete answer within {limit_s:g} s (--request_timeout)")
        elif self.state in (State.CONNECTING, State.HANDSHAKING):
            limit_s = min(limit_s, NEXT_ADDRESS_S) if self.untried_addresses else limit_s
            if now_ns - self.connect_begin_ns > limit_s * 1e9:
                self._cannot_connect(TimeoutError(0, f"no connection within {limit_s:g} s"))

    def close(self) -> None:
        if self.connection:
            self.poller.forget(self.connection)
            self.connection.close()
        self.connection, self.state = None, State.CLOSED

    def _watch(self, writing: bool = False) -> None:
        assert self.connection
        mask = select.EPOLLIN | select.EPOLLOUT if writing else select.EPOLLIN
        self.poller.watch(self.connection, mask, self.on_ready)

    # Sending.

    def start(self, job: Job, phase: Phase, due_ns: int) -> None:
        """Send this request, which is due since due_ns, as soon as there is a connection."""
        self.answer = self.http.answer()
        self.attempt_ns = now_ns = time_ns()
        self.exchange = Exchange(job, phase, self.number, self.server, self.answer, now_ns, due_ns)
        if self.state is State.IDLE:
            self._send()
        elif self.state is State.CLOSED:
            self.open()

    def _send(self) -> None:
        assert self.exchange and self.connection
        job = self.exchange.job
        self.acked_before = self.connection.bytes_acked() or 0 if self.reused else 0
        self.connection.queue(self.http.request(f"{self.task.tag}-{job.id}", job.body))
        self.state = State.SENDING
        self._flush()

    def _send_control(self) -> None:
        """Send what the protocol itself has to say: HTTP/2's settings, pings, more of a long request."""
        control = self.http.control_bytes()
        if self.connection and (control or self.connection.outgoing):
            self.connection.queue(control)
            self._flush()

    def _flush(self) -> None:
        assert self.connection
        if self.state is State.SENDING:
            self._set_sent()
        try:
            done = self.connection.flush()
        except OSError as error:
            self.lost(error)
            return
        if done and self.state is State.SENDING and not self.http.waiting:
            self._sent()
        self._watch(writing=not done)

    def _set_sent(self) -> None:
        if self.exchange and not self.exchange.retries:
            self.exchange.sent_ns = time_ns()

    def _sent(self) -> None:
        self.state = State.RECEIVING
        exchange = self.exchange
        if exchange and not exchange.retries:
            reconnect_ns = 0 if self.reused else self.connect_ns
            exchange.late_ns = max(0, exchange.sent_ns - exchange.due_ns - reconnect_ns)

    # What the event loop calls.

    def on_ready(self, earliest_ns: int) -> None:
        """The socket is ready; nothing had arrived before earliest_ns."""
        if self.state is RECEIVING:
            if self.connection and self.connection.outgoing:
                self._send_control()
            self._read(earliest_ns)
        else:
            self._go_on(earliest_ns)

    def _go_on(self, earliest_ns: int) -> None:
        """What else a ready socket can mean: to connect, to send, or that the server closed."""
        if self.state in (State.CONNECTING, State.HANDSHAKING):
            try:
                self._go_on_connecting()
            except OSError as error:
                self._cannot_connect(error)
        elif self.state is State.SENDING:
            self._flush()
            if self.state is State.SENDING:
                self._read(earliest_ns)
        elif self.state is State.IDLE:
            self._read_while_idle(earliest_ns)

    def _read_while_idle(self, earliest_ns: int) -> None:
        """The server closed, or sent what nobody asked for; or TLS or HTTP/2 has something to say (a ticket)."""
        assert self.connection
        try:
            if self.http.on_idle_data(self.connection.read(earliest_ns).data):
                self._send_control()
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def _read(self, earliest_ns: int) -> None:
        """Read a segment of the answer."""
        assert self.connection
        try:
            segment = self.connection.read(earliest_ns)
        except BlockingIOError:
            return
        except OSError as error:
            self.lost(error)
            return
        self.receive(segment)

    def receive(self, segment: Segment) -> None:
        if segment.data:
            self.poller.record_lag(segment)
        try:
            if not segment.data:
                self._closed_by_server()
            elif self.answer.add(segment):
                self._end(None, keep=self.state is RECEIVING)  # else it came before the whole request was sent
            elif self.answer.chunked and self.state is RECEIVING and type(self.connection) is Connection:
                self._stream(self.connection)
            else:
                self._send_control()
        except HttpError as error:
            self._end(str(error), keep=False)

    def _stream(self, connection: Connection) -> None:
        """Have the rest of the answer read the fast way, unless this read may have left something unread."""
        self._watch()
        if not connection.unread_since_ns:
            self.poller.add_stream(connection, self.answer.segments, self)

    def _closed_by_server(self) -> None:
        if self.answer.segments:
            complete = self.answer.end_of_stream()
            self._end(None if complete else "the server closed the connection inside the answer", keep=False)
        else:
            self.lost(ConnectionResetError(0, "the server closed the connection without an answer"))

    def lost(self, error: OSError) -> None:
        """The connection broke. A request that provably never reached the server is sent again."""
        assert self.connection
        acked = self.connection.bytes_acked()
        unanswered = self.reused and not self.answer.segments
        if unanswered:
            self.route.reuse = False
        exchange = self.exchange
        if not exchange:
            self.close()
        elif unanswered and acked is not None and acked == self.acked_before and exchange.resent < MAX_RESENDS:
            exchange.resent += 1
            self.close()
            self.open()
        else:
            self._end(error.strerror or str(error), keep=False)

    # The end of a request.

    def give_up(self, error: str) -> None:
        """End the request in flight, if there is one, and close."""
        self.retry_at_ns = 0
        if self.exchange:
            self._end(error, keep=False)
        self.close()

    def _end(self, error: str | None, keep: bool = True) -> None:
        """Hand the exchange over, keep the connection if that may be, and ask for the next request."""
        exchange = self.exchange
        assert exchange
        may_retry = exchange.retries < self.task.max_retries and error != "cancelled"
        if may_retry and retry.worth_it(error, self.answer.status):
            self._retry_later(exchange)
            return
        self.exchange = None
        if self.connection and not (keep and self.answer.keep_alive() and self._may_reuse()):
            self.close()
        elif self.connection:
            self.state, self.reused = State.IDLE, True
            self._watch()
        exchange.ended_ns, exchange.connect_ns = time_ns(), self.connect_ns
        exchange.answer, exchange.error = self.answer, error
        if error:
            self.pause_until_ns = time_ns() + PAUSE_NS
        self.on_end(self, exchange)

    def _retry_later(self, exchange: Exchange) -> None:
        self.retry_at_ns = time_ns() + round(retry.wait_s(exchange.retries, self.answer.headers) * 1e9)
        exchange.retries += 1
        self.answer.release()
        self.answer = self.http.answer()
        self.close()

    def _may_reuse(self) -> bool:
        """As long as nobody knows, the connection is watched to find it out."""
        if self.route.reuse is None and self.connection:
            self.route.try_reuse(self.connection, self.poller)
            self.connection, self.state = None, State.CLOSED
        return bool(self.route.reuse)
