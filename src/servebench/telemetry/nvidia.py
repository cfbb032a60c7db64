"""NVIDIA's GPUs, through NVML. What a driver does not know, or its library lacks, is None."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePath
from typing import Any

from servebench.log.telemetry import Gpu

SM, MEMORY = 1, 2  # clocks, as NVML numbers them
CORE = 0  # the sensor of a GPU's own temperature; likewise
MOST_LINKS = 36
REASONS = "nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetCurrentClocksThrottleReasons"


def manifest() -> tuple[str, str, list[Gpu]]:
    """As `gpus.manifest`. Holds nothing of the driver afterwards."""
    try:
        _ask("nvmlInit")
    except OSError:
        return "", "", []
    driver, cuda = _told("nvmlSystemGetDriverVersion"), _told("nvmlSystemGetCudaDriverVersion")
    gpus = [_gpu(index) for index in range(_told("nvmlDeviceGetCount") or 0)]
    _told("nvmlShutdown")
    return driver or "", f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "", gpus


def devices(indices: Sequence[int]) -> dict[int, Any]:
    """Handles of these GPUs. Raises OSError where there is no driver, or not as many GPUs."""
    _ask("nvmlInit")
    return {index: _ask("nvmlDeviceGetHandleByIndex", index) for index in indices}


def read(device: Any, slowly: bool) -> dict[str, float]:
    """As `gpus.Reader.read`."""
    use = _told("nvmlDeviceGetUtilizationRates", device)
    found = {
        "power_w": _scaled(1e-3, _told("nvmlDeviceGetPowerUsage", device)),
        "sm": _scaled(0.01, use and use.gpu),
        "memory": _scaled(0.01, use and use.memory),
        "throttle": _told(REASONS, device),
    }
    if slowly:
        memory = _told("nvmlDeviceGetMemoryInfo", device)
        found["sm_clock_mhz"] = _told("nvmlDeviceGetClockInfo", device, SM)
        found["temperature_c"] = _told("nvmlDeviceGetTemperature nvmlDeviceGetTemperatureV", device, CORE)
        found["memory_used_bytes"] = memory and memory.used
    values = {name: float(value) for name, value in found.items() if value is not None}
    if not values:
        _ask("nvmlDeviceGetPowerUsage", device)  # raises: says why
    return values


def energy_counter_j(device: Any) -> float | None:
    """As `gpus.Reader.energy_counter_j`."""
    return _scaled(1e-3, _told("nvmlDeviceGetTotalEnergyConsumption", device))


def processes(device: Any) -> list[tuple[int, str]] | None:
    """As `gpus.Reader.processes`."""
    found = _told("nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceGetComputeRunningProcesses_v2", device)
    if found is None:
        return None
    return [(each.pid, PurePath(_told("nvmlSystemGetProcessName", each.pid) or "").name) for each in found]


def _gpu(index: int) -> Gpu:
    device = _told("nvmlDeviceGetHandleByIndex", index)
    limit = _told("nvmlDeviceGetEnforcedPowerLimit nvmlDeviceGetPowerManagementLimit", device)
    memory, ecc, mig = (_told(f"nvmlDeviceGet{what}", device) for what in ("MemoryInfo", "EccMode", "MigMode"))
    return Gpu(
        index=index,
        name=_told("nvmlDeviceGetName", device) or "unknown",
        uuid=_told("nvmlDeviceGetUUID", device) or "",
        memory_bytes=memory and memory.total,
        power_limit_w=_scaled(1e-3, limit),
        default_power_limit_w=_scaled(1e-3, _told("nvmlDeviceGetPowerManagementDefaultLimit", device)),
        max_sm_clock_mhz=_told("nvmlDeviceGetMaxClockInfo", device, SM),
        max_memory_clock_mhz=_told("nvmlDeviceGetMaxClockInfo", device, MEMORY),
        memory_bus_bits=_told("nvmlDeviceGetMemoryBusWidth", device),
        ecc=ecc and bool(ecc[0]),  # (now, after the next start)
        mig=mig and bool(mig[0]),
        links=", ".join(_links(device)),
    )


def _links(device: Any) -> list[str]:
    states = (_told("nvmlDeviceGetNvLinkState", device, link) for link in range(MOST_LINKS))
    nvlinks = sum(takewhile(lambda up: up is not None, states))
    # The generation at its best: an idle GPU lowers the present one.
    generation = _told("nvmlDeviceGetMaxPcieLinkGeneration", device)
    lanes = _told("nvmlDeviceGetCurrPcieLinkWidth", device)
    return [f"NVLink x {nvlinks}"] * (nvlinks > 0) + [f"PCIe {generation} x {lanes}"] * bool(generation and lanes)


def _ask(functions: str, *words: Any) -> Any:
    """What the first of these functions that works tells. Raises OSError if none does."""
    import pynvml  # here: only those with GPUs need it

    function, _, older = functions.partition(" ")
    try:
        return getattr(pynvml, function)(*words)
    except Exception as error:  # NVMLError; more, if library and pynvml are not of the same time
        if older:
            return _ask(older, *words)
        raise OSError(f"NVML: {error}") from None


def _told(functions: str, *words: Any) -> Any:
    """Likewise; None if none does."""
    try:
        return _ask(functions, *words)
    except OSError:
        return None


def _scaled(unit: float, value: int | None) -> float | None:
    return None if value is None else value * unit
