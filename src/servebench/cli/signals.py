"""Ctrl-C and SIGTERM end a benchmark the same way: once, with everything stopped that was started."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ends_on_signals() -> Iterator[None]:
    """Within it the first signal raises SystemExit(128 + number); later ones do not disturb the cleaning up."""

    def end(number: int, _: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        name = signal.Signals(number).name
        print(f"\n{name}: stopping the server and the clients; points measured so far are kept", file=sys.stderr)
        sys.exit(128 + number)

    before = [signal.signal(each, end) for each in SIGNALS]
    try:
        yield
    finally:
        for each, handler in zip(SIGNALS, before, strict=True):
            signal.signal(each, handler)
