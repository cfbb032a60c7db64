"""The parent of the load processes: starts them, steers them through the phases, gathers what they wrote."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import psutil
from tqdm import tqdm

from servebench.analysis.quality import Evidence, growing, judge
from servebench.errors import PointFailed
from servebench.load import protocol
from servebench.load.protocol import Report, Task
from servebench.load.sharding import Target, deal, roomy_workers
from servebench.log.schema import Quality, Result, RunConfig
from servebench.log.store import read_parts
from servebench.workload import Schedule, Workload
from servebench.workload.arrivals import GAP_FILLER

TICK_S, QUICK_TICK_S = 0.05, 0.01  # while measuring, and before
CONNECT_S = 30.0  # after which clients that have no connection are left to fail request by request
END_S = 60.0  # for a worker to write down what it has
LEAD_NS = 50_000_000  # from telling the workers of an open loop to its first arrival
UNKNOWN = Quality(verdict="unknown: the disk is full, so what the client noted of itself is lost")
NEARLY_ALL = 0.9  # of an open loop's first requests
WATCHED = 40  # arrivals before which an open loop is not stopped early


@dataclass(frozen=True)
class Outcome:
    """What came of the load of one point."""

    results: list[Result]
    window_ns: tuple[int, int] | None
    quality: Quality
    failure: str | None
    workers: int = 1  # load processes, without that of the probes
    probes: list[Result] = field(default_factory=list)


def default_workers(num_clients: int, request_rate: float = 0.0) -> int:
    """As many as have room, no more than there is work for."""
    work = max(num_clients, math.ceil(request_rate))
    return max(1, min(work, roomy_workers(), max(4, -(-work // 128))))


def run_load(run: RunConfig, workload: Workload, target: Target, folder: Path, workers: int) -> Outcome:
    """Put the load on the target. `folder` holds the part files while it runs; it is removed at the end."""
    of_clients = max(1, run.num_clients // len(target.urls))  # each has a client of every server
    most = min(run.max_concurrency or GAP_FILLER, GAP_FILLER) if workload.schedule else of_clients
    workers = min(workers, most, len(workload.filler))
    probing = bool(workload.probes)
    with _part_folder(folder, (workers + probing) * protocol.slots(len(target.urls))) as shared:
        failure, window, notes = _steer(run, workload, target, folder, workers, shared)
        results, probes = _results(folder, range(workers)), _results(folder, range(workers, workers + probing))
        asked = 0 if workload.schedule else run.num_clients
        quality = Quality(asked_concurrency=asked)
        if window and not failure:
            evidence = _evidence(folder, workers, notes)
            quality = judge(results, window, asked, evidence) if evidence else UNKNOWN
    return Outcome(results, window, quality, failure, workers, probes)


def _results(folder: Path, workers: range) -> list[Result]:
    return sorted(read_parts([folder / f"part-{n}.jsonl" for n in workers]), key=lambda r: r.sent_ns)


@contextmanager
def _part_folder(folder: Path, slots: int) -> Iterator[np.ndarray]:
    """The folder, for as long as it is needed. In it a file that all workers map: phase and counters, as int64."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        (folder / "control").write_bytes(bytes(8 * (protocol.FIRST_WORKER + slots)))
        yield np.memmap(folder / "control", dtype=np.int64, mode="r+")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _common_fds(workers: int) -> Iterator[tuple[int, list[int]]]:
    """A file to lock, and an eventfd a worker to wake it by: what an open loop's workers decide together with."""
    fds = [os.memfd_create("lock"), *(os.eventfd(0, os.EFD_NONBLOCK) for _ in range(workers))]
    try:
        yield fds[0], fds[1:]
    finally:
        for fd in fds:
            os.close(fd)


def _steer(
    run: RunConfig, workload: Workload, target: Target, folder: Path, workers: int, shared: np.ndarray
) -> tuple[str | None, tuple[int, int] | None, HostNotes]:
    """Start the workers, lead them from connecting to the end. Returns (failure, window, notes)."""
    window: tuple[int, int] | None = None
    failure = None
    notes = HostNotes()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _common_fds(workers if workload.schedule and workers > 1 else 0) as (lock_fd, wake_fds):
            tasks = deal(run, workload, target, folder, workers, lock_fd, wake_fds)
            processes.extend(map(_spawn, tasks))
        for process, task in zip(processes, tasks, strict=True):
            _tell(process, task)
        watch = Watch(run, processes, shared, target.check)
        watch.until("connecting", protocol.CONNECTED, sum(len(t.clients) for t in tasks), timeout_s=CONNECT_S)
        if workload.schedule:
            window = _lead_open(run, workload.schedule, watch, shared, notes)
        else:
            window = _lead_closed(run, watch, shared, notes)
    except PointFailed as problem:
        failure = str(problem)
    finally:
        shared[protocol.PHASE] = protocol.STOP
        _reap(processes)
    notes.finish()
    dead = [process.returncode for process in processes if process.returncode]
    if dead and not failure:
        failure = f"a load process ended with status {dead[0]}; its error is above"
    return failure, window, notes


def _lead_closed(run: RunConfig, watch: Watch, shared: np.ndarray, notes: HostNotes) -> tuple[int, int]:
    """Through warm-up and measurement. Returns the window: all clients active. Raises PointFailed."""
    shared[protocol.START] = time.time_ns()  # of the probes, if there are any
    shared[protocol.PHASE] = protocol.WARM_UP
    watch.until("warming up", protocol.WARMED, run.num_clients if run.warmup else 0)
    notes.begin()
    start = time.time_ns()
    shared[protocol.PHASE] = protocol.MEASURE
    watch.until("measuring", protocol.DONE, run.num_requests, tick_s=TICK_S, each_tick=notes.sample)
    return start, time.time_ns()


def _lead_open(
    run: RunConfig, schedule: Schedule, watch: Watch, shared: np.ndarray, notes: HostNotes
) -> tuple[int, int]:
    """Through the schedule. Returns the window, which is the schedule's. Raises PointFailed."""
    first_s, last_s = schedule.window_s
    start = time.time_ns() + LEAD_NS
    shared[protocol.PHASE] = protocol.WARM_UP
    if schedule.warmup:
        shared[protocol.START] = start
        watch.until("warming up", protocol.WARMED, schedule.warmup, each_tick=LongEnough(watch, schedule.warmup))
        took_ns = time.time_ns() - start - round(schedule.times_s[schedule.warmup - 1] * 1e9)
        opens = _open(schedule, shared, start, time.time_ns() + LEAD_NS, took_ns)
    else:
        opens = _open(schedule, shared, start, start)
        shared[protocol.START] = start
    watch.until("warming up", protocol.DONE, 1, timeout_s=(opens - time.time_ns()) / 1e9)
    notes.begin()
    shared[protocol.PHASE] = protocol.MEASURE
    outstanding: list[int] = []

    def each_tick() -> bool:
        notes.sample()
        outstanding.append(watch.now(protocol.IN_FLIGHT))
        passed_s = first_s + (time.time_ns() - opens) / 1e9
        arrived = int(np.searchsorted(schedule.times_s, passed_s)) - schedule.warmup
        return run.stop_when_overloaded and arrived > WATCHED and growing(np.array(outstanding), arrived, 2)

    watch.until("measuring", protocol.DONE, run.num_requests, tick_s=TICK_S, each_tick=each_tick)
    closes = opens + round((last_s - first_s) * 1e9)
    if watch.now(protocol.DONE) >= run.num_requests:  # else it was stopped early
        watch.until("measuring", protocol.DONE, run.num_requests + 1, timeout_s=(closes - time.time_ns()) / 1e9)
    return opens, min(closes, time.time_ns())


def _open(schedule: Schedule, shared: np.ndarray, start: int, not_before: int, answer_ns: int = 0) -> int:
    """Have the window led in for as long as an answer takes, from the next arrival on. Returns when it begins."""
    shared[protocol.BRIDGED], after_ns = schedule.opening_ns(not_before - start)
    shared[protocol.LED_IN], lead_ns = schedule.lead_in(answer_ns)
    shared[protocol.LEAD_NS] = lead_ns
    shared[protocol.OPENS] = opens = start + after_ns + lead_ns
    return opens


class LongEnough:
    """Has an open loop warmed up for long enough, although not all of its first requests have ended?

    After twice the time in which nine tenths of them had: one may hang.
    """

    def __init__(self, watch: Watch, requests: int) -> None:
        self.watch, self.most = watch, NEARLY_ALL * requests
        self.begun_s, self.most_ended_s = time.monotonic(), float("inf")

    def __call__(self) -> bool:
        passed_s = time.monotonic() - self.begun_s
        if self.watch.now(protocol.WARMED) >= self.most:
            self.most_ended_s = min(self.most_ended_s, passed_s)
        return passed_s > 2 * self.most_ended_s


class HostNotes:
    """Clock and CPU of this host during the measured phase."""

    def __init__(self) -> None:
        self.offsets_ns: list[int] = []
        self.cpu_share: float | None = None
        self.last_s = 0.0

    def begin(self) -> None:
        psutil.cpu_percent()
        self.sample()

    def sample(self) -> None:
        """REALTIME against MONOTONIC, at most once a second: a step of the clock would move every stamp."""
        if len(self.offsets_ns) < 2 or time.monotonic() - self.last_s > 1:
            self.last_s = time.monotonic()
            self.offsets_ns.append(time.time_ns() - time.monotonic_ns())

    def finish(self) -> None:
        if self.offsets_ns:
            self.sample()
            self.cpu_share = psutil.cpu_percent() / 100


class Watch:
    """Waits for the workers' counters, shows them, and notices who is dead."""

    def __init__(
        self,
        run: RunConfig,
        processes: list[subprocess.Popen[bytes]],
        shared: np.ndarray,
        check: Callable[[], None],
    ) -> None:
        self.run, self.processes, self.check = run, processes, check
        self.blocks = shared[protocol.FIRST_WORKER :].reshape(len(processes), -1)

    def until(
        self,
        what: str,
        counter: int,
        goal: int,
        timeout_s: float = float("inf"),
        tick_s: float = QUICK_TICK_S,
        each_tick: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait until the counter, summed over workers, reaches goal, or each_tick says so. Raises PointFailed."""
        end = time.monotonic() + timeout_s
        label = f"  {self.run.load.kind} {self.run.load.size:g}, {what}"
        with tqdm(total=goal, desc=label, unit="req", leave=False, disable=None, position=1) as bar:
            while (done := self.now(counter)) < goal and time.monotonic() < end:
                self._refuse_the_dead()
                if each_tick():
                    break
                bar.n = done
                failed, events = self.now(protocol.FAILED), self.now(protocol.EVENTS)
                bar.set_postfix(failed=failed, events=events, refresh=True)
                time.sleep(tick_s)

    def now(self, counter: int) -> int:
        return int(self.blocks[:, counter].sum())

    def _refuse_the_dead(self) -> None:
        self.check()
        for process in self.processes:
            if process.poll() is not None:
                raise PointFailed(f"a load process ended with status {process.returncode}; its error is above")


def _spawn(task: Task) -> subprocess.Popen[bytes]:
    # Whose child it is, lest it takes another for its parent; the folder is for readers of `ps`.
    command = [sys.executable, "-m", "servebench.load.worker", str(os.getpid()), task.folder]
    fds = [fd for fd in (task.lock_fd, *task.wake_fds) if fd >= 0]
    return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=fds)


def _tell(process: subprocess.Popen[bytes], task: Task) -> None:
    """Waits until the process has begun to read, where the task is large."""
    assert process.stdin
    with suppress(BrokenPipeError):  # it died at once; the watch will say so
        process.stdin.write(msgspec.msgpack.encode(task))
        process.stdin.close()


def _reap(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.stdin and not process.stdin.closed:
            process.kill()  # we were interrupted before it knew what to do
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _evidence(folder: Path, workers: int, notes: HostNotes) -> Evidence | None:
    """What the load processes noted of themselves; None where a full disk had no room for it."""
    try:
        notes_of = [(folder / f"report-{n}.json").read_bytes() for n in range(workers)]
        reports = [msgspec.json.decode(data, type=Report) for data in notes_of]
    except (OSError, msgspec.DecodeError):
        return None
    return Evidence(
        late_ids=np.concatenate([np.array(r.late_ids, dtype=np.int64) for r in reports]),
        lag_ns=np.concatenate([np.fromfile(folder / f"lag-{n}", dtype=np.int64) for n in range(workers)]),
        send_late_ns=np.concatenate([np.array(r.send_late_ns, dtype=np.int64) for r in reports]),
        unstamped_reads=sum(r.unstamped_reads for r in reports),
        worker_cpu_s=[r.cpu_s for r in reports],
        worker_cpu_share=[round(r.cpu_s / r.wall_s, 4) for r in reports],
        host_cpu_share=notes.cpu_share,
        clock_step_s=float(np.ptp(notes.offsets_ns)) / 1e9,
    )
