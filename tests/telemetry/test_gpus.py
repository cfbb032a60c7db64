"""NVIDIA's GPUs through the real pynvml, on a driver library that does as it is told."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from nvml import Stub

from servebench.analysis.energy import energy
from servebench.log.telemetry import Gpu
from servebench.telemetry import gpus

Make = Callable[..., Stub]
UNTOLD = ["0.uuid", "memory_bytes", "power_limit_w", "default_power_limit_w", "max_sm_clock_mhz", "driver", "cuda"]
UNTOLD += ["max_memory_clock_mhz", "memory_bus_bits", "ecc", "mig", "pcie"]


def test_the_manifest(nvml: Make) -> None:
    nvml(gpus=[{"nvlinks": 12}, {"name": "Other", "ecc": 0, "mig": 1, "power_limit_w": 350.5}])
    driver, cuda, (first, second) = gpus.manifest()
    assert (driver, cuda, gpus.names()) == ("550.54.15", "12.4", ["NVIDIA Stub 80GB", "Other"])
    assert first == Gpu(
        index=0,
        name="NVIDIA Stub 80GB",
        uuid="GPU-005fee1d-0000-4000-8000-000000000000",
        memory_bytes=80 << 30,
        power_limit_w=700,
        default_power_limit_w=700,
        max_sm_clock_mhz=1980,
        max_memory_clock_mhz=2619,
        memory_bus_bits=5120,
        ecc=True,
        mig=False,
        links="NVLink x 12, PCIe 5 x 16",
    )
    assert (second.ecc, second.mig, second.power_limit_w, second.links) == (False, True, 350.5, "PCIe 5 x 16")


def test_what_is_not_told_is_left_out(nvml: Make) -> None:
    nvml(**dict.fromkeys(UNTOLD))
    assert gpus.manifest() == ("", "", [Gpu(index=0, name="NVIDIA Stub 80GB")])


@pytest.mark.parametrize("fault", [{"init_error": 9}, {"gpus": 0}, {"driver_gaps": "0-1000"}])
def test_without_driver_or_gpu(nvml: Make, fault: dict[str, int]) -> None:
    nvml(**fault)
    assert gpus.manifest() == ("", "", []) and gpus.names() == []
    with pytest.raises(OSError, match=r"NVML: (Driver Not Loaded|Invalid Argument)"):
        gpus.Reader([0])


def test_the_library_is_loaded_only_when_asked_for() -> None:
    code = "import sys, servebench.telemetry.gpus; assert 'pynvml' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("visible", "workers", "used"),
    [
        ([], 2, [0, 1]),
        (["2", "0"], 1, [2]),
        (["2", " 0"], 2, [2, 0]),
        (["GPU-115fee1d", "0"], 2, [1, 0]),
        (["GPU-225fee1d-0000-4000-8000-000000000002"], 1, [2]),
        (["0", "GPU-", "1"], 3, [0]),  # which of them?
        (["7", "0"], 2, []),
        (["MIG-5c1e"], 1, []),
        ([], 9, [0, 1, 2]),
    ],
)
def test_the_gpus_of_a_server(nvml: Make, visible: list[str], workers: int, used: list[int]) -> None:
    nvml(gpus=3)
    assert gpus.used_by(visible, workers, gpus.manifest()[2]) == used


def test_readings(nvml: Make) -> None:
    nvml(gpus=[{"power": "constant 60"}, {"power": "constant 250"}], throttle="0x44@0-1000")
    reader = gpus.Reader([1])
    fast = reader.read(1, slowly=False)
    assert reader.energy_counter_j(1) == pytest.approx(5_000_000, abs=10_000)
    assert fast == pytest.approx({"power_w": 250, "sm": 0.9, "memory": 0.4, "throttle": 0x44}, abs=0.01)
    slow = reader.read(1, slowly=True)
    assert (
        slow.items()
        >= {"sm_clock_mhz": 1800.0, "temperature_c": 55.0, "memory_used_bytes": float(40 << 30)}.items()
    )
    assert [reason for reason, bits in gpus.REASONS.items() if int(fast["throttle"]) & bits] == [
        "power_cap",
        "thermal",
    ]


def test_what_cannot_be_read_is_left_out(nvml: Make) -> None:
    stub = nvml(counter_first_mj=None, missing="nvmlDeviceGetCurrentClocksEventReasons")
    reader = gpus.Reader([0])
    assert reader.read(0, slowly=False).keys() == {"power_w", "sm", "memory", "throttle"}
    stub.set(
        power_gaps="0-1000", memory_gaps="0-1000", missing="Reasons nvmlDeviceGetCurrentClocksThrottleReasons"
    )
    assert reader.read(0, slowly=True).keys() == {"sm", "memory", "throttle", "sm_clock_mhz", "temperature_c"}


def test_a_gpu_that_is_lost_and_comes_back(nvml: Make) -> None:
    stub = nvml(lost="0-1000")
    reader = gpus.Reader([0])
    with pytest.raises(OSError, match="NVML: GPU is lost"):
        reader.read(0, slowly=False)
    assert reader.processes(0) is None
    stub.set(lost=None)
    assert reader.read(0, slowly=False)["power_w"] == pytest.approx(300, abs=0.01)


def test_processes(nvml: Make) -> None:
    stub = nvml(processes="4242:1000:/usr/bin/train@0-1000 999999999:1")
    reader = gpus.Reader([0])
    assert reader.processes(0) == [(4242, "train"), (999999999, "")]
    stub.set(processes=None, missing="nvmlDeviceGetComputeRunningProcesses_v3")
    assert reader.processes(0) == []  # by the older function


@pytest.mark.parametrize("power", ["constant 300", "ramp 200 400 5"])
def test_energy_from_driver_to_result(nvml: Make, power: str) -> None:
    stub = nvml(power=power)
    reader, rows, stop = gpus.Reader([0]), [], threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            before = time.time_ns()
            values, counter_j = reader.read(0, slowly=False), reader.energy_counter_j(0)
            after = time.time_ns()
            if (
                after - before < 5_000_000
            ):  # else another program had the core: the time of the reading is not known
                rows.append(((before + after) // 2, counter_j, values["power_w"]))

    thread = threading.Thread(target=sample)
    thread.start()
    time.sleep(4)
    stop.set()
    thread.join()
    at, counter, watts = (np.array(column) for column in zip(*rows, strict=True))
    rng = np.random.default_rng(0)
    for _ in range(100):
        start = int(rng.integers(at[0], at[-1] - 2_500_000_000))
        end = int(rng.integers(start + 2_500_000_000, at[-1]))
        found = energy(at, counter, watts, (start, end))
        assert found.verdict == "ok"
        assert found.joules == pytest.approx(stub.joules(0, start, end), rel=0.01)
