"""Splits requests, clients and arrival times over the load processes, before anything is measured."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from servebench.load.protocol import SPARE_CONNECTIONS, Arrivals, Form, Job, Pace, Task
from servebench.log.schema import RunConfig
from servebench.workload import Request, Schedule, Workload

PROBE_SPAN_S = 3600.0  # after which the times of probes come again
SPIN_NS = 2_000_000  # before an arrival, where cores are free: a sleeper is now and then woken 1 to 3 ms late


@dataclass(frozen=True)
class Target:
    """Where and how requests go: the URL of each server, headers (they may hold a key), the body's bytes."""

    urls: list[str]
    headers: dict[str, str]
    body: Callable[[Request], bytes]
    check: Callable[[], None]  # raises PointFailed when the server is no longer there
    secrets: Sequence[str] = ()  # in headers, URLs and bodies, which no log may repeat


@dataclass(frozen=True)
class Workers:
    """The load processes of a point, and what they share."""

    count: int  # without that of the probes
    folder: Path
    lock_fd: int = -1
    wake_fds: Sequence[int] = ()


def roomy_workers() -> int:
    """How many load processes have two cores each, since the server may need one of them."""
    return len(os.sched_getaffinity(0)) // 2


def deal(run: RunConfig, workload: Workload, target: Target, workers: Workers) -> list[Task]:
    """A task for each worker, and one more for the probes beside the load."""
    jobs = _jobs([*workload.counted, *workload.spare], target)
    task = Task(
        number=0,
        peers=list(range(workers.count)),
        wake_fds=list(workers.wake_fds),
        lock_fd=workers.lock_fd,
        tag=secrets.token_hex(4),
        folder=str(workers.folder),
        urls=target.urls,
        headers=target.headers,
        secrets=list(target.secrets),
        clients=[],
        client_step=workers.count,
        pace=None,
        warmup=run.warmup,
        form=form_of(run),
        request_timeout_s=run.request_timeout,
        max_retries=run.max_retries,
        measured=jobs[: run.num_requests],
        filler=jobs[run.num_requests :],
        filler_ids=(run.num_requests, workers.count),
    )
    shares = [Share(n, workers.count, len(target.urls)) for n in range(workers.count)]
    tasks = [
        share.of_schedule(task, run, workload.schedule) if workload.schedule else share.of_clients(task, run)
        for share in shares
    ]
    return tasks + ([_probe_task(task, run, _jobs(workload.probes, target))] if workload.probes else [])


def form_of(run: RunConfig) -> Form:
    """How the answers come."""
    if run.api == "score":
        return "score"
    if run.api == "mii":
        return "mii" if run.stream else "mii_whole"
    return "events" if run.stream else "object"


def _jobs(requests: Sequence[Request], target: Target) -> list[Job]:
    """The requests with their bytes. One that belongs to no conversation is a conversation of its own."""
    alone = 1 + max((r.conversation for r in requests if r.conversation is not None), default=-1)
    return [
        Job(
            id=i,
            body=target.body(r),
            prompt_tokens=r.prompt_tokens,
            max_new_tokens=r.max_new_tokens,
            conversation=alone + i if r.conversation is None else r.conversation,
            think_ns=round(r.think_s * 1e9),
        )
        for i, r in enumerate(requests)
    ]


@dataclass(frozen=True)
class Share:
    """The part of a load that worker number n of so many workers has, at so many servers."""

    n: int
    workers: int
    servers: int

    def of_clients(self, task: Task, run: RunConfig) -> Task:
        """A closed loop: clients, one of each server in turn, and as many requests, whole conversations.

        So no worker has only slow servers, whose requests would be too large a share of all.
        """

        def mine(client: int) -> bool:
            return client // self.servers % self.workers == self.n

        def my(jobs: list[Job]) -> list[Job]:
            return [job for job in jobs if mine(job.conversation % run.num_clients)]

        clients = [(client, client % self.servers) for client in range(run.num_clients) if mine(client)]
        return self._task(task, clients=clients, measured=my(task.measured), filler=my(task.filler))

    def of_schedule(self, task: Task, run: RunConfig, schedule: Schedule) -> Task:
        """An open loop: every workers-th arrival of the one stream, and the request that goes with it."""
        begin, end = schedule.warmup, schedule.warmup + schedule.counted
        times_s, opens_s = schedule.times_s, schedule.times_s[begin]
        pace = Pace(
            warmup=self.arrivals(times_s[:begin]),
            gap_filler=self.arrivals(schedule.bridge_s, begin, schedule.bridge_span_s),
            measured=self.arrivals(times_s[begin:end] - opens_s, begin),
            cooldown=self.arrivals(times_s[end:] - opens_s, end, schedule.hold_span_s),
            period_ns=round(schedule.turn_s * 1e9),
            max_in_flight=run.max_concurrency,
            spin_ns=SPIN_NS if self.workers <= roomy_workers() else 0,
        )
        spare = SPARE_CONNECTIONS * self.servers
        connected = min(spare, run.max_concurrency or spare)
        clients = [(self.n + self.workers * i, i % self.servers) for i in range(connected)]
        measured = task.measured[(self.n - begin) % self.workers :: self.workers]
        filler = task.filler[self.n :: self.workers]
        return self._task(task, clients=clients, pace=pace, measured=measured, filler=filler)

    def _task(self, task: Task, **mine: Any) -> Task:
        first, step = task.filler_ids
        return msgspec.structs.replace(task, number=self.n, filler_ids=(first + self.n, step), **mine)

    def arrivals(self, times_s: np.ndarray, before: int = 0, span_s: float = 0.0) -> Arrivals:
        """Its part of arrivals at these times, where so many others come before."""
        first = (self.n - before) % self.workers
        at_ns = [round(t * 1e9) for t in times_s[first :: self.workers].tolist()]
        return Arrivals(at_ns, first, self.workers, len(times_s), round(span_s * 1e9))


def _probe_task(task: Task, run: RunConfig, probes: list[Job]) -> Task:
    """For a process that sends nothing else, so that probes neither wait for the load's answers nor delay them."""
    times_s = np.cumsum(np.full(max(1, round(run.probe_rate * PROBE_SPAN_S)), 1 / run.probe_rate))
    number, servers = len(task.peers), len(task.urls)
    none, again = Arrivals([], 0, 1, 0), Share(0, 1, servers).arrivals(times_s, span_s=float(times_s[-1]))
    pace = Pace(none, none, none, again, period_ns=0, max_in_flight=None, phase="probe")
    return msgspec.structs.replace(
        task,
        number=number,
        peers=[number],
        tag=f"{task.tag}-probe",
        clients=[(server, server) for server in range(servers)],
        pace=pace,
        measured=[],
        filler=probes,
        filler_ids=(0, 1),
    )
