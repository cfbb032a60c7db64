"""The curves of every figure: its logs as points, a curve a folder, each with a look of its own.

Logs of a folder that were measured with other settings (whole answers beside streamed ones, another engine_args)
are no points of one curve: each gets its own, and its label says what differs.
"""

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
from matplotlib.colors import is_color_like, to_hex, to_rgb
from matplotlib.lines import Line2D

from servebench.analysis import differences, trust
from servebench.analysis.stats import Interval
from servebench.errors import InputError
from servebench.figures import selection
from servebench.figures.selection import Entry, Point, Trait
from servebench.log import store
from servebench.log.schema import Log, RunConfig, model_name

LOOKS = {  # of a backend's curve: the engine's name as it writes itself, colour and marker
    "fastgen": ("DeepSpeed-FastGen", "#D55E00", "D"),
    "vllm": ("vLLM", "#0072B2", "o"),
    "llamacpp": ("llama.cpp", "#009E73", "s"),
    "aml": ("Azure ML", "#CC79A7", "^"),
    "openai": ("OpenAI-compatible", "#E69F00", "v"),
    "sglang": ("SGLang", "#56B4E9", "P"),
    "": ("", "#7F7F7F", "X"),
}
STAND_IN = "FastGen stand-in (CPU)"
LINESTYLES = ("-", "--", ":", "-.")
PALER = (0.0, 0.5, 0.25, 0.65)  # towards white, of the curves of one folder
MARKERS = ("o", "s", "^", "D", "v", "P")
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

    def within(self, placed: list[Placed]) -> list[Placed]:
        """Those that its plot_config.yaml does not cut off (x_max, y_max)."""
        x_max, y_max = (float("inf") if most is None else most for most in (self.x_max, self.y_max))
        return [p for p in placed if p.x.mean <= x_max and p.y.mean <= y_max]


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
    """The figures of a script: logs with the traits `same` in common, a curve a folder, settings, value of `by`.

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
        pairs = zip(traits, key, strict=True)
        shared = [pair for pair in pairs if pair[1] != "" and pair != (selection.PROMPT, 0)]
        name = "-".join(trait.in_name.format(value) for trait, value in shared)
        free = () if {selection.TP_SIZE, selection.REPLICAS} <= set(same) else selection.OF_SIZES
        series = [curve for place, some in kept.items() if some for curve in _curves(looks[place], some, by, free)]
        group = Group(name, _title(shared, series[0].points[0].log), series)
        if one_of:
            without = [
                look.label for place, look in looks.items() if not kept[place] and _has(found[place], same, key)
            ]
            _say(group, f"{', '.join(without)}: none of this load") if without else None
        elif same[-1] == selection.KIND:
            say_what_is_missing(group)
        say_what_is_unlike(group)
        yield group


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


def _has(some: list[Entry], same: tuple[Trait, ...], key: tuple[Any, ...]) -> bool:
    """Has a folder logs that share these traits with those of a figure?"""
    return any(_key(entry.head, same) == key[: len(same)] for entry in some)


def _title(shared: list[tuple[Trait, Any]], log: Log) -> str:
    """The model, and the rest in a line of its own."""
    _, *rest = (trait.in_title.format(value) for trait, value in shared)
    return f"{model_name(log.server.model)}\n{', '.join(rest)}"


def _curves(look: Series, some: list[Entry], by: Trait | None, free: tuple[str, ...]) -> list[Series]:
    """The curves of one folder: one for every value of `by` and all other settings, but those in `free`."""
    logs = [log for _, log in store.read(entry.path for entry in some)]
    names = [name for name in differences.differing(logs) if name not in free]
    curves: dict[tuple[Any, ...], list[Log]] = {}
    for log in logs:
        told = differences.settings(log)
        curves.setdefault((by.of(log) if by else "", *(told[name] for name in names)), []).append(log)
    keys = sorted(curves, key=lambda key: (key[0], -len(curves[key]), key))
    return [
        _variant(look, number, [by.in_title.format(key[0])] if by else [], key[1:], curves[key])
        for number, key in enumerate(keys)
    ]


def _variant(look: Series, number: int, size: list[str], differs: tuple[str, ...], logs: list[Log]) -> Series:
    """One of the curves of a folder: the colour of the others but paler, another marker and line."""
    name = look.label
    if any(map(trust.stand_in, logs)):
        name = STAND_IN if name == LOOKS["fastgen"][0] else f"{name} ({STAND_IN})"
    label = ", ".join([" ".join([name, *size]), *(words.removeprefix("backend ") for words in differs)])
    look = replace(look, label=label, points=selection.points_of(logs))
    if not number:
        return look
    pale = PALER[number % len(PALER)]
    red, green, blue = (part + (1 - part) * pale for part in to_rgb(look.color))
    others = [marker for marker in MARKERS if marker != look.marker]
    others = others[1:] + others[:1]
    line = LINESTYLES[(LINESTYLES.index(look.linestyle) + number) % len(LINESTYLES)]
    return replace(look, color=to_hex((red, green, blue)), marker=others[number % len(others)], linestyle=line)


def say_what_is_missing(group: Group) -> None:
    """Name what a reader of the figure could overlook: a curve of one point, loads that one curve alone has."""
    loads = {series.label: {selection.load_of(point.log) for point in series.points} for series in group.series}
    if all(len(of_one) == 1 for of_one in loads.values()):
        _say(group, "a single load, no curve; measure more of them")
    for label, own in loads.items() if len(loads) > 1 else ():
        others = set().union(*(of_one for other, of_one in loads.items() if other != label))
        if alone := sorted(own - others):
            kind = {"clients": "clients", "rate": "requests/s", "trace": "times the trace's speed"}
            words = ", ".join(f"{load:g}" for load in alone)
            _say(group, f"{label} alone has {words} {kind[group.log.run.load[0]]}")


def say_what_is_unlike(group: Group) -> None:
    """Name what the curves of a figure were not asked alike, and a curve that is not what its folder says."""
    logs = [series.points[0].log for series in group.series]
    unlike = [
        name for name in differences.differing(logs) if name in RunConfig.__struct_fields__ and name != "api"
    ]
    for name in unlike if len(logs) > 1 else ():
        told: dict[str, list[str]] = {}
        for series in group.series:
            words = differences.settings(series.points[0].log)[name]
            told.setdefault(words, []).append(series.label.replace(f", {words}", ""))
        _say(group, "not measured alike: " + "; ".join(f"{w} ({', '.join(who)})" for w, who in told.items()))
    if any(map(trust.stand_in, logs)):
        _say(group, f"{STAND_IN}: MII around another engine; it says nothing about DeepSpeed-FastGen")


def _say(group: Group, words: str) -> None:
    print(f"{group.name}: {words}", file=sys.stderr)


def _looks(places: list[Path]) -> dict[Path, Series]:
    """A curve without points for every folder: colours and labels that no other folder has."""
    names = [place.name for place in places]
    spare = cycle([look for name, look in LOOKS.items() if name not in names])
    looks = {}
    for i, place in enumerate(places):
        again = place.name in names[:i]
        label = str(place) if again else LOOKS.get(place.name, (place.name,))[0]
        _, color, marker = next(spare) if again or place.name not in LOOKS else LOOKS[place.name]
        look = Series(label, (), color, marker)
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
