"""The sampler: one process beside the load that reads GPUs, engines and the host while a point runs.

    python -m servebench.telemetry.sampler      tasks come on its input, one JSON a line

It writes each sample as a line to the task's file, and ends with its input. A source that fails is a remark there,
never an end. It is no load process and has no thread in one, so that no token waits for it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial

import msgspec

from servebench.telemetry.engine_metrics import DEADLINE_S, Engine, Scraper
from servebench.telemetry.gpus import Reader
from servebench.telemetry.host import HostReader, of_sessions

EVERY_S = 0.1  # of the GPUs
SLOWLY = 5  # every so many times also the host, and what changes slowly
COUNTED = 20  # every so many times one energy counter, in turn: a reading takes 7 ms on an H200
COUNT, STOP = b"count\n", b"\n"  # lines of input: read all energy counters now; end this task
REMARK = "remark"  # the source of samples that are remarks: words -> 1


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to sample into a file, until the next line of input."""

    file: str
    client: int  # the process that measures
    server: list[int] | None  # leaders of its sessions; None: not known
    gpus: list[int] = []
    engines: list[Engine] = []


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """A line of the file."""

    source: str  # host, gpu0, engine0
    at_ns: int
    values: dict[str, float]


class Samples:
    """The file that samples go to. A full disk loses samples, and nothing else."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def put(self, source: str, values: Mapping[str, float], at_ns: int = 0) -> None:
        """From any thread: a line is one write."""
        with suppress(OSError):
            line = msgspec.json.encode(Sample(source, at_ns or time.time_ns(), dict(values)))
            os.write(self.fd, line + b"\n")

    def remark(self, *words: str) -> None:
        self.put(REMARK, {": ".join(words): 1})


def sample_gpu(
    reader: Reader, index: int, leaders: Collection[int], to: Samples, slowly: bool, counted: bool
) -> None:
    """`slowly`: also whether processes are on it that are of no session of these leaders."""
    begin_ns = time.time_ns()
    values = reader.read(index, slowly)
    counter_j = reader.energy_counter_j(index) if counted else None
    middle_ns = (begin_ns + time.time_ns()) // 2
    if counter_j is not None:
        values["energy_counter_j"] = counter_j
    processes = (reader.processes(index) or []) if slowly else []
    others = {f"{name} ({pid})": 1.0 for pid, name in processes if not of_sessions(pid, leaders)}
    if len(others) < len(processes):  # else ours are not seen (in another PID namespace), so nothing is known
        values["shared"] = float(bool(others))
        if others:
            to.put(f"gpu{index}.others", others)
    to.put(f"gpu{index}", values, middle_ns)


def sample(task: Task, to: Samples, said: Callable[[float], bytes | None]) -> None:
    """Until told to stop, and once more then. `said` waits so many seconds for a line of input.

    All energy counters are read at both ends and when told to.
    """
    host = HostReader(task.client, task.server)
    reader: Reader | None = None
    every_s = EVERY_S if task.gpus else EVERY_S * SLOWLY
    begin_s, n = time.monotonic(), 0
    line: bytes | None = COUNT
    while True:
        slowly = line == STOP or not task.gpus or n % SLOWLY == 0
        counted = None if n % COUNTED else n // COUNTED % max(1, len(task.gpus))
        try:
            if n == 0 and task.gpus:
                reader = Reader(task.gpus)
            for i, index in enumerate(task.gpus):
                if reader:
                    sample_gpu(reader, index, task.server or (), to, slowly, bool(line) or i == counted)
        except OSError as error:
            to.remark(f"GPUs: {error}")
            reader = None
        if slowly:
            to.put("host", host())
        if line == STOP:
            return to.put("others", host.busiest())
        n = max(n + 1, int((time.monotonic() - begin_s) / every_s))  # what was slow is not caught up with
        line = said(max(0.0, begin_s + n * every_s - time.monotonic()))


def run(task: Task, said: Callable[[float], bytes | None]) -> None:
    to = Samples(task.file)
    scrapers = [
        Scraper(engine, partial(to.put, f"engine{i}"), partial(to.remark, f"engine {i}"))
        for i, engine in enumerate(task.engines)
    ]
    for scraper in scrapers:
        scraper.start()
    try:
        sample(task, to, said)
    finally:
        for scraper in scrapers:
            scraper.stop()
        for scraper in scrapers:
            scraper.join(DEADLINE_S)
        os.close(to.fd)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is the end of our input
    lines = open(0, "rb", buffering=0)  # noqa: SIM115  unbuffered, so that select() sees what was not read yet

    def said(wait_s: float) -> bytes | None:
        return lines.readline() or STOP if select.select([0], [], [], wait_s)[0] else None

    while line := lines.readline():
        if line in (COUNT, STOP):  # of a task that ended by itself
            continue
        try:
            run(msgspec.json.decode(line, type=Task), said)
        except OSError as error:  # the file cannot be made
            print(f"telemetry: {error}", file=sys.stderr)
        with suppress(OSError):
            print(flush=True)  # the parent waits for it


if __name__ == "__main__":
    main()
