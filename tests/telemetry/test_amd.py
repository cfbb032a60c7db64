"""AMD's GPUs, read from a tree of files like the one that `amdgpu` makes in sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from servebench.log.telemetry import Gpu
from servebench.telemetry import amd, gpus, nvidia

FILES = {
    "vendor": "0x1002",
    "device": "0x74a1",
    "product_name": "AMD Instinct MI300X",
    "unique_id": "7f3a9c0d11223344",
    "mem_info_vram_total": "206141652992",
    "mem_info_vram_used": "1000000",
    "gpu_busy_percent": "87",
    "mem_busy_percent": "12",
    "hwmon/hwmon4/power1_average": "512000000",
    "hwmon/hwmon4/power1_cap": "750000000",
    "hwmon/hwmon4/power1_cap_default": "700000000",
    "hwmon/hwmon4/temp1_input": "61000",
    "hwmon/hwmon4/freq1_input": "2100000000",
}


def made(root: Path, card: str, **files: str) -> Path:
    device = root / "class/drm" / card / "device"
    for name, text in files.items():
        (device / name).parent.mkdir(parents=True, exist_ok=True)
        (device / name).write_text(text + "\n")
    return device


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(amd, "SYS", tmp_path)
    made(tmp_path, "card0", vendor="0x10de")
    made(tmp_path, "card10", vendor="0x1002", device="0x744c", **{"hwmon/hwmon9/power1_input": "90500000"})
    made(tmp_path, "card2", **FILES)
    made(tmp_path, "card2-DP-1", **FILES)  # a connector
    (tmp_path / "module/amdgpu").mkdir(parents=True)
    (tmp_path / "module/amdgpu/version").write_text("6.7.0\n")
    return tmp_path


def test_the_manifest_has_what_is_told(host: Path) -> None:
    driver, cuda, found = amd.manifest()
    assert (driver, cuda) == ("6.7.0", "")
    assert found == [
        Gpu(
            index=0,
            name="AMD Instinct MI300X",
            uuid="GPU-7f3a9c0d11223344",
            memory_bytes=206141652992,
            power_limit_w=750,
            default_power_limit_w=700,
        ),
        Gpu(index=1, name="AMD 0x744c"),
    ]


def test_a_host_without_amd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amd, "SYS", tmp_path)
    made(tmp_path, "card0", vendor="0x10de")
    assert amd.manifest() == ("", "", [])
    assert amd.cards() == []


def test_readings(host: Path) -> None:
    devices = amd.cards()
    assert amd.read(devices[0], slowly=False) == pytest.approx({"power_w": 512, "sm": 0.87, "memory": 0.12})
    slow = {"sm_clock_mhz": 2100, "temperature_c": 61, "memory_used_bytes": 1e6}
    assert amd.read(devices[0], slowly=True) == pytest.approx(amd.read(devices[0], False) | slow)
    assert amd.read(devices[1], slowly=True) == pytest.approx({"power_w": 90.5})


def test_a_gpu_that_is_gone(host: Path) -> None:
    device = amd.cards()[0]
    for path in device.rglob("*"):
        path.unlink() if path.is_file() else None
    with pytest.raises(OSError, match="tells nothing"):
        amd.read(device, slowly=True)


def test_behind_the_same_functions(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "_ask", failing)
    gpus.manifest.cache_clear()
    assert gpus.names() == ["AMD Instinct MI300X", "AMD 0x744c"]
    reader = gpus.Reader([1])
    assert reader.read(1, slowly=False) == pytest.approx({"power_w": 90.5})
    assert reader.processes(1) is None
    gpus.manifest.cache_clear()


def failing(*_: object) -> None:
    raise OSError("no driver")
