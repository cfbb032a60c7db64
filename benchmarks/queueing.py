#!/usr/bin/env python3
"""Is what an open loop measures what queueing theory says, however many load processes share it?

    .venv/bin/python benchmarks/queueing.py                                        # an hour, on a quiet machine
    .venv/bin/python benchmarks/queueing.py --loads 0.8 --requests 300 --runs 2    # a look, five minutes

Poisson arrivals at five systems of reference servers. A wait is the time from a request's schedule to its first
event, less its service. It is held against the mean that theory gives, with the standard error of the runs' means
(their variance is taken from the runs of all numbers of processes), and against a simulation of the very arrivals of
these runs, which no chance is left in.

| system | theory |
|---|---|
| one server, one place, constant service | M/D/1 |
| one server, four places, exponential service | M/M/4; what each service took is not known outside the server |
| `--max_concurrency 4` before a server without limit, exponential service | M/M/4 |
| the same before four servers of one place: each request finds one that is free | M/M/4 |
| four servers of one place, constant service, the one with the fewest requests in flight | join the shortest queue: no closed form |
"""  # noqa: E501

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from heapq import heapreplace
from math import factorial, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from servebench.analysis import latency
from servebench.load.fleet import Outcome, run_load
from servebench.load.sharding import Target
from servebench.log.config import Rate, RunConfig
from servebench.log.result import Result
from servebench.reference.calibrate import completion_body, reference_server
from servebench.workload import Request, Workload
from servebench.workload.arrivals import draw_schedule

Waits = Callable[[Sequence[float], Sequence[float]], list[float]]  # arrivals, services -> the wait of each, s
WARM_UP = 0.5  # of the counted requests: near its capacity a queue is long in finding its length


def one_queue(places: int) -> Waits:
    def waits(arrivals: Sequence[float], services: Sequence[float]) -> list[float]:
        free, found = [0.0] * places, []
        for at, service in zip(arrivals, services, strict=True):
            begin = max(at, free[0])
            heapreplace(free, begin + service)
            found.append(begin - at)
        return found

    return waits


def shortest_queue(servers: int) -> Waits:
    def waits(arrivals: Sequence[float], services: Sequence[float]) -> list[float]:
        ends: list[list[float]] = [[] for _ in range(servers)]
        found = []
        for number, (at, service) in enumerate(zip(arrivals, services, strict=True)):
            ends = [[end for end in queue if end > at] for queue in ends]
            queue = min(range(servers), key=lambda s: (len(ends[s]), (s - number) % servers))
            begin = max([at, *ends[queue][-1:]])
            ends[queue].append(begin + service)
            found.append(begin - at)
        return found

    return waits


def md1_s(load: float, service_s: float) -> float:
    """Mean wait (Pollaczek-Khinchine)."""
    return load * service_s / (2 * (1 - load))


def mmc_s(load: float, service_s: float, c: int = 4) -> float:
    """Mean wait (Erlang C)."""
    offered = load * c
    full = offered**c / factorial(c) / (1 - load)
    waits = full / (sum(offered**k / factorial(k) for k in range(c)) + full)
    return waits * service_s / (c * (1 - load))


class System(NamedTuple):
    """What requests are put to, and what is known of it."""

    name: str
    theory: str
    options: str  # of each server
    servers: int
    places: int  # of all together
    limit: int | None  # --max_concurrency
    mean_wait_s: Callable[[float, float], float] | None
    simulate: Waits | None


SYSTEMS = [
    System("1 server of 1 place, constant", "M/D/1", "--slots 1", 1, 1, None, md1_s, one_queue(1)),
    System("1 server of 4 places", "M/M/4", "--slots 4 --service exponential", 1, 4, None, mmc_s, None),
    System("limit of 4, 1 server", "M/M/4", "--service exponential", 1, 4, 4, mmc_s, one_queue(4)),
    System(
        "limit of 4, 4 servers of 1 place",
        "M/M/4",
        "--slots 1 --service exponential",
        4,
        4,
        4,
        mmc_s,
        one_queue(4),
    ),
    System("4 servers of 1 place, constant", "shortest queue", "--slots 1", 4, 4, None, None, shortest_queue(4)),
]


class Seen(NamedTuple):
    """One run: means in s, rates per s."""

    offered: float  # arrivals in the window
    throughput: float
    wait: float
    simulated: float | None
    verdict: str


def measure(system: System, load: float, workers: int, seed: int, args: argparse.Namespace) -> Seen:
    service_s = args.service_ms / 1e3
    rate = load * system.places / service_s
    run = RunConfig(
        load=Rate(request_rate=rate, max_concurrency=system.limit),
        num_requests=args.requests,
        warmup=round(WARM_UP * args.requests),
        seed=seed,
    )
    ask = [Request("word " * 8, 8, 1)]
    workload = Workload(ask * args.requests, ask * 256, draw_schedule(run))
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        options = ["--ttft", str(service_s), *system.options.split()]
        urls = []
        for number in range(system.servers):
            (folder := Path(name) / str(number)).mkdir()
            urls.append(servers.enter_context(reference_server(folder, 0.0, *options))[0])
        target = Target([f"{url}/v1/completions" for url in urls], {}, completion_body, lambda: None)
        return seen(system, service_s, run_load(run, workload, target, Path(name) / "parts", workers))


def seen(system: System, service_s: float, outcome: Outcome) -> Seen:
    if outcome.failure or not outcome.window_ns:
        raise SystemExit(outcome.failure or "no window")
    start, end = outcome.window_ns
    before_cooldown = sorted((r for r in outcome.results if r.phase != "cooldown"), key=scheduled_ns)
    drawn = system.limit is not None  # the servers never queue, so what came after sending was service
    services = [ttft_s(r) if drawn else service_s for r in before_cooldown]
    counted = [r.phase == "measured" for r in before_cooldown]
    waits = np.array([ttft_s(r) + latency.schedule_wait_s(r) for r in before_cooldown]) - services
    simulated = None
    if system.simulate:
        at_s = [(scheduled_ns(r) - scheduled_ns(before_cooldown[0])) / 1e9 for r in before_cooldown]
        simulated = float(np.mean(np.array(system.simulate(at_s, services))[counted]))
    ended = sum(start < latency.end_ns(r) <= end for r in outcome.results if r.finish_reason != "cancelled")
    arrived = sum(start < scheduled_ns(r) <= end for r in outcome.results)
    length_s = (end - start) / 1e9
    verdict = outcome.quality.verdict.partition(":")[0]
    return Seen(arrived / length_s, ended / length_s, float(waits[counted].mean()), simulated, verdict)


def scheduled_ns(r: Result) -> int:
    return r.scheduled_ns or 0


def ttft_s(r: Result) -> float:
    return r.event_ns[0] / 1e9


def rows(system: System, load: float, args: argparse.Namespace) -> list[list[str]]:
    """One for each number of load processes."""
    known_s = system.mean_wait_s(load, args.service_ms / 1e3) if system.mean_wait_s else None
    found = {n: [measure(system, load, n, seed, args) for seed in range(args.runs)] for n in args.workers}
    variance = np.mean([np.var([run.wait for run in runs], ddof=1) for runs in found.values()])
    return [row(system, load, n, runs, known_s, sqrt(variance / len(runs))) for n, runs in found.items()]


def row(
    system: System, load: float, workers: int, runs: list[Seen], known_s: float | None, error_s: float
) -> list[str]:
    offered, throughput, wait = (float(np.mean(column)) for column in list(zip(*runs, strict=True))[:3])
    simulated = [run.simulated for run in runs if run.simulated is not None]
    return [
        system.name,
        f"{load:.0%}",
        str(workers),
        f"{offered:.2f} → {throughput:.2f}",
        system.theory if known_s is None else f"{system.theory} {known_s * 1e3:.2f}",
        f"{wait * 1e3:.2f} ± {error_s * 1e3:.2f}",
        "-" if known_s is None else f"{(wait - known_s) / error_s:+.1f}",
        f"{np.mean(simulated) * 1e3:.2f}" if simulated else "-",
        f"{(wait - np.mean(simulated)) * 1e3:+.2f}" if simulated else "-",
        f"{sum(run.verdict == 'ok' for run in runs)} of {len(runs)}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.8, 0.95], help="shares of the capacity")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="load processes")
    parser.add_argument("--systems", type=int, nargs="+", default=[*range(1, 1 + len(SYSTEMS))], help="by number")
    parser.add_argument("--requests", type=int, default=1000, help="counted ones a run")
    parser.add_argument("--runs", type=int, default=5, help="of each row, with other arrivals each; 2 at least")
    parser.add_argument("--service_ms", type=float, default=20.0, help="mean")
    args = parser.parse_args()
    header = ["system", "load", "processes", "offered → throughput (1/s)", "theory, wait (ms)", "measured (ms)"]
    header += ["off, in standard errors", "same arrivals, simulated (ms)", "off (ms)", "client ok"]
    table = [
        row for number in args.systems for load in args.loads for row in rows(SYSTEMS[number - 1], load, args)
    ]
    print(tabulate(table, header, tablefmt="github", stralign="right", disable_numparse=True))


if __name__ == "__main__":
    main()
