"""The parent's side of the sampler: it runs as long as a server does, and samples while a point is measured."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from servebench.load.fleet import Progress, Watch
from servebench.log.urls import beside
from servebench.servers.backends import metrics_of
from servebench.servers.server import Server
from servebench.telemetry.engine_metrics import Engine
from servebench.telemetry.sampler import COUNT, STOP, Sample, Task

END_S = 2.0  # for the sampler to take its last samples


class Recorder:
    """A sampler and what it samples. Whatever becomes of it, points are measured as without it."""

    def __init__(self, sampler: subprocess.Popen[bytes], server: Server) -> None:
        self.sampler = sampler
        table = metrics_of(server.config.backend)
        engines = server.engines if table else []
        self.task = Task(
            file="",
            client=os.getpid(),
            server=[pid for each in server.processes for pid in each.leaders] or None,
            gpus=server.facts.gpus,
            engines=[Engine(beside(url, "/metrics"), dict(server.headers), table) for url in engines],
        )

    def end(self, file: Path) -> list[Sample]:
        """Stop. Returns what was sampled since the begin; of a sampler that died, what it had."""
        self.say(STOP)
        assert self.sampler.stdout
        if select.select([self.sampler.stdout], [], [], END_S)[0]:
            self.sampler.stdout.readline()
        try:
            return list(read(file))
        except OSError:
            return []
        finally:
            file.unlink(missing_ok=True)

    def say(self, line: bytes) -> None:
        assert self.sampler.stdin
        with suppress(OSError):  # it has died
            self.sampler.stdin.write(line)


@contextmanager
def recorder(server: Server, folder: Path, wanted: bool) -> Iterator[Recorder | None]:
    """For as long as the server runs; None with --no_telemetry."""
    if not wanted:
        yield None
        return
    command = [sys.executable, "-m", "servebench.telemetry.sampler", str(folder)]  # for readers of `ps`
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as sampler:
        try:
            yield Recorder(sampler, server)
        finally:
            sampler.kill()  # it has nothing left to do


@contextmanager
def sampled(recorder: Recorder | None, path: Path, watch: Watch) -> Iterator[tuple[list[Sample], Watch]]:
    """Samples are taken inside, and are in the list afterwards. `path`: the log; `watch`: for the load to call.

    Energy counters are read when the window begins.
    """
    samples: list[Sample] = []
    if not recorder:
        yield samples, watch
        return
    phases, file = set[str](), path.with_suffix(f".tmp{os.getpid()}")

    def seen(progress: Progress) -> None:
        if progress.phase == "measuring" and "measuring" not in phases:
            recorder.say(COUNT)
        phases.add(progress.phase)
        watch(progress)

    file.unlink(missing_ok=True)
    recorder.say(msgspec.json.encode(msgspec.structs.replace(recorder.task, file=str(file))) + b"\n")
    try:
        yield samples, seen
    finally:
        samples += recorder.end(file)


def read(file: Path) -> Iterator[Sample]:
    """A last line that was cut off is left out."""
    for line in file.read_bytes().splitlines():
        with suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=Sample)
