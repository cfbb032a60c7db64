"""What every command line of ours does with bad input: one line that says what is wrong, exit status 2."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import re
import shlex
import sys
from collections.abc import Callable
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from servebench.errors import InputError, ServerFailed


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the page of usage above it."""

    def error(self, message: str) -> NoReturn:
        said, unknown, words = message.partition("unrecognized arguments: ")
        options = [word.partition("=")[0] for word in words.split() if word.startswith("-")]
        words = " ".join(options) or words  # what stands behind an option that we do not know may be a key
        self.exit(2, f"{self.prog}: error: {said}{unknown}{words} (-h explains every option)\n")


def number(kind: type[int] | type[float], least: float, most: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: a finite number of this kind between the bounds."""

    def parse(text: str) -> float:
        wanted = "a whole number" if kind is int else "a number"
        bounds = f"of at least {least:g}" + (f" and at most {most:g}" if most != float("inf") else "")
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= min(most, sys.float_info.max):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted} {bounds}")
        return value

    return parse


PLAIN = {"±": "+-", "×": "x", "→": "->", "≤": "<=", "≥": ">=", "–": "-", "—": "-", "…": "...", "✓": "+", "✗": "x"}
COUNT = number(int, 1)


def non_empty(text: str) -> str:
    """An argparse type: a text that is not blank, as that of an unset shell variable is."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give one or leave the option out")
    return text


def folder(text: str) -> Path:
    """An argparse type: an existing folder."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder; give one that run_benchmark.py wrote to")
    return Path(text)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The folder of logs that a command reads."""
    parser.add_argument("folder", type=folder, nargs="?", default="results", help="folder of logs [results]")


def share(text: str, least: float = 0) -> float:
    """An argparse type: `5%` or `0.05`, at most all of it."""
    of_hundred, of_one = number(float, 100 * least, 100), number(float, least, 1)
    return of_hundred(text[:-1]) / 100 if text.endswith("%") else of_one(text)


def json_object(text: str) -> dict[str, Any]:
    """An argparse type: a JSON object."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise argparse.ArgumentTypeError(f"it is not a JSON object: {error}") from error


def header(text: str) -> tuple[str, str]:
    """An argparse type: `NAME:VALUE`. What it says does not show the value, which may be a key."""
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not (colon and re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII)):
        raise argparse.ArgumentTypeError("one of them is not NAME:VALUE")
    if not (value.isprintable() and all(ord(character) < 256 for character in value)):
        raise argparse.ArgumentTypeError(f"the value of {name} has a character that no header can carry")
    if name.lower() in ("content-length", "transfer-encoding"):
        raise argparse.ArgumentTypeError(f"{name} follows from the request; leave it out")
    return name, value


def tokens_and_groups(text: str) -> tuple[int, int]:
    """An argparse type: `TOKENS:GROUPS`."""
    tokens, colon, groups = text.partition(":")
    if not (colon and tokens.isdecimal() and groups.isdecimal() and int(tokens) and int(groups)):
        raise argparse.ArgumentTypeError(f"{text!r} is not TOKENS:GROUPS, such as 512:4")
    return int(tokens), int(groups)


def tp_and_replicas(text: str) -> tuple[int, int]:
    """An argparse type: `2x4` is tensor parallel size 2, 4 replicas."""
    tp_size, cross, replicas = text.lower().partition("x")
    if not (cross and tp_size.isdecimal() and replicas.isdecimal() and int(tp_size) and int(replicas)):
        raise argparse.ArgumentTypeError(f"{text!r} is not TPxREPLICAS; write such as 2x4")
    return int(tp_size), int(replicas)


def words_in_quotes(text: str) -> tuple[str, ...]:
    """An argparse type: words as a shell reads them."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; quote it as in a shell") from error


def to_ascii(error: UnicodeError) -> tuple[str, int]:
    """Handles characters that a terminal cannot show: gives their plain form, or a question mark."""
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in characters), error.end


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a program and exit with its status. Errors of its input go to stderr, in one line."""
    codecs.register_error("to_ascii", to_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="to_ascii")
    try:
        status = main()
        sys.stdout.flush()
        sys.exit(status)
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except ServerFailed as failure:
        print(f"the server did not start: {failure}\n{failure.log_tail}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes at its end
        sys.exit(1)
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT):
            raise
        print(f"{Path(sys.argv[0]).name}: error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
