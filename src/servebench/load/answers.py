"""The meaning of an answer: its content events, their tokens and times, and how it ended.

A content event carries text, reasoning, a tool call or a refusal; role-only, empty, usage-only and `[DONE]` events
do not count. Tokens of an event without text (half a UTF-8 character) belong to the next content event, or at the
end to the last. Reasoning that is hidden was generated, but came in no event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from servebench.cli.keys import hide_in_url
from servebench.errors import HttpError
from servebench.load import mii, sse
from servebench.load.chunks import (
    ANSWER,
    NOTHING,
    REASONING,
    UNREADABLE,
    Choice,
    Chunk,
    EndOfAnswer,
    ServerTimes,
    Usage,
    decode_chunk,
    decode_tolerantly,
    excerpt,
    logprobs_of,
    raise_server_error,
    server_error,
    times_of,
    tolerant_json,
)
from servebench.load.http import Answer
from servebench.load.protocol import Form

if TYPE_CHECKING:
    from servebench.load.http2 import Http2Answer

FAILED = ("abort", "aborted", "error", "failed", "cancelled", "canceled")  # finish reasons
EMPTY = "empty answer: no text and no tokens"
CUT = "the stream ended without finish_reason, [DONE] and final usage: something on the way cut it off"

# An event of an answer is a tuple of these: an object of a class would make decoding 5 % slower.
SEGMENT: Final = 0  # index of the segment that it came with
TEXT: Final = 1
TOKENS: Final = 2  # of the answer so far, if the server says
KIND: Final = 3  # ANSWER, REASONING, ...
Event = tuple[int, str, int | None, int]


class Reading(NamedTuple):
    """What an answer means; lists have one entry for each content event."""

    segments: list[int]  # index of the segment that each event came with
    texts: list[str]
    tokens: list[int]
    token_source: str
    usage: Usage | None
    finish_reason: str | None
    error: str | None
    generated: int = 0  # tokens, with those that came in no event
    first_answer_event: int | None = None  # index of the first event that is not reasoning
    from_server: bool = False  # `error` is the server's own, and explains whatever broke after it
    times: ServerTimes | None = None  # of the request, by the server
    logprobs: Sequence[float] = ()  # of its tokens, where they were asked for


def read(answer: Answer | Http2Answer, form: Form) -> Reading:
    """The meaning of an answer, complete or cut off."""
    broken, streamed = None, form == "events"
    skimmed = answer.skim() if streamed and isinstance(answer, Answer) else []
    first = len(answer.body) if skimmed else 0
    try:
        answer.frame()
    except HttpError as error:
        broken = str(error)
    if not isinstance(answer, Answer):
        reading = _read_mii(answer.body)
    elif answer.status and answer.status != 200:
        return _failed(_http_error(answer), from_server=True)
    elif streamed and (payloads := [*sse.split(answer.body[:first]), *skimmed, *sse.split(answer.body[first:])]):
        reading = _read_chunks(payloads, answer.complete)
    elif not (whole := answer.whole()):
        reading = _failed(EMPTY)
    else:
        reading = _no_stream(answer, whole) if streamed else _read_whole(answer, whole, form)
    return reading._replace(error=broken) if broken and not reading.from_server else reading


def _failed(error: str, from_server: bool = False) -> Reading:
    return Reading([], [], [], "none", None, None, error, from_server=from_server)


def _http_error(answer: Answer) -> str:
    path, moved = f" for {answer.path}" if answer.path else "", answer.headers.get(b"location")
    hint = f"moved to {_address(moved)}; give that URL. " if moved and 300 <= answer.status < 400 else ""
    return f"HTTP {answer.status}{path}: {hint}{excerpt(answer.whole())}".rstrip(" .:")


def _address(location: bytes) -> str:
    """Without its user and its query, which may hold secrets."""
    return hide_in_url(excerpt(location.partition(b"?")[0]))


# Answers that came whole, and those that are neither whole nor a stream.


def _read_whole(answer: Answer, whole: bytes, form: Form) -> Reading:
    try:
        value = tolerant_json(whole)
    except UNREADABLE:
        return _failed(f"not the JSON that was asked for; it is {_what_came(answer, whole)}")
    payload = (whole, answer.body[-1][1])
    if form == "score":
        return _read_score(value, payload)
    return _read_chunks([payload], answer.complete, streamed=False)


def _no_stream(answer: Answer, whole: bytes) -> Reading:
    """A body without any event."""
    try:
        raise_server_error(Chunk(), whole)
    except EndOfAnswer as end:
        return _failed(str(end.error), from_server=True)
    return _failed(f"not the stream that was asked for; it is {_what_came(answer, whole)}")


def _what_came(answer: Answer, whole: bytes) -> str:
    """The Content-Type and the first bytes, and what may help."""
    kind, packed = (
        answer.headers.get(name, b"").decode("latin-1") for name in (b"content-type", b"content-encoding")
    )
    start = whole.lstrip()[:9].lower()
    hint = ""
    if packed not in ("", "identity") or start.startswith(b"\x1f\x8b"):
        hint = f" ({packed or 'gzip'}-compressed; turn compression off on the way to the server)"
    elif start.startswith(b"<"):
        hint = " (a web page; is the URL that of the API?)"
    elif start.startswith((b"data:", b"event:")):
        hint = " (a stream; leave out --no_stream)"
    elif b'"choices"' in whole:
        hint = " (a whole answer; give --no_stream)"
    return f"{kind or 'bytes without Content-Type'}{hint}: {excerpt(whole)}"


def _read_score(value: Any, payload: tuple[bytes, int]) -> Reading:
    """Azure ML's scoring format: the text, or a list of it, or objects with it under "0" or "output"."""
    for _ in range(3):
        value = value[0] if isinstance(value, list) and value else value
        value = value.get("0", value.get("output", value)) if isinstance(value, dict) else value
    if isinstance(value, str):
        return _with_tokens([(payload[1], value, None, ANSWER if value else NOTHING)], None, None, None)
    return _failed(f"not a score: {excerpt(payload[0])}")


# Chunks.


@dataclass
class Content:
    """What the chunks of an answer brought so far. `ended`: in a way that is an end."""

    ended: bool
    events: list[Event] = field(default_factory=list)
    usage: Usage | None = None
    finish_reason: str | None = None
    logprobs: list[float] = field(default_factory=list)


def _read_chunks(payloads: list[tuple[bytes, int]], complete: bool, streamed: bool = True) -> Reading:
    content, error, from_server = Content(ended=not (streamed and complete)), None, False
    try:
        _add_chunks(payloads, content)
    except EndOfAnswer as end:  # not stored: its traceback would hold this frame, and no collector runs
        error, from_server, content.ended = end.error, end.from_server, True
    if content.finish_reason and content.finish_reason.lower() in FAILED:
        error = error or f"the server ended the answer with finish_reason {content.finish_reason}"
        from_server = True
    error = error if from_server or complete else None  # else it was cut off inside a chunk
    reading = _with_tokens(content.events, content.usage, content.finish_reason, error, from_server)
    if not (reading.segments or from_server or error):
        return reading._replace(error=f"{reading.error}; it begins with: {excerpt(payloads[0][0])}")
    ended = content.ended or content.finish_reason
    reading = reading._replace(times=_times(payloads), logprobs=content.logprobs)
    return reading if reading.error or ended else reading._replace(error=CUT)


def _times(payloads: list[tuple[bytes, int]]) -> ServerTimes:
    """They come with the last chunk, which `[DONE]` may follow."""
    last = payloads[-2] if len(payloads) > 1 and payloads[-1][0].strip() == b"[DONE]" else payloads[-1]
    return times_of(last[0])


def _add_chunks(payloads: list[tuple[bytes, int]], content: Content) -> None:
    """Raises EndOfAnswer."""
    add, ids = content.events.append, 0
    for data, segment in payloads:
        try:
            chunk = decode_chunk(data)
        except UNREADABLE as problem:
            chunk = decode_tolerantly(data, problem)
        choices, so_far = chunk.choices, None
        if not choices or chunk.error:
            raise_server_error(chunk, data)
            choices, content.ended = choices or [], content.ended or chunk.usage is not None
        if chunk.usage:
            content.usage = chunk.usage
            so_far = chunk.usage.completion_tokens
        for choice in choices:
            if choice.finish_reason or choice.logprobs:
                _add_rest(choice, content)
            if choice.token_ids:
                ids += len(choice.token_ids)
            text, kind = choice.text, ANSWER
            if not text:
                text, kind = choice.content()
            add((segment, text, so_far or ids or None, kind))


def _add_rest(choice: Choice, content: Content) -> None:
    """What few chunks have. Raises EndOfAnswer."""
    content.logprobs += logprobs_of(choice.logprobs)
    if choice.finish_reason:
        content.finish_reason = choice.finish_reason
        if choice.error:
            raise server_error(choice.error)


def _read_mii(body: list[tuple[bytes, int]]) -> Reading:
    """DeepSpeed-MII's replies. A reply that is not the last is a token; the last has no text, or all of it.

    They are counted here, since MII's own count starts again when it has thrown a request out of a full cache.
    """
    events: list[Event] = []
    prompt_tokens = tokens = 0
    finish_reason = error = None
    for message, segment in mii.messages(body):
        try:
            reply = mii.decode(message)
        except ValueError as problem:
            error = str(problem)
            break
        finish_reason, prompt_tokens = reply.finish_reason, prompt_tokens or reply.prompt_tokens
        tokens += 1 if finish_reason is None else reply.generated_tokens if reply.text else 0
        events.append((segment, reply.text, tokens, ANSWER if reply.text else NOTHING))
    return _with_tokens(events, Usage(prompt_tokens, tokens), finish_reason, error)


# Tokens.


def _with_tokens(
    events: list[Event],
    usage: Usage | None,
    finish_reason: str | None,
    error: str | None,
    from_server: bool = False,
) -> Reading:
    content = [event for event in events if event[KIND]]
    if not content:  # an answer of tokens without text: what brought tokens stands for content
        steps = pairwise([(0, "", 0, NOTHING), *events])
        content = [now for before, now in steps if (now[TOKENS] or 0) > (before[TOKENS] or 0)]
    tokens, hidden, source = _tokens(content, events[-1][TOKENS] if events else None, usage)
    return Reading(
        segments=[event[SEGMENT] for event in content],
        texts=[event[TEXT] for event in content],
        tokens=tokens,
        token_source=source,
        usage=usage,
        finish_reason=finish_reason,
        error=error or (None if content else _empty(usage)),
        generated=sum(tokens) + hidden,
        first_answer_event=next((i for i, event in enumerate(content) if event[KIND] != REASONING), None),
        from_server=from_server,
    )


def _empty(usage: Usage | None) -> str:
    if not usage or not usage.completion_tokens:
        return EMPTY
    count, reasoning = usage.completion_tokens, usage.reasoning()
    of_them = f", {reasoning} of them reasoning that is not shown" if reasoning else ""
    return f"empty answer: the server counts {count} tokens{of_them}, but sent no text; is --api right?"


def _tokens(content: list[Event], last_count: int | None, usage: Usage | None) -> tuple[list[int], int, str]:
    """Tokens of each content event, those that came in no event, and where the counts come from."""
    if not content:
        return [], 0, "none"
    total = usage.completion_tokens if usage else last_count
    if not total:
        return [1] * len(content), 0, "events"
    reasoning, uncounted = (usage.reasoning() or 0, usage.uncounted_reasoning()) if usage else (0, 0)
    total += uncounted
    thoughts = sum(event[KIND] >= REASONING for event in content) if reasoning else 0
    hidden = 0 if thoughts else min(reasoning, max(0, total - len(content)))
    total -= hidden
    so_far = [event[TOKENS] for event in content if event[TOKENS] is not None]
    if len(so_far) == len(content) and not (thoughts and uncounted):
        if so_far[0] > hidden:  # the first count includes it
            so_far = [tokens - hidden for tokens in so_far]
        so_far = list(accumulate([*so_far[:-1], max(total, so_far[-1])], max, initial=0))
        return [b - a for a, b in pairwise(so_far)], hidden, "usage in every event" if usage else "token_ids"
    if total == len(content):
        return [1] * total, hidden, "usage of the answer"
    tokens = _spread(content, total, reasoning if thoughts else 0)
    return tokens, hidden, "usage of the answer, spread over its text"


def _spread(content: list[Event], total: int, reasoning: int) -> list[int]:
    """Split the total over the text; where the server counts reasoning, split that apart from the rest."""
    thoughts = [len(event[TEXT]) for event in content if event[KIND] == REASONING]
    rest = [len(event[TEXT]) for event in content if event[KIND] != REASONING]
    if not (thoughts and rest and 0 < reasoning < total):
        return _shares(total, [len(event[TEXT]) for event in content])
    of_thoughts, of_rest = iter(_shares(reasoning, thoughts)), iter(_shares(total - reasoning, rest))
    return [next(of_thoughts if event[KIND] == REASONING else of_rest) for event in content]


def _shares(total: int, weights: list[int]) -> list[int]:
    """Split total into whole numbers in proportion to weights; where there are enough, each gets at least one."""
    if total == len(weights):
        return [1] * total
    parts = _at_least_one(total, weights if any(weights) else [1] * len(weights))
    edges = [int(done + 0.5) for done in accumulate(parts, initial=0.0)]
    edges[-1] = total
    return [b - a for a, b in pairwise(edges)]


def _at_least_one(total: int, weights: list[int]) -> list[float]:
    """Parts that are not rounded yet: whoever would get less than one gets one, the others share the rest."""
    minimum, small = float(total > len(weights)), -1.0  # weights up to `small` get the minimum
    while True:
        left = [weight for weight in weights if weight > small]
        each = (total - minimum * (len(weights) - len(left))) / sum(left)
        smaller = max((weight for weight in left if weight * each < minimum), default=small)
        if smaller == small:
            return [weight * each if weight > small else minimum for weight in weights]
        small = smaller
