"""CPU, memory and network of this host, in sums that only grow: what took the cores, by whose it is.

read = HostReader(client=os.getppid(), server=[leader of its session])
read()  ->  {"client_s": 12.1, "server_s": 80.4, "busy_s": 101.0, "kernel_s": 0.2, ...}
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress

import psutil

LOOK_SHARE = 0.005  # of a core, that looking for new processes may take
LEAST_S, WATCHED_S = 0.1, 0.4  # for which the host is watched at least, and its programs if it is busy
MANY = 0.2  # of all cores: other programs that take more make an engine slower
NAMED, NAMED_SHARE = 3, 0.1  # programs that are named, and of a core that each takes
ALL_CPU = ("busy_s", "kernel_s", "steal_s", "idle_s")  # these make up the time of all cores


class HostReader:
    """Readings of the host, of the client (a process and all that it started) and of the server.

    `server`: the leaders of its sessions; None if its processes are not known.
    """

    def __init__(self, client: int, server: Collection[int] | None) -> None:
        self.client, self.leaders = client, server
        self.of_client, self.of_server = _Sum(), _Sum()
        self.look_at_s, self.first_s = 0.0, time.monotonic()
        self.others: dict[psutil.Process, float] = {}  # every other process, and its CPU when first seen

    def __call__(self) -> dict[str, float]:
        if time.monotonic() >= self.look_at_s:
            self._look()
        server_s = {} if self.leaders is None else {"server_s": self.of_server()}
        return {"client_s": self.of_client()} | server_s | _of_host()

    def _look(self) -> None:
        """Find the processes of both; on a host with many processes, not at every reading."""
        begin_s = time.thread_time()
        found = set(psutil.process_iter(["name", "cpu_times"]))
        self.of_server.processes = {each for each in found if of_sessions(each.pid, self.leaders or ())}
        with suppress(psutil.Error):  # the client has ended
            client = psutil.Process(self.client)
            self.of_client.processes = {client, *client.children(recursive=True)} - self.of_server.processes
        for each in found - self.of_server.processes - self.of_client.processes:
            self.others.setdefault(each, sum(each.info["cpu_times"][:2]))
        self.look_at_s = time.monotonic() + (time.thread_time() - begin_s) / LOOK_SHARE

    def busiest(self) -> dict[str, float]:
        """The other programs that took most since the first reading, those of one name together: cores."""
        self._look()
        by_name: dict[str, float] = {}
        for each, first_s in self.others.items():
            cores = (sum(each.info["cpu_times"][:2]) - first_s) / (time.monotonic() - self.first_s)
            by_name[each.info["name"]] = by_name.get(each.info["name"], 0.0) + cores
        most = sorted(by_name.items(), key=lambda program: -program[1])[:NAMED]
        return {name: cores for name, cores in most if cores >= NAMED_SHARE}


class _Sum:
    """CPU of processes that come and go, from when each was first seen."""

    def __init__(self) -> None:
        self.processes = set[psutil.Process]()
        self.before: dict[psutil.Process, float] = {}
        self.total_s = 0.0

    def __call__(self) -> float:
        now = {}
        for each in self.processes:
            with suppress(psutil.Error):
                now[each] = sum(each.cpu_times()[:2])
        self.total_s += sum(cpu_s - self.before.get(each, cpu_s) for each, cpu_s in now.items())
        self.before = now
        return self.total_s


def of_sessions(pid: int, leaders: Collection[int]) -> bool:
    """Is it a process of one of the sessions that these lead?"""
    with suppress(OSError):
        return os.getsid(pid) in leaders
    return False


def _of_host() -> dict[str, float]:
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    nics = psutil.net_io_counters(pernic=True)
    return {
        "busy_s": times.user + times.nice + times.system,  # guests are in user and nice
        "kernel_s": times.irq + times.softirq,
        "steal_s": times.steal,
        "idle_s": times.idle + times.iowait,
        "memory_used_share": 1 - memory.available / memory.total,
        "network_bytes": float(sum(n.bytes_recv + n.bytes_sent for name, n in nics.items() if name != "lo")),
    }


class Watch:
    """Whether other programs take the CPU from now on, before a benchmark."""

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
    return sum(os.times()[:4])
