"""What a host is: read from made-up file systems, and from this one."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
from nvml import Stub

from servebench.log.telemetry import Machine
from servebench.telemetry import machine

INTEL = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)  Platinum 8480+\nprocessor\t: 1\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd4f\n"


def root(folder: Path, **files: str) -> Path:
    """A file system; `__` stands for `/`."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert machine.on(tmp_path) == Machine()


def test_a_whole_machine(tmp_path: Path) -> None:
    folder = "sys/devices/system"
    files = {f"{folder}/node/node{n}/cpulist": "0-3" for n in (0, 1)}
    files |= {
        f"{folder}/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "proc/meminfo": "MemTotal:  1024 kB\n",
    }
    files |= {"proc/cpuinfo": INTEL, "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n"}
    assert machine.on(root(tmp_path, **files)) == Machine(
        cpu="Intel(R) Xeon(R) Platinum 8480+",
        numa_nodes=2,
        governor="performance",
        memory_bytes=1 << 20,
        kernel="6.1.0-18-amd64",
    )


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [(ARM, "0x41 0xd4f"), ("\0\xff garbage", "")],
)
def test_an_arm_has_the_numbers_of_its_core(tmp_path: Path, cpuinfo: str, name: str) -> None:
    assert machine.on(root(tmp_path, **{"proc/cpuinfo": cpuinfo})).cpu == name


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({".dockerenv": ""}, "docker"),
        ({"run__.containerenv": ""}, "podman"),
        ({"var__run__secrets__kubernetes.io__token": ""}, "kubernetes"),
        ({"run__systemd__container": "systemd-nspawn\n"}, "systemd-nspawn"),
    ],
)
def test_containers_are_known(tmp_path: Path, files: dict[str, str], kind: str) -> None:
    assert machine.on(root(tmp_path, **files)).container == kind


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc__self__cgroup": "0::/", "sys__fs__cgroup__cpu.max": "400000 100000\n"}, 4),
        (
            {"proc__self__cgroup": "0::/a/b", "sys__fs__cgroup__a__cpu.max": "150000 100000"},
            1.5,
        ),  # of one around it
        ({"proc__self__cgroup": "0::/", "sys__fs__cgroup__cpu.max": "max 100000"}, None),
        ({"proc__self__cgroup": "nonsense"}, None),
    ],
)
def test_a_control_group_limits_the_cores(tmp_path: Path, files: dict[str, str], limit: float | None) -> None:
    assert machine.core_limit(root(tmp_path, **files)) == limit
    of_docker = machine.on(root(tmp_path, **{".dockerenv": ""})).container
    assert of_docker == (f"docker, {limit:g} cores" if limit else "docker")


def test_this_machine_and_its_gpus(nvml: Callable[..., Stub]) -> None:
    nvml(gpus=[{"name": "Fake A"}, {"name": "Fake B"}], driver="550.1")
    machine.machine.cache_clear()
    found = machine.machine()
    machine.machine.cache_clear()
    assert (found.cores, found.kernel, found.driver) == (os.cpu_count(), platform.release(), "550.1")
    assert [gpu.name for gpu in found.gpus] == ["Fake A", "Fake B"] and found.memory_bytes
