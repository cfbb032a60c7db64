"""Which points of two sides are compared: those that were asked the same; and what else a reader has to know.

What varies within a side is matched (its loads, perhaps its TP sizes). What is the same all over each side, but
not in both, is what is compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from servebench.analysis import differences, machines, throughput, trust
from servebench.errors import InputError
from servebench.log import identity
from servebench.log.config import all_fields
from servebench.log.schema import Log
from servebench.show import points, tables
from servebench.show.points import LAYOUT, Runs

# How it was asked, and what the client did when it went wrong: it may differ. All else of a run has to be alike.
# (The template of a chat is part of the prompt: see work.)
CONDITIONS = (
    *("api", "stream", "request_timeout", "max_retries", "stop_when_overloaded", "repetition"),
    "dataset",  # its path; dataset_sha256 says what is in it
    *("check", "check_sha256"),  # questions beside the load, at most 5 % of it
)
MACHINES = "machines"
MOST_TELLING = ("engine_args", "engine_env", "engine", "urls")  # beside the layout, of what may be compared


@dataclass(frozen=True)
class Pair:
    """A point that both sides have, and its measured runs."""

    name: str
    group: str  # what the name begins with, all but the load
    load: str
    a: Runs
    b: Runs

    @property
    def gpus(self) -> tuple[int, int]:
        return throughput.gpus(self.a[0]), throughput.gpus(self.b[0])


@dataclass(frozen=True)
class Matched:
    """Two sides, point by point. `compared`: settings that are the same all over each side, and differ."""

    pairs: list[Pair]
    compared: list[str]
    alone: dict[str, list[str]]  # points without a partner, by why
    machines: tuple[str, str] | None = None  # what differs between those of A and those of B


def add_across(parser: argparse.ArgumentParser) -> None:
    help_ = "machines: compare results of unlike machines all the same"
    parser.add_argument("--across", choices=[MACHINES], default="", help=help_)


def matched(a: Runs, b: Runs, *, across: str = "") -> Matched:
    """The points of all logs of A and B, failed ones too. Raises InputError where nothing can be compared.

    `across`: what may differ nonetheless.
    """
    measured = [[log for log in side if log.status == "ok"] for side in (a, b)]
    names = points.telling(*measured)
    of_a, of_b = (_by_key(side, names, letter) for side, letter in zip(measured, "ab", strict=True))
    common = [key for key in of_a if key in of_b]
    if not common:
        raise InputError(_nothing_in_common(of_a, of_b, names))
    firsts = [of_a[key] for key in common]
    shown = points.named(firsts, _still_varying(firsts, names))
    pairs = [Pair(name, *_split(name), of_a[key], of_b[key]) for name, key in zip(shown, common, strict=True)]
    for pair in pairs:
        _refuse_unlike(pair)
    differ = next(filter(None, (machines.unlike(pair.a, pair.b) for pair in pairs)), None)
    if differ and across != MACHINES:
        words = f"A was measured on {differ[0]}, B on {differ[1]}; unlike machines are not compared"
        raise InputError(f"{words}; to do so all the same: --across machines")
    return Matched(pairs, _compared(pairs, names), _alone(a, b, names, set(common)), differ)


def _by_key(logs: Runs, names: Sequence[str], letter: str) -> dict[Any, Runs]:
    """The points of a side by what they are matched by."""
    found: dict[Any, Runs] = {}
    for runs in identity.by_point(logs):
        key = _key(runs[0], names)
        if key in found:
            (name,) = points.named([runs], names)
            twice = f"{letter.upper()} has {name} twice, from different servers"
            raise InputError(f"{twice}; put each in its own folder")
        found[key] = runs
    return found


def _key(log: Log, names: Sequence[str]) -> tuple[Any, ...]:
    return (*points.values(log, names), *points.asked(log.run))


def _split(name: str) -> tuple[str, str]:
    group, _, load = name.rpartition(", ")
    return group, load


def _still_varying(of_side: Sequence[Runs], names: Sequence[str]) -> list[str]:
    left = points.varying(runs[0] for runs in of_side)
    return [name for name in names if name in left]


def _nothing_in_common(of_a: dict[Any, Runs], of_b: dict[Any, Runs], names: Sequence[str]) -> str:
    """Why no point of A has a partner in B, and which filter would choose one."""
    sides = [[runs[0] for runs in side.values()] for side in (of_a, of_b)]
    shown = differences.shown(chain(*sides))
    ours, theirs = (
        {points.values(log, names): points.in_words(log, names, shown) for log in side} for side in sides
    )
    asked = [[points.asked(log.run) for log in side] for side in sides]
    if names and (not ours.keys() & theirs.keys() or set(asked[0]) & set(asked[1])):
        letter, several, others = ("a", sides[0], sides[1]) if len(ours) > 1 else ("b", sides[1], sides[0])
        have = f"A has {_listed(ours.values())}, B has {_listed(theirs.values())}"
        choice = filter_for(several[0], _apart(several, others, names), letter)
        return f"no point is in both: {have}; choose what to compare, as in {choice}"
    which = [{each[0] for each in side} for side in asked]
    have_a, have_b = (_listed(each[bool(which[0] & which[1])] for each in side) for side in asked)
    return f"no point is in both; A has {have_a}, B has {have_b}; measure both with the same settings"


def _apart(logs: Sequence[Log], others: Sequence[Log], names: Sequence[str]) -> list[str]:
    """Those of the settings that no log has in common with the others, if there are any; else all that vary."""
    values = [
        {name: {points.settings(log).get(name) for log in side} for name in names} for side in (logs, others)
    ]
    alien = [name for name in names if not values[0][name] & values[1][name]]
    return alien or [name for name in names if len(values[0][name]) > 1]


def _listed(texts: Iterable[str]) -> str:
    found = list(dict.fromkeys(texts))
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def filter_for(log: Log, names: Sequence[str], letter: str) -> str:
    """How a filter would be typed that chooses this log by these settings."""
    return f"--filter_{letter} {' '.join(_condition(log, name) for name in names)}"


def _condition(log: Log, name: str) -> str:
    value = log.server_facts.engine if name == "engine" else log.fields.get(name)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"'{name}={text}'" if set(text) & set(" \"[]{}'") else f"{name}={text}"


def _compared(pairs: Sequence[Pair], names: Sequence[str]) -> list[str]:
    """Settings, but those that points are matched by, with one value in A and another in B."""
    sides = [[points.settings(getattr(pair, side)[0]) for pair in pairs] for side in ("a", "b")]
    found = []
    for name in dict.fromkeys(name for side in sides for settings in side for name in settings):
        ours, theirs = ({settings.get(name) for settings in side} for side in sides)
        if name not in names and len(ours) == len(theirs) == 1 and ours != theirs:
            found.append(name)
    return found


def work(log: Log) -> dict[str, Any]:
    """What a server was asked to do, whatever it is."""
    asked = {name: value for name, value in all_fields(log.run).items() if name not in CONDITIONS}
    return asked | {"chat template": log.run.api == "chat"}


def _refuse_unlike(pair: Pair) -> None:
    name, (ours, theirs) = pair.name, (work(runs[0]) for runs in (pair.a, pair.b))
    for field in ours:
        if ours[field] != theirs[field]:
            what = f"{field} is {ours[field]} and {theirs[field]}"
            how = (
                "with the same --seed (without --seed, a running server gets a new one each time)"
                if field == "seed"
                else "alike"
            )
            raise InputError(f"{name}: the workloads differ: {what}; measure both {how}")
    hashes = [{log.run.repetition: log.client.get("workload_sha256") for log in runs} for runs in (pair.a, pair.b)]
    for run in hashes[0].keys() & hashes[1].keys():
        if hashes[0][run] != hashes[1][run]:
            alike = "measure both with the same --tokenizer and --seed"
            raise InputError(f"{name}: the prompts of run {run + 1} differ; {alike}")
    if not hashes[0].keys() & hashes[1].keys():
        raise InputError(f"{name}: no run has the same prompts in both; measure both with the same --runs")


def _alone(a: Runs, b: Runs, names: Sequence[str], common: set[Any]) -> dict[str, list[str]]:
    """Points that are not compared, and why: they failed on a side, or one side alone has them."""
    found: dict[Any, tuple[Log, dict[str, bool]]] = {}  # of each side that has the point: was a run measured?
    for letter, logs in (("A", a), ("B", b)):
        for log in logs:
            _, sides = found.setdefault(_key(log, names), (log, {}))
            sides[letter] = sides.get(letter, False) or log.status == "ok"
    rest = {key: each for key, each in found.items() if key not in common}
    shown = points.named([[log] for log, _ in rest.values()], names)
    reasons: dict[str, list[str]] = {}
    for name, (_, sides) in zip(shown, rest.values(), strict=True):
        reasons.setdefault(_why_alone(sides), []).append(name)
    return reasons


def _why_alone(sides: dict[str, bool]) -> str:
    failed = [letter for letter, good in sides.items() if not good]
    return f"failed in {' and '.join(failed)}" if failed else f"only in {next(iter(sides))}"


# What the sides are called.


def names_of(found: Matched, otherwise: tuple[str, str]) -> tuple[str, str]:
    """What A and B are called: by the settings that are compared; where none is, as given."""
    a, b = found.pairs[0].a[0], found.pairs[0].b[0]
    chosen = _naming(found)
    if not chosen:
        return otherwise
    if chosen == ["urls"]:
        return _values(a, b, "urls")
    chosen = chosen if "model" in chosen else ["backend", *chosen]
    shown = differences.shown((a, b))
    words = (points.in_words(a, chosen, shown), points.in_words(b, chosen, shown))
    gpus = {pair.gpus for pair in found.pairs}
    if len(gpus) > 1 or all(of_a == of_b for of_a, of_b in gpus):
        return words
    of_a, of_b = (tables.counted(n, "GPU") for n in gpus.pop())
    return f"{words[0]} ({of_a})", f"{words[1]} ({of_b})"


def _naming(found: Matched) -> list[str]:
    """The settings that name the sides: all of the layout that are compared, else the most telling one."""
    of_layout = [name for name in found.compared if name in LAYOUT]
    return of_layout or sorted(found.compared, key=lambda name: (*MOST_TELLING, name).index(name))[:1]


def notes(found: Matched, names: tuple[str, str]) -> list[str]:
    """What a reader has to know beside the table: what else differs, and whose times are not the engine's."""
    a, b = found.pairs[0].a[0], found.pairs[0].b[0]
    shown = [name for name in found.compared if name not in _naming(found)]
    words = [
        "{}: {} for {}, {} for {}".format(name, *chain(*zip(_values(a, b, name), names, strict=True)))
        for name in shown
    ]
    if found.machines:
        words.insert(0, f"unlike machines: {names[0]} on {found.machines[0]}, {names[1]} on {found.machines[1]}")
    stand_in = "is the stand-in of FastGen (fastgen-cpu), which says nothing about DeepSpeed-FastGen"
    sides = (
        (names[0], [log for pair in found.pairs for log in pair.a]),
        (names[1], [log for pair in found.pairs for log in pair.b]),
    )
    return words + [f"{side} {stand_in}" for side, runs in sides if any(map(trust.stand_in, runs))]


def _values(a: Log, b: Log, name: str) -> tuple[str, str]:
    """A setting of both sides, without its name."""
    shown = differences.shown((a, b))
    of_a, of_b = (shown(log, [name])[0].removeprefix(f"{name} ") for log in (a, b))
    return of_a, of_b
