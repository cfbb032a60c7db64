"""What is wrong with the text of an answer at first sight, whatever was asked."""

from __future__ import annotations

from collections.abc import Sequence

BLANK, INVALID, REPEATED = "blank", "invalid UTF-8", "repeated"
LONGEST_CYCLE = 64  # characters
TIMES = 4  # that a text stands there in a row, from which on it counts as repeated
SHORTEST = 12  # characters of the half that is looked at


def flaw_of(texts: Sequence[str]) -> str:
    """`blank`: spaces at most. `invalid UTF-8`: characters that could not be read, but for the last.
    `repeated`: the second half is one token, or a short text, again and again. "": none of these.
    """
    text = "".join(texts)
    if not text.strip():
        return BLANK
    if "\ufffd" in text.rstrip("\ufffd"):  # an answer that is cut by its length may end inside a character
        return INVALID
    return REPEATED if _repeats(text[len(text) // 2 :]) else ""


def _repeats(text: str) -> bool:
    longest = min(LONGEST_CYCLE, len(text) // TIMES)
    if len(text) < SHORTEST:
        return False
    begin = text[:longest]
    cycle = text.find(begin, 1, 2 * longest)  # the shortest distance at which its begin stands again
    return cycle > 0 and text[cycle:] == text[:-cycle]
