"""An option is declared once: as a field of a struct, annotated with what `-h` says of it.

    class Rate(msgspec.Struct):
        request_rate: Annotated[float, Meta(ge=1e-6), Option("requests/s", LOAD, "R", swept=True)]

The flag, its type, bounds, choices and default follow from the field. So do the entry of a --config file, the key
in the log, --filter and the column of the spreadsheet, which all have the field's name.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec
import yaml
from msgspec import inspect

from servebench.cli.commandline import Number, json_object, non_empty
from servebench.cli.nearest import did_you_mean
from servebench.cli.parser import Parser
from servebench.cli.words import as_value
from servebench.errors import InputError

HELP_ALL = "--help_all lists all options"


@dataclass(frozen=True)
class Option:
    """How a field is given. What the field's type says already is not repeated here."""

    help: str
    group: str  # title of its part of `-h`
    metavar: str | None = None
    swept: bool = False  # takes several values, each of which is measured
    parse: Callable[[str], Any] | None = None  # an argparse type, for what is not a plain text or number
    choices: tuple[str, ...] = ()  # if not all that the field can be
    quoted: bool = False  # each value is a command line itself, in quotes
    as_one_text: bool = False  # a tuple that comes as one text, which `parse` reads
    const: Any = None  # what the flag alone stands for, where its value may be left out
    common: bool = False  # is it among the dozen that `-h` shows?


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
    parser: Parser, titles: Iterable[str], declared: Sequence[Declared], choices: Mapping[str, Sequence[str]]
) -> None:
    """Add the flags, in groups of these titles, or all as one. What is not given is not in the namespace.

    `choices` are those that only the caller knows, by option.
    """
    groups = {title: parser.add_argument_group(title) for title in titles}
    for each in declared:
        _add(groups.get(each.option.group, parser), each, choices)
    parser.quoted |= {f"--{each.name}" for each in declared if each.option.quoted}


def _add(group: Any, each: Declared, choices: Mapping[str, Sequence[str]]) -> None:
    option, flag = each.option, f"--{each.name}"
    words, usual = described(each)
    shown = f"{words} [{usual}]" if usual and not isinstance(each.type, inspect.BoolType) else words
    about: dict[str, Any] = {"default": argparse.SUPPRESS, "help": shown.replace("%", "%%")}
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
    known = _choices(each, choices)
    about |= {"choices": known} if known else {"type": _parse_of(each), "metavar": option.metavar}
    group.add_argument(flag, **about)


def _choices(each: Declared, choices: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return choices.get(each.name) or each.option.choices or tuple(getattr(each.type, "values", ()))


def values_of(each: Declared, choices: Mapping[str, Sequence[str]]) -> list[str]:
    """What stands behind the flag, in words: [], ["N"], ["N", "..."] or the choices."""
    if isinstance(each.type, inspect.BoolType):
        return []
    known = _choices(each, choices)
    value = f"{{{','.join(known)}}}" if known else str(each.option.metavar)
    return [f"[{value}]" if each.option.const is not None else value, *["..."] * each.several]


def described(each: Declared) -> tuple[str, str]:
    """(what the option does, its default): the default is in brackets where the field's own does not say it."""
    words, bracket, usual = each.option.help.removesuffix("]").partition(" [")
    if bracket:
        return words, usual
    if isinstance(each.default, bool):
        return words, "on" if each.default else "off"
    if not isinstance(each.default, int | float | str | Path) or each.default == "":
        return words, ""
    return words, f"{each.default:g}" if isinstance(each.default, int | float) else str(each.default)


def _parse_of(each: Declared) -> Callable[[str], Any]:
    """The argparse type of one value."""
    of = each.type.item_type if isinstance(each.type, inspect.VarTupleType) else each.type
    if each.option.parse:
        return each.option.parse
    if isinstance(of, inspect.IntType):
        return Number(int, of.ge or 0, float("inf") if of.le is None else of.le)
    if isinstance(of, inspect.FloatType):
        return Number(float, of.ge or 0, float("inf") if of.le is None else of.le)
    return non_empty


def words_of_file(path: str, declared: Iterable[Declared]) -> list[str]:
    """The options of a --config file, as they would be typed. Raises InputError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        given, as_typed = yaml.safe_load(text) or {}, yaml.load(text, yaml.BaseLoader) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--config {path}: {' '.join(str(error).split())}; give a YAML file") from error
    known = {each.name: each for each in declared}
    if not isinstance(given, dict):
        raise InputError(
            f"--config {path}: it is a {type(given).__name__}; write a line NAME: VALUE for each option"
        )
    given, as_typed = ({str(k).replace("-", "_"): v for k, v in read.items()} for read in (given, as_typed))
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"--config {path}: unknown option {name[:80]}{did_you_mean(name, known)} ({HELP_ALL})"
            )
        if isinstance(value, dict) and known[name].option.parse is not json_object:
            raise InputError(f"--config {path}: {name} is a mapping; write its value, or a list of values")
        if isinstance(value, list) and not known[name].several:
            raise InputError(f"--config {path}: {name} is a list, and takes one value; give one")
        if isinstance(value, list) and not all(isinstance(each, str) for each in as_typed[name]):
            raise InputError(f"--config {path}: {name} has a list or NAME: VALUE in its list; quote each value")
    asked = {name: value for name, value in given.items() if not value is known[name].default is False}
    return [word for name, value in asked.items() for word in _words(name, value, as_typed[name])]


def _words(name: str, value: Any, as_typed: Any) -> list[str]:
    """`as_typed` has texts: YAML would take 512:4 for a number in base 60."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(as_value, as_typed)]
    return [f"--{name}={json.dumps(value) if isinstance(value, dict) else as_typed}"]


def command_of(options: Mapping[str, Any]) -> str:
    """The command line of these options, as `Parser.typed` gives them; "" without any."""
    words = [word for name, value in options.items() for word in _words(name, value, value)]
    return shlex.join(["python", "run_benchmark.py", *words]) if words else ""


def file_of(options: Mapping[str, Any], secret: Collection[str]) -> str:
    """A --config file of these options. The secret ones are comments."""
    return "".join(f"{'# ' * (name in secret)}{name}: {_yaml(value)}\n" for name, value in options.items())


def _yaml(value: Any) -> str:
    """On one line, in ASCII, so that it survives every terminal."""
    value = [*map(_number, value)] if isinstance(value, list) else _number(value)
    return yaml.safe_dump([value], default_flow_style=True, width=float("inf"))[1:-2]


def _number(value: Any) -> Any:
    """A text as a number if it reads the same, so that no quotes are around it."""
    number = json.loads(value) if re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]+)?", str(value)) else value
    return number if str(number) == value else value
