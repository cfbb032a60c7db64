"""The parent of the load processes: starts them, leads them through the phases, collects what they wrote."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

from servebench.analysis.quality import Evidence, growing, judge
from servebench.errors import PointFailed
from servebench.load import protocol
from servebench.load.clock import Clock
from servebench.load.protocol import Report, Task
from servebench.load.sharding import Target, Workers, deal, roomy_workers
from servebench.log.config import Clients, Load, Rate, RunConfig, Trace
from servebench.log.result import Result
from servebench.log.schema import Quality
from servebench.workload import Schedule, Workload
from servebench.workload.arrivals import GAP_FILLER

TICK_S, QUICK_TICK_S = 0.05, 0.01  # while measuring, and before
CONNECT_S = 30.0  # after which clients that have no connection are left to fail request by request
LAST_ANSWERS_S = 60.0  # for the questions in flight at the end of the window, while the load goes on
END_S = 60.0  # for a worker to write down what it has
START_DELAY_NS = 50_000_000  # from telling the workers of an open loop to its first arrival
UNKNOWN = Quality(verdict="unknown: the disk is full, so what the client recorded about itself is lost")
NEARLY_ALL = 0.9  # of the requests of an open loop's warm-up
MIN_ARRIVALS = 40  # before which an open loop is not stopped early
LOOK_S = 0.2  # between two looks at how far a point is


@dataclass(frozen=True)
class Outcome:
    """What came of the load of one point."""

    results: list[Result]
    window_ns: tuple[int, int] | None
    quality: Quality
    failure: str | None
    workers: int = 1  # load processes, without those of probes and questions
    probes: list[Result] = field(default_factory=list)
    checks: list[Result] = field(default_factory=list)  # answers to questions, with their texts


@dataclass(frozen=True)
class Progress:
    """How far a point is, and what is known of its requests so far."""

    phase: str  # connecting, warming up, measuring
    done: int
    of: int
    failed: int
    passed_s: float  # since the phase began
    ttft_s: float | None  # the median, to 3 %; of answers that came whole E2E latency
    tpot_s: float | None


Watch = Callable[[Progress], object]


def default_workers(load: Load) -> int:
    """As many as have room, no more than there is work for."""
    work = 1 if isinstance(load, Trace) else math.ceil(load.size)
    return max(1, min(work, roomy_workers(), max(4, -(-work // 128))))


def _max_workers(load: Load, servers: int) -> int:
    """That have something to do: a client of each server, or an arrival of the gap filler."""
    if isinstance(load, Clients):
        return max(1, load.num_clients // servers)
    return min(load.max_concurrency or GAP_FILLER, GAP_FILLER)


def run_load(
    run: RunConfig,
    workload: Workload,
    target: Target,
    folder: Path,
    workers: int,
    watch: Watch = lambda progress: None,
) -> Outcome:
    """Put the load on the target. `folder` holds the part files while it runs; it is removed at the end.

    `watch` is told now and then how far it is.
    """
    workers = min(workers, _max_workers(run.load, len(target.urls)), len(workload.filler))
    load_and_probes = workers + bool(workload.probes)
    everyone = load_and_probes + bool(workload.checks)
    with _part_folder(folder, everyone * protocol.slots(len(target.urls))) as shared:
        fleet = Fleet(run, target, shared, everyone, watch)
        window, failure = _measure(fleet, workload, target, Workers(workers, folder))
        parts = range(workers), range(workers, load_and_probes), range(load_and_probes, everyone)
        results, probes, checks = (_results(folder, part) for part in parts)
        asked = run.load.num_clients if isinstance(run.load, Clients) else 0
        quality = Quality(asked_concurrency=asked)
        if window and not failure:
            evidence = _evidence(folder, workers, fleet.clock)
            quality = judge(results, window, asked, evidence) if evidence else UNKNOWN
    return Outcome(results, window, quality, failure, workers, probes, checks)


def _measure(
    fleet: Fleet, workload: Workload, target: Target, workers: Workers
) -> tuple[tuple[int, int] | None, str | None]:
    """Start the workers and lead them from connecting to the end. Returns (window, failure)."""
    window, failure = None, None
    try:
        with _shared_fds(workers.count if workload.schedule and workers.count > 1 else 0) as (lock_fd, wake_fds):
            tasks = deal(fleet.run, workload, target, replace(workers, lock_fd=lock_fd, wake_fds=wake_fds))
            fleet.start(tasks)
        clients = sum(len(task.clients) for task in tasks)
        fleet.wait("connecting", protocol.CONNECTED, clients, timeout_s=CONNECT_S)
        load, schedule = fleet.run.load, workload.schedule
        window = _lead_open(fleet, schedule) if schedule else _lead_closed(fleet, load.size)
        if fleet.total(protocol.DONE) >= fleet.run.num_requests:  # else it was stopped early
            fleet.wait("asking", protocol.CHECKED, len(workload.checks), timeout_s=LAST_ANSWERS_S)
    except PointFailed as problem:
        failure = str(problem)
    finally:
        fleet.stop()
    return window, failure or next((_death(process) for process in fleet.processes if process.returncode), None)


def _lead_closed(fleet: Fleet, clients: float) -> tuple[int, int]:
    """Through warm-up and measurement. Returns the window: all clients active. Raises PointFailed."""
    fleet.shared[protocol.START_NS] = time.time_ns()  # of the probes, if there are any
    fleet.shared[protocol.PHASE] = protocol.WARM_UP
    fleet.wait("warming up", protocol.WARMED, int(clients) if fleet.run.warmup else 0)
    begin = time.time_ns()
    fleet.shared[protocol.PHASE] = protocol.MEASURE
    fleet.wait("measuring", protocol.DONE, fleet.run.num_requests, tick_s=TICK_S, each_tick=fleet.clock.sample)
    return begin, time.time_ns()


def _lead_open(fleet: Fleet, schedule: Schedule) -> tuple[int, int]:
    """Through the schedule. Returns its window. Raises PointFailed."""
    requests, (first_s, last_s) = fleet.run.num_requests, schedule.window_s
    begin = _warm_up_open(fleet, schedule)
    fleet.shared[protocol.PHASE] = protocol.MEASURE
    watch = _watch_overload(fleet, schedule, begin)
    fleet.wait("measuring", protocol.DONE, requests, tick_s=TICK_S, each_tick=watch)
    end = begin + round((last_s - first_s) * 1e9)
    if fleet.total(protocol.DONE) >= requests:  # else it was stopped early
        fleet.wait("measuring", protocol.DONE, requests + 1, timeout_s=(end - time.time_ns()) / 1e9)
    return begin, min(end, time.time_ns())


def _warm_up_open(fleet: Fleet, schedule: Schedule) -> int:
    """Through the warm-up and the lead-in. Returns when the window begins: now. Raises PointFailed."""
    start = time.time_ns() + START_DELAY_NS
    fleet.shared[protocol.PHASE] = protocol.WARM_UP
    if schedule.warmup:
        fleet.shared[protocol.START_NS] = start
        fleet.wait("warming up", protocol.WARMED, schedule.warmup, each_tick=_long_enough(fleet, schedule.warmup))
        answer_ns = time.time_ns() - start - round(schedule.times_s[schedule.warmup - 1] * 1e9)
        begin = _open_window(fleet, schedule, start, time.time_ns() + START_DELAY_NS, answer_ns)
    else:
        begin = _open_window(fleet, schedule, start, start)
        fleet.shared[protocol.START_NS] = start
    fleet.wait("warming up", protocol.DONE, 1, timeout_s=(begin - time.time_ns()) / 1e9)  # until the window begins
    return begin


def _open_window(fleet: Fleet, schedule: Schedule, start: int, not_before: int, answer_ns: int = 0) -> int:
    """Have the window begin behind a lead-in as long as an answer takes. Returns when it begins."""
    gap_filler_arrivals, after_ns = schedule.opening_ns(not_before - start)
    lead_in_arrivals, lead_in_ns = schedule.lead_in(answer_ns)
    begin = start + after_ns + lead_in_ns
    fleet.shared[protocol.GAP_FILLER_ARRIVALS] = gap_filler_arrivals
    fleet.shared[protocol.LEAD_IN_ARRIVALS] = lead_in_arrivals
    fleet.shared[protocol.LEAD_IN_NS] = lead_in_ns
    fleet.shared[protocol.WINDOW_NS] = begin  # last: the workers look for it
    return begin


def _watch_overload(fleet: Fleet, schedule: Schedule, begin: int) -> Callable[[], bool]:
    """What to do at each tick of a window that began then: look at clock and load. True ends an overload early."""
    load, in_flight = fleet.run.load, list[int]()
    stops, (first_s, _) = isinstance(load, Rate) and load.stop_when_overloaded, schedule.window_s

    def overloaded() -> bool:
        fleet.clock.sample()
        in_flight.append(fleet.total(protocol.IN_FLIGHT))
        passed_s = first_s + (time.time_ns() - begin) / 1e9
        arrived = int(np.searchsorted(schedule.times_s, passed_s)) - schedule.warmup
        return stops and arrived > MIN_ARRIVALS and growing(np.array(in_flight), arrived, 2)

    return overloaded


def _long_enough(fleet: Fleet, requests: int) -> Callable[[], bool]:
    """Has an open loop warmed up for long enough, although not all requests of its warm-up have ended?

    After twice the time in which nine tenths of them had: one may hang.
    """
    begin_s, nearly_all_s = time.monotonic(), math.inf

    def long_enough() -> bool:
        nonlocal nearly_all_s
        passed_s = time.monotonic() - begin_s
        if fleet.total(protocol.WARMED) >= NEARLY_ALL * requests:
            nearly_all_s = min(nearly_all_s, passed_s)
        return passed_s > 2 * nearly_all_s

    return long_enough


class Fleet:
    """The load processes of one point while they run: their counters, their health, and the clock."""

    def __init__(self, run: RunConfig, target: Target, shared: np.ndarray, processes: int, watch: Watch) -> None:
        self.run, self.check, self.shared, self.watch = run, target.check, shared, watch
        self.blocks = shared[protocol.FIRST_BLOCK :].reshape(processes, -1)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.clock = Clock()

    def start(self, tasks: list[Task]) -> None:
        """Start a process for each task and send it; with a large task, wait until it has begun to read."""
        self.processes.extend(map(_spawn, tasks))
        for process, task in zip(self.processes, tasks, strict=True):
            assert process.stdin
            with suppress(BrokenPipeError):  # it died at once; `wait` will say so
                process.stdin.write(msgspec.msgpack.encode(task))
                process.stdin.close()

    def total(self, counter: int) -> int:
        """The counter, summed over all processes."""
        return int(self.blocks[:, counter].sum())

    def wait(
        self,
        what: str,
        counter: int,
        goal: int,
        timeout_s: float = math.inf,
        tick_s: float = QUICK_TICK_S,
        each_tick: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait until the total of the counter reaches goal, or each_tick says so. Raises PointFailed."""
        begin_s, look_s = time.monotonic(), 0.0
        while (done := self.total(counter)) < goal and time.monotonic() < begin_s + timeout_s:
            self._refuse_the_dead()
            if each_tick():
                break
            if time.monotonic() > look_s:
                self.watch(self._progress(what, done, min(goal, self.run.num_requests), begin_s))
                look_s = time.monotonic() + LOOK_S
            time.sleep(tick_s)

    def _progress(self, phase: str, done: int, of: int, begin_s: float) -> Progress:
        passed_s = time.monotonic() - begin_s
        times = self._median_s(protocol.TTFTS), self._median_s(protocol.TPOTS)
        return Progress(phase, done, of, self.total(protocol.FAILED), passed_s, *times)

    def _median_s(self, first: int) -> float | None:
        counts = self.blocks[:, first : first + protocol.TIMES].sum(axis=0).cumsum()
        return protocol.time_of_kind(int(np.searchsorted(counts, counts[-1] / 2))) / 1e9 if counts[-1] else None

    def _refuse_the_dead(self) -> None:
        self.check()
        for process in self.processes:
            if process.poll() is not None:
                raise PointFailed(_death(process))

    def stop(self) -> None:
        """End all processes, and wait until they have written down what they have."""
        self.shared[protocol.PHASE] = protocol.STOP
        for process in self.processes:
            if process.stdin and not process.stdin.closed:
                process.kill()  # interrupted before it had its task
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _spawn(task: Task) -> subprocess.Popen[bytes]:
    # The number of this process, so that it takes no other for its parent; the folder is for readers of `ps`.
    command = [sys.executable, "-m", "servebench.load.worker", str(os.getpid()), task.folder]
    fds = [fd for fd in (task.lock_fd, *task.wake_fds) if fd >= 0]
    return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=fds)


def _death(process: subprocess.Popen[bytes]) -> str:
    return f"a load process ended with status {process.returncode}; its error is above"


@contextmanager
def _shared_fds(workers: int) -> Iterator[tuple[int, list[int]]]:
    """What workers of an open loop need to decide together: a file to lock, for each an eventfd to wake it."""
    fds = [os.memfd_create("lock"), *(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(workers))]
    try:
        yield fds[0], fds[1:]
    finally:
        for fd in fds:
            os.close(fd)


# What the workers wrote.


@contextmanager
def _part_folder(folder: Path, slots: int) -> Iterator[np.ndarray]:
    """The folder while it is needed, with the file that all workers map: phase and counters, as int64."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        (folder / "control").write_bytes(bytes(8 * (protocol.FIRST_BLOCK + slots)))
        yield np.memmap(folder / "control", dtype=np.int64, mode="r+")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _results(folder: Path, workers: range) -> list[Result]:
    return sorted(read_parts([folder / f"part-{n}.jsonl" for n in workers]), key=lambda r: r.sent_ns)


def read_parts(paths: list[Path]) -> Iterator[Result]:
    """Results from the part files of load processes; a last line that was cut off mid-write is left out."""
    decode = msgspec.json.Decoder(Result).decode
    for path in paths:
        if path.exists():
            yield from (decode(line) for line in path.read_bytes().splitlines(True) if line.endswith(b"\n"))


def _evidence(folder: Path, workers: int, clock: Clock) -> Evidence | None:
    """What the load processes noted of themselves; None where a full disk had no room for it."""
    try:
        notes = [(folder / f"report-{n}.json").read_bytes() for n in range(workers)]
        reports = [msgspec.json.decode(data, type=Report) for data in notes]
    except (OSError, msgspec.DecodeError):
        return None
    return Evidence(
        late_ids=np.concatenate([np.array(r.late_ids, dtype=np.int64) for r in reports]),
        lag_ns=np.concatenate([np.fromfile(folder / f"lag-{n}", dtype=np.int64) for n in range(workers)]),
        send_late_ns=np.concatenate([np.array(r.send_late_ns, dtype=np.int64) for r in reports]),
        unstamped_reads=sum(r.unstamped_reads for r in reports),
        worker_cpu_s=[r.cpu_s for r in reports],
        worker_cpu_share=[round(r.cpu_s / r.wall_s, 4) for r in reports],
        clock_step_s=clock.step_s,
    )
