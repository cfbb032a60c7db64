"""The figures of a script, each with its curves: one curve a folder of logs, one point a load.

Logs of a folder that were measured with other settings (non-streamed answers, another engine_args) do not belong
to one curve: each combination of settings gets its own, and its label names them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import Any, NamedTuple

from msgspec.structs import asdict, replace

from servebench.analysis import cost, differences, metrics, samples, stationarity, trust
from servebench.analysis.cache import once_a_log
from servebench.analysis.metrics import OfPoint, OfRequests
from servebench.analysis.stats import Interval, majority
from servebench.figures import selection, styles
from servebench.figures.axes import Coordinate, Quantity
from servebench.figures.selection import LOAD_KIND, MODEL, PROMPT, Entry, Trait
from servebench.figures.styles import Style
from servebench.log import store
from servebench.log.config import all_fields
from servebench.log.identity import by_point
from servebench.log.schema import Log, model_name

CHANGE_WITH_SIZE = ("urls", "gpus")  # settings that change with tp_size and num_replicas
STAND_IN = "FastGen stand-in (CPU)"


@dataclass(frozen=True)
class Point:
    """One point of a curve: the logs of its runs."""

    runs: tuple[Log, ...]

    @property
    def log(self) -> Log:
        """Any of them, for what they have in common."""
        return self.runs[0]

    def doubt(self, metric: str) -> trust.Doubt | None:
        """Why this metric of the point decides nothing."""
        return trust.of_point(self.runs, metric)

    def is_buffered(self, metric: str) -> bool:
        """Is this a metric of tokens, and did the tokens of an answer come all at once in most runs?"""
        return metrics.named(metric).of_tokens and majority(sum(map(trust.buffered, self.runs)), len(self.runs))

    @property
    def overloaded(self) -> bool:
        return majority(sum(log.quality.overloaded for log in self.runs), len(self.runs))

    @property
    def failed_share(self) -> float:
        return samples.failed_share(*self.runs)

    def interval(self, of: Coordinate) -> Interval | None:
        """The mean over runs with its 95 % interval, if there is one; None where no run has a value."""
        return stationarity.interval(self.runs, partial(value, of) if isinstance(of, str) else of)


def value(column: str, log: Log) -> float | None:
    """The value of a column of the registry."""
    metric = metrics.named(column)
    assert isinstance(metric, OfPoint | OfRequests), f"{column} is not known from a log alone"
    return _values(log, metric)[column]


@once_a_log
def _values(log: Log, metric: OfPoint | OfRequests) -> metrics.Values:
    return metric.values(log)


class PlotPoint(NamedTuple):
    """A point with its coordinates: means over its runs with their intervals."""

    point: Point
    x: Interval
    y: Interval


class Series(Style, frozen=True):
    """One curve: its style, and its points in the order of load."""

    points: tuple[Point, ...] = ()

    @property
    def log(self) -> Log:
        """Any of them, for what they have in common."""
        return self.points[0].log

    def plot_points(self, x: Coordinate, y: Coordinate) -> list[PlotPoint]:
        """The points that have both values."""
        values = [(point, point.interval(x), point.interval(y)) for point in self.points]
        return [PlotPoint(point, a, b) for point, a, b in values if a is not None and b is not None]


@dataclass(frozen=True)
class Group:
    """The curves of one figure, and the name and title that their logs have in common."""

    name: str
    title: str
    series: list[Series]

    @property
    def log(self) -> Log:
        """Any of them, for what they have in common."""
        return self.series[0].log

    @property
    def logs(self) -> list[Log]:
        return [log for series in self.series for point in series.points for log in point.runs]

    def look_of(self, log: Log) -> Style:
        """That of the folder of this log, without what its variants have of their own."""
        own = next(s for s in self.series if any(log is run for point in s.points for run in point.runs))
        return next(series for series in self.series if series.marker == own.marker)

    def note(self, words: str) -> None:
        print(f"{self.name}: {words}", file=sys.stderr)


def points_of(logs: Iterable[Log]) -> tuple[Point, ...]:
    """Logs as points, in the order of load."""
    return tuple(Point(tuple(runs)) for runs in by_point(sorted(logs, key=selection.load_size)))


def groups(
    args: argparse.Namespace,
    common: tuple[Trait, ...],
    curve_by: Trait | None = None,
    must_vary: Trait | None = None,
    pick_highest: tuple[Trait, ...] = (),
    with_failed: bool = False,
) -> Iterator[Group]:
    """The figures of a script: each draws the logs that have the traits `common` in common.

    Each folder, combination of settings, and value of `curve_by` (or of `--by`) has a curve. Figures whose logs do
    not differ in `must_vary` are left out. Where logs differ in `pick_highest` (the load, the run), only the
    highest load is drawn, unless `--every_load` asks for a figure each. Requests are read figure by figure.
    """
    found, by = selection.chosen(args, with_failed), getattr(args, "by", None) or curve_by
    common = _without_axes(common, getattr(args, "x", None), by)
    traits, style_of = (*common, *pick_highest), styles.of_folders(list(found))
    fields = {name for trait in common for name in trait.fields}
    of_curve = by.fields if by else ()
    ignored, shown = (
        {*(() if fields.issuperset(selection.SIZES) else CHANGE_WITH_SIZE), *of_curve},
        {*fields, *of_curve},
    )
    for key in _keys(args, [entry.head for entry in chain(*found.values())], common, must_vary, pick_highest):
        of_key = {folder: [e for e in logs if _key(e.head, traits) == key] for folder, logs in found.items()}
        values = sorted({by.of(entry.head) for entry in chain(*of_key.values())}) if by else []
        series = [
            curve
            for folder, logs in of_key.items()
            for curve in _curves(style_of[folder], _with_requests(logs, args.gpu_hour_price), by, values, ignored)
        ]
        group = _group(traits, key, series)
        if pick_highest:
            absent = [folder for folder, logs in found.items() if not of_key[folder] and _has(logs, common, key)]
            if absent:
                group.note(f"{', '.join(style_of[folder].label for folder in absent)}: no logs at this load")
        elif LOAD_KIND in common and not shown.intersection(selection.LOAD_FIELDS):
            _note_missing_loads(group)
        _note_unequal_settings(group, ignored)
        yield group


def _without_axes(common: tuple[Trait, ...], x: Quantity | None, by: Trait | None) -> tuple[Trait, ...]:
    """What the logs of a figure have in common: not what its axis or its curves show.

    A curve over a setting is one of a single load.
    """
    shown = {*(x.fields if x else ()), *(by.fields if by else ())}
    common = tuple(trait for trait in common if not shown.intersection(trait.fields))
    over_setting = x and x.fields and not shown.intersection(selection.LOAD_FIELDS)
    return (*common, selection.LOAD) if over_setting else common


def _keys(
    args: argparse.Namespace,
    logs: list[Log],
    common: tuple[Trait, ...],
    must_vary: Trait | None,
    pick_highest: tuple[Trait, ...],
) -> list[tuple[Any, ...]]:
    """What the logs of each figure have in common, in order: values of the traits `common` and `pick_highest`."""
    values: dict[tuple[Any, ...], set[Any]] = {}
    for log in logs:
        values.setdefault(_key(log, (*common, *pick_highest)), set()).add(must_vary.of(log) if must_vary else None)
    keys = sorted(key for key, differing in values.items() if must_vary is None or len(differing) > 1)
    if not keys and must_vary:
        what = must_vary.in_title.format("").strip()
        print(f"nothing to draw: no logs that differ only in {what}; measure more", file=sys.stderr)
    if pick_highest and not args.every_load:  # the load is the first of them; of its runs the first is drawn
        n = len(common)
        keys = [max(alike, key=lambda key: key[n]) for _, alike in groupby(keys, lambda key: key[:n])]
    if args.max_figures and len(keys) > args.max_figures:
        print(f"the first {args.max_figures} of {len(keys)} figures (--max_figures)", file=sys.stderr)
    return keys[: args.max_figures]


def _key(log: Log, traits: tuple[Trait, ...]) -> tuple[Any, ...]:
    return tuple(trait.of(log) for trait in traits)


def _has(entries: list[Entry], common: tuple[Trait, ...], key: tuple[Any, ...]) -> bool:
    """Does a folder have logs that share the traits `common` with those of a figure?"""
    return any(_key(entry.head, common) == key[: len(common)] for entry in entries)


def _group(traits: tuple[Trait, ...], key: tuple[Any, ...], series: list[Series]) -> Group:
    """Name and title show the values of the traits. The title begins with the model, on its own line."""
    shown = [pair for pair in zip(traits, key, strict=True) if pair[1] != "" and pair != (PROMPT, 0)]
    name = "-".join(trait.in_name.format(value) for trait, value in shown)
    rest = ", ".join(trait.in_title.format(value) for trait, value in shown if trait is not MODEL)
    model = model_name(series[0].log.server.model) if MODEL in traits else ""
    return Group(name, "\n".join(filter(None, [model, rest])), series)


def _with_requests(entries: list[Entry], price: float | None) -> list[Log]:
    """Their logs, with this price if there is one."""
    return [cost.with_price(log, price) for _, log in store.read(entry.path for entry in entries)]


def _curves(
    style: Style, logs: list[Log], by: Trait | None, values: list[Any], ignored: Collection[str]
) -> list[Series]:
    """The curves of one folder: one for each of the `values` of `by` and all settings but those that are ignored.

    A value has the same line in every folder, so that its curves can be found beside each other.
    """
    names = [name for name in differences.differing(logs) if name not in ignored]
    curves: dict[tuple[str, ...], list[Log]] = {}
    for log in logs:
        settings = differences.settings(log)
        curves.setdefault(tuple(settings[name] for name in names), []).append(log)
    found, shown = [], differences.shown(logs)

    def label(log: Log, engine: str, value: Any) -> str:
        title = [f"{engine} {by.in_title.format(value)}" if by else engine]
        if by and by.name in differences.FLAGS:
            title = [engine, *shown(log, [by.name])]
        words = [word.removeprefix("backend ") for word in shown(log, names)]
        return ", ".join(dict.fromkeys([*title, *words]))

    for number, words in enumerate(
        sorted(curves, key=lambda words: (-len(curves[words]), *map(store.numbers_by_size, words)))
    ):
        of_words = curves[words]
        for place, value in enumerate(values or [None]):
            of_curve = [log for log in of_words if not by or by.of(log) == value]
            if of_curve:
                named = replace(style, label=label(of_curve[0], _engine(style.label, of_curve), value))
                look = styles.variant(named, number * max(1, len(values)) + place)
                found.append(Series(**asdict(look), points=points_of(of_curve)))
    return found


def _engine(label: str, logs: list[Log]) -> str:
    """The label of a folder, which is not FastGen's if a stand-in was measured."""
    if not any(map(trust.stand_in, logs)):
        return label
    return STAND_IN if label == styles.BACKENDS["fastgen"].label else f"{label} ({STAND_IN})"


def _note_missing_loads(group: Group) -> None:
    """Name what a reader of the figure could overlook: curves of one point, loads that only one curve has."""
    loads = {series.label: {selection.load_size(point.log) for point in series.points} for series in group.series}
    if all(len(of_one) == 1 for of_one in loads.values()):
        group.note("a single load makes no curve; measure more loads")
    for label, own in loads.items() if len(loads) > 1 else ():
        others = set().union(*(of_one for other, of_one in loads.items() if other != label))
        if alone := sorted(own - others):
            words = ", ".join(f"{load:g}" for load in alone)
            group.note(f"{label} alone has {words} {selection.KINDS_OF_LOAD[group.log.run.load.kind].unit}")


def _note_unequal_settings(group: Group, shown: Collection[str]) -> None:
    """Name the settings of the run in which curves differ, and a curve that is not what its folder says."""
    logs = [series.log for series in group.series]
    unequal = [n for n in differences.differing(logs) if n in all_fields(logs[0].run) and n not in ("api", *shown)]
    for name in unequal:
        labels: dict[str, list[str]] = {}
        for series, log in zip(group.series, logs, strict=True):
            words = differences.settings(log)[name]
            labels.setdefault(words, []).append(series.label.replace(f", {words}", ""))
        group.note("not measured alike: " + "; ".join(f"{w} ({', '.join(who)})" for w, who in labels.items()))
    if any(map(trust.stand_in, logs)):
        group.note(f"{STAND_IN}: MII around another engine; it says nothing about DeepSpeed-FastGen")
