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
from contextlib import suppress
from dataclasses import dataclass
from errno import EACCES, EDQUOT, ENOSPC, EROFS
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from servebench.cli.nearest import did_you_mean
from servebench.cli.parser import Parser as Parser  # commands take all of theirs from here
from servebench.errors import InputError, LogError, ServerFailed


@dataclass(frozen=True)
class Number:
    """An argparse type: a finite number of this kind between the bounds. A list of them may have commas."""

    kind: type[int] | type[float]
    least: float
    most: float = float("inf")
    ranges: bool = False  # is 0-3 or 0..3 the same as 0 1 2 3?

    def __call__(self, text: str) -> float:
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if value is None or not self.least <= value <= min(self.most, sys.float_info.max):
            wanted = "a whole number" if self.kind is int else "a number"
            bounds = f"of at least {self.least:g}"
            bounds += f" and at most {self.most:g}" if self.most != float("inf") else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted} {bounds}")
        return value

    def split(self, word: str) -> list[str]:
        """The numbers that are joined in one word."""
        each = [self._of_range(part) for part in word.split(",") if part.strip()]
        return [number for part in each for number in part] or [word]

    def _of_range(self, text: str) -> list[str]:
        found = re.fullmatch(r"(\d{1,4})(?:-|\.\.)(\d{1,4})", text) if self.ranges else None
        return [str(n) for n in range(int(found[1]), int(found[2]) + 1)] or [text] if found else [text]


PLAIN = {
    "±": "+-",
    "×": "x",
    "→": "->",
    "≈": "~",
    "≤": "<=",
    "≥": ">=",
    "–": "-",
    "—": "-",
    "…": "...",
    "✓": "+",
    "✗": "x",
}
COUNT = Number(int, 1)


def non_empty(text: str) -> str:
    """An argparse type: a text that is not blank, as that of an unset shell variable is."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give one or leave the option out")
    return text


def folder(text: str) -> Path:
    """An argparse type: an existing folder."""
    if not Path(text).is_dir():
        beside = Path(text).parent.iterdir() if Path(text).parent.is_dir() else ()
        near = did_you_mean(Path(text).name, (path.name for path in beside if path.is_dir()), most=1)
        raise argparse.ArgumentTypeError(
            f"{text} is not a folder{near or '; give one that run_benchmark.py wrote to'}"
        )
    return Path(text)


def new_file(text: str) -> Path:
    """An argparse type: a file to write, in a folder that exists."""
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"{Path(text).parent} is not a folder; make it first, or correct the name"
        )
    return Path(text)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The folder of logs that a command reads."""
    parser.add_argument("folder", type=folder, nargs="?", default="results", help="folder of logs [results]")


def share(text: str, least: float = 0) -> float:
    """An argparse type: `5%` or `0.05`, at most all of it."""
    with suppress(argparse.ArgumentTypeError):
        return (
            Number(float, 100 * least, 100)(text[:-1]) / 100
            if text.endswith("%")
            else Number(float, least, 1)(text)
        )
    percent = re.fullmatch(r"\d+(\.\d+)?", text)
    like = f"{text}% or {float(text) / 100:g}" if percent and 1 < float(text) <= 100 else "for example 5% or 0.05"
    raise argparse.ArgumentTypeError(f"{text!r} is not a share; write {like}")


def seconds(text: str) -> float:
    """An argparse type: `2h`, `30min`, `90s`, or several in succession: `1h30min`."""
    units = {"h": 3600, "min": 60, "m": 60, "s": 1}
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)", text)
    if not parts or re.sub(r"\s+", "", text) != "".join(number + unit for number, unit in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write for example 2h, 30min or 90s")
    return sum(float(number) * units[unit] for number, unit in parts)


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
        raise argparse.ArgumentTypeError(f"the value of {name} has a character that is not allowed in a header")
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
        raise argparse.ArgumentTypeError(f"{text!r} is not TPxREPLICAS; write for example 1x8 2x4")
    return int(tp_size), int(replicas)


def words_in_quotes(text: str) -> tuple[str, ...]:
    """An argparse type: words as a shell reads them."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; quote it as in a shell") from error


def named_words(text: str) -> tuple[str, tuple[str, ...]]:
    """An argparse type: options of another program in quotes, perhaps named: `"--x 1"`, `"fast: --x 1"`.

    A name may have parts: of `"vllm: fast: --x 1"` it is `vllm: fast`.
    """
    names, rest = [], text
    while found := re.fullmatch(r"\s*([^\s:=-][^:=]*):(\s.*|)", rest, re.DOTALL):
        names.append(" ".join(found[1].split()))
        rest = found[2]
    name, words = ": ".join(names), words_in_quotes(rest)
    if words and not words[0].startswith("-"):
        raise argparse.ArgumentTypeError(
            'one of them does not begin with an option; write "--x 1" or "name: --x 1"'
        )
    return name, words


def flag_and_values(text: str) -> tuple[tuple[str, ...], ...]:
    """An argparse type: the alternatives of a flag. `"--x 1 2"`: `--x 1`, `--x 2`; `"--x"`: without, with it."""
    flag, *values = words_in_quotes(text) or ("",)
    if not flag.startswith("-") or any(value.startswith("--") for value in values) or (values and "=" in flag):
        raise argparse.ArgumentTypeError('one of them is not one flag and its values; write "--x 1 2" "--y"')
    return tuple((flag, value) for value in values) or ((), (flag,))


def variable(text: str) -> str:
    """An argparse type: `NAME=VALUE`. What it says does not show the value, which may be a key."""
    if not re.match(r"[A-Za-z_]\w*=", text):
        raise argparse.ArgumentTypeError("one of them is not NAME=VALUE")
    return text


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
    except (InputError, LogError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except ServerFailed as failure:
        print(f"the server did not start: {failure}\n{failure.log_tail}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes at its end
        sys.exit(1)
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT, EROFS, EACCES):
            raise
        print(f"{Path(sys.argv[0]).name}: error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
