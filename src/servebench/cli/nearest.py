"""What may have been meant by a name that is not known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

ENOUGH, SPREAD = 0.6, 0.15  # likeness of a suggestion at least, and how far behind the best it may be


def near(word: str, names: Iterable[str], most: int = 3) -> list[str]:
    """The names that look like this word, or in which it begins a part; the likeliest first."""
    found = sorted(((_likeness(word, name), name) for name in names), key=lambda pair: -pair[0])
    return [name for likeness, name in found if likeness > max(ENOUGH, found[0][0] - SPREAD)][:most]


def did_you_mean(word: str, names: Iterable[str], most: int = 3) -> str:
    """`: did you mean --num_clients?`, or nothing if no name is near."""
    found = near(word, names, most)
    return f": did you mean {', '.join(found[:-1]) + ' or ' * (len(found) > 1) + found[-1]}?" if found else ""


def _likeness(word: str, name: str) -> float:
    """From 0 to 1, and more for `ttft` and `ttft_p99_s`, or `clients` and `num_clients`."""
    a, b = (re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") for text in (word, name))
    begins_part = len(a) > 1 and f"_{a}" in f"_{b}"
    return SequenceMatcher(None, a, b).ratio() + 0.3 * begins_part
