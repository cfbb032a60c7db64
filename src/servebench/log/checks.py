"""What came of a question that was asked beside the load, or alone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A question and its answer. One without a right answer is asked for its first tokens alone."""

    question: str  # its id: a hash of what is asked and the right answer
    server: int = 0  # index into Log.server_facts.urls
    scored: bool = True  # does it have a right answer?
    right: bool = False  # a question that failed is not
    tokens: Sequence[str] = ()  # the answer's first ones, as texts
    mean_logprob: float | None = None  # of these tokens, where the engine gives it
    error: str | None = None
