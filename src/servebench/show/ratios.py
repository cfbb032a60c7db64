"""Two sides point by point: the ratio B/A of each metric, its 95 % interval, and what may be said of it.

The interval comes from repeated runs (Welch's); of single runs from the means of their batches, which takes 100
requests and means or medians; with --paired from the ratios of runs of the same prompts, taken in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from servebench.analysis import metrics, samples, sla, stationarity, stats, trust
from servebench.analysis.cache import derived
from servebench.analysis.limits import Limit
from servebench.analysis.metrics import OfRequests, Values
from servebench.analysis.sla import Sla
from servebench.analysis.stats import Interval
from servebench.log.schema import Log
from servebench.show.matching import Pair
from servebench.show.points import Runs

MIN_PAIRS = 6  # for a verdict at 5 %: of five even the signs alone could not say it
ALIKE = "not distinguishable"
DECIDED = ("better", "worse", "different")


@dataclass(frozen=True)
class Comparison:
    """One metric of one point. `a`, `b`: means over runs; interval and evidence where the data have any."""

    point: str
    metric: str  # a column of summary.csv
    a: float | None
    b: float | None
    interval: Interval | None  # of B/A
    evidence: str  # what the interval comes from: runs, pairs or batches
    stationary: bool
    doubt: str | None = None  # why it decides nothing

    @property
    def ratio(self) -> float | None:
        """B/A; 1 where both are 0. None where one is not known."""
        if self.a is None or self.b is None:
            return None
        if self.interval:
            return self.interval.mean
        return self.b / self.a if self.a else 1.0 if not self.b else float("inf")

    def scaled(self, by_a: float, by_b: float) -> Comparison:
        """The same of A x by_a and B x by_b, such as of what each of their GPUs does."""
        by, i = by_b / by_a, self.interval
        a, b = None if self.a is None else self.a * by_a, None if self.b is None else self.b * by_b
        interval = i and i._replace(mean=i.mean * by, low=i.low * by, high=i.high * by)
        return replace(self, a=a, b=b, interval=interval)

    @property
    def known(self) -> Interval | None:
        """The interval, where it may decide anything."""
        return None if self.doubt or not self.stationary else self.interval

    @property
    def verdict(self) -> str:
        """better, worse, different (a metric with no good side), not distinguishable, or why it is not known."""
        if self.ratio is None:
            return "not known"
        if self.doubt:
            return self.doubt
        if not self.stationary:
            return "not settled"
        if not self.interval:
            return "no interval: more --runs" if self.a != self.b else ALIKE
        if self.evidence == "pairs" and self.interval.runs < MIN_PAIRS:
            return f"takes {MIN_PAIRS} pairs"
        if self.interval.low <= 1 <= self.interval.high:
            return ALIKE
        good = metrics.named(self.metric).better
        if not good:
            return "different"
        return "better" if (self.interval.low > 1) == (good == "more") else "worse"


def compare(
    pairs: Sequence[Pair], slas: Sequence[Sla] = (), paired: bool = False, limits: Sequence[Limit] = ()
) -> list[Comparison]:
    """Every metric of every pair, those of SLAs, and the percentiles of limits that no column has."""
    return [row for pair in pairs for row in _point(pair, slas, paired, limits)]


def _point(pair: Pair, slas: Sequence[Sla], paired: bool, limits: Sequence[Limit]) -> list[Comparison]:
    a, b = pair.a, pair.b
    evidence = "pairs" if paired else "batches" if min(len(a), len(b)) == 1 else "runs"
    if paired:
        shared = {log.run.repetition for log in a} & {log.run.repetition for log in b}
        a, b = ([log for log in runs if log.run.repetition in shared] for runs in (a, b))
    elif evidence == "batches":
        a, b = a[:1], b[:1]
    stationary = stationarity.stationary(a) and stationarity.stationary(b)
    of_a, of_b = ([_values(log, slas, limits) for log in runs] for runs in (a, b))
    means_a, means_b = (metrics.intervals(runs, stationary) for runs in (of_a, of_b))
    ratios = _of_batches(a[0], b[0]) if evidence == "batches" else _of_runs(of_a, of_b, paired)
    return [
        Comparison(
            point=pair.name,
            metric=metric,
            a=means_a[metric].mean if metric in means_a else None,
            b=means_b[metric].mean if metric in means_b else None,
            interval=ratios.get(metric),
            evidence=evidence,
            stationary=stationary,
            doubt=_doubt(a, b, metric),
        )
        for metric in of_a[0]
    ]


def _values(log: Log, slas: Sequence[Sla], limits: Sequence[Limit]) -> Values:
    found = metrics.values(log) | sla.values(log, slas)
    for limit in limits:
        if limit.column not in found and isinstance(limit.metric, OfRequests):
            found[limit.column] = metrics.statistic(limit.statistic, limit.metric.sample(log))
    return found


@derived
def prepare(log: Log, *slas: Sla) -> None:
    """What a comparison asks of a run."""
    _values(log, slas, ())
    metrics.batch_values(log)


def _doubt(a: Runs, b: Runs, metric: str) -> str | None:
    """Why this metric of A or of B decides nothing: where some failed, latencies are those of the others."""
    of_requests = isinstance(metrics.named(metric), OfRequests)
    for side, runs in (("A", a), ("B", b)):
        if found := trust.of_point(runs, metric):
            return f"{side}: {found.mark}"
        failed = max(map(samples.failed_share, runs))
        if failed > trust.FAILED_SHARE and of_requests:
            return f"{side}: {failed:.0%} failed"
        if any(log.quality.overloaded for log in runs) and of_requests:
            return f"{side}: overloaded"
    return None


def _of_runs(a: list[Values], b: list[Values], paired: bool) -> dict[str, Interval | None]:
    """B/A from one value a run, of metrics that every run has."""
    ratio = stats.ratio_of_pairs if paired else stats.ratio_of_means
    found = {name: [[v for run in runs if (v := run[name]) is not None] for runs in (a, b)] for name in a[0]}
    return {name: ratio(*known) for name, known in found.items() if [*map(len, known)] == [len(a), len(b)]}


def _of_batches(a: Log, b: Log) -> dict[str, Interval | None]:
    """B/A from the batches of single runs."""
    of_a, of_b = metrics.batch_values(a), metrics.batch_values(b)
    common = of_a.keys() & of_b.keys()
    return {name: stats.ratio_of_means(of_a[name].tolist(), of_b[name].tolist()) for name in common}
