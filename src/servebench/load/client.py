"""One closed-loop client: a connection, and the request that is in flight on it."""

from __future__ import annotations

import select
from time import time_ns
from typing import TYPE_CHECKING

from servebench.errors import HttpError
from servebench.load import retry
from servebench.load.exchange import Exchange
from servebench.load.http import Answer
from servebench.load.read_loop import stream
from servebench.load.route import Route
from servebench.load.wire import Connection, Piece, State, open_connection
from servebench.log.schema import Phase

if TYPE_CHECKING:
    from servebench.load.http2 import Http2Answer
    from servebench.load.protocol import Job
    from servebench.load.worker import Worker

PAUSE_NS = 100_000_000  # after a failure, so that a dead server does not eat all requests in an instant
NEXT_ADDRESS_S = 3.0  # for a connect, while there are other addresses to try

RECEIVING = State.RECEIVING  # asked for at every event; an attribute of an Enum is slow to look up


class Client:
    """Sends its next request when the last one ended. Driven by the worker's event loop through `on_ready`."""

    def __init__(self, number: int, server: int, route: Route, worker: Worker):
        self.number, self.server, self.endpoint, self.worker = number, server, route.endpoint, worker
        self.route = route
        self.state = State.CLOSED
        self.connection: Connection | None = None
        self.http = route.http()
        self.job: Job | None = None
        self.phase: Phase = "warmup"
        self.answer: Answer | Http2Answer = self.http.answer()
        self.due_ns = self.late_ns = self.sent_ns = self.connect_ns = self.started_ns = self.pause_until_ns = 0
        self.attempt_ns = self.first_sent_ns = self.retry_at_ns = 0
        self.resent = self.retries = self.acked_before = 0
        self.at = self.untried = 0  # the address that was tried last, and how many may be tried yet
        self.connection_used = False

    # Connecting, always before a request is sent and outside of its latency.

    def open(self) -> None:
        self.untried = len(self.endpoint.addresses)
        self._connect()

    def _connect(self) -> None:
        self.at, self.untried = self.route.at, self.untried - 1
        self.started_ns = time_ns()
        self.state = State.CONNECTING
        try:
            self.connection, self.http = open_connection(self.endpoint, self.at, self.route.tls), self.route.http()
            self.answer = self.http.answer()
            self.worker.watch(self.connection, select.EPOLLOUT, self.on_ready)
            self._go_on_connecting()
        except OSError as error:
            self._cannot_connect(error)

    def _go_on_connecting(self) -> None:
        assert self.connection
        if self.state is State.CONNECTING and self.connection.connect():
            self.state = State.HANDSHAKING
        if self.state is State.HANDSHAKING and self.connection.handshake():
            self.connect_ns, self.connection_used = time_ns() - self.started_ns, False
            self.state = State.IDLE
            self._pay()
            if self.job:
                self.send()
        if self.state in (State.HANDSHAKING, State.IDLE, State.RECEIVING):
            writing = self.state is State.HANDSHAKING and bool(self.connection.outgoing)
            self.worker.watch(self.connection, select.EPOLLIN | (select.EPOLLOUT if writing else 0), self.on_ready)

    def _cannot_connect(self, error: OSError) -> None:
        self.close()
        self.route.refused(self.at)
        if self.untried:
            self._connect()
            return
        self.pause_until_ns = time_ns() + PAUSE_NS
        if self.job:
            self.sent_ns = time_ns()
            self._end(f"cannot connect to {self.endpoint.netloc}: {error.strerror or error}")

    def keep_time(self, now_ns: int, limit_s: float) -> None:
        """Try again when it is time; end an attempt, or a connect of no request, longer than limit_s."""
        if self.retry_at_ns:
            if now_ns >= self.retry_at_ns:
                self.retry_at_ns, self.attempt_ns = 0, now_ns
                self.open()
        elif self.job and now_ns - self.attempt_ns > limit_s * 1e9:
            self.give_up(f"no end within {limit_s:g} s (--request_timeout)")
        elif self.state in (State.CONNECTING, State.HANDSHAKING):
            limit_s = min(limit_s, NEXT_ADDRESS_S) if self.untried else limit_s
            if now_ns - self.started_ns > limit_s * 1e9:
                self._cannot_connect(TimeoutError(0, f"no connection within {limit_s:g} s"))

    def close(self) -> None:
        if self.connection:
            self.worker.forget(self.connection)
            self.connection.close()
        self.connection, self.state = None, State.CLOSED

    # Requests.

    def start(self, job: Job, phase: Phase, due_ns: int) -> None:
        """Send this request, which is due since due_ns, as soon as there is a connection."""
        self.job, self.phase, self.due_ns = job, phase, due_ns
        self.resent = self.retries = self.first_sent_ns = 0
        self.sent_ns = self.attempt_ns = time_ns()  # until it really is: what is stopped before counts from here
        self.answer = self.http.answer()
        if self.state is State.IDLE:
            self.send()
        elif self.state is State.CLOSED:
            self.open()

    def send(self) -> None:
        assert self.job and self.connection
        self.acked_before = self.connection.bytes_acked() or 0 if self.connection_used else 0
        self.connection.put(self.http.request(f"{self.worker.tag}-{self.job.id}", self.job.body))
        self.state = State.SENDING
        self._go_on_sending()

    def _go_on_sending(self) -> None:
        assert self.connection
        self.sent_ns = time_ns()
        try:
            done = self.connection.flush()
        except OSError as error:
            self.lost(error)
            return
        if done and not self.http.waiting:
            self.state = State.RECEIVING
            reconnect_ns = 0 if self.connection_used else self.connect_ns
            if not self.retries:
                self.late_ns = max(0, self.sent_ns - self.due_ns - reconnect_ns)
        self.worker.watch(self.connection, select.EPOLLIN | (0 if done else select.EPOLLOUT), self.on_ready)

    def on_ready(self, floor_ns: int) -> None:
        """The event loop found this client's socket ready; nothing had arrived before floor_ns."""
        if self.state is RECEIVING:
            if self.connection and self.connection.outgoing:
                self._pay()
            self._receive(floor_ns)
        else:
            self._go_on(floor_ns)

    def _read_on(self, connection: Connection) -> None:
        """Read the rest of the answer in the fast way, unless this read may have left something unread."""
        self.worker.watch(connection, select.EPOLLIN, self.on_ready)
        if not connection.behind_ns:
            self.worker.streams[connection.sock.fileno()] = stream(self, connection)

    def _go_on(self, floor_ns: int) -> None:
        """The rest of what a ready socket can mean: connecting, sending, a close by the server."""
        assert self.connection
        if self.state in (State.CONNECTING, State.HANDSHAKING):
            try:
                self._go_on_connecting()
            except OSError as error:
                self._cannot_connect(error)
            return
        if self.state is State.SENDING:
            self._go_on_sending()
            if self.state is State.SENDING:
                self._receive(floor_ns)
        elif self.state is State.IDLE:
            self._look_while_idle(floor_ns)

    def _look_while_idle(self, floor_ns: int) -> None:
        """The server closed, or sent what nobody asked for; or TLS has something of its own to say (a ticket)."""
        assert self.connection
        try:
            if self.http.idle(self.connection.read(floor_ns).data):
                self._pay()
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def _receive(self, floor_ns: int) -> None:
        """Read a piece of the answer."""
        assert self.connection
        try:
            piece = self.connection.read(floor_ns)
        except BlockingIOError:
            return
        except OSError as error:
            self.lost(error)
            return
        self.take(piece)

    def take(self, piece: Piece) -> None:
        if piece.data:
            self.worker.note_lag(piece)
        try:
            if not piece.data:
                self._closed_by_server()
            elif self.answer.add(piece):
                self._end(None, keep=self.state is RECEIVING)  # else it came before the whole request was sent
            elif self.answer.chunked and self.state is RECEIVING and type(self.connection) is Connection:
                self._read_on(self.connection)
            else:
                self._pay()
        except HttpError as error:
            self._end(str(error), keep=False)

    def _pay(self) -> None:
        """Send what the protocol owes the server: HTTP/2's settings, pings, more of a long request."""
        owed = self.http.owed()
        if self.connection and (owed or self.connection.outgoing):
            self.connection.put(owed)
            if self.state is State.SENDING:
                self._go_on_sending()
            else:
                self._flush()

    def _flush(self) -> None:
        assert self.connection
        try:
            done = self.connection.flush()
        except OSError as error:
            self.lost(error)
            return
        self.worker.watch(self.connection, select.EPOLLIN | (0 if done else select.EPOLLOUT), self.on_ready)

    def _closed_by_server(self) -> None:
        if self.state is State.IDLE:
            self.close()
        elif self.answer.pieces:
            complete = self.answer.end_of_stream()
            self._end(None if complete else "the server closed the connection inside the answer", keep=False)
        else:
            self.lost(ConnectionResetError(0, "the server closed the connection without an answer"))

    def lost(self, error: OSError) -> None:
        """The connection broke. A request that provably never reached the server is sent again."""
        assert self.connection
        acked = self.connection.bytes_acked()
        reused = self.connection_used and not self.answer.pieces
        if reused:
            self.route.reuse = False
        if self.job and reused and acked is not None and acked == self.acked_before and self.resent < 3:
            self.resent += 1
            self.close()
            self.open()
        elif self.job:
            self._end(error.strerror or str(error), keep=False)
        else:
            self.close()

    def _end(self, error: str | None, keep: bool = True) -> None:
        """Hand the exchange over, keep the connection if that may be, and ask for the next request."""
        may_retry = self.retries < self.worker.task.max_retries and error != "cancelled"
        if may_retry and retry.worth_it(error, self.answer.status):
            self._try_again_later()
            return
        job, self.job = self.job, None
        assert job
        if self.connection and not (keep and self.answer.keep_alive() and self._may_be_reused()):
            self.close()
        elif self.connection:
            self.state, self.connection_used = State.IDLE, True
            self.worker.watch(self.connection, select.EPOLLIN, self.on_ready)
        if error:
            self.pause_until_ns = time_ns() + PAUSE_NS
        self.worker.ended(self, self._exchange(job, error))

    def _try_again_later(self) -> None:
        self.first_sent_ns = self.first_sent_ns or self.sent_ns
        self.retry_at_ns = time_ns() + round(retry.wait_s(self.retries, self.answer.headers) * 1e9)
        self.retries += 1
        self.answer.release()
        self.answer = self.http.answer()
        self.close()

    def _may_be_reused(self) -> bool:
        """Where that is not known yet, leave the connection to a probe that finds it out."""
        if self.route.reuse is None and self.connection:
            self.worker.probe(self.route, self.connection)
            self.connection, self.state = None, State.CLOSED
        return bool(self.route.reuse)

    def _exchange(self, job: Job, error: str | None) -> Exchange:
        sent_ns = self.first_sent_ns or self.sent_ns
        times = (self.late_ns, sent_ns, time_ns(), self.connect_ns)
        return Exchange(
            job, self.phase, self.number, self.server, *times, self.resent, self.retries, self.answer, error
        )

    def give_up(self, error: str) -> None:
        """End the request in flight, if there is one, and close."""
        self.retry_at_ns = 0
        if self.job:
            self._end(error, keep=False)
        self.close()
