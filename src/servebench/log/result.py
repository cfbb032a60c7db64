"""One request as it went: the unit of every log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Phase = Literal["warmup", "measured", "cooldown", "probe", "check"]


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One request as it went. A failed one has `error` set and keeps what did arrive.

    Times and tokens of a log that was read are arrays, a fifth of the memory of lists. No cycle can hold a
    request, so the collector need not look at each of a million (gc=False).
    """

    id: int
    phase: Phase  # only "measured" requests count as requests; the others keep the server under load
    client: int
    server: int = 0  # index into Log.server_facts.urls
    prompt_tokens: int
    asked_prompt_tokens: int | None = None  # by our tokenizer, where the server counts otherwise
    max_new_tokens: int  # asked for
    generated_tokens: int  # achieved
    token_source: str  # where the counts come from: "usage", "token_ids", "events", ...
    reasoning_tokens: int | None = None  # of generated_tokens, if the server says so; hidden ones are in no event
    cached_tokens: int | None = None  # prompt tokens that the server found in its prefix cache, if it says so
    queue_s: float | None = None  # in the server's queue, where the server tells it of each request
    prefill_s: float | None = None  # from there to its first token, likewise
    scheduled_ns: int | None = None  # when it should have left (open loop)
    sent_ns: int  # just before its last byte was handed to the kernel
    event_ns: Sequence[int]  # arrival of every event that carries content, ns after sent_ns
    event_tokens: Sequence[int]  # tokens in each of them
    merged: list[tuple[int, int]] = []  # (event index, earliest ns): event_ns is an upper bound for these
    streamed: bool = True  # False: the answer came whole, so no time of its first token is known
    first_answer_event: int | None = 0  # index of the first event that is not reasoning; None: there was none
    ended_ns: int | None = None  # when a request without a whole answer was given up, ns after sent_ns
    texts: list[str] = []  # what each event said; kept only until it is looked at: to count tokens, to score it
    logprobs: list[float] = []  # of its tokens, where they were asked for; likewise
    flaw: str = ""  # of its text, at first sight (analysis/flaws.py)
    finish_reason: str | None = None  # the server's word, or "cancelled" when the point had ended
    status: int = 0  # HTTP status, 0 when no answer came
    connect_ns: int = 0  # TCP (and TLS) connect of the connection used, outside of every latency
    resent: int = 0  # times it was sent again since it had provably not reached the server
    retries: int = 0  # attempts after the first; times count from the first
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        """Was it answered to the end?"""
        return self.error is None and bool(self.event_ns) and not self.cancelled

    @property
    def cancelled(self) -> bool:
        """Was it cut off, because the point had ended?"""
        return self.finish_reason == "cancelled"
