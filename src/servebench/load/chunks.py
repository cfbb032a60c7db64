"""One chunk of an OpenAI-compatible answer: its text, usage and errors.

Nearly every chunk is decoded by its types alone. One that fails that, or has no choices, is looked at again with
more tolerance.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any

import msgspec

NOTHING, ANSWER, REASONING, BOTH = range(4)  # what the text of an event is
REASONING_PARTS = ("thinking", "reasoning")  # types of parts
NOT_TEXT = ("type", "id", "index")  # fields of parts and tool calls that are not made of tokens
ERROR_FIELDS = ("error", "errors", "error_code", "error_message", "error_msg", "message", "msg", "detail")

Count = Annotated[int, msgspec.Meta(ge=0)]


class Delta(msgspec.Struct, gc=False):
    content: Any = None  # a text, or a list of parts (Mistral)
    reasoning_content: Any = None  # DeepSeek, older vLLM
    reasoning: Any = None  # vLLM, OpenRouter
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None  # the older form of tool_calls


class Choice(msgspec.Struct, gc=False):
    text: str | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: Any = None
    error: Any = None  # where OpenRouter puts it

    def content(self) -> tuple[str, int]:
        """The text of a chat, and what it is. A tool call is content also where it has no text yet."""
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


def logprobs_of(value: Any) -> list[float]:
    """The log-probabilities of a choice's tokens, as completions or chats have them; none in any other form."""
    forms = (value.get("token_logprobs"), value.get("content")) if isinstance(value, dict) else ()
    tokens = next((form for form in forms if isinstance(form, list)), [])
    numbers = (token.get("logprob") if isinstance(token, dict) else token for token in tokens)
    return [float(number) for number in numbers if isinstance(number, int | float)]


def _is_thinking(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in REASONING_PARTS


def _text_of(part: Any) -> str:
    """All the text of a part or a tool call."""
    if isinstance(part, dict):
        part = [value for name, value in part.items() if name not in NOT_TEXT]
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
    reasoning_tokens: Count | None = None  # where SGLang puts them
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    def reasoning(self) -> int | None:
        details = self.completion_tokens_details
        return self.reasoning_tokens if details is None else details.reasoning_tokens

    def uncounted_reasoning(self) -> int:
        """Reasoning tokens that completion_tokens does not include (xAI's, Gemini's)."""
        reasoning = self.reasoning() or 0
        apart = self.total_tokens == self.prompt_tokens + self.completion_tokens + reasoning
        return reasoning if apart or reasoning > self.completion_tokens else 0


class Timings(msgspec.Struct):
    prompt_ms: float | None = None


class Metrics(msgspec.Struct):
    queue_time_ms: float | None = None
    time_to_first_token_ms: float | None = None  # since it left the queue


class ServerTimes(msgspec.Struct):
    """What a server tells of the times of one request, in the last chunk of its answer."""

    timings: Timings | None = None  # llama.cpp
    metrics: Metrics | None = None  # vLLM with --enable-per-request-metrics

    def queue_s(self) -> float | None:
        return _seconds(self.metrics.queue_time_ms if self.metrics else None)

    def prefill_s(self) -> float | None:
        prompt_ms = self.timings.prompt_ms if self.timings else None
        return _seconds(self.metrics.time_to_first_token_ms if self.metrics else prompt_ms)


def _seconds(ms: float | None) -> float | None:
    return None if ms is None or ms < 0 else ms / 1e3


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_times = msgspec.json.Decoder(ServerTimes).decode
decode_leniently = msgspec.json.Decoder(Chunk, strict=False).decode
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class EndOfAnswer(Exception):
    """Nothing is read after this chunk: it is `[DONE]`, or has an error (the server's own words, or ours)."""

    def __init__(self, error: str | None = None, from_server: bool = False) -> None:
        self.error, self.from_server = error, from_server


def decode_tolerantly(data: bytes, problem: Exception) -> Chunk:
    """A chunk that is not quite what it should be. Raises EndOfAnswer at `[DONE]`, and where it makes no sense.

    Counts may be written as texts or fractions. An invalid usage is ignored.
    """
    if data.strip() == b"[DONE]":
        raise EndOfAnswer
    try:
        value = tolerant_json(data) or {}
        try:
            return _convert(value)
        except msgspec.ValidationError:
            if not (isinstance(value, dict) and "usage" in value):
                raise
            return _convert({name: part for name, part in value.items() if name != "usage"})
    except UNREADABLE:
        raise EndOfAnswer(f"not a completion chunk: {problem}: {excerpt(data)}") from None


def _convert(value: Any) -> Chunk:
    return decode_leniently(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


def tolerant_json(data: bytes) -> Any:
    """JSON without its nulls. It may hold half UTF-8 characters, lone surrogates, NaN. Raises UNREADABLE."""
    text = data.decode(errors="replace")
    return json.loads(text, strict=False, parse_constant=lambda _: None, object_pairs_hook=_without_nulls)


def _without_nulls(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    lists = {name: [v for v in value if v is not None] for name, value in pairs if isinstance(value, list)}
    return {name: lists.get(name, value) for name, value in pairs if value is not None}


def times_of(data: bytes) -> ServerTimes:
    """The times in a chunk. Most servers tell none, which takes no parser to see."""
    if b'"timings"' in data or b'"metrics"' in data:
        with suppress(*UNREADABLE):
            return decode_times(data)
    return ServerTimes()


def raise_server_error(chunk: Chunk, data: bytes) -> None:
    """Raises EndOfAnswer if this chunk, without choices or with an error, says that something went wrong."""
    error = chunk.error
    if not error and not chunk.usage and chunk.choices is None:
        value = json_object(data)
        error = value if is_error(value) else None
    if error:
        raise server_error(error)


def is_error(value: dict[str, Any]) -> bool:
    """Does this object say that something went wrong?"""
    is_answer = "choices" in value or isinstance(value.get("message"), dict)  # `message` of another API
    return not is_answer and any(value.get(name) for name in ERROR_FIELDS)


def server_error(error: Any) -> EndOfAnswer:
    return EndOfAnswer(f"error inside the answer: {excerpt(msgspec.json.encode(error))}", from_server=True)


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object without its nulls; empty where data is something else."""
    try:
        value = tolerant_json(data)
    except UNREADABLE:
        return {}
    return value if isinstance(value, dict) else {}


def excerpt(data: bytes) -> str:
    """The first bytes, on one line, harmless to a terminal."""
    text = " ".join(data[:300].decode(errors="replace").split())
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
