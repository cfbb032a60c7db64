"""`--filter FIELD=VALUE`: only logs that were measured with this, any field of server or run."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from servebench.analysis import cache, cost
from servebench.cli.nearest import did_you_mean
from servebench.log import store
from servebench.log.config import KINDS, ServerConfig
from servebench.log.schema import Log

FIELDS = {f.name: f.type for kind in (ServerConfig, *KINDS) for f in msgspec.structs.fields(kind)}
FIELDS["engine"] = str  # its name and version, as it said
READERS: tuple[Callable[[str, Any], Any], ...] = (  # of a value, in a field's type
    lambda text, kind: msgspec.convert(text, kind, strict=False),
    lambda text, kind: msgspec.json.decode(text, type=kind),
    lambda text, kind: msgspec.convert(shlex.split(text), kind, strict=False),  # words, as of engine_args
)


def add_filter(parser: argparse.ArgumentParser, name: str, of: str = "logs") -> None:
    wanted = f"only {of} with this, any field of server or run, or engine; given twice, either value matches"
    parser.add_argument(name, nargs="+", type=_condition, default=[], metavar="FIELD=VALUE", help=wanted)


def _condition(text: str) -> tuple[str, Any]:
    """An argparse type: FIELD=VALUE, the value in the field's type (objects as JSON)."""
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or name not in FIELDS:
        raise argparse.ArgumentTypeError(_unknown(name, text))
    faults = []
    for read in READERS:
        try:
            return name, read(value, FIELDS[name])
        except (msgspec.MsgspecError, ValueError) as fault:
            faults.append(str(fault))
    objects = "; objects are JSON" if "object" in faults[0] else ""
    raise argparse.ArgumentTypeError(f"{text!r}: {faults[0]}{objects}")


def _unknown(name: str, text: str) -> str:
    if "=" not in text:
        return f"{text!r} is not FIELD=VALUE, such as tp_size=2"
    return (
        f"there is no field {name}{did_you_mean(name, FIELDS)} (fields have the names of options, docs/options.md)"
    )


def passes(log: Log, conditions: Sequence[tuple[str, Any]]) -> bool:
    """Has the log what --filter asks for?"""
    values = log.fields | {"engine": log.server_facts.engine}
    given = {name: [value for other, value in conditions if other == name] for name, _ in conditions}
    return all(values[name] in either for name, either in given.items())


def passing(
    folder: Path, conditions: Sequence[tuple[str, Any]], price: float | None, derive: Callable[[Log], object]
) -> Iterator[tuple[Path, Log]]:
    """The logs of a folder that pass, with this price if there is one. `derive` is for cache.load."""
    load = partial(cache.load, derive=lambda log: passes(log, conditions) and derive(log))
    found = cost.priced(store.load_folder(folder, load), price)
    return ((path, log) for path, log in found if passes(log, conditions))
