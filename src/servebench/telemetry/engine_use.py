"""What a replica did over the measured window, from the samples of its metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from servebench.log.telemetry import EngineUse
from servebench.telemetry.engine_metrics import GAUGES, HISTOGRAMS, RARE_PERIOD_S

FULL = 0.95  # of the KV cache: the rest is hardly enough for another request


def use(
    server: int, at_ns: np.ndarray, samples: Sequence[dict[str, float]], window_ns: tuple[int, int]
) -> EngineUse | None:
    """The facts of a replica; None where no sample of it is near the window. `at_ns` ascends."""
    at_s, window_s = (np.asarray(at_ns, np.int64) - window_ns[0]) / 1e9, (window_ns[1] - window_ns[0]) / 1e9
    if not _near_s(at_s, window_s).any():
        return None
    means: dict[str, float] = {}
    gains: dict[str, float] = {}
    highest: dict[str, float] = {}
    for name in {name for sample in samples for name in sample}:
        has = np.array([name in sample for sample in samples])
        value = np.array([sample[name] for sample in samples if name in sample])
        near_s = _near_s(at_s[has], window_s)
        if not near_s.any():
            continue
        if name not in GAUGES:
            gains[name] = _gain(at_s[has], value, window_s)
            continue
        means[name], highest[name] = float(np.average(value, weights=near_s)), float(value[near_s > 0].max())
        if name == "kv_cache_usage":
            means["kv_cache_full_share"] = float(np.average(value >= FULL, weights=near_s))
    counted = {name: gains[name] for name in ("preemptions", "corrupted_requests") if name in gains}
    times = {name: _ratio(gains, f"{name}_sum", f"{name}_count") for name in HISTOGRAMS}
    return EngineUse(
        server=server,
        waiting_max=highest.get("waiting"),
        prefix_cache_hit_rate=_ratio(gains, "prefix_cache_hits", "prefix_cache_queries"),
        acceptance_rate=_ratio(gains, "accepted_tokens", "draft_tokens"),
        **means,
        **counted,
        **times,
    )


def _near_s(at_s: np.ndarray, window_s: float) -> np.ndarray:
    """For how much of the window each sample stands: what is nearer to it than to another, and not far from it."""
    middle_s = (at_s[1:] + at_s[:-1]) / 2
    begin_s = np.maximum(np.append(-np.inf, middle_s), at_s - RARE_PERIOD_S) if len(at_s) else at_s
    end_s = np.minimum(np.append(middle_s, np.inf), at_s + RARE_PERIOD_S) if len(at_s) else at_s
    near_s: np.ndarray = np.clip(end_s, 0, window_s) - np.clip(begin_s, 0, window_s)
    return near_s


def _gain(at_s: np.ndarray, value: np.ndarray, window_s: float) -> float:
    """By how much a counter rose in the window. One that fell began again at zero, since its server did."""
    step = np.diff(value)
    total = np.append(0, np.cumsum(np.where(step < 0, value[1:], step)))
    begin, end = np.interp([0, window_s], at_s, total)
    return float(end - begin)


def _ratio(gains: dict[str, float], part: str, whole: str) -> float | None:
    return gains[part] / gains[whole] if part in gains and gains.get(whole, 0) > 0 else None
