"""What a replica did over the measured window, from the samples of its metrics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from servebench.log.telemetry import EngineUse
from servebench.telemetry.engine_metrics import GAUGES, HISTOGRAMS, RARE_PERIOD_S

FULL = 0.95  # of the KV cache: the rest is hardly enough for another request
MOMENTS = 1000  # of the window that a gauge is looked at, so that its samples are weighted by time


def use(
    server: int, at_ns: np.ndarray, values: Mapping[str, np.ndarray], window_ns: tuple[int, int]
) -> EngineUse | None:
    """The facts of a replica; None where no sample of it is near the window.

    `at_ns` ascends; the arrays of `values` have one entry for each sample, NaN where it has no such value.
    """
    at_s, window_s = (at_ns - window_ns[0]) / 1e9, (window_ns[1] - window_ns[0]) / 1e9
    near = (at_s > -RARE_PERIOD_S) & (at_s < window_s + RARE_PERIOD_S)
    known = {name: ~np.isnan(column) for name, column in values.items()}
    seen = {name: (at_s[known[name]], values[name][known[name]]) for name in known if (known[name] & near).any()}
    gauges = {name: _at_moments(*seen[name], window_s) for name in GAUGES if name in seen}
    facts = {name: float(gauge.mean()) for name, gauge in gauges.items()}
    if "waiting" in gauges:
        facts["waiting_max"] = float(gauges["waiting"].max())
    if "kv_cache_usage" in gauges:
        facts["kv_cache_full_share"] = float(np.mean(gauges["kv_cache_usage"] >= FULL))
    gains = {name: _gain(*seen[name], window_s) for name in seen if name not in GAUGES}
    facts |= {name: gains[name] for name in ("preemptions", "corrupted_requests") if name in gains}
    ratios = {name: (f"{name}_sum", f"{name}_count") for name in HISTOGRAMS}
    ratios["prefix_cache_hit_rate"] = ("prefix_cache_hits", "prefix_cache_queries")
    ratios["acceptance_rate"] = ("accepted_tokens", "draft_tokens")
    facts |= {name: gains[a] / gains[b] for name, (a, b) in ratios.items() if a in gains and gains.get(b, 0) > 0}
    return EngineUse(server=server, **facts) if seen else None


def _at_moments(at_s: np.ndarray, values: np.ndarray, window_s: float) -> np.ndarray:
    """The nearest sample to each of many moments in the window."""
    nearest: np.ndarray = values[np.searchsorted((at_s[1:] + at_s[:-1]) / 2, np.linspace(0, window_s, MOMENTS))]
    return nearest


def _gain(at_s: np.ndarray, values: np.ndarray, window_s: float) -> float:
    """By how much a counter rose in the window. One that fell began again at zero, since its server did."""
    step = np.diff(values)
    total = np.append(0, np.cumsum(np.where(step < 0, values[1:], step)))
    begin, end = np.interp([0, window_s], at_s, total)
    return float(end - begin)
