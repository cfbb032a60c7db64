"""The one sentence of a comparison: which side is faster, by how much and where, or why nobody can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from servebench.analysis import limits, metrics
from servebench.analysis.metrics import OfRequests
from servebench.show.matching import Matched
from servebench.show.ratios import ALIKE, DECIDED, MIN_PAIRS, Comparison

TOLD = (*DECIDED, ALIKE)
HELP = {
    "no interval": f"too few runs and requests; measure both with --runs {MIN_PAIRS}",
    "takes": f"fewer than {MIN_PAIRS} pairs; servebench paired --runs {MIN_PAIRS} adds runs",
    "not settled": "not settled; use more --num_requests or a lower load",
}
NAMED = 3  # points
THROUGHPUT = "request_throughput_per_s"


@dataclass(frozen=True)
class Sides:
    """What is compared: A and B by name, their common points, and all metrics of these."""

    names: tuple[str, str]
    found: Matched
    rows: list[Comparison]
    shown: list[str]  # metrics

    def of(self, metric: str) -> list[Comparison]:
        return [row for row in self.rows if row.metric == metric]

    @property
    def per_gpu(self) -> list[Comparison]:
        """Requests/s over the GPUs of each side, where these are unlike everywhere."""
        rows = zip(self.of(THROUGHPUT), self.found.pairs, strict=True)
        unlike = all(pair.gpus[0] != pair.gpus[1] for pair in self.found.pairs)
        return [row.scaled(*(1 / n for n in pair.gpus)) for row, pair in rows] if unlike else []

    def said(self, words: str) -> str:
        """A verdict that tells nothing, with the names of the sides, and what would help."""
        words = next((helped for begin, helped in HELP.items() if words.startswith(begin)), words)
        for letter, name in zip("AB", self.names, strict=True):
            words = words.replace(f"{letter}: ", f"{name} ")
        return words


def sentence(sides: Sides) -> str:
    """Which side is faster, by how much and at how many points; or why nobody can tell.

    What tokens cost makes none faster; where nothing else is asked, it says which is cheaper.
    """
    judged = [metric for metric in sides.shown if metrics.named(metric).better]
    fast = [metric for metric in judged if metric not in metrics.COSTS]
    judged, quicker = (fast, "faster") if fast else (judged, "cheaper")
    better, worse = ([m for m in judged if _mostly(sides.of(m), word)] for word in ("better", "worse"))
    a, b = sides.names
    if THROUGHPUT in judged and {"better", "worse"} <= {row.verdict for row in sides.of(THROUGHPUT)}:
        rest = _clauses(sides, [metric for metric in judged if metric != THROUGHPUT], invert=False)
        return f"It depends on the point: {_each_has(sides)}" + (f"; {b} against {a}: {rest}" if rest else "")
    if better and worse:
        return f"Neither is {quicker}: against {a}, {b} has {_clauses(sides, judged, invert=False)}"
    if better:
        return f"{b} is {quicker} than {a}: {_clauses(sides, judged, invert=False)}"
    if worse:
        return f"{a} is {quicker} than {b}: {_clauses(sides, judged, invert=True)}"
    if any(row.verdict in TOLD for metric in judged for row in sides.of(metric)):
        return f"{a} and {b} are {ALIKE}: {_clauses(sides, judged, invert=False)}{_seen(sides, judged)}"
    return f"Cannot tell whether {a} or {b} is {quicker}: {_why_not(sides, judged)}"


def _each_has(sides: Sides) -> str:
    """Where each side has more: `vLLM serves 19 to 38 % more requests/s at 8 clients, llama.cpp serves ...`."""
    said = []
    for word, name, invert in (("better", sides.names[1], False), ("worse", sides.names[0], True)):
        rows = [row for row in sides.of(THROUGHPUT) if row.verdict == word]
        ratios, more = [row.ratio or 1.0 for row in rows], len(rows) - NAMED
        much = change(min(ratios), max(ratios), invert).replace("higher", "more").replace("high", "many")
        where = " and ".join([row.point for row in rows[:NAMED]] + [f"{more} more"] * (more > 0))
        said.append(f"{name} serves {much} requests/s at {where}")
    return ", ".join(said)


def _mostly(rows: Sequence[Comparison], word: str) -> bool:
    """Is this the verdict at more than half of the points where there is one? One in 20 is wrong by chance."""
    told = [row.verdict for row in rows if row.verdict in TOLD]
    return 2 * told.count(word) > len(told)


def _clauses(sides: Sides, judged: Sequence[str], invert: bool) -> str:
    """Of throughput and of each kind of latency, where the highest percentile that is decided speaks for all.

    `request throughput 39 to 45 % higher, TTFT p99 28 to 38 % lower at 4 of 4 points`.
    """
    chosen: dict[str, list[Comparison]] = {}
    decided = sorted(judged, key=lambda metric: any(_mostly(sides.of(metric), word) for word in DECIDED))
    for metric in decided:
        if any(row.verdict in TOLD for row in sides.of(metric)):
            chosen[metrics.named(metric).stem + metric.partition("[")[2]] = sides.of(metric)
    chosen = {
        stem: rows for stem, rows in sorted(chosen.items(), key=lambda item: judged.index(item[1][0].metric))
    }
    told = [rows for rows in chosen.values() if not _mostly(rows, ALIKE)]
    clauses = [_clause(rows, invert) for rows in told]
    clauses += [_clause(rows, invert, " per GPU") for rows in [sides.per_gpu] if rows]
    alike = _alike([rows for rows in chosen.values() if _mostly(rows, ALIKE)])
    if len({where for _, where in clauses}) == 1:
        clauses = [*((words, "") for words, _ in clauses[:-1]), clauses[-1]]
    said = ", ".join(f"{words}{where}" for words, where in clauses)
    return "; ".join(filter(None, [said, alike]))


def _alike(metrics_of: Sequence[Sequence[Comparison]]) -> str:
    """`request throughput and TTFT p99 not distinguishable at 9 and 13 of 14 points`."""
    if not metrics_of:
        return ""
    of = len(metrics_of[0])
    names = " and ".join(metric_words(rows[0].metric) for rows in metrics_of)
    counts = [str(sum(row.verdict == ALIKE for row in rows)) for rows in metrics_of]
    where = f" at {' and '.join(dict.fromkeys(counts))} of {of} points" if of > 1 else ""
    return f"{names} {ALIKE}{where}"


def _clause(rows: Sequence[Comparison], invert: bool, per: str = "") -> tuple[str, str]:
    """(`TTFT p99 39 to 48 % lower`, ` at 3 of 4 points (1 not distinguishable)`)."""
    name, told = f"{metric_words(rows[0].metric)}{per}", [row for row in rows if row.verdict in DECIDED]
    alike = [row for row in rows if row.verdict == ALIKE]
    unknown = len(rows) - len(told) - len(alike)
    if not told:
        return f"{name} {ALIKE}", _at(len(alike), len(rows), [(unknown, "cannot be judged")])
    known = told[0].known
    if len(rows) == 1 and known:
        return f"{name} {change(known.low, known.high, invert)} (95 % interval)", ""
    ratios = [row.ratio or 1.0 for row in told]
    words = [
        change(min(some), max(some), invert)
        for some in ([r for r in ratios if r > 1], [r for r in ratios if r <= 1])
        if some
    ]
    return f"{name} {' or '.join(words)}", _at(
        len(told), len(rows), [(len(alike), ALIKE), (unknown, "cannot be judged")]
    )


def _at(some: int, of: int, rest: Sequence[tuple[int, str]]) -> str:
    """` at 3 of 4 points (1 not distinguishable)`; nothing where there is but one."""
    others = ", ".join(f"{number} {words}" for number, words in rest if number)
    return f" at {some} of {of} points{f' ({others})' if others else ''}" if of > 1 else ""


def change(low: float, high: float, invert: bool = False) -> str:
    """Ratios from low to high, in words: `5 to 8 % lower`, `1.8 to 2.1 times`. `invert`: of A/B."""
    low, high = (1 / high if high else 1.0, 1 / low if low else 1.0) if invert else (low, high)
    if high >= 2:
        ends, unit = [f"{low:.2g}", f"{high:.2g}"], "times as high"
    elif low >= 1:
        ends, unit = [f"{100 * (end - 1):.2g}" for end in (low, high)], "% higher"
    else:
        ends, unit = [f"{100 * (1 - end):.2g}" for end in (high, low)], "% lower"
    return f"{' to '.join(dict.fromkeys(ends))} {unit}"


def metric_words(column: str) -> str:
    """`TTFT p99`, `request throughput`, `request throughput within ttft<2s`."""
    metric, of_sla = metrics.named(column), column.partition("[")[2].partition("]")[0]
    if isinstance(metric, OfRequests):
        return f"{metric.label} {column.removeprefix(metric.stem).removesuffix(metric.unit).strip('_')}"
    return f"{limits.short(metric).replace('_', ' ')}{f' within {of_sla}' if of_sla else ''}"


def _seen(sides: Sides, judged: Sequence[str]) -> str:
    """The difference that would have been seen."""
    metric = THROUGHPUT if THROUGHPUT in judged else judged[0]
    sees = [row.known.sees for row in sides.of(metric) if row.known]
    return f"; a difference of {max(sees):.2g} % in {metric_words(metric)} would have shown" if sees else ""


def _why_not(sides: Sides, judged: Sequence[str]) -> str:
    """The most frequent reason."""
    rows = [row for metric in judged for row in sides.of(metric)]
    reason, _ = Counter(row.verdict for row in rows).most_common(1)[0]
    at = len({row.point for row in rows if row.verdict == reason})
    return f"{_at(at, len(sides.found.pairs), [])} {sides.said(reason)}".strip()
