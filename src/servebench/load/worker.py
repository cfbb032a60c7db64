"""One load process: an epoll loop over many clients. `python -m servebench.load.worker`, started by fleet.py.

closed_loop.py or open_loop.py decides what is sent when. The process reads its task from standard input (so that
no key touches a disk), is steered through a small shared file, and appends every finished request to a part file.
It asks the parent for nothing while it measures.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import signal
import ssl
import sys
from array import array
from collections import deque
from contextlib import suppress
from errno import EDQUOT, ENOSPC
from functools import partial
from pathlib import Path
from time import process_time_ns, time_ns

import msgspec

from servebench.cli import keys
from servebench.load import protocol, read_loop, wire
from servebench.load.check_loop import CheckLoop
from servebench.load.client import Client, State
from servebench.load.closed_loop import HOUSEKEEPING_S, ClosedLoop
from servebench.load.exchange import Exchange, to_result
from servebench.load.http import Http1, merge_headers
from servebench.load.open_loop import OpenLoop
from servebench.load.protocol import CONNECT, CONNECTED, DONE, EVENTS, FAILED, MEASURE, PHASE, STOP, Report, Task
from servebench.load.read_loop import Poller
from servebench.load.route import Route
from servebench.load.wire import Endpoint
from servebench.log.result import Result

READY_AT_ONCE = 1024  # sockets that one poll reports
HOUSEKEEPING_NS = round(HOUSEKEEPING_S * 1e9)
SWEEP_NS = 100_000_000  # between two looks at every client, which are slow: none is in a processor's cache
MAX_SEGMENTS = 500_000  # that wait to be decoded (100 MB); beyond it every pass of the loop decodes a request


class Worker:
    """The event loop, and what it writes down."""

    def __init__(self, task: Task, parent: int) -> None:
        self.task, self.parent, self.folder = task, parent, Path(task.folder)
        with (self.folder / "control").open("r+b") as file:
            self.shared = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        self.counters = task.counters(self.shared, task.number)
        self.part = (self.folder / f"part-{task.number}.jsonl").open("wb")
        self.poller = Poller()
        self.routes = self._routes()
        self.loop = self._loop()
        self.sweep_ns = 0  # when to look at every client next

        self.backlog: deque[Exchange] = deque()  # ended, to be decoded in an idle moment
        self.backlog_segments = 0
        self.measuring_since: tuple[int, int] | None = None  # (time, CPU time), ns
        self.send_late_ns, self.late_ids = array("q"), array("q")

    def _routes(self) -> list[Route]:
        endpoints = [Endpoint.of(url) for url in self.task.urls]
        tls = ssl.create_default_context() if any(e.tls for e in endpoints) else None
        return [self._route(server, endpoint, tls) for server, endpoint in enumerate(endpoints)]

    def _route(self, server: int, endpoint: Endpoint, tls: ssl.SSLContext | None) -> Route:
        task = self.task
        if task.form in ("mii", "mii_whole"):
            from servebench.load import mii
            from servebench.load.http2 import Http2

            mii.classes()  # now, or the first answer would wait for them
            http = partial(Http2, endpoint, task.headers, task.request_timeout_s)
            return Route(server, endpoint, tls, http, reuse=True)
        accept = {"Accept": "text/event-stream" if task.form == "events" else "application/json"}
        shared_by_all = Http1(endpoint, merge_headers(accept, task.headers))
        return Route(server, endpoint, tls, lambda: shared_by_all)

    def _loop(self) -> ClosedLoop | OpenLoop | CheckLoop:
        def new_client(number: int, server: int) -> Client:
            return Client(number, self.routes[server], self.task, self.poller, self._on_end)

        if self.task.checks_per_request:
            return CheckLoop(self.task, self.shared, new_client)
        if self.task.pace:
            return OpenLoop(self.task, self.task.pace, self.shared, self.poller, new_client)
        return ClosedLoop(self.task, self.shared, new_client)

    # The loop.

    def run(self) -> None:
        """Connect, then serve the sockets until the parent says stop."""
        earliest_ns = housekeeping_ns = 0
        poll, streams, watched = self.poller.epoll.poll, self.poller.streams, self.poller.watched
        record_lag_ns = self.poller.lag_ns.append
        wait_s, start_due = self.loop.wait_s, self.loop.start_due
        while self.shared[PHASE] != STOP:
            before_ns = time_ns()
            ready = poll(0 if self.backlog else wait_s(), READY_AT_ONCE)
            read_loop.read(ready, streams, watched, earliest_ns, record_lag_ns)
            if len(ready) < READY_AT_ONCE:
                earliest_ns = before_ns  # else there may be sockets that were ready by then and not reported
            start_due(len(ready))
            if before_ns > housekeeping_ns:
                begin_ns = time_ns()
                self._do_housekeeping(begin_ns)
                took_ns = time_ns() - begin_ns
                housekeeping_ns = begin_ns + max(HOUSEKEEPING_NS, 50 * took_ns)  # 2 % of the time at most
            if self.backlog and (not ready or self.backlog_segments > MAX_SEGMENTS):
                self._decode(self.backlog.popleft())
        self._stop()

    def _do_housekeeping(self, now_ns: int) -> None:
        """What need not be done at once, such as to end what takes too long."""
        if os.getppid() != self.parent:
            sys.exit("the parent is gone")
        phase = self.shared[PHASE]
        if phase >= MEASURE and not self.measuring_since:
            self.measuring_since = (time_ns(), process_time_ns())
            self.poller.restart_records()
            self.loop.spin_ns = 0
        for route in self.routes:
            route.end_trial(now_ns, self.poller)
        if now_ns > self.sweep_ns:
            self.sweep_ns = now_ns + (0 if self.task.max_retries else SWEEP_NS)
            for client in self.loop.clients:
                client.check_timeouts(now_ns)
        self.loop.do_housekeeping(now_ns)
        if phase == CONNECT:
            connecting = (State.CLOSED, State.CONNECTING)
            self.counters[CONNECTED] = sum(c.state not in connecting for c in self.loop.clients)
        self.part.flush()

    def _stop(self) -> None:
        for client in list(self.loop.clients):
            client.give_up("cancelled")
        for exchange in self.loop.never_sent():
            self._cut_off(exchange)
        while self.backlog:
            self._decode(self.backlog.popleft())
        self.part.close()
        number = self.task.number
        with suppress(OSError):  # of a full disk: the requests are there, so that the point is good without these
            (self.folder / f"lag-{number}").write_bytes(self.poller.lag_ns.tobytes())
            (self.folder / f"report-{number}.json").write_bytes(msgspec.json.encode(self._report()))

    def _report(self) -> Report:
        since_ns, cpu_ns = self.measuring_since or (time_ns(), process_time_ns())
        return Report(
            cpu_s=max(0, process_time_ns() - cpu_ns - self.loop.spin_ns) / 1e9,
            wall_s=(time_ns() - since_ns) / 1e9,
            send_late_ns=self.send_late_ns.tolist(),
            late_ids=self.late_ids.tolist(),
            unstamped_reads=self.poller.unstamped,
        )

    # Requests that ended.

    def _on_end(self, client: Client, exchange: Exchange) -> None:
        """Keep the exchange to decode it later, and let its client go on."""
        if exchange.error == "cancelled":
            self._cut_off(exchange)
            return
        self.backlog.append(exchange)
        self.backlog_segments += len(exchange.answer.segments)
        self.loop.on_end(client, exchange)
        if exchange.phase == "measured":
            self.counters[DONE] += 1
        if self.measuring_since:
            self.send_late_ns.append(exchange.late_ns)
            self.late_ids.append(exchange.job.id)

    def _cut_off(self, exchange: Exchange) -> None:
        """The point ended before this request did, which then has failed only if it is a measured one."""
        exchange.error = "cut off: the point was stopped" if exchange.phase == "measured" else None
        self._decode(exchange, cancelled=True)

    def _decode(self, exchange: Exchange, cancelled: bool = False) -> None:
        result = to_result(exchange, self.task.form, cancelled)
        if result.error:
            result = msgspec.structs.replace(result, error=keys.redact(self.task.secrets, result.error))
        self.counters[EVENTS] += len(result.event_ns)
        self.counters[FAILED] += bool(result.error) and result.phase == "measured"
        if result.phase == "measured" and result.succeeded:
            self._count_times(result)
        self.backlog_segments -= len(exchange.answer.segments)
        exchange.answer.release()
        self.part.write(msgspec.json.encode(result) + b"\n")

    def _count_times(self, result: Result) -> None:
        """For the live line; once a request."""
        first_ns, tokens = result.event_ns[0], sum(result.event_tokens) - result.event_tokens[0]
        self.counters[protocol.TTFTS + protocol.kind_of_time(first_ns)] += 1
        if tokens > 0:
            pause_ns = (result.event_ns[-1] - first_ns) // tokens
            self.counters[protocol.TPOTS + protocol.kind_of_time(pause_ns)] += 1


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us, after it has saved what there is
    dummy = wire.stamped_dummy()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    except msgspec.DecodeError:  # the parent was killed while it wrote the task
        sys.exit(1)
    if len(task.clients) + 32 > hard:
        sys.exit(f"{len(task.clients)} connections need more open files than {hard}; raise ulimit -n")
    worker = Worker(task, parent=int(sys.argv[1]))  # asked of the system, it could be another: ours may have died
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
