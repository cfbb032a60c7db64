"""What one chunk of an OpenAI-compatible answer says, as strictly as it must be and as tolerantly as it may.

Nearly every chunk is decoded by its types alone. What fails that, or has no choices, gets a second look.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec

NOTHING, ANSWER, REASONING, BOTH = range(4)  # what an event carries
THINKING = ("thinking", "reasoning")  # types of parts that are reasoning
MARKS = ("type", "id", "index")  # of parts and tool calls; they are no tokens
COMPLAINTS = ("error", "errors", "error_code", "error_message", "error_msg", "message", "msg", "detail")

Count = Annotated[int, msgspec.Meta(ge=0)]


class Delta(msgspec.Struct, gc=False):
    content: Any = None  # a text, or a list of parts (Mistral)
    reasoning_content: Any = None  # DeepSeek, older vLLM
    reasoning: Any = None  # vLLM, OpenRouter
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None  # what tool_calls were at first


class Choice(msgspec.Struct, gc=False):
    text: str | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    error: Any = None  # OpenRouter's place for it

    def said(self) -> tuple[str, int]:
        """What a chat says in it, and what that is; a tool call counts also where it has no text yet."""
        delta = self.delta or self.message
        if delta is None:
            return "", NOTHING
        answer, thought = delta.content, delta.reasoning_content or delta.reasoning
        if answer.__class__ is str and not (thought or delta.tool_calls or delta.function_call or delta.refusal):
            return answer, ANSWER if answer else NOTHING  # as nearly all of them are
        thought, more = _text_of(thought), delta.tool_calls or delta.function_call or delta.refusal
        parts = answer if isinstance(answer, list) else [answer]
        thought += "".join(_text_of(part) for part in parts if _is_thinking(part))
        answer = "".join(_text_of(part) for part in parts if not _is_thinking(part))
        if answer or more:
            answer += _text_of([delta.refusal, delta.tool_calls, delta.function_call])
            return thought + answer, BOTH if thought else ANSWER
        return thought, REASONING if thought else NOTHING


def _is_thinking(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in THINKING


def _text_of(part: Any) -> str:
    """Everything that a part or a tool call says, one after the other."""
    if isinstance(part, dict):
        part = [value for name, value in part.items() if name not in MARKS]
    if isinstance(part, list):
        return "".join(map(_text_of, part))
    return "" if part is None else str(part)


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: Count | None = None


class Usage(msgspec.Struct, gc=False):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    total_tokens: int = 0
    reasoning_tokens: Count | None = None  # SGLang's place for them
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def reasoned(self) -> int | None:
        details = self.completion_tokens_details
        return self.reasoning_tokens if details is None else details.reasoning_tokens

    def left_out(self) -> int:
        """Reasoning tokens that completion_tokens does not include (xAI's, Gemini's)."""
        reasoning = self.reasoned() or 0
        apart = self.total_tokens == self.prompt_tokens + self.completion_tokens + reasoning
        return reasoning if apart or reasoning > self.completion_tokens else 0


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_leniently = msgspec.json.Decoder(Chunk, strict=False).decode
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Stop(Exception):
    """Nothing is to be read after this chunk: `[DONE]`, or what is wrong (told by the server itself, or ours)."""

    def __init__(self, error: str | None = None, told: bool = False) -> None:
        self.error, self.told = error, told


def second_look(data: bytes, problem: Exception) -> Chunk:
    """A chunk that is not quite what it should be. Raises Stop at `[DONE]`, and where it cannot be understood.

    Counts may be written as texts or fractions; a usage that counts nothing does not void the answer.
    """
    if data.strip() == b"[DONE]":
        raise Stop
    try:
        value = tolerant_json(data) or {}
        try:
            return _leniently(value)
        except msgspec.ValidationError:
            if not (isinstance(value, dict) and "usage" in value):
                raise
            return _leniently({name: part for name, part in value.items() if name != "usage"})
    except UNREADABLE:
        raise Stop(f"not a completion chunk: {problem}: {shown(data)}") from None


def _leniently(value: Any) -> Chunk:
    return decode_leniently(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


def tolerant_json(data: bytes) -> Any:
    """JSON that may hold half UTF-8 characters, lone surrogates, NaN; its nulls are left out. Else UNREADABLE."""
    text = data.decode(errors="replace")
    return json.loads(text, strict=False, parse_constant=lambda _: None, object_pairs_hook=_without_nulls)


def _without_nulls(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    lists = {name: [v for v in value if v is not None] for name, value in pairs if isinstance(value, list)}
    return {name: lists.get(name, value) for name, value in pairs if value is not None}


def refuse_complaint(chunk: Chunk, data: bytes) -> None:
    """Raises Stop if this chunk, without choices or with an error, says that something went wrong."""
    said = chunk.error
    if not said and not chunk.usage and chunk.choices is None:
        value = object_of(data)
        said = value if complains(value) else None
    if said:
        raise complaint(said)


def complains(value: dict[str, Any]) -> bool:
    """Does this object, no chunk of an answer, say that something went wrong? (A message may be another API's.)"""
    answers = "choices" in value or isinstance(value.get("message"), dict)
    return not answers and any(value.get(name) for name in COMPLAINTS)


def complaint(said: Any) -> Stop:
    """The server's own words."""
    return Stop(f"error inside the answer: {shown(msgspec.json.encode(said))}", told=True)


def object_of(data: bytes) -> dict[str, Any]:
    """The JSON object that data is, without what is null in it; empty where it is none."""
    try:
        value = tolerant_json(data)
    except UNREADABLE:
        return {}
    return value if isinstance(value, dict) else {}


def shown(data: bytes) -> str:
    """Its first bytes, on one line, harmless to a terminal."""
    text = " ".join(data[:300].decode(errors="replace").split())
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
