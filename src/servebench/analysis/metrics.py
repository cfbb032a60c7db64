"""Every metric by name, once: tables, summary.csv, compare, axes and docs/metrics.md are made from this list.

To add one, write its function (of a request in latency.py, of a point in throughput.py), whose docstring is the
definition, and one entry here. Then, for the documentation:

    python -m servebench.analysis.metrics > docs/metrics.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np

from servebench.analysis import (
    answers,
    cost,
    deadlines,
    engine,
    latency,
    power,
    samples,
    stationarity,
    stats,
    throughput,
)
from servebench.analysis.cache import derived, once_a_log
from servebench.analysis.stats import Interval
from servebench.log.schema import Log

Values = dict[str, float | None]
UNITS = ("_per_s", "_s", "_j", "_w")  # that a name may end with


@dataclass(frozen=True)
class Metric:
    """A number that the log of a run tells, and how it is called."""

    name: str  # ends with its unit
    label: str  # in the head of a table
    function: Callable[..., Any]  # its docstring is the definition
    better: Literal["more", "less"] | None = "less"  # None: neither
    of_tokens: bool = False  # it asks when tokens came, which something between client and server may have changed
    short: str = ""  # label in the terminal's narrow columns
    axis: str = ""  # label of an axis, with the unit
    why_unknown: Callable[[Log], str] | None = None  # why a log does not tell it, in a sentence

    @property
    def unit(self) -> str:
        return next((unit for unit in UNITS if self.name.endswith(unit)), "")

    @property
    def stem(self) -> str:
        """What the names of its columns begin with."""
        return self.name.removesuffix(self.unit)


@dataclass(frozen=True)
class OfPoint(Metric):
    """One number for each run: function(log), None where the log cannot tell."""

    per_bin: Callable[[Log], np.ndarray] | None = None  # what was counted in each bin of the window

    def values(self, log: Log) -> Values:
        return {self.name: self.function(log)}

    @derived
    def batches(self, log: Log) -> dict[str, np.ndarray]:
        """Its values in successive parts of the window. Shape (batches,)."""
        if not (self.per_bin and log.window_ns and len(samples.succeeded(log)) >= stats.MIN_FOR_BATCHES):
            return {}
        batch_s = (throughput.window_s(log) or 1) / stats.BATCHES
        return {self.name: stats.batches(self.per_bin(log), np.sum) / batch_s}


@dataclass(frozen=True)
class OfRequests(Metric):
    """function(request) is a number, None or an array: a run has their mean and percentiles, each in a column."""

    statistics: tuple[str, ...] = ("mean", "p50", "p90", "p95", "p99")
    in_batches: bool = False  # are means and medians of batches compared, where there is but one run?

    def column(self, statistic: str) -> str:
        """`ttft_p99_s` for p99."""
        return f"{self.stem}_{statistic}{self.unit}"

    @once_a_log
    def sample(self, log: Log) -> np.ndarray:
        """Of all requests that succeeded. Shape (n,)."""
        return samples.each(log, self.function)

    @derived
    def percentile(self, log: Log, q: float) -> float | None:
        return stats.percentile(self.sample(log), q)

    @derived
    def too_few(self, log: Log, q: int) -> bool:
        """Are its values too few, or too much alike, for this percentile? Not of a log that has none."""
        sample = self.sample(log)
        return len(sample) > 0 and not stats.enough_for_percentile(sample, q)

    @derived
    def values(self, log: Log) -> Values:
        sample = self.sample(log)
        return {self.column(name): statistic(name, sample) for name in self.statistics}

    @derived
    def batches(self, log: Log) -> dict[str, np.ndarray]:
        """Means and medians of successive batches. Shapes (batches,), or (0,) of too few requests."""
        if not self.in_batches:
            return {}
        sample = samples.each(log, self.function, by_time=True)
        enough = sample if len(sample) >= stats.MIN_FOR_BATCHES else sample[:0]
        medians = stats.batches(enough, np.median)
        return {self.column("mean"): stats.batches(enough), self.column("p50"): medians}


_energy = partial(OfPoint, why_unknown=power.why_unknown)


def _dollars(which: str, function: Callable[[Log], float | None], short: str = "") -> OfPoint:
    name, words = f"dollars_per_million_{which}_tokens", f"per million {which} tokens"
    return OfPoint(
        name, f"dollars {words}", function, short=short, axis=f"Cost ($ {words})", why_unknown=cost.why_unknown
    )


_OF_POINT = (
    OfPoint(
        "request_throughput_per_s",
        "requests/s",
        throughput.request_throughput,
        "more",
        short="req/s",
        axis="Throughput (requests/s)",
        per_bin=stationarity.ends_per_bin,
    ),
    OfPoint(
        "output_token_throughput_per_s",
        "output tokens/s",
        throughput.output_token_throughput,
        "more",
        short="tok/s",
        per_bin=stationarity.tokens_per_bin,
    ),
    OfPoint("total_token_throughput_per_s", "all tokens/s", throughput.total_token_throughput, "more"),
    OfPoint(
        "blog_throughput_per_s",
        "clients / mean latency",
        throughput.blog_throughput,
        "more",
        axis="Clients / mean latency (requests/s)",
    ),
    OfPoint("makespan_throughput_per_s", "requests / makespan (1/s)", throughput.makespan_throughput, "more"),
    OfPoint("throughput_per_gpu_per_s", "Output tokens/s per GPU", throughput.throughput_per_gpu, "more"),
    OfPoint("tflops_per_gpu", "TFLOP/s per GPU", throughput.tflops_per_gpu, "more"),
    OfPoint("ttft_wire_s", "TTFT on the wire", engine.ttft_wire),
    OfPoint("ttft_queue_s", "TTFT in the queue", engine.ttft_queue, axis="TTFT in the queue (s)"),
    OfPoint("ttft_prefill_s", "TTFT in prefill", engine.ttft_prefill, axis="TTFT in prefill (s)"),
    OfPoint("kv_cache_usage", "KV cache in use", engine.kv_cache_usage, better=None),
    OfPoint("preemptions", "preemptions", engine.preemptions),
    OfPoint("effective_concurrency", "requests in flight", throughput.effective_concurrency, better=None),
    OfPoint("littles_law_ratio", "Little's law", throughput.littles_law_ratio, better=None),
    OfPoint("failed_share", "share that failed", samples.failed_share),
    OfPoint("flawed_share", "share of flawed answers", answers.flawed_share),
    OfPoint("check_share", "questions right under load", answers.check_share, "more", axis="Right under load"),
    OfPoint("check_share_alone", "questions right alone", answers.check_share_alone, "more", axis="Right alone"),
    _energy("gpu_power_w", "power of a GPU", power.gpu_power, better=None, axis="Power of a GPU (W)"),
    _energy(
        "energy_per_output_token_j",
        "energy per output token",
        power.energy_per_output_token,
        short="J/token",
        axis="Energy per output token (J)",
    ),
    _energy(
        "energy_per_request_j",
        "energy per request",
        power.energy_per_request,
        axis="Energy per request (J)",
    ),
    _energy(
        "tokens_per_joule",
        "output tokens/J",
        power.tokens_per_joule,
        "more",
        axis="Output tokens per joule (tokens/J)",
    ),
    OfPoint("gpu_idle_share", "share in which GPUs are idle", power.gpu_idle_share, better=None),
    _dollars("output", cost.of_output_tokens, short="$ per M\ntokens"),
    _dollars("input", cost.of_input_tokens),
)
_OF_REQUESTS = (
    OfRequests("ttft_s", "TTFT", latency.ttft_s, of_tokens=True, axis="TTFT (s)", in_batches=True),
    OfRequests(
        "time_to_first_answer_token_s",
        "first answer token",
        latency.time_to_first_answer_token_s,
        of_tokens=True,
        axis="Time to first answer token (s)",
        in_batches=True,
    ),
    OfRequests("tpot_s", "TPOT", latency.tpot_s, of_tokens=True, axis="TPOT (s/token)", in_batches=True),
    OfRequests("e2e_latency_s", "E2E", latency.e2e_s, axis="E2E latency (s)", in_batches=True),
    OfRequests("itl_s", "ITL", latency.itl_s, of_tokens=True, axis="ITL (s)"),
    OfRequests(
        "interactivity_per_s",
        "tokens/s per user",
        latency.interactivity_per_s,
        "more",
        of_tokens=True,
        axis="Tokens/s per user",
        statistics=("p50", "p10"),
    ),
    OfRequests("ttft_from_schedule_s", "TTFT from schedule", latency.ttft_from_schedule_s, of_tokens=True),
    OfRequests("e2e_latency_from_schedule_s", "E2E from schedule", latency.e2e_from_schedule_s),
)
OF_SLA = (  # the name of the SLA stands in brackets: `fluidity_index[ttft<2s,tpot<100ms]`; see sla.values
    Metric(
        "effective_throughput_per_s",
        "requests/s that meet the SLA",
        deadlines.effective_throughput,
        "more",
        of_tokens=True,
        axis="Effective throughput (requests/s)",
    ),
    Metric("fluidity_index", "token deadlines met", deadlines.fluidity_index, "more", of_tokens=True),
)
OF_POINT = {metric.name: metric for metric in _OF_POINT}
OF_REQUESTS = {metric.name: metric for metric in _OF_REQUESTS}
METRICS = (*_OF_POINT, *_OF_REQUESTS)  # in the order of columns
COSTS = ("energy_per_output_token_j", "dollars_per_million_output_tokens")  # shown where they are known
# The main ones: their intervals are in summary.csv, and they are compared.
HEADLINES = (
    *("request_throughput_per_s", "output_token_throughput_per_s", "ttft_mean_s", "ttft_p50_s", "ttft_p99_s"),
    *("tpot_mean_s", "e2e_latency_mean_s", "e2e_latency_p99_s", *COSTS),
)
FIRST_ANSWER = "time_to_first_answer_token_p50_s"  # shown where answers begin with reasoning


def values(log: Log) -> Values:
    """Every metric of one run by column; None where the log cannot tell."""
    return {column: value for metric in METRICS for column, value in metric.values(log).items()}


def batch_values(log: Log) -> dict[str, np.ndarray]:
    """Of one run: its batches, of the metrics that have any. Shapes (batches,), or (0,) of too few requests."""
    return {column: batches for metric in METRICS for column, batches in metric.batches(log).items()}


def statistic(name: str, sample: np.ndarray) -> float | None:
    """`mean`, or a percentile as `p99`; None of an empty sample."""
    return stats.mean(sample) if name == "mean" else stats.percentile(sample, float(name[1:]))


@cache
def named(column: str) -> Metric:
    """The metric whose columns begin so: ttft_s of `ttft_p99_s` and of `ttft`. Raises ValueError for none."""
    found = [metric for metric in (*METRICS, *OF_SLA) if column.startswith(metric.stem)]
    if not found:
        raise ValueError(f"{column!r} is not a metric")
    return max(found, key=lambda metric: len(metric.stem))


def intervals(runs: Sequence[Values], stationary: bool) -> dict[str, Interval]:
    """Each metric's mean over the runs of a point, with its interval if they are; without what no run knows."""
    known = {name: [v for run in runs if (v := run[name]) is not None] for name in runs[0]}
    found = {name: stats.t_interval(sample, stationary) for name, sample in known.items()}
    return {name: interval for name, interval in found.items() if interval}


def thinks_first(runs: Sequence[Mapping[str, object]]) -> bool:
    """Does the time to the first answer token differ from TTFT? Where answers begin with reasoning it does."""
    return any(run["time_to_first_answer_token_mean_s"] not in (None, run["ttft_mean_s"]) for run in runs)


# docs/metrics.md


def page() -> str:
    """The definitions, from the docstrings."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from ("# Metrics", "")
    yield "Made from the list of metrics: `python -m servebench.analysis.metrics > docs/metrics.md`."
    yield "The names are columns of `summary.csv`, and what `servebench compare` takes; the unit ends the name."
    yield "A cell is empty where a log cannot tell."
    for title, metrics in (
        ("A column each", _OF_POINT),
        ("Mean and percentiles over the requests that succeeded, such as `ttft_p99_s`", _OF_REQUESTS),
        ("A column for each `--sla`, such as `fluidity_index[ttft<2s,tpot<100ms]`", OF_SLA),
    ):
        yield from ("", f"## {title}", "", "| Name | Label | Better | Definition |", "|---|---|---|---|")
        for metric in metrics:
            definition = " ".join((metric.function.__doc__ or "").split()).replace("|", r"\|")
            better = metric.better or "neither"
            yield f"| `{metric.name}` | {metric.axis or metric.label} | {better} | {definition} |"


if __name__ == "__main__":
    print(page(), end="")
