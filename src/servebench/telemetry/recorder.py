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
from servebench.telemetry.sampler import COUNT, Sample, Task

END_S = 2.0  # for the sampler to take its last samples


class Recorder:
    """A sampler and what it samples. Whatever becomes of it, points are measured as without it."""

    def __init__(self, server: Server, folder: Path) -> None:
        command = [sys.executable, "-m", "servebench.telemetry.sampler", str(folder)]  # for readers of `ps`
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        table = metrics_of(server.config.backend)
        self.task = Task(
            file="",
            client=os.getpid(),
            server=[each.popen.pid for each in server.processes] or None,
            gpus=server.facts.gpus,
            engines=[
                Engine(beside(url, "/metrics"), dict(server.headers), table) for url in server.engines if table
            ],
        )

    def begin(self, path: Path) -> None:
        """Sample from now on. `path`: the log of the point."""
        file = path.with_suffix(f".tmp{os.getpid()}")
        self.task = msgspec.structs.replace(self.task, file=str(file))
        file.unlink(missing_ok=True)
        self._say(msgspec.json.encode(self.task))

    def count(self) -> None:
        """Read the energy counters now: the window begins."""
        self._say(COUNT.strip())

    def end(self) -> list[Sample]:
        """Stop. Returns what was sampled since the begin; of a sampler that died, what it had."""
        self._say(b"")
        assert self.process.stdout
        if select.select([self.process.stdout], [], [], END_S)[0]:
            self.process.stdout.readline()
        file = Path(self.task.file)
        try:
            return list(read(file))
        except OSError:
            return []
        finally:
            file.unlink(missing_ok=True)

    def _say(self, line: bytes) -> None:
        assert self.process.stdin
        with suppress(OSError):  # it has died
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        with suppress(OSError):
            self.process.stdin.close()  # it ends with its input
        self.process.stdout.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def recorder(server: Server, folder: Path, wanted: bool) -> Iterator[Recorder | None]:
    """For as long as the server runs; None with --no_telemetry."""
    if not wanted:
        yield None
        return
    recorder = Recorder(server, folder)
    try:
        yield recorder
    finally:
        recorder.close()


@contextmanager
def sampled(recorder: Recorder | None, path: Path, watch: Watch) -> Iterator[tuple[list[Sample], Watch]]:
    """Samples are taken inside, and are in the list afterwards. `watch`: as the load has to call it."""
    samples: list[Sample] = []
    if recorder:
        recorder.begin(path)
    try:
        yield samples, _counting(recorder, watch) if recorder else watch
    finally:
        samples += recorder.end() if recorder else []


def _counting(recorder: Recorder, watch: Watch) -> Watch:
    """The watch, which also has the energy counted when the window has begun."""
    begun = False

    def seen(progress: Progress) -> None:
        nonlocal begun
        if not begun and progress.phase == "measuring":
            begun = True
            recorder.count()
        watch(progress)

    return seen


def read(file: Path) -> Iterator[Sample]:
    """A last line that was cut off is left out."""
    decode = msgspec.json.Decoder(Sample).decode
    with file.open("rb") as lines:
        for line in lines:
            with suppress(msgspec.DecodeError):
                yield decode(line)
