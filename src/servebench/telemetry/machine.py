"""This host: its CPU, memory and GPUs, and what the kernel or a container make of them.

Readers take the root of the file system, for tests. What cannot be read stays unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from servebench.log.telemetry import Gpu, Machine
from servebench.telemetry import gpus

ROOT = Path("/")
# ARM's kernels name a core by its number alone: "CPU implementer", "CPU part".
ARM_CORES = {"0x41 0xd0c": "Neoverse-N1", "0x41 0xd40": "Neoverse-V1", "0x41 0xd49": "Neoverse-N2"}
ARM_CORES |= {"0x41 0xd4f": "Neoverse-V2"}
CONTAINER = {
    "kubernetes": r"kubepods",
    "docker": r"docker",
    "podman": r"libpod|podman",
    "lxc": r"lxc",
}  # of cgroups


@cache
def machine() -> Machine:
    driver, cuda, found = gpus.manifest()
    return on(ROOT, os.cpu_count(), driver, cuda, found)


def on(root: Path, cores: int | None, driver: str, cuda: str, found: list[Gpu]) -> Machine:
    """The machine whose file system this is."""
    numa_nodes = list(root.glob("sys/devices/system/node/node[0-9]*"))
    limit = core_limit(root)
    kind = container(root)
    return Machine(
        cpu=cpu_model(_text(root / "proc/cpuinfo")),
        cores=cores,
        numa_nodes=len(numa_nodes) or None,
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip(),
        memory_bytes=_memory(_text(root / "proc/meminfo")),
        kernel=_text(root / "proc/sys/kernel/osrelease").strip(),
        container=", ".join(filter(None, [kind, f"{limit:g} cores" if limit else ""])),
        driver=driver,
        cuda=cuda,
        gpus=found,
    )


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def cpu_model(cpuinfo: str) -> str:
    lines = [line.partition(":") for line in cpuinfo.splitlines()]
    fields = {name.strip(): value.strip() for name, _, value in lines}
    for name in ("model name", "cpu model", "cpu", "uarch"):  # x86, MIPS, POWER, RISC-V
        if fields.get(name):
            return re.sub(r"\s+", " ", fields[name])
    core = f"{fields.get('CPU implementer', '')} {fields.get('CPU part', '')}".strip()
    return ARM_CORES.get(core, f"ARM {core}" if core else "")


def _memory(meminfo: str) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


# Containers.


def container(root: Path) -> str:
    """What kind of container this is; "" for none that is known."""
    if (root / "var/run/secrets/kubernetes.io").exists():
        return "kubernetes"
    groups = _text(root / "proc/1/cgroup")
    named = next((kind for kind, pattern in CONTAINER.items() if re.search(pattern, groups)), "")
    of_file = {".dockerenv": "docker", "run/.containerenv": "podman"}
    marked = next((kind for file, kind in of_file.items() if (root / file).exists()), "")
    return named or marked or _text(root / "run/systemd/container").strip()


def core_limit(root: Path) -> float | None:
    """How many cores the control group of this process may take at once, by the tightest of its limits."""
    quotas = [quota for folder in _groups(root) if (quota := _quota(folder))]
    return min(quotas, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's group and of those around it, in both versions of control groups."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if not names or "cpu" in names.split(","):
            top = root / "sys/fs/cgroup" / ("cpu" if names else "")
            inside = Path(path.lstrip("/"))
            yield from (top / part for part in (inside, *inside.parents))


def _quota(group: Path) -> float | None:
    one, two = (
        _text(group / "cpu.max").split(),
        [_text(group / f"cpu.cfs_{w}_us").strip() for w in ("quota", "period")],
    )
    with suppress(ValueError, ZeroDivisionError):
        quota, period = map(int, one or two)  # `max` is no number
        return quota / period if quota > 0 else None
    return None
