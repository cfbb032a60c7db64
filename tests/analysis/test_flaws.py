"""What is wrong with the text of an answer at first sight."""

from __future__ import annotations

import pytest

from servebench.analysis.flaws import flaw_of

PROSE = (
    "The old harbour was quiet when the ships came home that evening, and nobody stood on the wall to greet them."
)


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        (PROSE, ""),
        ("Paris", ""),
        ("no no no", ""),  # too short to tell
        ("", "blank"),
        (" \n\t  ", "blank"),
        (" word" * 30, "repeated"),
        (PROSE + "!" * len(PROSE), "repeated"),  # as where logits become NaN midway
        (PROSE + " I do not know. What" * 12, "repeated"),
        (PROSE + " I do not know. What" * 12 + " I do n", "repeated"),  # cut inside the cycle
        (PROSE + "!" * 20, ""),  # less than half of the answer
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24", ""),
        ((PROSE + " ") * 8, ""),  # a cycle of more than 64 characters is prose that a model says again
        ("caf\ufffd and tea", "invalid UTF-8"),
        ("tea and caf\ufffd", ""),  # the length ended it inside a character
    ],
)
def test_flaw(text: str, flaw: str) -> None:
    assert flaw_of([text]) == flaw
    assert flaw_of(list(text)) == flaw  # however many events it came in
