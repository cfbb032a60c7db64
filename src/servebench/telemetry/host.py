"""CPU, memory and network of this host, in sums that only grow: what took the cores, by whose it is.

read = HostReader(client=os.getppid(), server=[leader of its session])
read()  ->  {"client_s": 12.1, "server_s": 80.4, "busy_s": 101.0, "kernel_s": 0.2, ...}
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from glob import glob
from pathlib import Path

import psutil

LOOK_SHARE = 0.005  # of a core, that looking for new processes may take
LEAST_S, WATCHED_S = 0.1, 0.4  # for which the host is watched at least, and its programs if it is busy
MANY = 0.2  # of all cores: other programs that take more make an engine slower
NAMED, NAMED_SHARE = 3, 0.1  # programs that are named, and of a core that each wants
SLEEPLESS = 0.8  # of the time, that a thread which never sleeps runs or waits
SLICE_S = 1e-3  # that it runs at a time, at least
KERNEL = 2  # the parent of the kernel's own threads
Times = tuple[float, float, int]
ALL_CPU = ("busy_s", "kernel_s", "steal_s", "idle_s")  # these make up the time of all cores


class HostReader:
    """Readings of the host, of the client (a process and all that it started) and of the server.

    `server`: the leaders of its sessions; None if its processes are not known.
    """

    def __init__(self, client: int, server: Collection[int] | None) -> None:
        self.client, self.leaders = client, server
        self.of_client, self.of_server = _Sum(), _Sum()
        self.look_at_s, self.first_s = 0.0, time.monotonic()
        self.threads: dict[str, Times] = {}  # of others, when last seen
        self.looked_s = self.first_s
        self.wanted: dict[str, float] = {}  # by others since the first look, by their names

    def __call__(self) -> dict[str, float]:
        looks = time.monotonic() >= self.look_at_s
        if looks:
            self._look()
        server_s = {} if self.leaders is None else {"server_s": self.of_server()}
        wanted_s = {"wanted_s": sum(self.wanted.values())} if looks else {}
        return {"client_s": self.of_client()} | server_s | wanted_s | _of_host()

    def _look(self) -> None:
        """Find the processes of both, and what others want; of many processes not at every reading."""
        begin_s = time.thread_time()
        found = set(psutil.process_iter(["name", "ppid"]))
        self.of_server.processes = {each for each in found if of_sessions(each.pid, self.leaders or ())}
        self.of_client.processes = _started_by(self.client, found) - self.of_server.processes
        others = found - self.of_server.processes - self.of_client.processes
        self._want([each for each in others if KERNEL not in (each.pid, each.info["ppid"])])
        self.look_at_s = time.monotonic() + (time.thread_time() - begin_s) / LOOK_SHARE

    def _want(self, others: Collection[psutil.Process]) -> None:
        """Add what other programs wanted since the last look: the time that their threads ran.

        And that they waited, if they never slept: under an engine whose threads spin another program runs little,
        yet makes these wait. What wakes up for a moment now and then waits, too, but keeps nobody from a core.
        """
        now, at_s = {}, time.monotonic()
        for each in others:
            for thread, times in _threads(each.pid):
                now[thread] = times
                ran_s, waited_s, slices = (
                    b - a for a, b in zip(self.threads.get(thread, times), times, strict=True)
                )
                long_slices = slices > 1 and ran_s > SLICE_S * slices
                sleepless = ran_s + waited_s > SLEEPLESS * (at_s - self.looked_s) and long_slices
                more_s = ran_s + (waited_s if sleepless else 0)
                self.wanted[each.info["name"]] = self.wanted.get(each.info["name"], 0.0) + more_s
        self.threads, self.looked_s = now, at_s

    def busiest(self) -> dict[str, float]:
        """The other programs that wanted most since the first reading, those of one name together: cores."""
        self._look()
        passed_s = time.monotonic() - self.first_s
        most = sorted(self.wanted.items(), key=lambda program: -program[1])[:NAMED]
        return {name: wanted / passed_s for name, wanted in most if wanted >= NAMED_SHARE * passed_s}


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


def _started_by(pid: int, found: Collection[psutil.Process]) -> set[psutil.Process]:
    """Of those found, a process and all that it started."""
    inside = {pid}
    while more := {each.pid for each in found if each.info["ppid"] in inside} - inside:
        inside |= more
    return {each for each in found if each.pid in inside}


def _threads(pid: int) -> Iterator[tuple[str, Times]]:
    """Of each thread of a process: how long it ran, how long it waited for a core (s), how many times it ran."""
    for file in glob(f"/proc/{pid}/task/*/schedstat"):
        with suppress(OSError, ValueError):
            ran_ns, waited_ns, slices = Path(file).read_text().split()
            yield file, (int(ran_ns) / 1e9, int(waited_ns) / 1e9, int(slices))


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
