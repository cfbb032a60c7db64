"""What a server's GPUs drew over the window. Energy is None unless that of each of them is sound."""

from __future__ import annotations

from servebench.analysis import throughput
from servebench.analysis.cache import derived
from servebench.analysis.engine import mean
from servebench.log.schema import Log
from servebench.log.telemetry import GpuUse


def energy_verdict(log: Log) -> str:
    """`ok`, `invalid: why` (of the first GPU that is not ok), or `unknown`, as of a server without GPUs."""
    gpus, needed = _gpus(log), throughput.known_gpus(log)
    if gpus and needed and len(gpus) < needed:
        return f"invalid: only {len(gpus)} of {needed} GPUs were seen"
    wrong = [gpu.energy for gpu in gpus if not gpu.energy.startswith("ok")]
    return wrong[0] if wrong else "ok" if gpus else "unknown"


def why_unknown(log: Log) -> str:
    """In a sentence, why there is no energy."""
    verdict = energy_verdict(log)
    return {"ok": "no token or request to share it", "unknown": "no GPU's energy is in its log"}.get(
        verdict, f"GPU energy {verdict}"
    )


def gpu_power(log: Log) -> float | None:
    """Mean power of a GPU over the window, W. The mean of the server's GPUs."""
    return mean([gpu.power_w for gpu in _gpus(log)]) if energy_verdict(log) == "ok" else None


def energy_per_output_token(log: Log) -> float | None:
    """Energy of all GPUs of the server over the window / output tokens that arrived in it, J/token."""
    rate, length = throughput.output_token_throughput(log), throughput.window_s(log)
    return _share(log, rate * length if rate and length else 0)


@derived
def energy_per_request(log: Log) -> float | None:
    """Energy of all GPUs of the server over the window / requests that ended in it, J/request."""
    return _share(log, sum(1 for _ in throughput.ended_in_window(log)))


def tokens_per_joule(log: Log) -> float | None:
    """Output tokens that arrived in the window / energy of all GPUs over it, tokens/J (the same as
    tokens/s per W)."""
    each_j = energy_per_output_token(log)
    return 1 / each_j if each_j else None


def gpu_idle_share(log: Log) -> float | None:
    """Share of the window in which a GPU ran nothing, 0..1. The mean of the server's GPUs."""
    return mean([gpu.idle_share for gpu in _gpus(log)])


def _share(log: Log, of: float) -> float | None:
    """The energy of all GPUs over so many. None where one is not known."""
    mean_j = mean([gpu.energy_j for gpu in _gpus(log)]) if energy_verdict(log) == "ok" else None
    return mean_j * len(_gpus(log)) / of if mean_j is not None and of else None


def _gpus(log: Log) -> list[GpuUse]:
    return log.telemetry.gpus if log.telemetry else []
