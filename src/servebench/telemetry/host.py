"""CPU, memory and network of this host, in sums that only grow: what took the cores, by whose it is.

read = HostReader(client=os.getppid(), server=[leader of its session])
read()  ->  {"client_s": 12.1, "server_s": 80.4, "busy_s": 101.0, "kernel_s": 0.2, ...}
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

LOOK_SHARE = 0.005  # of a core, that looking for new processes may take
LEAST_S, WATCHED_S = 0.1, 0.4  # for which the host is watched at least, and its programs if it is busy
MANY = 0.2  # of all cores: other programs that take more make an engine slower
NAMED, NAMED_SHARE = 3, 0.1  # programs that are named, and of a core that each takes
ALL_CPU = ("busy_s", "kernel_s", "steal_s", "idle_s")  # these make up the time of all cores
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """What /proc/PID/stat says of a process."""

    name: str
    parent: int
    session: int
    cpu_s: float


class HostReader:
    """Readings of the host, of the client (a process and all that it started) and of the server.

    `server`: the leaders of its sessions; None if its processes are not known.
    """

    def __init__(self, client: int, server: Collection[int] | None) -> None:
        self.client, self.leaders = client, server
        self.of_client, self.of_server = _Sum(), _Sum()
        self.look_at_s, self.first_s = 0.0, 0.0
        self.others: dict[int, tuple[Process, Process]] = {}  # every other process, when first and last seen

    def __call__(self) -> dict[str, float]:
        if time.monotonic() >= self.look_at_s:
            self._look()
        server_s = {} if self.leaders is None else {"server_s": self.of_server()}
        return {"client_s": self.of_client()} | server_s | _of_host()

    def _look(self) -> None:
        """Find the processes of both; on a host with many processes, not at every reading."""
        begin_s = time.thread_time()
        found = dict(_all_processes())
        sessions = self.leaders or ()
        self.of_server.pids = {pid for pid, process in found.items() if process.session in sessions}
        self.of_client.pids = set(_tree(self.client, found)) - self.of_server.pids
        for pid in found.keys() - self.of_server.pids - self.of_client.pids:
            self.others[pid] = self.others.get(pid, (found[pid],))[0], found[pid]
        self.first_s = self.first_s or time.monotonic()
        self.look_at_s = time.monotonic() + (time.thread_time() - begin_s) / LOOK_SHARE

    def busiest(self) -> dict[str, float]:
        """The other programs that took most since the first reading, those of one name together: cores."""
        self._look()
        passed_s = max(time.monotonic() - self.first_s, 1e-3)
        return _most((last.name, (last.cpu_s - first.cpu_s) / passed_s) for first, last in self.others.values())


class _Sum:
    """CPU of processes that come and go, from when each was first seen."""

    def __init__(self) -> None:
        self.pids = set[int]()
        self.before: dict[int, float] = {}
        self.total_s = 0.0

    def __call__(self) -> float:
        now = {pid: process.cpu_s for pid in self.pids if (process := _process(pid))}
        self.total_s += sum(cpu_s - self.before.get(pid, cpu_s) for pid, cpu_s in now.items())
        self.before = now
        return self.total_s


def _most(programs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Of programs and the cores that each takes: those that take most, equal names together."""
    by_name: dict[str, float] = {}
    for name, cores in programs:
        by_name[name] = by_name.get(name, 0.0) + cores
    most = sorted(by_name.items(), key=lambda each: -each[1])[:NAMED]
    return {name: cores for name, cores in most if cores >= NAMED_SHARE}


def of_sessions(pid: int, leaders: Collection[int]) -> bool:
    """Is it a process of one of the sessions that these lead?"""
    with suppress(OSError):
        return os.getsid(pid) in leaders
    return False


def _all_processes() -> Iterator[tuple[int, Process]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := _process(int(name))):
            yield int(name), process


def _process(pid: int) -> Process | None:
    with suppress(OSError, ValueError, IndexError):
        head, _, rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")
        name, fields = head.partition(b"(")[2].decode(errors="replace"), rest.split()
        return Process(name, int(fields[1]), int(fields[3]), (int(fields[11]) + int(fields[12])) / TICKS_PER_S)
    return None


def _tree(pid: int, processes: dict[int, Process]) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for child, process in processes.items():
        if process.parent == pid:
            yield from _tree(child, processes)


def _of_host() -> dict[str, float]:
    times, memory = psutil.cpu_times()._asdict(), psutil.virtual_memory()
    nics = psutil.net_io_counters(pernic=True)
    return {
        "busy_s": times["user"] + times["nice"] + times["system"],  # guests are in user and nice
        "kernel_s": times.get("irq", 0.0) + times.get("softirq", 0.0),
        "steal_s": times.get("steal", 0.0),
        "idle_s": times["idle"] + times.get("iowait", 0.0),
        "memory_used_share": 1 - memory.available / memory.total,
        "network_bytes": float(sum(n.bytes_recv + n.bytes_sent for name, n in nics.items() if name != "lo")),
    }


# Before a benchmark.


class Watch:
    """Whether other programs take the CPU from now on."""

    def __init__(self) -> None:
        self.since_s, self.before, self.own_s = time.monotonic(), _of_host(), _own_cpu_s()

    def remarks(self) -> list[str]:
        """That other programs take the cores, and which, if they do. Only then it takes time to look."""
        time.sleep(max(0.0, LEAST_S - (time.monotonic() - self.since_s)))
        if self._others() < MANY:
            return []
        reader = HostReader(os.getpid(), None)
        reader()
        time.sleep(WATCHED_S)
        which, others, cores = reader.busiest(), self._others(), os.cpu_count() or 1
        if others < MANY:
            return []
        names = f" ({', '.join(f'{name} {share:.0%}' for name, share in which.items())})" if which else ""
        used = f"other programs use {others * cores:.1f} of {cores} cores{names}"
        return [f"{used}: close them, or numbers will be too slow"]

    def _others(self) -> float:
        """The share of all cores that they took so far."""
        now = _of_host()
        took = {name: now[name] - self.before[name] for name in ALL_CPU}
        return max(0.0, took["busy_s"] - (_own_cpu_s() - self.own_s)) / max(sum(took.values()), 1e-9)


def _own_cpu_s() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
