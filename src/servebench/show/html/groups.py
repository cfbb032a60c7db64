"""The layouts of a study with their points, and what is said of the best of them: words, doubts, ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from servebench.analysis import stats, throughput, trust
from servebench.figures.selection import KINDS_OF_LOAD, load_size
from servebench.log.schema import Log
from servebench.show import layouts
from servebench.show.html.read import Point
from servebench.show.layouts import Layout, Study
from servebench.show.tables import latency, significant

RATE = "request_throughput_per_s"
LATENCIES = {"TTFT p99": "ttft_p99_s", "TPOT p99": "tpot_p99_s"}
WHOLE = {"E2E p99": "e2e_latency_p99_s"}  # of answers that are not streamed
ADVICE = {
    "not settled": "It had not settled: measure longer (--num_requests) or at a lower load.",
    "buffered": "Its tokens came all at once, so TTFT and TPOT are not the server's.",
    **{
        kind: f"{each.what[:1].upper()}{each.what[1:]}: {each.remedy}, and measure again."
        for kind, each in trust.OF_MACHINE.items()
    },
    "stand-in": "The engine is a stand-in; this says nothing about DeepSpeed-FastGen.",
    "client unknown": "Its log does not say whether the client kept up.",
}


class Group(NamedTuple):
    """A layout of a study: its points in the order of load."""

    layout: Layout
    points: Sequence[Point]
    best: Point | None  # of those that can be trusted

    @property
    def gpus(self) -> int | None:
        """GPUs that its servers use; None where the logs do not know of any (on a CPU, or started by others)."""
        return throughput.known_gpus(self.layout.log)


def studies(points: Sequence[Point]) -> list[tuple[Study, list[Group]]]:
    """The studies of these points, and the layouts of each, the best first. A folder is named as its engine."""
    owner: dict[int, Point] = {}
    named: list[Log] = []
    for point in points:
        for run in point.runs:
            server = replace(run.log.server, backend=str(run.row["backend"]), label="")
            named.append(replace(run.log, server=server, status="ok"))  # failed points have rows, too
            owner[id(named[-1])] = point

    def point_of(runs: list[Log]) -> Point:
        return owner[id(runs[0])]

    def group(layout: Layout) -> Group:
        best = layout.best()
        points = [point_of(runs) for runs in layout.points]
        return Group(layout, points, point_of(best) if best else None)

    found = layouts.studies(named, lambda runs: point_of(runs).rate)
    return [(study, ordered(list(map(group, study.layouts)))) for study in found]


def by_gpu(groups: Sequence[Group]) -> bool:
    """Are layouts compared by GPU? They are if the logs know how many GPUs each has."""
    return all(group.gpus for group in groups)


def value(group: Group, per_gpu: bool) -> float:
    """By which layouts are compared; 0 of one without a point that can be trusted."""
    rate = (group.best and group.best.rate) or 0.0
    return rate / (group.gpus or 1) if per_gpu else rate


def ordered(groups: Sequence[Group]) -> list[Group]:
    """The best first."""
    per_gpu = by_gpu(groups)
    return sorted(groups, key=lambda group: value(group, per_gpu), reverse=True)


def words(group: Group, point: Point) -> str:
    """HTML: what a layout does at a point."""
    rate = point.mean(RATE) or 0.0
    each = f" ({significant(rate / group.gpus)} a GPU)" if group.gpus else ""
    asked = LATENCIES if point.log.run.stream else WHOLE
    times = [f"{name} {latency(seconds)}" for name, column in asked.items() if (seconds := point.mean(column))]
    return f"<strong>{significant(rate)} requests/s</strong>{each} at {load_words(point)}: {', '.join(times)}."


def load_words(point: Point) -> str:
    size, unit = load_size(point.log), KINDS_OF_LOAD[point.log.run.load.kind].unit
    return f"{size:g} {unit.removesuffix('s') if size == 1 and unit == 'clients' else unit}"


def warnings(group: Group, point: Point) -> list[str]:
    """What to beware of before this point is believed."""
    return [
        *(ADVICE.get(mark, f"{mark[:1].upper()}{mark[1:]}.") for mark in point.marks),
        *_evidence(point),
        *_edge(group, point),
    ]


def _evidence(point: Point) -> Iterator[str]:
    have, needed = point.samples, stats.SAMPLES_NEEDED[99]
    if have < needed:
        yield f"Too few requests for a reliable p99: {have:.0f}, and {needed} are needed (~)."
    if len(point.runs) == 1:
        yield "Measured once, so its spread is not known (--runs 3)."


def _edge(group: Group, point: Point) -> Iterator[str]:
    """What is known of higher loads."""
    higher = group.points[[each.number for each in group.points].index(point.number) + 1 :]
    doubted = [each for each in higher if each.rate is None]
    if not higher:
        yield "No higher load was measured; more may be possible."
    elif len(doubted) == len(higher):
        reasons = dict.fromkeys(mark for each in doubted for mark in each.marks)
        yield f"No higher load can be trusted ({', '.join(reasons)})."
