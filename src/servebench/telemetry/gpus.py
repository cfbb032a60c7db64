"""The GPUs of this host: what they are, which of them a server uses, and readings of them. A host has one kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from typing import Any

from servebench.log.telemetry import Gpu
from servebench.telemetry import amd, nvidia

# Bits of a reading `throttle`: why clocks are lower than they could be. Others do not matter.
REASONS = {"power_cap": 0x4, "thermal": 0x20 | 0x40, "hardware": 0x8 | 0x80}


@cache
def manifest() -> tuple[str, str, list[Gpu]]:
    """The driver, the newest CUDA that it knows, and all GPUs of this host: "", "" and none without them."""
    found = nvidia.manifest()
    return found if found[2] else amd.manifest()


def names() -> list[str]:
    """All GPUs of this host in the driver's order, as `nvidia-smi --query-gpu=name` names them."""
    return [gpu.name for gpu in manifest()[2]]


def used_by(visible: Sequence[str], workers: int, machine: Sequence[Gpu]) -> list[int]:
    """The first `workers` of the GPUs that are visible: indices or beginnings of UUIDs; of all if none are named.

    Ends, as CUDA does, at a name that stands for no GPU.
    """
    names = visible or [str(gpu.index) for gpu in machine]
    matches = [[gpu.index for gpu in machine if _is(gpu, name.strip())] for name in names]
    return [index for (index,) in takewhile(lambda found: len(found) == 1, matches[:workers])]


def _is(gpu: Gpu, name: str) -> bool:
    return name == str(gpu.index) or (name != "" and gpu.uuid.startswith(name))


class Reader:
    """Reads these GPUs. Raises OSError, with the driver's words, where it fails as a whole."""

    def __init__(self, indices: Sequence[int]) -> None:
        self.driver: Any = nvidia
        try:
            self.devices: dict[int, Any] = nvidia.devices(indices)
        except OSError:
            self.driver, self.devices = amd, dict(enumerate(amd.cards()))
            if not self.devices:
                raise

    def read(self, index: int, slowly: bool) -> dict[str, float]:
        """power_w, sm, memory (0..1), throttle (bits of REASONS); what is not told is left out.

        `slowly` also sm_clock_mhz, temperature_c and memory_used_bytes, which need no reading ten times a second.
        """
        return dict(self.driver.read(self.devices[index], slowly))

    def energy_counter_j(self, index: int) -> float | None:
        """In J since some time ago; None if there is none. This takes 7 ms on an H200, so ask rarely."""
        counter: float | None = self.driver.energy_counter_j(self.devices[index])
        return counter

    def processes(self, index: int) -> list[tuple[int, str]] | None:
        """(pid, name) of all programs that compute on a GPU; None if the driver does not tell."""
        found: list[tuple[int, str]] | None = self.driver.processes(self.devices[index])
        return found
