"""One line at the bottom of the terminal that is redrawn, and lasting lines above it.

    live.show("3 of 16 points", "about 12 min left")    the next call takes its place
    live.write("vLLM TP 1 x 1: ready after 34 s")        stays

Where neither stderr nor stdout is a terminal nothing is redrawn: what would be shown is printed once a minute.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TextIO

REDRAW_S = 0.2
PIPED_S = 60.0  # between two lines in a pipe
WIDTH = 80  # of a terminal that does not tell
CLEAR = "\r\x1b[K"


class Line:
    """The line and what is drawn of it. Any thread may call."""

    def __init__(self) -> None:
        self.ahead: tuple[str, ...] = ()  # parts that stand before those of `show`
        self.parts: tuple[str, ...] = ()
        self.drawn = ""
        self.last_s = time.monotonic()
        self.lock = threading.RLock()

    def show(self, *parts: str) -> None:
        """On a terminal as many parts as have room, the first ones first."""
        with self.lock:
            self.parts = tuple(filter(None, parts))
            passed_s, stream = time.monotonic() - self.last_s, terminal()
            if stream and (passed_s > REDRAW_S or not self.drawn):
                self._draw(stream)
            elif not stream and passed_s > PIPED_S:
                self.write("  " + "  ".join((*self.ahead, *self.parts)))

    def write(self, text: str, stream: TextIO | None = None) -> None:
        """A text that stays, on stdout or another stream, at once also in a pipe."""
        with self.lock:
            shown = self.drawn
            self._erase()
            print(text, file=stream or sys.stdout, flush=True)
            self.last_s = time.monotonic()
            if shown and (screen := terminal()):
                self._draw(screen)

    def clear(self) -> None:
        """Until the next `show`."""
        with self.lock:
            self.parts = ()
            self._erase()

    def _draw(self, stream: TextIO) -> None:
        self.drawn = fitting((*self.ahead, *self.parts), (width() or WIDTH) - 1)
        stream.write(CLEAR + self.drawn)
        stream.flush()
        self.last_s = time.monotonic()

    def _erase(self) -> None:
        stream = terminal()
        if self.drawn and stream:
            stream.write(CLEAR)
            stream.flush()
        self.drawn = ""


LINE = Line()
show, write, clear = LINE.show, LINE.write, LINE.clear


def terminal() -> TextIO | None:
    """The stream that a terminal shows, if any."""
    return next((stream for stream in (sys.stderr, sys.stdout) if stream.isatty()), None)


def width() -> int | None:
    """Of the terminal; None in a pipe."""
    stream = terminal()
    if not stream:
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except OSError:
        return WIDTH


def fitting(parts: tuple[str, ...], most: int) -> str:
    """As many of the parts as fit, the first one cut if it must be."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if text and len(longer) > most:
            break
        text = longer
    return text[:most]
