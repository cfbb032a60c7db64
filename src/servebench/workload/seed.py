"""What the seed of a run is for: each use draws from a stream of random numbers that no other use changes."""

from __future__ import annotations

from enum import IntEnum


class Stream(IntEnum):
    """What random numbers are drawn for; a part of their seed."""

    ARRIVALS = 1
    REQUESTS = 2
    PROBES = 3
    CHECKS = 5
    HASHES = 4  # the words that the hashes of a trace stand for
