"""The curves of every figure: its logs as points, a curve a folder, each with a look of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, cycle
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml
from matplotlib.colors import is_color_like
from matplotlib.lines import Line2D

from servebench import gathering, selection
from servebench.records import InputError, Log
from servebench.selection import Entry, Point, Trait
from servebench.stats import Interval

LOOKS = {  # colour and marker of a backend's curve
    "fastgen": ("#D55E00", "D"),
    "vllm": ("#0072B2", "o"),
    "llamacpp": ("#009E73", "s"),
    "aml": ("#CC79A7", "^"),
    "openai": ("#E69F00", "v"),
    "sglang": ("#56B4E9", "P"),
    "": ("#7F7F7F", "X"),
}
LINESTYLES = ("-", "--", ":", "-.")
OfLog = Callable[[Log], float | None]


class Placed(NamedTuple):
    """A point and where it lies: means over its runs with their intervals."""

    point: Point
    x: Interval
    y: Interval


@dataclass(frozen=True)
class Series:
    """One curve: its points in the order of load, and its look."""

    label: str
    points: tuple[Point, ...]
    color: str
    marker: str = "o"
    linestyle: str = "-"
    x_max: float | None = None
    y_max: float | None = None

    def placed(self, x: OfLog, y: OfLog) -> list[Placed]:
        """The points that have both values."""
        values = [(point, point.interval(x), point.interval(y)) for point in self.points]
        return [Placed(point, a, b) for point, a, b in values if a is not None and b is not None]


@dataclass(frozen=True)
class Group:
    """The curves of one figure, and the name and title that their logs have in common."""

    name: str
    title: str
    series: list[Series]

    @property
    def log(self) -> Log:
        """Any of them, for what they have in common."""
        return self.series[0].points[0].log


class PlotConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a folder's plot_config.yaml counts (not its polyfit_degree: points are joined, not fitted)."""

    label: str | None = None
    color: str | None = None
    marker: str | None = None
    linestyle: str | None = None
    x_max: float | None = None
    y_max: float | None = None


def add_every_load(parser: argparse.ArgumentParser) -> None:
    what = "a figure a load [the highest load alone; --filter chooses another]"
    parser.add_argument("--every_load", action="store_true", help=what)


def groups(
    args: argparse.Namespace,
    same: tuple[Trait, ...],
    by: Trait | None = None,
    over: Trait | None = None,
    one_of: tuple[Trait, ...] = (),
) -> Iterator[Group]:
    """The figures of a script: logs that have the traits `same` in common, a curve a folder (and a value of `by`).

    Those whose logs do not differ in `over` are left out. Of logs that differ in `one_of` (the load, the run) a
    figure shows one: of the highest load, unless `--every_load` has a figure for each. Requests are read figure by
    figure.
    """
    found, traits = selection.chosen(args), (*same, *one_of)
    looks = _looks(list(found))
    keys = _keys([entry.head for entry in chain(*found.values())], traits, over)
    if one_of and not args.every_load:
        keys = _heaviest(keys, len(same))
    if args.max_figures and len(keys) > args.max_figures:
        print(f"the first {args.max_figures} of {len(keys)} figures (--max_figures)", file=sys.stderr)
    for key in keys[: args.max_figures]:
        kept = {place: [e for e in some if _key(e.head, traits) == key] for place, some in found.items()}
        said = [(trait, value) for trait, value in zip(traits, key, strict=True) if value != ""]
        name = "-".join(trait.in_name.format(value) for trait, value in said)
        series = [curve for place, some in kept.items() for curve in _curves(looks[place], some, by)]
        yield Group(name, _title(said), [curve for curve in series if curve.points])


def _keys(logs: list[Log], traits: tuple[Trait, ...], over: Trait | None) -> list[tuple[Any, ...]]:
    """What each figure's logs have in common, in order."""
    values: dict[tuple[Any, ...], set[Any]] = {}
    for log in logs:
        values.setdefault(_key(log, traits), set()).add(over.of(log) if over else None)
    keys = sorted(key for key, differing in values.items() if over is None or len(differing) > 1)
    if not keys and over:
        what = over.in_title.format("").strip()
        print(f"nothing to draw: no logs that differ in {what} alone; measure more of them", file=sys.stderr)
    return keys


def _heaviest(keys: list[tuple[Any, ...]], common: int) -> list[tuple[Any, ...]]:
    """Of keys that are equal in so many traits, that of the highest load (the next trait), of its first run."""
    heaviest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for key in keys:
        best = heaviest.setdefault(key[:common], key)
        if key[common] > best[common]:
            heaviest[key[:common]] = key
    return list(heaviest.values())


def _key(log: Log, traits: tuple[Trait, ...]) -> tuple[Any, ...]:
    return tuple(trait.of(log) for trait in traits)


def _title(said: list[tuple[Trait, Any]]) -> str:
    """The model, and the rest in a line of its own."""
    model, *rest = (trait.in_title.format(value) for trait, value in said)
    return f"{model}\n{', '.join(rest)}"


def _curves(look: Series, some: list[Entry], by: Trait | None) -> list[Series]:
    """The curves of one folder: one, or one a value of `by` with a line style of its own."""
    logs = [log for _, log in gathering.read(entry.path for entry in some)]
    if by is None:
        return [replace(look, points=selection.points_of(logs))]
    values = sorted({by.of(log) for log in logs})
    return [
        replace(
            look,
            label=f"{look.label} {by.in_title.format(value)}",
            points=selection.points_of(log for log in logs if by.of(log) == value),
            linestyle=linestyle,
        )
        for value, linestyle in zip(values, cycle(LINESTYLES))
    ]


def _looks(places: list[Path]) -> dict[Path, Series]:
    """A curve without points for every folder: colours and labels that no other folder has."""
    names = [place.name for place in places]
    spare = cycle([look for name, look in LOOKS.items() if name not in names])
    looks = {}
    for i, place in enumerate(places):
        again = place.name in names[:i]
        color, marker = next(spare) if again or place.name not in LOOKS else LOOKS[place.name]
        look = Series(str(place) if again else place.name, (), color, marker)
        looks[place] = replace(look, **msgspec.to_builtins(_plot_config(place)))
    return looks


def _plot_config(place: Path) -> PlotConfig:
    file = place / "plot_config.yaml"
    try:
        given = yaml.safe_load(file.read_text()) if file.exists() else {}
        config = msgspec.convert(given, PlotConfig)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise InputError(f"{file}: {' '.join(str(error).split())}; correct it") from error
    if config.color is not None and not is_color_like(config.color):
        raise InputError(f"{file}: color {config.color!r} is no colour; give a name or #RRGGBB")
    if config.marker is not None and config.marker not in Line2D.markers:
        raise InputError(f"{file}: marker {config.marker!r} is none of matplotlib's; give one like o, s, D, ^")
    if config.linestyle is not None and config.linestyle not in LINESTYLES:
        raise InputError(f"{file}: linestyle {config.linestyle!r} is none of {' '.join(LINESTYLES)}; give one")
    return config
