"""The clock of this host while a point is measured: a step of it would move every stamp."""

from __future__ import annotations

import time


class Clock:
    """Compares the host's two clocks."""

    def __init__(self) -> None:
        self.offsets_ns: list[int] = []  # REALTIME minus MONOTONIC
        self.last_s = 0.0

    def sample(self) -> None:
        """At most once a second."""
        if len(self.offsets_ns) < 2 or time.monotonic() - self.last_s > 1:
            self.last_s = time.monotonic()
            self.offsets_ns.append(time.time_ns() - time.monotonic_ns())

    @property
    def step_s(self) -> float:
        """The largest change of one against the other."""
        return (max(self.offsets_ns) - min(self.offsets_ns)) / 1e9 if self.offsets_ns else 0.0
