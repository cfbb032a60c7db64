"""benchmarks/telemetry_cost.py: what it prints of GPUs, and where there are none."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

from conftest import ROOT
from nvml import Stub


def printed() -> str:
    command = [sys.executable, str(ROOT / "benchmarks/telemetry_cost.py"), "--seconds", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_call_to_the_driver_is_timed(nvml: Callable[..., Stub]) -> None:
    nvml(name="Fake 80GB")
    said = printed()
    assert '"name": "Fake 80GB"' in said
    times = {name: int(n) for name, n in re.findall(r"^(\w[\w ]*?) {2,}(\d+) ", said, re.M)}
    assert (times["nvmlDeviceGetPowerUsage"], times["nvmlDeviceGetTotalEnergyConsumption"]) == (10, 2)
    assert (times["a reading"], times["a slow reading"], times["the processes"]) == (8, 2, 2)
    assert re.search(r"the sampler takes \d+\.\d\d% of a core\ngpu0: \d\d samples, \d+\.\d ms apart", said)


def test_without_gpus_it_is_the_samplers_cost_alone(nvml: Callable[..., Stub]) -> None:
    nvml(init_error=9)
    said = printed()
    assert said.startswith("no GPU here\nthe sampler takes ") and "gpu0" not in said
