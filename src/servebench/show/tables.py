"""Tables and sentences that fit the terminal, and the numbers in them.

    tables.table([Column("load"), Column("req/s"), Column("note", left=True, cut=True)], rows)

A table that is too wide first loses the columns that say so, then its longest words are cut in the middle. Where
no terminal tells its width (a pipe, a file) sentences stay whole, and tables get PIPED characters.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

PIPED = 120
GAP = "  "
LEAST = 12  # characters that are left of a cell that is cut
COLOURS = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "dim": 2}
ESCAPE = re.compile(r"\x1b\[\d*m")
IN_SECONDS = 10.0  # latencies from here on are shown in s, shorter ones in ms

Row = Sequence[str] | str  # cells, or a line between rows, such as the name of those below it


@dataclass(frozen=True)
class Column:
    """A column: its head (several lines if it has line breaks), and what may go where the table is too wide."""

    head: str
    left: bool = False  # words begin at the left, numbers end at the right
    drop: int = 0  # left out where the table is too wide, the highest first; 0: never
    cut: bool = False  # its cells may be cut in the middle


# The terminal.


def on_terminal() -> bool:
    return sys.stdout.isatty()


def width() -> int:
    """Characters of a line."""
    return shutil.get_terminal_size((PIPED, 24)).columns


def paint(text: str, colour: str) -> str:
    """In a colour, on a terminal whose user did not forbid it (NO_COLOR)."""
    plain = not on_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not text else f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def wrapped(text: str, indent: str = "  ") -> str:
    """A sentence on as many lines as it takes, those after the first indented; in a pipe on one."""
    if not _wraps():
        return text
    return textwrap.fill(text, width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def flowed(parts: Sequence[str], indent: str = "  ") -> str:
    """Parts of one line, on more where they do not fit, those indented; in a pipe on one."""
    lines = [""]
    for part in filter(None, parts):
        longer = f"{lines[-1]}{GAP}{part}" if lines[-1].strip() else lines[-1] + part
        if _wraps() and lines[-1].strip() and _length(longer) > width():
            lines.append(indent + part)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _wraps() -> bool:
    return on_terminal() or bool(os.environ.get("COLUMNS"))


# Tables.


def table(columns: Sequence[Column], rows: Sequence[Row], limit: int | None = None) -> str:
    """A line a row, no longer than the limit (the terminal's width). Columns of empty cells are left out."""
    limit = limit or width()
    cells = [row for row in rows if not isinstance(row, str)]
    kept = [i for i, _ in enumerate(columns) if any(row[i] for row in cells)]
    widths = _widths(columns, cells)
    while _total(widths, kept) > limit and (spare := [i for i in kept if columns[i].drop]):
        kept.remove(max(spare, key=lambda i: (columns[i].drop, i)))
    for i in sorted((i for i in kept if columns[i].cut), key=lambda i: -widths[i]):
        over = _total(widths, kept) - limit
        widths[i] = max(min(LEAST, widths[i]), widths[i] - max(0, over))
    shape = [(columns[i], widths[i]) for i in kept]
    heads = zip(*(_head_lines(columns[i].head, columns) for i in kept), strict=True)
    lines = [_line(head, shape) for head in heads] + [GAP.join("-" * widths[i] for i in kept)]
    lines += [row if isinstance(row, str) else _line([row[i] for i in kept], shape) for row in rows]
    return "\n".join(lines)


def fits(columns: Sequence[Column], rows: Sequence[Row], limit: int | None = None) -> bool:
    """Has the whole table room, with nothing left out and nothing cut?"""
    cells = [row for row in rows if not isinstance(row, str)]
    kept = [i for i, _ in enumerate(columns) if any(row[i] for row in cells)]
    return _total(_widths(columns, cells), kept) <= (limit or width())


def cut(text: str, most: int) -> str:
    """What is too long loses its middle: names differ at their ends."""
    if len(text) <= most:
        return text
    begin = most // 2
    return f"{text[:begin]}…{text[len(text) - (most - begin - 1) :]}"


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    heads = [max(map(len, column.head.split("\n"))) for column in columns]
    return [max([head, *(_length(row[i]) for row in cells)]) for i, head in enumerate(heads)]


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[i] for i in kept) + len(GAP) * (len(kept) - 1)


def _length(text: str) -> int:
    """Characters that show."""
    return len(ESCAPE.sub("", text))


def _head_lines(head: str, columns: Sequence[Column]) -> list[str]:
    """As many lines as the tallest head, empty ones first."""
    most = max(column.head.count("\n") for column in columns)
    lines = head.split("\n")
    return [""] * (most + 1 - len(lines)) + lines


def _line(cells: Sequence[str], shape: Sequence[tuple[Column, int]]) -> str:
    parts = []
    for text, (column, space) in zip(cells, shape, strict=True):
        shown = text if _length(text) <= space else cut(ESCAPE.sub("", text), space)
        padding = " " * (space - _length(shown))
        parts.append(shown + padding if column.left else padding + shown)
    return GAP.join(parts).rstrip()


# Numbers.


def significant(value: float | None, digits: int = 3) -> str:
    """So many significant digits; "-" for what is not known."""
    if value is None:
        return "-"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits - 0.5 else f"{value:.0f}"


def ms(seconds: float | None, digits: int = 3) -> str:
    """A latency in a column of ms: `13.9`; from 10 s on `12.3 s`."""
    if seconds is None or seconds < IN_SECONDS:
        return significant(None if seconds is None else seconds * 1e3, digits)
    return f"{significant(seconds, digits)} s"


def latency(seconds: float | None, digits: int = 3) -> str:
    """A latency in a sentence: `480 ms`, `12.3 s`."""
    return ms(seconds, digits) + " ms" * (seconds is not None and seconds < IN_SECONDS)


def duration(seconds: float) -> str:
    """How long something takes: `34 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 point`, `3 points`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
