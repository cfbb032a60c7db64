"""One load process: an epoll loop over many clients. `python -m servebench.load.worker`, started by fleet.py.

What is sent when is decided by closed_loop.py or open_loop.py. The process reads its task from standard input (so
that no key touches a disk), is steered through a small shared file, and appends every finished request to a part
file. It asks the parent for nothing while it measures.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import select
import signal
import ssl
import sys
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from errno import EDQUOT, ENOSPC
from functools import partial
from pathlib import Path
from time import process_time_ns, time_ns

import msgspec

from servebench.cli import keys
from servebench.load import read_loop, wire
from servebench.load.client import Client
from servebench.load.closed_loop import HOUSEKEEPING_S, ClosedLoop
from servebench.load.exchange import Exchange, to_result
from servebench.load.http import Http1, over
from servebench.load.open_loop import OpenLoop
from servebench.load.protocol import (
    CONNECT,
    CONNECTED,
    DONE,
    EVENTS,
    FAILED,
    FIRST_WORKER,
    MEASURE,
    PHASE,
    STOP,
    Job,
    Report,
    Task,
    slots,
)
from servebench.load.route import Probe, Route
from servebench.load.wire import Connection, Endpoint, Piece, State

READY_AT_ONCE = 1024  # sockets that one poll reports
HOUSEKEEPING_NS = round(HOUSEKEEPING_S * 1e9)
SWEEP_NS = 100_000_000  # between two looks at every client, which are slow: none is in a processor's cache
MOST_PIECES = 500_000  # that wait to be decoded (100 MB); beyond it every pass of the loop decodes a request


class Worker:
    def __init__(self, task: Task) -> None:
        self.task, self.tag = task, task.tag
        folder = Path(task.folder)
        with (folder / "control").open("r+b") as file:
            self.shared = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        self.block = FIRST_WORKER + task.number * slots(len(task.urls))
        self.part = (folder / f"part-{task.number}.jsonl").open("wb")
        self.epoll = select.epoll()
        self.watched: dict[int, Callable[[int], None]] = {}  # by fd: what to call with the floor when it is ready
        self.streams: dict[int, read_loop.Stream] = {}  # by fd, before `watched`: answers to read in the fast way
        self.probes: list[Probe] = []
        self.masks: dict[int, int] = {}
        self.spares = 0
        self.backlog: deque[Exchange] = deque()  # ended, to be decoded in an idle moment
        self.waiting_pieces = 0
        self.lag_ns, self.send_late_ns, self.late_ids = array("q"), array("q"), array("q")
        self.unstamped = 0
        self.measuring_since: tuple[int, int] | None = None
        self.sweep_ns = 0  # when to look at every client next
        self.awake_ns = 0  # of waiting without sleep, which is no work
        self.parent = os.getppid()
        self.loop = self._make_loop()

    def _make_loop(self) -> ClosedLoop | OpenLoop:
        endpoints = [Endpoint.of(url) for url in self.task.urls]
        tls = ssl.create_default_context() if any(e.tls for e in endpoints) else None
        routes = [self._route(endpoint, tls) for endpoint in endpoints]
        return OpenLoop(self, routes, self.task.pace) if self.task.pace else ClosedLoop(self, routes)

    def _route(self, endpoint: Endpoint, tls: ssl.SSLContext | None) -> Route:
        task = self.task
        if task.form in ("mii", "mii_whole"):
            from servebench.load import mii
            from servebench.load.http2 import Http2

            mii.classes()  # now, or the first answer would wait for them
            speak = partial(Http2, endpoint, task.headers, task.request_timeout_s)
            return Route(endpoint, tls, speak, reuse=True)
        accept = {"Accept": "text/event-stream" if task.form == "events" else "application/json"}
        spoken = Http1(endpoint, over(accept, task.headers))
        return Route(endpoint, tls, lambda: spoken)

    # The loop.

    def run(self) -> None:
        """Connect, then serve the sockets until the parent says stop."""
        floor_ns = housekeeping_ns = 0
        streams, watched, note_lag = self.streams, self.watched, self.lag_ns.append
        wait_s, start_due = self.loop.wait_s, self.loop.start_due
        while self.shared[PHASE] != STOP:
            before_ns = time_ns()
            ready = self.epoll.poll(0 if self.backlog else wait_s(), READY_AT_ONCE)
            read_loop.read(ready, streams, watched, floor_ns, note_lag)
            if len(ready) < READY_AT_ONCE:
                floor_ns = before_ns  # else there may be sockets that were ready by then and not reported
            start_due(len(ready))
            if before_ns > housekeeping_ns:
                begun_ns = time_ns()
                self._keep_house(begun_ns)
                took_ns = time_ns() - begun_ns
                housekeeping_ns = begun_ns + max(HOUSEKEEPING_NS, 50 * took_ns)  # 2 % of the time at most
            if self.backlog and (not ready or self.waiting_pieces > MOST_PIECES):
                self._decode(self.backlog.popleft())
        self._stop()

    def _keep_house(self, now_ns: int) -> None:
        """What need not be done at once, such as to end what takes too long."""
        if os.getppid() != self.parent:
            sys.exit("the parent is gone")
        phase = self.shared[PHASE]
        if phase >= MEASURE and not self.measuring_since:
            self.measuring_since = (time_ns(), process_time_ns())
            del self.lag_ns[:]  # in place: readers hold on to it
            self.unstamped = self.awake_ns = 0
        for probe in self.probes:
            if probe.route.reuse is None and now_ns > probe.end_ns:
                probe.decide(stays_open=True)
        if now_ns > self.sweep_ns:
            self.sweep_ns = now_ns + (0 if self.task.max_retries else SWEEP_NS)
            for client in self.loop.clients:
                client.keep_time(now_ns, self.task.request_timeout_s)
        self.loop.keep_house(now_ns, phase)
        if phase == CONNECT:
            self.count(CONNECTED, sum(c.state not in (State.CLOSED, State.CONNECTING) for c in self.loop.clients))
        self.part.flush()

    def _stop(self) -> None:
        for client in list(self.loop.clients):
            client.give_up("cancelled")
        for exchange in self.loop.never_sent():
            self._cut_off(exchange)
        while self.backlog:
            self._decode(self.backlog.popleft())
        self.part.close()
        folder, number = Path(self.task.folder), self.task.number
        with suppress(OSError):  # of a full disk: the requests are there, so that the point is good without these
            (folder / f"lag-{number}").write_bytes(self.lag_ns.tobytes())
            (folder / f"report-{number}.json").write_bytes(msgspec.json.encode(self._report()))

    def _report(self) -> Report:
        since, cpu = self.measuring_since or (time_ns(), process_time_ns())
        return Report(
            cpu_s=max(0, process_time_ns() - cpu - self.awake_ns) / 1e9,
            wall_s=(time_ns() - since) / 1e9,
            send_late_ns=self.send_late_ns.tolist(),
            late_ids=self.late_ids.tolist(),
            unstamped_reads=self.unstamped,
        )

    # What the loop of clients calls.

    def count(self, what: int, value: int) -> None:
        self.shared[self.block + what] = value

    def phase(self) -> int:
        return int(self.shared[PHASE])

    def add(self, counter: int, value: int) -> None:
        self.shared[self.block + counter] += value

    def spare_job(self) -> Job:
        """Spare requests in turn, each time under an id of its own."""
        first, step = self.task.spare_ids
        spare = self.task.spare[self.spares % len(self.task.spare)]
        self.spares += 1
        return msgspec.structs.replace(spare, id=first + step * (self.spares - 1))

    # What clients call.

    def watch(self, connection: Connection, mask: int, on_ready: Callable[[int], None]) -> None:
        """Call on_ready(floor_ns) when the connection is ready as mask says; nothing had come before floor_ns."""
        fd = connection.sock.fileno()
        known = self.masks.get(fd)
        if known is None:
            self.epoll.register(fd, mask)
        elif known != mask:
            self.epoll.modify(fd, mask)
        self.masks[fd], self.watched[fd] = mask, on_ready
        self.streams.pop(fd, None)

    def forget(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        if self.masks.pop(fd, None) is not None:
            self.epoll.unregister(fd)
            del self.watched[fd]
            self.streams.pop(fd, None)

    def probe(self, route: Route, connection: Connection) -> None:
        """Watch what becomes of this connection; one of each server is enough."""
        self.forget(connection)
        if any(probe.route is route for probe in self.probes):
            connection.close()
            return
        probe = Probe(route, connection, self)
        self.probes.append(probe)
        self.watch(connection, select.EPOLLIN, probe.on_ready)

    def note_lag(self, piece: Piece) -> None:
        self.lag_ns.append(time_ns() - piece.stamp_ns)
        self.unstamped += not piece.stamped

    def ended(self, client: Client, exchange: Exchange) -> None:
        """A request ended: keep it for later, and let its client go on."""
        if exchange.error == "cancelled":
            self._cut_off(exchange)
            return
        self.backlog.append(exchange)
        self.waiting_pieces += len(exchange.answer.pieces)
        late_ns = self.loop.ended(client, exchange)
        if exchange.phase == "measured":
            self.add(DONE, 1)
        if self.measuring_since:
            self.send_late_ns.append(late_ns)
            self.late_ids.append(exchange.job.id)

    def _cut_off(self, exchange: Exchange) -> None:
        """The point ended before this request did; it has failed only if it counts."""
        why = "cut off: the point was stopped" if exchange.phase == "measured" else None
        self._decode(exchange._replace(error=why), cancelled=True)

    def _decode(self, exchange: Exchange, cancelled: bool = False) -> None:
        result = to_result(exchange, self.task.form, cancelled)
        if result.error:
            result = msgspec.structs.replace(result, error=keys.without(self.task.secrets, result.error))
        self.add(EVENTS, len(result.event_ns))
        self.add(FAILED, bool(result.error) and result.phase == "measured")
        self.waiting_pieces -= len(exchange.answer.pieces)
        exchange.answer.release()
        self.part.write(msgspec.json.encode(result) + b"\n")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us, after it has saved what there is
    dummy = wire.stamped_dummy()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    if len(task.clients) + 32 > hard:
        sys.exit(f"{len(task.clients)} connections need more open files than {hard}; raise ulimit -n")
    worker = Worker(task)
    worker.parent = int(sys.argv[1])  # it may have died before we looked
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection would be a pause; what a request leaves behind holds no cycles
    try:
        worker.run()
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT):
            raise
        with suppress(OSError):
            worker.part.close()
        sys.exit(f"{task.folder}: {error.strerror}; of this point only what was written so far is kept")
    dummy.close()


if __name__ == "__main__":
    main()
