"""The parser of every program of ours: how its words are read, what it says of wrong ones, and what -h shows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, NoReturn

from servebench.cli import words
from servebench.cli.keys import is_key
from servebench.cli.nearest import did_you_mean

HELP_LINES = 12  # of a description; what is longer is told in docs/
PLAINER = {  # words of argparse
    "unrecognized arguments": "not understood",
    "the following arguments are required": "missing",
    "expected one argument": "its value is missing",
    "expected at least one argument": "its value is missing",
    "ignored explicit argument": "it takes no value, and was given",
}


class Format(argparse.RawDescriptionHelpFormatter):
    """Texts as they are written, options in two columns."""

    def __init__(self, prog: str, **how: Any) -> None:
        super().__init__(prog, **{"max_help_position": 30} | how)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """`N ...` for a list."""
        if action.nargs != "+":
            return super()._format_args(action, default_metavar)
        return f"{self._metavar_formatter(action, default_metavar)(1)[0]} ..."

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Names with hyphens stay whole."""
        return wrap(text, width, break_on_hyphens=False)


class Made(Exception):
    """A program has made its parser."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


class Shows(argparse.Action):
    """An option that shows a text, which is made only then, and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, const: Callable[[], str], help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, const=const, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(self.const(), end="")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """The words of a program. It says what is wrong with them in one line, without the page of usage above it."""

    hint = "-h lists all options"
    asked_for = False  # is the parser wanted (by completion.py), and not what it makes of any words?

    def __init__(self, **how: Any) -> None:
        """No option can be shortened: a key under a shortened name would not be recognised as one."""
        own: dict[str, Any] = {"formatter_class": Format, "allow_abbrev": False}
        super().__init__(**{"prog": Path(sys.argv[0]).name} | how | own)
        self.quoted: set[str] = set()  # options whose value is a command line itself

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if Parser.asked_for:
            raise Made(self)
        given = sys.argv[1:] if args is None else args
        ready = words.ready(given, self._option_string_actions, self.quoted, self._places())
        return super().parse_known_args(ready, namespace)

    def typed(self, args: Sequence[str]) -> dict[str, bool | str | list[str]]:
        """Each option as it was typed; where it was typed twice, the last counts."""
        found = words.parts(args, self._option_string_actions, self.quoted)
        return {part.action.dest: part.typed() for part in found if part.action}

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._refuse_unknown(sys.argv[1:] if args is None else args)
        return super().parse_args(args, namespace)

    def _places(self) -> list[argparse.Action]:
        """The positional arguments."""
        return [action for action in self._actions if not action.option_strings]

    def _refuse_unknown(self, given: Sequence[str]) -> None:
        """What stands behind an option that is not known may be a key, so it is not repeated."""
        own = words.before_dashes(given)[0]
        for before, part in pairwise(words.parts(own, self._option_string_actions, self.quoted)):
            if not part.option or part.action:
                continue
            if is_key(before.option) and not before.values:
                self.error(f"{before.option}: no value; if it begins with a dash, write {before.option}=VALUE")
            name = part.option if part.option.startswith("--") else part.option[:2]
            self.error(f"unknown option {name}{did_you_mean(name, self._option_string_actions)} ({self.hint})")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            wrong = f"{value!r} is not one of {', '.join(known)}{did_you_mean(str(value), known)}"
            raise argparse.ArgumentError(action, wrong)

    def error(self, message: str) -> NoReturn:
        place, _, rest = message.removeprefix("argument ").partition(": ")
        message = rest if place in map(_name, self._places()) else message.removeprefix("argument ")
        for theirs, ours in PLAINER.items():
            message = message.replace(theirs, ours)
        self.exit(2, f"{self.prog}: error: {message}\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()  # here, where a closed pipe is still expected
        super().exit(status, message)

    def format_help(self) -> str:
        """With one line of usage, and of a long description the beginning."""
        places = [f"[{_name(each)}]" if each.nargs == "?" else _name(each) for each in self._places()]
        self.usage = self.usage or " ".join([self.prog, *map(str.upper, places), "[options]"]).replace("%", "%%")
        self.description = shortened(self.description or "")
        return super().format_help()


def _name(place: argparse.Action) -> str:
    """Of a positional argument."""
    return str(place.metavar or place.dest)


def shortened(text: str) -> str:
    """Its first paragraphs, as many as fit; sentences as wide as the terminal, examples as they are."""
    kept: list[str] = []
    for paragraph in text.strip("\n").split("\n\n"):
        if kept and len("\n\n".join([*kept, paragraph]).splitlines()) > HELP_LINES:
            break
        prose = not any(line.startswith(" ") for line in paragraph.splitlines())
        kept.append("\n".join(wrap(paragraph, get_terminal_size().columns)) if prose else paragraph)
    return "\n\n".join(kept)
