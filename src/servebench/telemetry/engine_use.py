"""What a replica did over the measured window, from the samples of its metrics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from servebench.log.telemetry import EngineUse
from servebench.telemetry.engine_metrics import GAUGES, HISTOGRAMS, RARE_PERIOD_S

FULL = 0.95  # of the KV cache: the rest is hardly enough for another request


def use(
    server: int, at_ns: np.ndarray, values: Mapping[str, np.ndarray], window_ns: tuple[int, int]
) -> EngineUse | None:
    """The facts of a replica; None where no sample of it is near the window.

    `at_ns` ascends; the arrays of `values` have one entry for each sample, NaN where it has no such value.
    """
    at_s, window_s = (at_ns - window_ns[0]) / 1e9, (window_ns[1] - window_ns[0]) / 1e9
    known = {name: (at_s[~np.isnan(column)], column[~np.isnan(column)]) for name, column in values.items()}
    seen = {name: series for name, series in known.items() if _near_s(series[0], window_s).any()}
    means = {name: _mean(*seen[name], window_s) for name in GAUGES if name in seen}
    gains = {name: _gain(*seen[name], window_s) for name in seen if name not in GAUGES}
    if "kv_cache_usage" in seen:
        at_s, usage = seen["kv_cache_usage"]
        means["kv_cache_full_share"] = _mean(at_s, usage >= FULL, window_s)
    if "waiting" in seen:
        at_s, waiting = seen["waiting"]
        means["waiting_max"] = float(waiting[_near_s(at_s, window_s) > 0].max())
    counted = {name: gains[name] for name in ("preemptions", "corrupted_requests") if name in gains}
    times = {name: _ratio(gains, f"{name}_sum", f"{name}_count") for name in HISTOGRAMS}
    hit_rate = _ratio(gains, "prefix_cache_hits", "prefix_cache_queries")
    accepted = _ratio(gains, "accepted_tokens", "draft_tokens")
    rates = {"prefix_cache_hit_rate": hit_rate, "acceptance_rate": accepted}
    return EngineUse(server=server, **means, **counted, **times, **rates) if seen else None


def _near_s(at_s: np.ndarray, window_s: float) -> np.ndarray:
    """For how much of the window each sample stands: what is nearer to it than to another, and not far from it."""
    middle_s = np.concatenate([[-np.inf], (at_s[1:] + at_s[:-1]) / 2, [np.inf]])
    begin_s = np.maximum(middle_s[: len(at_s)], at_s - RARE_PERIOD_S)
    end_s = np.minimum(middle_s[1 : len(at_s) + 1], at_s + RARE_PERIOD_S)
    near_s: np.ndarray = np.clip(end_s, 0, window_s) - np.clip(begin_s, 0, window_s)
    return near_s


def _mean(at_s: np.ndarray, value: np.ndarray, window_s: float) -> float:
    return float(np.average(value, weights=_near_s(at_s, window_s)))


def _gain(at_s: np.ndarray, value: np.ndarray, window_s: float) -> float:
    """By how much a counter rose in the window. One that fell began again at zero, since its server did."""
    step = np.diff(value)
    total = np.append(0, np.cumsum(np.where(step < 0, value[1:], step)))
    begin, end = np.interp([0, window_s], at_s, total)
    return float(end - begin)


def _ratio(gains: dict[str, float], part: str, whole: str) -> float | None:
    return gains[part] / gains[whole] if part in gains and gains.get(whole, 0) > 0 else None
