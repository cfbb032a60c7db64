"""What an OpenAI-compatible answer says: its content events, their tokens and times, how it ended.

A content event carries text or reasoning; role-only, empty, usage-only and `[DONE]` events do not count. Tokens
whose event showed no text (half a UTF-8 character) belong to the next content event, or at the end to the last.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec

from servebench.load import sse
from servebench.load.http import Answer, HttpError

if TYPE_CHECKING:
    from servebench.load.http2 import Http2Answer


class Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None  # DeepSeek, older vLLM
    reasoning: str | None = None  # vLLM, OpenRouter


class Choice(msgspec.Struct, gc=False):
    text: str | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None

    def said(self) -> str:
        delta = self.delta or self.message
        if delta is None:
            return self.text or ""
        return (delta.reasoning_content or delta.reasoning or "") + (delta.content or "")


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, gc=False):
    prompt_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    completion_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


# How an answer comes: streamed, as one object, as Azure ML's score, as gRPC messages of DeepSpeed-MII.
Form = Literal["events", "object", "score", "mii"]
Event = tuple[int, str, int | None]  # index of its piece; text; tokens so far, where the server says


class Reading(NamedTuple):
    """An answer's meaning; lists are one entry a content event."""

    piece: list[int]
    texts: list[str]
    tokens: list[int]
    token_source: str
    usage: Usage | None
    finish_reason: str | None
    error: str | None


def read(answer: Answer | Http2Answer, form: Form) -> Reading:
    """The meaning of an answer, complete or cut off."""
    broken, streamed = None, form == "events"
    skimmed = answer.skim() if streamed and isinstance(answer, Answer) else []
    first = len(answer.body) if skimmed else 0
    try:
        answer.frame()
    except HttpError as error:
        broken = str(error)
    if form == "mii":
        reading = _replied(answer.body)
        return reading._replace(error=broken) if broken else reading
    whole = b"" if streamed and answer.status == 200 else b"".join(data for data, _ in answer.body)
    if answer.status and answer.status != 200:
        return _failed(f"HTTP {answer.status}: {_shown(whole)}")
    if streamed:
        payloads = [*sse.split(answer.body[:first]), *skimmed, *sse.split(answer.body[first:])]
    else:
        payloads = [(whole, answer.body[-1][1])] if whole else []
    reading = (_scored if form == "score" else _meaning)(payloads, answer.complete)
    return reading._replace(error=broken) if broken else reading


def _failed(error: str) -> Reading:
    return Reading([], [], [], "none", None, None, error)


def _shown(data: bytes) -> str:
    return " ".join(data[:300].decode(errors="replace").split())


def _meaning(payloads: list[tuple[bytes, int]], complete: bool) -> Reading:
    events: list[Event] = []
    usage = finish = error = None
    ids = 0
    for data, piece in payloads:
        if data == b"[DONE]":
            break
        try:
            chunk = decode_chunk(data)
        except UNREADABLE as problem:
            error = f"not a completion chunk: {problem}: {_shown(data)}" if complete else None
            break
        if chunk.error is not None:
            error = f"error inside the answer: {_shown(msgspec.json.encode(chunk.error))}"
            break
        so_far = None
        if chunk.usage:
            usage = chunk.usage
            so_far = usage.completion_tokens
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            if choice.token_ids:
                ids += len(choice.token_ids)
            events.append((piece, choice.text or choice.said(), so_far or ids or None))
    return _counted(events, usage, finish, error)


def _scored(payloads: list[tuple[bytes, int]], complete: bool) -> Reading:
    """Azure ML's scoring format: the text, or a list of it, or objects with it under "0" or "output"."""
    for data, piece in payloads:
        try:
            value = msgspec.json.decode(data)
        except UNREADABLE as problem:
            return _failed(f"not a score: {problem}: {_shown(data)}")
        for _ in range(3):
            value = value[0] if isinstance(value, list) and value else value
            value = value.get("0", value.get("output", value)) if isinstance(value, dict) else value
        if isinstance(value, str):
            return _counted([(piece, value, None)], None, None, None)
        return _failed(f"not a score: {_shown(data)}")
    return _failed("empty answer: no text and no tokens")


def _replied(body: list[tuple[bytes, int]]) -> Reading:
    """DeepSpeed-MII's replies. A reply that is not the last is a token; the last has no text, or all of it.

    They are counted here, since MII's own count starts anew when it has thrown a request out of a full cache.
    """
    from servebench.load import mii  # protobuf is for gRPC alone

    events: list[Event] = []
    prompt_tokens = tokens = 0
    finish = error = None
    for message, piece in mii.messages(body):
        try:
            reply = mii.decode(message)
        except ValueError as problem:
            error = str(problem)
            break
        finish, prompt_tokens = reply.finish_reason, prompt_tokens or reply.prompt_tokens
        tokens += 1 if finish is None else reply.generated_tokens if reply.text else 0
        events.append((piece, reply.text, tokens))
    return _counted(events, Usage(prompt_tokens, tokens), finish, error)


def _counted(events: list[Event], usage: Usage | None, finish: str | None, error: str | None) -> Reading:
    content = [event for event in events if event[1]]
    if not content:  # an answer of tokens that have no text: what brought tokens stands for content
        steps = pairwise([(0, "", 0), *events])
        content = [now for before, now in steps if (now[2] or 0) > (before[2] or 0)]
    tokens, source = _tokens(content, events[-1][2] if events else None, usage)
    error = error or (None if content else "empty answer: no text and no tokens")
    at, texts = [event[0] for event in content], [event[1] for event in content]
    return Reading(at, texts, tokens, source, usage, finish, error)


def _tokens(content: list[Event], last_count: int | None, usage: Usage | None) -> tuple[list[int], str]:
    """Tokens of each content event, and where the counts come from."""
    if not content:
        return [], "none"
    total = usage.completion_tokens if usage else last_count
    if not total:
        return [1] * len(content), "events"
    so_far = [tokens for _, _, tokens in content if tokens is not None]
    if len(so_far) == len(content):
        so_far = list(accumulate([*so_far[:-1], max(total, so_far[-1])], max))
        return [b - a for a, b in pairwise([0, *so_far])], "usage in every event" if usage else "token_ids"
    if total == len(content):
        return [1] * total, "usage of the answer"
    return _spread(total, [len(text) for _, text, _ in content]), "usage of the answer, spread over its text"


def _spread(total: int, weights: list[int]) -> list[int]:
    """Split total into whole numbers as the weights go."""
    whole = sum(weights) or 1
    edges = [round(total * done / whole) for done in accumulate(weights, initial=0)]
    edges[-1] = total
    return [b - a for a, b in pairwise(edges)]
