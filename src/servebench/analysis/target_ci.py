"""`--target_ci 5%`: runs of a point until request throughput and mean E2E latency are known that well."""

from __future__ import annotations

from servebench.analysis import samples, stats, throughput
from servebench.analysis.stats import Interval
from servebench.log.schema import Log


def relative_width(interval: Interval | None) -> float:
    """Half of the interval as a share of its mean; nan where it is unknown."""
    return interval.half / interval.mean if interval else float("nan")


def relative_widths(runs: list[Log]) -> tuple[float, float]:
    """Of request throughput and of mean E2E latency."""
    rates = [rate for log in runs if (rate := throughput.request_throughput(log))]
    latencies = [latency for log in runs if (latency := samples.mean_e2e_s(log))]
    return relative_width(stats.t_interval(rates)), relative_width(stats.t_interval(latencies))


def why_stop(runs: list[Log], target: float, min_runs: int, max_runs: int) -> str | None:
    """Why these runs of a point are enough, in words; None when there should be another."""
    if len(runs) < min_runs:
        return None
    rate, latency = relative_widths(runs)
    known = f"request throughput is known to {rate:.1%} and mean E2E latency to {latency:.1%}"
    if rate <= target and latency <= target:
        return f"{known} after {len(runs)} runs (--target_ci {target:.3g})"
    return f"{known} after the most runs allowed (--max_runs {max_runs})" if len(runs) >= max_runs else None
