"""The parent of the load processes: starts them, steers them through the phases, gathers what they wrote."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from tqdm import tqdm

from servebench.load import protocol
from servebench.load.answers import Form
from servebench.load.protocol import Job, Report, Task
from servebench.quality import Evidence, judge
from servebench.records import Quality, Result, RunConfig, read_parts
from servebench.workload import Request, Workload

TICK_S, QUICK_TICK_S = 0.05, 0.01  # while measuring, and before
CONNECT_S = 30.0  # after which clients that have no connection are left to fail request by request
END_S = 60.0  # for a worker to write down what it has


class PointFailed(Exception):
    """A point cannot be completed; what was measured of it is kept. The message says why."""


@dataclass(frozen=True)
class Target:
    """Where and how requests go: the URL of each server, headers (they may hold a key), the body's bytes."""

    urls: list[str]
    headers: dict[str, str]
    body: Callable[[Request], bytes]
    check: Callable[[], None]  # raises PointFailed when the server is no longer there


@dataclass(frozen=True)
class Outcome:
    """What one point's load brought."""

    results: list[Result]
    window_ns: tuple[int, int] | None
    quality: Quality
    failure: str | None


def default_workers(num_clients: int) -> int:
    """One for each two cores (the server may need the others), no more than there is work for."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(num_clients, cores // 2, max(4, -(-num_clients // 128))))


def run_load(run: RunConfig, workload: Workload, target: Target, folder: Path, workers: int) -> Outcome:
    """Put the load on the target. `folder` holds the part files while it runs; it is removed at the end."""
    workers = min(workers, run.num_clients)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _shared_file(folder / "control", workers) as shared:
        failure, window, notes = _steer(run, workload, target, folder, workers, shared)
    results = sorted(read_parts([folder / f"part-{n}.jsonl" for n in range(workers)]), key=lambda r: r.sent_ns)
    quality = Quality(asked_concurrency=run.num_clients)
    if window and not failure:
        quality = judge(results, window, run.num_clients, _evidence(results, folder, workers, notes))
    shutil.rmtree(folder)
    return Outcome(results, window, quality, failure)


@contextmanager
def _shared_file(path: Path, workers: int) -> Iterator[np.ndarray]:
    """The phase and every worker's counters, as int64 in a file that all of them map."""
    slots = protocol.FIRST_WORKER + workers * protocol.SLOTS
    path.write_bytes(bytes(8 * slots))
    yield np.memmap(path, dtype=np.int64, mode="r+")


def _steer(
    run: RunConfig, workload: Workload, target: Target, folder: Path, workers: int, shared: np.ndarray
) -> tuple[str | None, tuple[int, int] | None, HostNotes]:
    """Start the workers, lead them from connecting to the end. Returns (failure, window, notes)."""
    start, failure = 0, None
    notes = HostNotes()
    processes = [_spawn(task) for task in _tasks(run, workload, target, folder, workers)]
    watch = Watch(run, processes, shared, target.check)
    try:
        watch.until("connecting", protocol.CONNECTED, run.num_clients, patience_s=CONNECT_S)
        shared[protocol.PHASE] = protocol.WARM_UP
        watch.until("warming up", protocol.WARMED, run.num_clients if run.warmup else 0)
        notes.begin()
        start = time.time_ns()
        shared[protocol.PHASE] = protocol.MEASURE
        watch.until("measuring", protocol.DONE, run.num_requests, tick_s=TICK_S, each_tick=notes.sample)
    except PointFailed as problem:
        failure = str(problem)
    finally:
        end = time.time_ns()
        shared[protocol.PHASE] = protocol.STOP
        _reap(processes)
    notes.finish()
    dead = [process.returncode for process in processes if process.returncode]
    if dead and not failure:
        failure = f"a load process ended with status {dead[0]}; its error is above"
    return failure, (start, end) if start else None, notes


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

    def __init__(self, run: RunConfig, processes: list[subprocess.Popen[bytes]], shared: np.ndarray, check: Any):
        self.run, self.processes, self.check = run, processes, check
        self.blocks = shared[protocol.FIRST_WORKER :].reshape(-1, protocol.SLOTS)

    def until(
        self,
        what: str,
        counter: int,
        goal: int,
        patience_s: float = float("inf"),
        tick_s: float = QUICK_TICK_S,
        each_tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait until the counter, summed over workers, reaches goal. Raises PointFailed."""
        end = time.monotonic() + patience_s
        label = f"  {self.run.num_clients} clients, {what}"
        with tqdm(total=goal, desc=label, unit="req", leave=False, disable=None, position=1) as bar:
            while (done := int(self.blocks[:, counter].sum())) < goal and time.monotonic() < end:
                self._refuse_the_dead()
                each_tick()
                bar.n = done
                failed, events = (int(self.blocks[:, c].sum()) for c in (protocol.FAILED, protocol.EVENTS))
                bar.set_postfix(failed=failed, events=events, refresh=True)
                time.sleep(tick_s)

    def _refuse_the_dead(self) -> None:
        self.check()
        for process in self.processes:
            if process.poll() is not None:
                raise PointFailed(f"a load process ended with status {process.returncode}; its error is above")


def _spawn(task: Task) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "servebench.load.worker", task.folder]  # the folder is for readers of `ps`
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin
    try:
        process.stdin.write(msgspec.msgpack.encode(task))
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at once; the watch will say so
    return process


def _reap(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tasks(run: RunConfig, workload: Workload, target: Target, folder: Path, workers: int) -> list[Task]:
    """Deal clients, counted and spare requests over the workers, round robin."""
    jobs = [
        Job(i, target.body(request), request.prompt_tokens, request.max_new_tokens)
        for i, request in enumerate([*workload.counted, *workload.spare])
    ]
    tag = secrets.token_hex(4)
    counted, spare = jobs[: run.num_requests], jobs[run.num_requests :]
    clients = [(client, client % len(target.urls)) for client in range(run.num_clients)]

    def share(n: int, jobs: list[Job]) -> list[Job]:  # as many a worker as it has clients for
        return [job for i, job in enumerate(jobs) if i % run.num_clients % workers == n]

    return [
        Task(
            number=n,
            tag=tag,
            folder=str(folder),
            urls=target.urls,
            headers=target.headers,
            clients=clients[n::workers],
            warmup=run.warmup,
            form=form_of(run),
            request_timeout_s=run.request_timeout,
            max_retries=run.max_retries,
            counted=share(n, counted),
            spare=share(n, spare),
            spare_ids=(run.num_requests + n, workers),
        )
        for n in range(workers)
    ]


def form_of(run: RunConfig) -> Form:
    """How its answers come."""
    if run.api == "score" or run.api == "mii":
        return run.api
    return "events" if run.stream else "object"


def _evidence(results: list[Result], folder: Path, workers: int, notes: HostNotes) -> Evidence:
    reports = [
        msgspec.json.decode((folder / f"report-{n}.json").read_bytes(), type=Report) for n in range(workers)
    ]
    return Evidence(
        lag_ns=np.concatenate([np.fromfile(folder / f"lag-{n}", dtype=np.int64) for n in range(workers)]),
        send_late_ns=np.concatenate([np.array(r.send_late_ns, dtype=np.int64) for r in reports]),
        unstamped_reads=sum(r.unstamped_reads for r in reports),
        worker_cpu_s=[r.cpu_s for r in reports],
        worker_cpu_share=[round(r.cpu_s / r.wall_s, 4) for r in reports],
        host_cpu_share=notes.cpu_share,
        clock_step_s=float(np.ptp(notes.offsets_ns)) / 1e9,
    )
