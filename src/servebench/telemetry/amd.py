"""AMD's GPUs, from what the kernel's driver `amdgpu` writes to sysfs: no energy, no processes."""

from __future__ import annotations

from pathlib import Path

from servebench.log.telemetry import Gpu

SYS = Path("/sys")


def cards() -> list[Path]:
    """The devices of the GPUs on this host, in the driver's order."""
    found = [path for path in SYS.glob("class/drm/card*") if path.name[4:].isdigit()]  # others are connectors
    devices = [path / "device" for path in sorted(found, key=lambda path: int(path.name[4:]))]
    return [device for device in devices if _text(device / "vendor") == "0x1002"]


def manifest() -> tuple[str, str, list[Gpu]]:
    """The driver's version, "" in place of CUDA's, and the GPUs."""
    gpus = [_gpu(index, device) for index, device in enumerate(cards())]
    return _text(SYS / "module/amdgpu/version") if gpus else "", "", gpus


def _gpu(index: int, device: Path) -> Gpu:
    memory, unique = _number(device, "mem_info_vram_total"), _text(device / "unique_id")
    return Gpu(
        index=index,
        name=_text(device / "product_name") or f"AMD {_text(device / 'device')}",  # few cards know theirs
        uuid=f"GPU-{unique}" if unique else "",  # as ROCR_VISIBLE_DEVICES has it
        memory_bytes=None if memory is None else int(memory),
        power_limit_w=_number(device, "hwmon/hwmon*/power1_cap", 1e-6),
        default_power_limit_w=_number(device, "hwmon/hwmon*/power1_cap_default", 1e-6),
    )


def read(device: Path, slowly: bool) -> dict[str, float]:
    """As `gpus.Reader.read`."""
    found = {
        "power_w": _number(device, "hwmon/hwmon*/power1_average", 1e-6)
        or _number(device, "hwmon/hwmon*/power1_input", 1e-6),
        "sm": _number(device, "gpu_busy_percent", 0.01),
        "memory": _number(device, "mem_busy_percent", 0.01),
    }
    if slowly:
        found |= {
            "sm_clock_mhz": _number(device, "hwmon/hwmon*/freq1_input", 1e-6),
            "temperature_c": _number(device, "hwmon/hwmon*/temp1_input", 1e-3),
            "memory_used_bytes": _number(device, "mem_info_vram_used"),
        }
    values = {name: value for name, value in found.items() if value is not None}
    if not values:
        raise OSError(f"amdgpu: {device} tells nothing")
    return values


def energy_counter_j(device: Path) -> None:
    """As `gpus.Reader.energy_counter_j`: sysfs has none."""


def processes(device: Path) -> None:
    """As `gpus.Reader.processes`: it does not tell."""


def _number(device: Path, pattern: str, unit: float = 1) -> float | None:
    texts = [_text(path) for path in device.glob(pattern)]
    return int(texts[0]) * unit if texts and texts[0].isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
