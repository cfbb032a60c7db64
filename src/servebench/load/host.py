"""This host while a point is measured, and before: its clock, its CPU, and what other programs take of that."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import psutil

LEAST_S, WATCHED_S = 0.1, 0.4  # for which the host is watched at least, and its programs if it is busy
MANY = 0.2  # of all cores: other programs that take more make an engine slower
NAMED, NAMED_SHARE = 3, 0.1  # programs that are named, and of a core that each takes


class Host:
    """During the measured phase. `server`: its processes; None if they are not known."""

    def __init__(self, server: Sequence[int] | None) -> None:
        self.server = server
        self.offsets_ns: list[int] = []  # REALTIME minus MONOTONIC
        self.cpu_share: float | None = None  # of all cores, everything on this host
        self.others_cpu_share: float | None = None  # likewise, without the server and us
        self.last_s = 0.0

    def begin(self, clients: Iterable[int]) -> None:
        self.before = _all_cpu()
        self.known_s = cpu_s((*clients, *(self.server or ()))) + _own_cpu_s()
        self.sample()

    def sample(self) -> None:
        """Compare the clocks, at most once a second: a step of REALTIME would move every stamp."""
        if len(self.offsets_ns) < 2 or time.monotonic() - self.last_s > 1:
            self.last_s = time.monotonic()
            self.offsets_ns.append(time.time_ns() - time.monotonic_ns())

    def finish(self) -> None:
        """When the load processes have ended, so that their CPU counts as ours."""
        if not self.offsets_ns:
            return
        self.sample()
        busy_s, all_s = (now - then for now, then in zip(_all_cpu(), self.before, strict=True))
        if all_s <= 0:
            return
        self.cpu_share = busy_s / all_s
        if self.server is not None:
            known_s = cpu_s(self.server) + _own_cpu_s() - self.known_s
            self.others_cpu_share = min(1.0, max(0.0, busy_s - known_s) / all_s)


class AllCpu(NamedTuple):
    """Seconds of all cores since the host started."""

    busy_s: float
    all_s: float


def _all_cpu() -> AllCpu:
    times = psutil.cpu_times()._asdict()
    all_s = sum(times.values()) - times.get("guest", 0) - times.get("guest_nice", 0)  # these are in user and nice
    return AllCpu(all_s - times["idle"] - times.get("iowait", 0), all_s)


def _own_cpu_s() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def cpu_s(processes: Iterable[int]) -> float:
    """Seconds of CPU that these processes have used."""
    total = 0.0
    for pid in processes:
        with suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


# Before a benchmark.


class Watch:
    """Whether other programs take the CPU from now on."""

    def __init__(self) -> None:
        self.since_s, self.before, self.own_s = time.monotonic(), _all_cpu(), _own_cpu_s()

    def remarks(self) -> list[str]:
        """That other programs take the cores, and which, if they do. Only then it takes time to look."""
        time.sleep(max(0.0, LEAST_S - (time.monotonic() - self.since_s)))
        if self._others() < MANY:
            return []
        which = _busiest()
        others, cores = self._others(), os.cpu_count() or 1
        if others < MANY:
            return []
        names = f" ({', '.join(which)})" if which else ""
        used = f"other programs use {others * cores:.1f} of {cores} cores{names}"
        return [f"{used}: close them, or numbers will be too slow"]

    def _others(self) -> float:
        """The share of all cores that they took so far."""
        busy_s, all_s = (now - then for now, then in zip(_all_cpu(), self.before, strict=True))
        return max(0.0, busy_s - (_own_cpu_s() - self.own_s)) / max(all_s, 1e-9)


def _busiest() -> list[str]:
    """The programs that take most, those of one name together: `python 98%`, of a core."""
    before, since_s = _programs(), time.monotonic()
    time.sleep(WATCHED_S)
    by_name, passed_s = dict[str, float](), time.monotonic() - since_s
    for pid, (name, used_s) in _programs().items():
        by_name[name] = by_name.get(name, 0.0) + (used_s - before.get(pid, (name, 0.0))[1]) / passed_s
    most = sorted(by_name.items(), key=lambda each: -each[1])[:NAMED]
    return [f"{name} {share:.0%}" for name, share in most if share >= NAMED_SHARE]


def _programs() -> dict[int, tuple[str, float]]:
    """Name and seconds of CPU of every process but ours."""
    found = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times and process.pid != os.getpid():
            found[process.pid] = (process.info["name"], times.user + times.system)
    return found
