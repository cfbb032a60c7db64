"""NVIDIA GPUs that are not there: a driver library (nvml_stub.c) whose power and energy are formulas of the time.

    def test_it(nvml: Callable[..., Stub]) -> None:        # the fixture
        stub = nvml(name="Fake 80GB", power="sawtooth 100 400 0.5", gpus=[{}, {"power": "constant 60"}])
        ...                                                # in this process and in those it starts from now on
        stub.set(gaps="3-4", **{"1.sm": 0.5})              # later: these keys change, the others stay
        truth = stub.joules(0, from_ns, to_ns)

Keys and their defaults are in DEFAULTS, and explained there. One that is None is not supported by the driver.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pynvml
import pytest

Value = float | str | None
# Spans are `3-4 8-9.5`: seconds since start_ns, [from, to). A value with a span, `4@3-4`, holds then, else always.
DEFAULTS: dict[str, Value] = {
    # The host
    "driver": "550.54.15",
    "cuda": 12040,
    "init_error": 0,  # what nvmlInit returns
    "driver_gaps": None,  # spans in which there is no driver (error 9) for any call
    "missing": None,  # names of functions that the library has not (error 13)
    "calls": None,  # a file that gets a line for every call: Stub.calls()
    # What a GPU is
    "name": "NVIDIA Stub 80GB",
    "uuid": None,  # Stub gives each its own
    "memory_bytes": 80 << 30,
    "power_limit_w": 700,
    "default_power_limit_w": 700,
    "max_sm_clock_mhz": 1980,
    "max_memory_clock_mhz": 2619,
    "memory_bus_bits": 5120,
    "ecc": 1,
    "mig": 0,
    "nvlinks": None,  # links that are up; None: it knows no NvLink
    "pcie": 5,
    "pcie_lanes": 16,
    # What it does
    "power": "constant 300",  # W; `steps 100 400 2`, `sawtooth 100 400 2`: with period, s; `ramp 100 400 10`: once
    "power_average_s": 0,  # readings are the mean over this long
    "counter_first_mj": 5_000_000_000,  # the counter at start_ns; None: no counter
    "counter_every_s": 0.01,  # it steps this often
    "counter_scale": 1,  # 2: it lies
    "counter_wrap_mj": 0,  # 2**32: it begins anew there
    "counter_reset_s": None,  # when it falls to 0
    "sm": 0.9,  # utilisation
    "memory": 0.4,
    "idle": None,  # spans with no utilisation
    "throttle": None,  # bits by span: `4@1-3 0x40@2-5`
    "sm_clock_mhz": 1800,
    "temperature_c": 55,
    "memory_used_bytes": 40 << 30,
    "processes": None,  # PID:BYTES or PID:BYTES:NAME, by span: `4242:1000000:train@2-4`
    "own": None,  # and these: `file PATH` (pids), `command WORD` (in a command line), `session` (the caller's)
    "own_bytes": 1 << 30,
    "gaps": None,  # spans in which no reading succeeds (error 999)
    "lost": None,  # spans in which the GPU is lost (error 15) for readings
    "power_gaps": None,  # spans without readings of one kind; likewise for the next ones
    "counter_gaps": None,
    "utilisation_gaps": None,
    "throttle_gaps": None,
    "clock_gaps": None,
    "temperature_gaps": None,
    "memory_gaps": None,
    "processes_gaps": None,
    "slow_ms": None,  # how long a reading takes, by span: `300@2-4`
}


class Stub:
    """A configuration, and what it means. `gpus`: what is different for each, or their number."""

    def __init__(self, folder: Path, gpus: int | Sequence[dict[str, Value]] = 1, **keys: Value) -> None:
        each: Sequence[dict[str, Value]] = [{}] * gpus if isinstance(gpus, int) else gpus
        self.file, self.start_ns = folder / "nvml.conf", time.time_ns()
        self.keys: dict[str, Value] = {**DEFAULTS, "gpus": len(each), "start_ns": self.start_ns}
        for index, differs in enumerate(each):
            self.keys[f"{index}.uuid"] = f"GPU-{index}{index}5fee1d-0000-4000-8000-{index:012x}"
            self.keys |= {f"{index}.{key}": value for key, value in differs.items()}
        self.set(**keys)

    def set(self, **keys: Value) -> None:
        """Changes keys (`power`, or `0.power` for one GPU) for all processes, at once."""
        self.keys |= keys
        unknown = {key.split(".")[-1] for key in self.keys} - DEFAULTS.keys() - {"gpus", "start_ns"}
        assert not unknown, unknown
        lines = [f"{key} = {'-' if value is None else value}\n" for key, value in self.keys.items()]
        new = self.file.with_suffix(".new")
        new.write_text("".join(lines))
        new.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is started: with it, the stub is its driver library."""
        path = os.pathsep.join(filter(None, (str(library().parent), os.environ.get("LD_LIBRARY_PATH"))))
        return {"LD_LIBRARY_PATH": path, "SERVEBENCH_NVML_STUB": str(self.file)}

    def seconds(self, at_ns: int) -> float:
        return (at_ns - self.start_ns) / 1e9

    def joules(self, gpu: int, from_ns: int, to_ns: int) -> float:
        """The energy that a GPU really takes in this time."""
        power = str(self.keys.get(f"{gpu}.power", self.keys["power"]))
        return joules(power, self.seconds(to_ns)) - joules(power, self.seconds(from_ns))

    def calls(self) -> Counter[str]:
        """How often each function was called, since `calls` was set to a file."""
        return Counter(Path(str(self.keys["calls"])).read_text().split())


def joules(power: str, t: float) -> float:
    """The integral of `power` from 0 to t seconds."""
    shape, low, high, period = (*power.split(), "0", "0")[:4]
    return _INTEGRALS[shape](t, float(low), float(high), float(period))


def watts(power: str, t: float) -> float:
    """The power itself: what a reading without average tells."""
    return (joules(power, t) - joules(power, t - 1e-4)) / 1e-4


def _ramp(t: float, low: float, high: float, period: float) -> float:
    rising = min(max(t, 0), period)
    return low * min(t, period) + (high - low) * rising**2 / (2 * period) + high * max(t - period, 0)


def _steps(t: float, low: float, high: float, period: float) -> float:
    cycles = math.floor(t / period)
    rest = t - cycles * period  # t % period may not fit, where rounding decides
    return cycles * period * (low + high) / 2 + low * min(rest, period / 2) + high * max(rest - period / 2, 0)


def _sawtooth(t: float, low: float, high: float, period: float) -> float:
    cycles = math.floor(t / period)
    rest = t - cycles * period
    return cycles * period * (low + high) / 2 + low * rest + (high - low) * rest**2 / (2 * period)


_INTEGRALS: dict[str, Callable[[float, float, float, float], float]] = {
    "constant": lambda t, low, high, period: low * t,
    "ramp": _ramp,
    "steps": _steps,
    "sawtooth": _sawtooth,
}


@cache
def library() -> Path:
    """The stub, compiled once in a test process."""
    folder = TemporaryDirectory(prefix="servebench-nvml-")
    atexit.register(folder.cleanup)
    made = Path(folder.name) / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml_stub.c")
    options = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{made.name}"]
    subprocess.run(["cc", *options, source, "-o", made, "-lm"], check=True)
    return made


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stub]]:
    """Makes the GPUs, for this process and for those it starts: nvml(gpus=2, power="constant 300")."""

    if not shutil.which("cc"):
        pytest.skip("no C compiler (cc) to make the driver library with")

    def start(gpus: int | Sequence[dict[str, Value]] = 1, **keys: Value) -> Stub:
        stub = Stub(tmp_path, gpus, **keys)
        for name, value in stub.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library())))
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        forget()
        return stub

    yield start
    forget()


def forget() -> None:
    """What this process has learnt of its GPUs."""
    if known := sys.modules.get("servebench.telemetry.gpus"):
        known.manifest.cache_clear()
