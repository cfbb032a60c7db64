"""The driver library that tests put in place of NVIDIA's: it does what it was told, for the real pynvml."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import nvml as helper
import pynvml
import pytest
from nvml import Stub
from warm_python import python

SHAPES = ["constant 300", "steps 100 400 0.7", "sawtooth 100 400 0.5", "ramp 100 400 3"]


def gpu(index: int = 0) -> object:
    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByIndex(index)


@pytest.mark.parametrize("power", SHAPES)
def test_the_truth_is_the_integral_of_the_power(power: str) -> None:
    at = np.linspace(-1.0, 5, 60_001)
    powers = np.array([helper.watts(power, t) for t in at])
    whole = float(np.sum((powers[1:] + powers[:-1]) / 2 * np.diff(at)))
    assert whole == pytest.approx(helper.joules(power, 5) - helper.joules(power, -1), rel=1e-3)


@pytest.mark.parametrize("power", SHAPES)
def test_the_counter_and_the_power_follow_the_truth(nvml: Callable[..., Stub], power: str) -> None:
    stub, device = nvml(power=power), gpu()
    for _ in range(30):
        before = time.time_ns()
        counted_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(device) - 5_000_000_000
        watts = pynvml.nvmlDeviceGetPowerUsage(device) / 1000
        after = time.time_ns()
        start = stub.start_ns
        least, most = (stub.joules(0, start, at) for at in (before - 10_000_000, after))
        assert least - 0.002 <= counted_mj / 1000 <= most + 0.002
        lowest, highest = sorted(helper.watts(power, stub.seconds(at)) for at in (before, after))
        assert lowest - 1 <= watts <= highest + 1 or power.startswith(("steps", "saw"))
        time.sleep(0.004)


def test_two_gpus_may_differ_and_values_may_be_missing(nvml: Callable[..., Stub]) -> None:
    nvml(gpus=[{"name": "A"}, {"name": "B", "counter_first_mj": None}])
    assert [pynvml.nvmlDeviceGetName(gpu(index)) for index in (0, 1)] == ["A", "B"]
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu(0)) >= 5_000_000_000
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu(1))


def test_what_changes_while_it_runs(nvml: Callable[..., Stub]) -> None:
    stub, device = nvml(counter_wrap_mj=2**32, throttle="4@0-1000 0x40@0-1000 8@1000-1001"), gpu()
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(device) < 2**32
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(device) == 0x44
    stub.set(power_gaps="0-1000", idle="0-1000")
    assert pynvml.nvmlDeviceGetUtilizationRates(device).gpu == 0
    with pytest.raises(pynvml.NVMLError):
        pynvml.nvmlDeviceGetPowerUsage(device)
    stub.set(missing="nvmlDeviceGetCurrentClocksEventReasons")
    with pytest.raises(pynvml.NVMLError_FunctionNotFound):
        pynvml.nvmlDeviceGetCurrentClocksEventReasons(device)


def test_processes_own_and_foreign(nvml: Callable[..., Stub], tmp_path: Path) -> None:
    (tmp_path / "own").write_text(f"{os.getpid()}\n")
    stub = nvml(processes="4242:1000:train@0-1000 4243:1@1000-1001", own=f"file {tmp_path / 'own'}")
    device = gpu()
    found = {p.pid: p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device)}
    assert found == {os.getpid(): 1 << 30, 4242: 1000}
    assert pynvml.nvmlSystemGetProcessName(4242) == "train"
    for own in ("session", "command python"):
        stub.set(own=own)
        assert os.getpid() in {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device)}


def test_processes_that_are_started_see_it_too(nvml: Callable[..., Stub], tmp_path: Path) -> None:
    stub = nvml(name="Seen from afar", calls=str(tmp_path / "calls"))
    code = (
        "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))"
    )
    assert python("-c", code).stdout == "Seen from afar\n"
    assert stub.calls()["nvmlDeviceGetName"] == 1
