"""Splits requests, clients and arrival times over the load processes, before anything is measured."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from servebench.load.protocol import SPARE_CONNECTIONS, Arrivals, Form, Job, Pace, Task
from servebench.log.config import Clients, Rate, RunConfig, Trace
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

    count: int  # without those of probes and questions
    folder: Path
    lock_fd: int = -1
    wake_fds: Sequence[int] = ()


def roomy_workers() -> int:
    """How many load processes have two cores each, since the server may need one of them."""
    return len(os.sched_getaffinity(0)) // 2


def deal(run: RunConfig, workload: Workload, target: Target, workers: Workers) -> list[Task]:
    """A task for each worker, and one more each for the probes and for the questions beside the load."""
    jobs = _jobs([*workload.measured, *workload.filler], target)
    whole = Task(  # what all tasks have in common, with the requests that they share
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
        filler_ids=(run.num_requests, 1),
    )
    tasks = [replace(whole, number=n, filler_ids=(run.num_requests + n, workers.count)) for n in whole.peers]
    load = run.load
    if isinstance(load, Clients):
        tasks = [_share_of_clients(task, load) for task in tasks]
    elif workload.schedule:
        tasks = [_share_of_schedule(task, load, workload.schedule) for task in tasks]
    if workload.probes:
        tasks.append(_probe_task(whole, run, _jobs(workload.probes, target)))
    if workload.checks:
        tasks.append(_check_task(whole, len(tasks), run, _jobs(workload.checks, target)))
    return tasks


def form_of(run: RunConfig) -> Form:
    """How the answers come."""
    if run.api == "score":
        return "score"
    if run.api == "mii":
        return "mii" if run.stream else "mii_whole"
    return "events" if run.stream else "object"


def _jobs(requests: Sequence[Request], target: Target) -> list[Job]:
    """The requests with their bytes. One that belongs to no conversation is a conversation by itself."""
    alone = 1 + max((r.conversation for r in requests if r.conversation is not None), default=-1)
    return [
        Job(
            id=i,
            body=target.body(r),
            prompt_tokens=r.prompt_tokens,
            max_new_tokens=r.max_new_tokens,
            conversation=alone + i if r.conversation is None else r.conversation,
            think_ns=round(r.think_s * 1e9),
            keeps_text=r.question is not None,
        )
        for i, r in enumerate(requests)
    ]


def _share_of_clients(task: Task, load: Clients) -> Task:
    """A closed loop: clients, one of each server in turn, and as many requests, whole conversations.

    So no worker has only slow servers, whose requests would be too large a share of all.
    """
    servers, workers = len(task.urls), len(task.peers)

    def mine(client: int) -> bool:
        return client // servers % workers == task.number

    def my(jobs: list[Job]) -> list[Job]:
        return [job for job in jobs if mine(job.conversation % load.num_clients)]

    clients = [(client, client % servers) for client in range(load.num_clients) if mine(client)]
    return replace(task, clients=clients, measured=my(task.measured), filler=my(task.filler))


def _share_of_schedule(task: Task, load: Rate | Trace, schedule: Schedule) -> Task:
    """An open loop: every workers-th arrival of the one stream, and the request that goes with it."""
    n, servers, workers = task.number, len(task.urls), len(task.peers)
    begin, end = schedule.warmup, schedule.warmup + schedule.measured
    times_s, opens_s = schedule.times_s, schedule.times_s[begin]
    pace = Pace(
        warmup=_arrivals(times_s[:begin], n, workers),
        gap_filler=_arrivals(schedule.gap_filler_s, n - begin, workers, schedule.gap_filler_span_s),
        measured=_arrivals(times_s[begin:end] - opens_s, n - begin, workers),
        cooldown=_arrivals(times_s[end:] - opens_s, n - end, workers, schedule.cooldown_span_s),
        period_ns=round(schedule.period_s * 1e9),
        max_in_flight=load.max_concurrency,
        spin_ns=SPIN_NS if workers <= roomy_workers() else 0,
    )
    spare = SPARE_CONNECTIONS * servers
    connected = min(spare, load.max_concurrency or spare)
    clients = [(n + workers * i, i % servers) for i in range(connected)]
    measured = task.measured[pace.measured.first :: workers]
    return replace(task, clients=clients, pace=pace, measured=measured, filler=task.filler[n::workers])


def _arrivals(times_s: np.ndarray, first: int, step: int, span_s: float = 0.0) -> Arrivals:
    """Every step-th of these times, from the first-th (modulo step) on."""
    first %= step
    at_ns = [round(t * 1e9) for t in times_s[first::step].tolist()]
    return Arrivals(at_ns, first, step, len(times_s), round(span_s * 1e9))


def _probe_task(whole: Task, run: RunConfig, probes: list[Job]) -> Task:
    """For a process that sends nothing else, so that probes neither wait for the load's answers nor delay them."""
    times_s = np.cumsum(np.full(max(1, round(run.probe_rate * PROBE_SPAN_S)), 1 / run.probe_rate))
    none, again = Arrivals([], 0, 1, 0), _arrivals(times_s, 0, 1, float(times_s[-1]))
    number = len(whole.peers)
    return replace(
        whole,
        number=number,
        peers=[number],
        tag=f"{whole.tag}-probe",
        clients=[(server, server) for server in range(len(whole.urls))],
        pace=Pace(none, none, none, again, period_ns=0, max_in_flight=None, phase="probe"),
        measured=[],
        filler=probes,
        filler_ids=(0, 1),
    )


def _check_task(whole: Task, number: int, run: RunConfig, questions: list[Job]) -> Task:
    """For a process that asks questions, spread over the load: their answers wait for nothing of it."""
    return replace(
        whole,
        number=number,
        tag=f"{whole.tag}-check",
        clients=[(server, server) for server in range(len(whole.urls))],
        measured=questions,
        filler=[],
        checks_per_request=len(questions) / run.num_requests,
    )
