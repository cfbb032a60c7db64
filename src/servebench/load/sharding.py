"""Requests, clients and arrival times, dealt out over the load processes before anything is measured."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from servebench.load.answers import Form
from servebench.load.protocol import SPARE_CONNECTIONS, Job, Pace, Part, Task
from servebench.log.schema import RunConfig
from servebench.workload import Request, Workload

PROBE_SPAN_S = 3600.0  # after which the times of probes come again
AWAKE_NS = 2_000_000  # before an arrival, where cores are free: a sleeper is now and then woken 1 to 3 ms late


@dataclass(frozen=True)
class Target:
    """Where and how requests go: the URL of each server, headers (they may hold a key), the body's bytes."""

    urls: list[str]
    headers: dict[str, str]
    body: Callable[[Request], bytes]
    check: Callable[[], None]  # raises PointFailed when the server is no longer there
    secrets: Sequence[str] = ()  # of headers, URLs and bodies, which no log may repeat


def roomy_workers() -> int:
    """Load processes that have two cores each, since the server may need one of them."""
    return len(os.sched_getaffinity(0)) // 2


def deal(
    run: RunConfig,
    workload: Workload,
    target: Target,
    folder: Path,
    workers: int,
    lock_fd: int = -1,
    wake_fds: Sequence[int] = (),
) -> list[Task]:
    """A task for each worker, round robin, and one more for the probes beside the load."""
    everything = _jobs([*workload.measured, *workload.filler], target)
    counted, spare = everything[: run.num_requests], everything[run.num_requests :]
    same: dict[str, Any] = {
        "tag": secrets.token_hex(4),
        "folder": str(folder),
        "urls": target.urls,
        "headers": target.headers,
        "secrets": list(target.secrets),
        "warmup": run.warmup,
        "form": form_of(run),
        "request_timeout_s": run.request_timeout,
        "max_retries": run.max_retries,
        "client_step": workers,
        "peers": list(range(workers)),
        "lock_fd": lock_fd,
        "wake_fds": list(wake_fds),
    }
    share = _open_share if workload.schedule else _closed_share
    shares = [share(run, workload, n, workers, counted, spare, len(target.urls)) for n in range(workers)]
    tasks = [
        Task(number=n, spare_ids=(run.num_requests + n, workers), **own, **same) for n, own in enumerate(shares)
    ]
    return tasks + ([_probe_task(run, workload, target, workers, same)] if workload.probes else [])


def form_of(run: RunConfig) -> Form:
    """How its answers come."""
    if run.api == "score":
        return "score"
    if run.api == "mii":
        return "mii" if run.stream else "mii_whole"
    return "events" if run.stream else "object"


def _jobs(requests: Sequence[Request], target: Target) -> list[Job]:
    """Requests that are no conversation's are each one of its own."""
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


def _closed_share(
    run: RunConfig, workload: Workload, n: int, workers: int, counted: list[Job], spare: list[Job], servers: int
) -> dict[str, Any]:
    """Clients, one of each server in turn, and as many requests; those of a conversation to one worker.

    So no worker has only slow servers, whose requests would be too large a share of all.
    """

    def mine(client: int) -> bool:
        return client // servers % workers == n

    def my(jobs: list[Job]) -> list[Job]:
        return [job for job in jobs if mine(job.conversation % run.num_clients)]

    clients = [(client, client % servers) for client in range(run.num_clients) if mine(client)]
    return {"clients": clients, "pace": None, "counted": my(counted), "spare": my(spare)}


def _open_share(
    run: RunConfig, workload: Workload, n: int, workers: int, counted: list[Job], spare: list[Job], servers: int
) -> dict[str, Any]:
    """Every workers-th arrival of the one stream, and the request that goes with it."""
    schedule = workload.schedule
    assert schedule
    begin, end = schedule.warmup, schedule.warmup + schedule.measured
    times_s, opens_s = schedule.times_s, schedule.times_s[begin]
    pace = Pace(
        _part(times_s[:begin], n, workers),
        _part(schedule.gap_filler_s, (n - begin) % workers, workers, schedule.gap_filler_span_s),
        _part(times_s[begin:end] - opens_s, (n - begin) % workers, workers),
        _part(times_s[end:] - opens_s, (n - end) % workers, workers, schedule.cooldown_span_s),
        turn_ns=round(schedule.period_s * 1e9),
        most_in_flight=run.max_concurrency,
        awake_ns=AWAKE_NS if workers <= roomy_workers() else 0,
    )
    most = SPARE_CONNECTIONS * servers
    connected = min(most, run.max_concurrency or most)
    clients = [(n + workers * i, i % servers) for i in range(connected)]
    jobs = counted[(n - schedule.warmup) % workers :: workers]
    return {"clients": clients, "pace": pace, "counted": jobs, "spare": spare[n::workers]}


def _part(times_s: np.ndarray, first: int, step: int, span_s: float = 0.0) -> Part:
    mine_ns = [round(t * 1e9) for t in times_s[first::step].tolist()]
    return Part(mine_ns, first, step, len(times_s), round(span_s * 1e9))


def _probe_task(run: RunConfig, workload: Workload, target: Target, workers: int, same: dict[str, Any]) -> Task:
    """A process of its own, so that probes neither wait for the load's answers nor delay them."""
    times = np.cumsum(np.full(max(1, round(run.probe_rate * PROBE_SPAN_S)), 1 / run.probe_rate))
    none, again = Part([], 0, 1, 0), _part(times, 0, 1, float(times[-1]))
    pace = Pace(none, none, none, again, turn_ns=0, most_in_flight=None, phase="probe")
    clients = [(server, server) for server in range(len(target.urls))]
    jobs = {"counted": [], "spare": _jobs(workload.probes, target), "spare_ids": (0, 1)}
    alone = same | jobs | {"number": workers, "peers": [workers], "tag": f"{same['tag']}-probe"}
    return Task(**alone, clients=clients, pace=pace)
