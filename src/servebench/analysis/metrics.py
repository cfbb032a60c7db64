"""All numbers of a log by name: what summary.csv, compare and `--fail_if` call them. The unit ends the name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from servebench.analysis import deadlines, latency, samples, stationarity, stats, throughput
from servebench.analysis.sla import Sla
from servebench.analysis.stats import Interval
from servebench.log.schema import Log, Result

LATENCIES: dict[str, Callable[[Result], float | None]] = {
    "ttft": latency.ttft_s,
    "time_to_first_answer_token": latency.time_to_first_answer_token_s,
    "tpot": latency.tpot_s,
    "e2e_latency": latency.e2e_s,
}
FROM_SCHEDULE: dict[str, Callable[[Result], float | None]] = {
    "ttft_from_schedule": latency.ttft_from_schedule_s,
    "e2e_latency_from_schedule": latency.e2e_from_schedule_s,
}
RATES: dict[str, Callable[[Log], float | None]] = {
    "request_throughput_per_s": throughput.request_throughput,
    "output_token_throughput_per_s": throughput.output_token_throughput,
    "total_token_throughput_per_s": throughput.total_token_throughput,
    "blog_throughput_per_s": throughput.blog_throughput,
    "makespan_throughput_per_s": throughput.makespan_throughput,
    "throughput_per_gpu_per_s": throughput.throughput_per_gpu,
    "tflops_per_gpu": throughput.tflops_per_gpu,
    "effective_concurrency": throughput.effective_concurrency,
    "littles_law_ratio": throughput.littles_law_ratio,
}
# What matters most: intervals are written down, and it is compared.
HEADLINES = (
    *("request_throughput_per_s", "output_token_throughput_per_s", "ttft_mean_s", "ttft_p50_s", "ttft_p99_s"),
    *("tpot_mean_s", "e2e_latency_mean_s", "e2e_latency_p99_s"),
)
PERCENTILES = (50, 90, 95, 99)
MORE_IS_BETTER = ("throughput", "tflops", "interactivity", "fluidity")

Values = dict[str, float | None]


def values(log: Log, slas: Sequence[Sla] = ()) -> Values:
    """Every metric of one run; None where the log cannot tell."""
    found = {name: rate(log) for name, rate in RATES.items()}
    found["failed_share"] = samples.failed_share(log)
    for name, of_request in LATENCIES.items():
        found |= _spread(name, samples.each(log, of_request))
    found |= _spread("itl", samples.pooled_itl_s(log))
    users = samples.each(log, latency.interactivity_per_s)
    found |= {f"interactivity_p{q}_per_s": stats.percentile(users, q) for q in (50, 10)}
    for name, of_request in FROM_SCHEDULE.items():
        found |= _spread(name, samples.each(log, of_request))
    for agreed in slas:
        found[f"effective_throughput[{agreed.name}]_per_s"] = agreed.throughput(log)
        if agreed.limits:
            found[f"fluidity_index[{agreed.name}]"] = deadlines.fluidity_index(log, *agreed.limits)
    return found


def _spread(name: str, sample: np.ndarray) -> Values:
    """Mean and percentiles of a latency (s)."""
    known = np.percentile(sample, PERCENTILES).tolist() if len(sample) else [None] * len(PERCENTILES)
    percentiles = {f"{name}_p{q}_s": value for q, value in zip(PERCENTILES, known, strict=True)}
    return {f"{name}_mean_s": stats.mean(sample), **percentiles}


def batch_values(log: Log) -> dict[str, np.ndarray]:
    """Of one run: what is known from the means or medians of its batches. Shapes (batches,); empty for too few."""
    done = sorted(samples.succeeded(log), key=lambda r: r.sent_ns)
    found = {}
    for name, of_request in LATENCIES.items():
        sample = np.array([v for r in done if (v := of_request(r)) is not None])
        enough = sample if len(sample) >= stats.FEWEST else sample[:0]
        found[f"{name}_mean_s"] = stats.batches(enough)
        found[f"{name}_p50_s"] = stats.batches(enough, np.median)
    if log.window_ns and len(done) >= stats.FEWEST:
        batch_s = (throughput.window_s(log) or 1) / stats.BATCHES
        found["request_throughput_per_s"] = stats.batches(stationarity.ends_per_bin(log), np.sum) / batch_s
        found["output_token_throughput_per_s"] = stats.batches(stationarity.tokens_per_bin(log), np.sum) / batch_s
    return found


def intervals(runs: Sequence[Values], stationary: bool) -> dict[str, Interval]:
    """Each metric's mean over the runs of a point, with its interval if they are; without what no run knows."""
    known = {name: [v for run in runs if (v := run[name]) is not None] for name in runs[0]}
    found = {name: stats.t_interval(sample, stationary) for name, sample in known.items()}
    return {name: interval for name, interval in found.items() if interval}


def thinks_first(runs: Sequence[Mapping[str, object]]) -> bool:
    """Does the time to the first answer token differ from TTFT? Where answers begin with reasoning it does."""
    return any(run["time_to_first_answer_token_mean_s"] not in (None, run["ttft_mean_s"]) for run in runs)


def more_is_better(name: str) -> bool:
    return name.startswith(MORE_IS_BETTER) or "_throughput" in name
