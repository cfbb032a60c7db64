"""An option is declared once: as a field of a struct, annotated with what `-h` says of it.

    class Rate(msgspec.Struct):
        request_rate: Annotated[float, Meta(ge=1e-6), Option("requests/s", LOAD, "R", swept=True)]

The flag, its type, bounds, choices and default follow from the field. So do the entry of a --config file, the key
in the log, --filter and the column of the spreadsheet, which all have the field's name.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec
import yaml
from msgspec import inspect

from servebench.cli.commandline import non_empty, number
from servebench.errors import InputError


@dataclass(frozen=True)
class Option:
    """How a field is given. What the field's type says already is not repeated here."""

    help: str
    group: str  # title of its part of `-h`
    metavar: str | None = None
    swept: bool = False  # takes several values, each of which is measured
    parse: Callable[[str], Any] | None = None  # an argparse type, for what is not a plain text or number
    choices: tuple[str, ...] = ()  # if not all that the field can be
    as_one_text: bool = False  # a tuple that comes as one text, which `parse` reads
    const: Any = None  # what the flag alone stands for, where its value may be left out


class Declared(NamedTuple):
    """An option and the field that declares it."""

    name: str
    option: Option
    type: inspect.Type
    default: Any

    @property
    def several(self) -> bool:
        """Does it take several words of the command line?"""
        of_values = isinstance(self.type, inspect.VarTupleType) and not self.option.as_one_text
        return self.option.swept or of_values


@cache
def options_of(*kinds: type[msgspec.Struct]) -> tuple[Declared, ...]:
    """The options that these structs declare, each once, in their order."""
    found: dict[str, Declared] = {}
    for kind in kinds:
        hints = get_type_hints(kind, include_extras=True)
        for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]
            for note in getattr(hints[field.name], "__metadata__", ()):
                if isinstance(note, Option):
                    declared = Declared(field.name, note, _known(field.type), field.default)
                    found.setdefault(field.name, declared)
    return tuple(found.values())


def _known(found: inspect.Type) -> inspect.Type:
    """The type of a value that is given: of `float | None` a float."""
    if isinstance(found, inspect.UnionType):
        return next(kind for kind in found.types if not isinstance(kind, inspect.NoneType))
    return found


def add_options(
    parser: argparse.ArgumentParser,
    titles: Iterable[str],
    declared: Iterable[Declared],
    choices: Mapping[str, Sequence[str]],
) -> None:
    """Add the flags, in groups of these titles. What is not given is not in the namespace.

    `choices` are those that only the caller knows, by option.
    """
    groups = {title: parser.add_argument_group(title) for title in titles}
    for each in declared:
        _add(groups[each.option.group], each, choices.get(each.name))


def _add(group: Any, each: Declared, choices: Sequence[str] | None) -> None:
    option, flag = each.option, f"--{each.name}"
    about: dict[str, Any] = {"default": argparse.SUPPRESS, "help": f"{option.help}{_usual(each)}"}
    if isinstance(each.type, inspect.BoolType):
        group.add_argument(flag, action="store_true", **about)
        if each.default is True:
            about["help"] = f"the opposite of {flag}"
            group.add_argument(f"--no_{each.name}", dest=each.name, action="store_false", **about)
        return
    if each.several:
        about["nargs"] = "+"
    if option.const is not None:
        about |= {"nargs": "?", "const": option.const}
    choices = choices or option.choices or getattr(each.type, "values", None)
    about |= {"choices": choices} if choices else {"type": _parse_of(each), "metavar": option.metavar}
    group.add_argument(flag, **about)


def _usual(each: Declared) -> str:
    """The default in brackets, unless the help says in its own words what happens without the option."""
    said = each.option.help.endswith("]") or isinstance(each.default, bool)
    if said or not isinstance(each.default, int | float | str | Path) or each.default == "":
        return ""
    return f" [{each.default:g}]" if isinstance(each.default, int | float) else f" [{each.default}]"


def _parse_of(each: Declared) -> Callable[[str], Any]:
    """The argparse type of one value."""
    of = each.type.item_type if isinstance(each.type, inspect.VarTupleType) else each.type
    if each.option.parse:
        return each.option.parse
    if isinstance(of, inspect.IntType):
        return number(int, of.ge or 0, float("inf") if of.le is None else of.le)
    if isinstance(of, inspect.FloatType):
        return number(float, of.ge or 0, float("inf") if of.le is None else of.le)
    return non_empty


def words_of_file(path: str, declared: Iterable[Declared]) -> list[str]:
    """The options of a --config file, as they would be typed. Raises InputError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        given, as_typed = yaml.safe_load(text) or {}, yaml.load(text, yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--config {path}: {' '.join(str(error).split())}; give a YAML file") from error
    usual = {each.name: each.default for each in declared}
    unknown = [str(name) for name in given if name not in usual] if isinstance(given, dict) else [str(given)]
    if unknown:
        raise InputError(f"--config {path}: {unknown[0][:80]} is not an option; write NAME: VALUE, as in -h")
    asked = {name: value for name, value in given.items() if not value is usual[name] is False}
    return [word for name, value in asked.items() for word in _words(name, value, as_typed[name])]


def _words(name: str, value: Any, as_typed: Any) -> list[str]:
    """`as_typed` has texts: YAML would take 512:4 for a number in base 60."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    if isinstance(value, list):
        return [f"--{name}", *as_typed]
    return [f"--{name}={json.dumps(value) if isinstance(value, dict) else as_typed}"]
