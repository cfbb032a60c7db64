"""How the reference server behaves (its options and faults), and the bytes of its answers."""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import msgspec

from servebench.reference.texts import BROKEN, WORDS, answer_of, asked, broken, known_questions, plain, words

FAULTS = {
    "status": "HTTP 503 instead of an answer",
    "throttle": "HTTP 429 with Retry-After",
    "reset": "a TCP reset after three events",
    "cut": "a clean close after three events",
    "stall": "nothing more after three events",
    "garbage": "bytes that are not HTTP",
    "broken_chunk": "after three events, a chunk whose length is not a number, then a close",
    "broken_json": "an event that is not JSON",
    "error_event": "an error inside the stream of a 200",
    "error_close": "the same, then a close inside the answer",
    "no_end": "after three events, an end of HTTP's alone, as when a proxy cuts a stream off",
    "abort": "after three events, finish_reason abort",
    "slow_headers": "half a second before the headers",
    "close": "a close right after a complete answer, unannounced",
    "silent_close": "a close before any answer",
}
METRICS = {
    "ok": "the true numbers, by vLLM's names",
    "hang": "no answer",
    "error": "HTTP 500",
    "nan": "NaN for every number",
    "half": "an end in the middle of a line",
    "huge": "50 MB",
}
CHAT_ANSWERS = {
    "text": "text",
    "reasoning": "reasoning for half of its tokens, then text",
    "hidden_reasoning": "likewise, but no event shows the reasoning",
    "parts": "likewise shown, as lists of parts",
    "tool_calls": "a tool call",
    "reasoning_tool_calls": "reasoning for half of its tokens, then a tool call",
}


def described(choices: dict[str, str]) -> str:
    return "; ".join(f"{name}: {what}" for name, what in choices.items())


def option(default: Any, help: str, **of_argparse: Any) -> Any:
    """A field that is an option of the command line."""
    return field(default=default, metadata={"help": help} | of_argparse)


@dataclass(frozen=True)
class Behaviour:
    """What the reference server is asked to be; each field is an option of its command line. Delays are in s."""

    ttft: float = option(0.05, "request to first event, in s [0.05]", metavar="S")
    gap: float = option(0.01, "event to event, in s [0.01]", metavar="S")
    sigma: float = option(0.0, "sigma of lognormal delays with these means; 0 is constant [0]")
    service: str = option("constant", "how --ttft varies [constant]", choices=["constant", "exponential"])
    tokens_per_event: int = option(1, "[1]", metavar="N")
    usage: str = option("last", "where token counts are sent [last]", choices=["none", "last", "each"])
    say: str = option("text", f"what a chat answers; {described(CHAT_ANSWERS)} [text]", choices=CHAT_ANSWERS)
    buffered: bool = option(
        False, "all events of an answer leave with its last, as through a proxy", action="store_true"
    )
    slots: int = option(0, "answers at once; more requests wait [no limit]", metavar="N")  # in every process
    fault: str = option("", described(FAULTS), choices=FAULTS)
    fault_every: int = option(1, "every N-th request has the fault [1]", metavar="N")
    know: str = option("", "answer these questions rightly, with finish_reason stop", metavar="FILE.jsonl")
    wrong_share: float = option(0.0, "of the questions of --know, those answered wrongly [0]", metavar="X")
    broken: str = option("", f"break texts: {described(BROKEN)}", choices=BROKEN)
    broken_above: int = option(0, "only with more requests than that in flight [0: always]", metavar="N")
    broken_share: float = option(1.0, "only so many of the answers [1: all]", metavar="X")
    metrics: str = option("ok", f"what /metrics answers; {described(METRICS)} [ok]", choices=METRICS)
    key: str = option("", "refuse requests without it (HTTP 401)")

    def delay_ns(self, mean_s: float) -> int:
        if not self.sigma:
            return round(mean_s * 1e9)
        return round(random.lognormvariate(math.log(mean_s) - self.sigma**2 / 2, self.sigma) * 1e9)

    def first_s(self) -> float:
        """The time to the first event of one request."""
        return random.expovariate(1 / self.ttft) if self.service == "exponential" else self.ttft

    def events(self, tokens: int) -> int:
        """How many events carry so many tokens."""
        return -(-tokens // self.tokens_per_event)


def add_options(parser: argparse.ArgumentParser) -> None:
    for f in fields(Behaviour):
        how: dict[str, Any] = {"default": f.default, **f.metadata}
        if "action" not in how:
            how["type"] = type(f.default)
        parser.add_argument(f"--{f.name}", **how)


class RequestRecord(msgspec.Struct, array_like=True):
    """What the server writes down of a request; times are ns of CLOCK_REALTIME."""

    request_id: str  # the client's X-Request-Id
    arrived_ns: int  # the kernel's stamp
    tokens: int
    reasoning_tokens: int = 0
    events_ns: list[int] = []  # just before each content event was sent
    event_tokens: list[int] = []
    first_answer_event: int | None = None  # index of the first event that is not reasoning


class Answer:
    """The answer to a completion, a chat or Azure ML's score: what was asked for, and how far it is."""

    def __init__(
        self, behaviour: Behaviour, fault: str, request: dict[str, Any], request_id: str, arrived_ns: int
    ) -> None:
        self.behaviour, self.fault = behaviour, fault
        self.azure_ml, self.chat = "input_data" in request, "messages" in request
        self.streamed = bool(request.get("stream"))
        self.kind = behaviour.say if self.chat else "text"  # one of CHAT_ANSWERS
        if self.azure_ml:
            data = request["input_data"]
            self.prompt, self.most = data["input_string"][0], int(data["parameters"]["max_new_tokens"])
        else:
            self.prompt = asked(request)
            self.most = int(request.get("max_tokens") or request.get("max_completion_tokens") or 16)
        self.prompt_tokens = len(self.prompt.split())
        self.reasoning = 0 if self.kind in ("text", "tool_calls") else self.most // 2  # tokens, which come first
        self.begin_ns = arrived_ns  # when it got its slot
        self.record = RequestRecord(request_id, arrived_ns, self.most, self.reasoning)
        self.tokens = 0  # sent so far
        self.held = b""  # events that wait for the last
        self.plain: Iterator[bytes] | None = None  # its events, where they are `plain_events`

    def decide(self, how: str = "", other: str = "") -> None:
        """What it says, broken in one of the ways of BROKEN. `other` is the prompt of another request."""
        prompt = other if how == "swap" else self.prompt
        known, most = known_questions(self.behaviour.know, self.behaviour.wrong_share), self.most - self.reasoning
        text = answer_of(known[prompt][how == "wrong"], most) if prompt in known else plain(prompt, most)
        if self.reasoning:
            text = text._replace(tokens=words(self.reasoning) + text.tokens)
        self.broken, self.text = how, broken(text, how, self.most) if how else text
        self.total = self.record.tokens = len(self.text.tokens)
        self.reasoning = self.record.reasoning_tokens = min(self.reasoning, self.total)

    def said(self, start: int, end: int) -> str:
        """The text of these tokens."""
        return "".join(self.text.tokens[start:end])

    @property
    def next_tokens(self) -> int:
        """Tokens of the next event, which has either reasoning or answer."""
        end = self.reasoning if self.tokens < self.reasoning else self.total
        return min(self.behaviour.tokens_per_event, end - self.tokens)

    @property
    def events_are_plain(self) -> bool:
        alike = self.behaviour.usage != "each" and not self.behaviour.buffered
        return alike and self.kind == "text" and self.text.first >= 0

    def event(self) -> bytes:
        """The next content event."""
        tokens = self.next_tokens
        text = self.said(self.tokens, self.tokens + tokens)
        choice: dict[str, Any] = {"index": 0}
        choice |= {"delta": self._delta(text)} if self.chat else {"text": text}
        counts = self._usage(self.tokens + tokens) if self.behaviour.usage == "each" else {}
        return part(self.chat, [choice], counts)

    def end(self) -> bytes:
        """All that follows the last content event."""
        why = "tool_calls" if self.kind.endswith("tool_calls") else self.text.why
        stop: dict[str, Any] = {"index": 0, "finish_reason": why}
        stop["delta" if self.chat else "text"] = {} if self.chat else ""
        counts = part(self.chat, [], self._usage(self.total)) if self.behaviour.usage == "last" else b""
        return part(self.chat, [stop], {}) + counts + END

    def whole(self) -> bytes:
        """The response of an answer that is not streamed."""
        text = self.said(0, self.total)
        if self.azure_ml:
            return response(b"200 OK", [{"0": text}])
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.text.why}
        choice |= {"message": self._message()} if self.chat else {"text": text}
        return response(b"200 OK", {"choices": [choice]} | self._usage(self.total))

    def _message(self) -> dict[str, Any]:
        """The message of a non-streamed chat answer: its reasoning, if that is shown, and the rest."""
        thought = self._delta(self.said(0, self.reasoning)) if self.kind != "hidden_reasoning" else {}
        self.tokens = self.reasoning
        rest = self._delta(self.said(self.reasoning, self.total))
        return {"content": thought["content"] + rest["content"]} if self.kind == "parts" else thought | rest

    def _delta(self, text: str) -> dict[str, Any]:
        """A chat's delta, or message, with this text."""
        if self.tokens < self.reasoning:
            thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]
            return {"content": thinking} if self.kind == "parts" else {"reasoning_content": text}
        if self.kind == "parts":
            return {"content": [{"type": "text", "text": text}]}
        if not self.kind.endswith("tool_calls"):
            return {"content": text}
        if self.tokens == self.reasoning:  # the call begins: its first token is the tool's name
            return {
                "content": None,
                "tool_calls": [{"index": 0, "id": "call", "function": {"name": text.strip()}}],
            }
        return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}

    def _usage(self, done: int) -> dict[str, Any]:
        counts: dict[str, Any] = {"prompt_tokens": self.prompt_tokens, "completion_tokens": done}
        counts["total_tokens"] = self.prompt_tokens + done
        if self.reasoning:
            counts["completion_tokens_details"] = {"reasoning_tokens": min(done, self.reasoning)}
        return {"usage": counts}


def part(chat: bool, choices: list[dict[str, Any]], usage: dict[str, Any]) -> bytes:
    """A part of a streamed completion or chat."""
    what = "chat.completion.chunk" if chat else "text_completion"
    return chunk({"id": "reference", "object": what, "created": 0, "choices": choices} | usage)


@cache
def plain_events(chat: bool, tokens: int, first: int) -> list[bytes]:
    """The events of so many words each from this place in WORDS on, up to where they begin again."""
    places = [(first + n * tokens) % len(WORDS) for n in range(len(WORDS))]
    return [_plain_event(chat, tokens, place) for place in places]


@cache
def _plain_event(chat: bool, tokens: int, first: int) -> bytes:
    text = "".join(words(tokens, first))
    return part(chat, [{"index": 0} | ({"delta": {"content": text}} if chat else {"text": text})], {})


def response(status: bytes, value: Any) -> bytes:
    """An HTTP response with this JSON."""
    return _response(status, b"application/json", msgspec.json.encode(value))


def _response(status: bytes, kind: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (status, kind, len(body), body)


def metrics_page(how: str, numbers: dict[str, float]) -> bytes:
    """The response of /metrics with these numbers, or its fault."""
    if how in ("hang", "error"):
        return b"" if how == "hang" else response(b"500 Internal Server Error", {})
    value = "NaN" if how == "nan" else "{}"
    page = "".join(f'vllm:{name}{{engine="0"}} {value.format(number)}\n' for name, number in numbers.items())
    page = page[: page.rindex("{")] if how == "half" else page + "# filling\n" * (5_000_000 * (how == "huge"))
    return _response(b"200 OK", b"text/plain", page.encode())


def chunk(value: Any) -> bytes:
    """A server-sent event as an HTTP chunk."""
    data = b"data: " + msgspec.json.encode(value) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

# Bytes of the faults.
REFUSALS = {"status": b"503 Service Unavailable", "throttle": b"429 Too Many Requests\r\nRetry-After: 1"}
ERROR = chunk({"error": {"message": "the engine died", "code": 500}})
LAST_BYTES = {
    "broken_chunk": b"twelve\r\nnot a length\r\n",
    "broken_json": b"f\r\ndata: {broken\n\n\r\n" + END,
    "error_event": ERROR + END,
    "error_close": ERROR,
    "no_end": b"0\r\n\r\n",
    "abort": chunk({"choices": [{"index": 0, "finish_reason": "abort"}]}) + END,
}
CLOSES = ("reset", "cut", "broken_chunk", "error_close")
MIDWAY = (*LAST_BYTES, *CLOSES, "stall")
EVENTS_BEFORE = 3  # the faults that come midway
