"""This host: its CPU, memory and GPUs, and what the kernel or a container make of them.

Readers take the root of the file system, for tests. What cannot be read stays unknown.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from servebench.log.telemetry import Machine
from servebench.telemetry import gpus

CONTAINERS = {  # by the files in them
    "var/run/secrets/kubernetes.io": "kubernetes",
    ".dockerenv": "docker",
    "run/.containerenv": "podman",
}


@cache
def machine() -> Machine:
    driver, cuda, found = gpus.manifest()
    return replace(on(Path("/")), cores=os.cpu_count(), driver=driver, cuda=cuda, gpus=found)


def on(root: Path) -> Machine:
    """What the file system of a machine says of it."""
    cpu = dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", _text(root / "proc/cpuinfo"), re.MULTILINE))
    memory = re.search(r"MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"))
    of_arm = f"{cpu.get('CPU implementer', '')} {cpu.get('CPU part', '')}"  # whose kernels know no names
    limit = core_limit(root)
    return Machine(
        cpu=" ".join(cpu.get("model name", of_arm).split()),
        numa_nodes=len([*root.glob("sys/devices/system/node/node[0-9]*")]) or None,
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        kernel=_text(root / "proc/sys/kernel/osrelease"),
        container=", ".join(filter(None, [_container(root), f"{limit:g} cores" if limit else ""])),
    )


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""


def _container(root: Path) -> str:
    marked = next((kind for file, kind in CONTAINERS.items() if (root / file).exists()), "")
    return marked or _text(root / "run/systemd/container")


def core_limit(root: Path) -> float | None:
    """How many cores the control group of this process, or one around it, lets it take at once."""
    group = Path(_text(root / "proc/self/cgroup").rpartition("::/")[2])
    limits = [_text(root / "sys/fs/cgroup" / part / "cpu.max").split() for part in (group, *group.parents)]
    return min((int(limit[0]) / int(limit[1]) for limit in limits if limit and limit[0] != "max"), default=None)
