"""What the reference server can be asked to be: its delays, faults and options; its answers and their bytes."""

from __future__ import annotations

import argparse
import heapq
import math
import random
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

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
SAYS = {
    "text": "text",
    "reasoning": "reasoning for half of its tokens, then text",
    "hidden_reasoning": "likewise, but no event shows the reasoning",
    "parts": "likewise shown, as lists of parts",
    "tool_calls": "a tool call",
    "reasoning_tool_calls": "reasoning for half of its tokens, then a tool call",
}
REFUSALS = {"status": b"503 Service Unavailable", "throttle": b"429 Too Many Requests\r\nRetry-After: 1"}
AFTER = 3  # events before the faults that come midway
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Behaviour:
    """Delays in s; with sigma > 0 they are lognormal with that sigma and the given mean."""

    ttft: float = 0.05
    gap: float = 0.01
    sigma: float = 0.0
    service: str = "constant"  # or "exponential": the time to the first event, drawn anew for every request
    tokens_per_event: int = 1
    usage: str = "last"  # "none", "last" (an event of its own at the end) or "each" (in every event)
    slots: int = 0  # answers under way at once, in every process; 0: no limit
    say: str = "text"  # of a chat; one of SAYS
    buffered: bool = False  # all events leave together with the last
    fault: str | None = None
    fault_every: int = 1  # every how many requests
    model: str = "reference"
    context: int = 131072
    key: str = ""  # that requests must bring, if any

    def delay_ns(self, mean_s: float) -> int:
        if not self.sigma:
            return round(mean_s * 1e9)
        return round(random.lognormvariate(math.log(mean_s) - self.sigma**2 / 2, self.sigma) * 1e9)

    def first_s(self) -> float:
        """The time to the first event of one request."""
        return random.expovariate(1 / self.ttft) if self.service == "exponential" else self.ttft


class Slots:
    """Places for answers under way: the queue of a server whose capacity is known."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.free_ns = [0] * behaviour.slots  # heap: when each is free

    def begin_ns(self, first_s: float, gaps: int, arrived_ns: int) -> int:
        """When there is a place for an answer of so many gaps; it is taken for its mean duration."""
        if not self.free_ns:
            return arrived_ns
        begin_ns = max(arrived_ns, self.free_ns[0])
        service_s = first_s + gaps * self.behaviour.gap
        heapq.heapreplace(self.free_ns, begin_ns + round(service_s * 1e9))
        return begin_ns


@dataclass(eq=False)
class Peer:
    """One accepted connection."""

    sock: socket.socket
    buffer: bytes = b""
    closed: bool = False

    def send(self, data: bytes) -> None:
        """A reader that is too slow blocks this server, which the record then shows."""
        try:
            self.sock.send(data)
        except BlockingIOError:
            self.sock.setblocking(True)
            with suppress(OSError):
                self.sock.sendall(data)
            self.sock.setblocking(False)
        except OSError:
            self.closed = True


@dataclass(eq=False)
class Stream:
    """One answer under way."""

    peer: Peer
    request_id: str
    arrived_ns: int
    total: int  # tokens to send
    chat: bool
    prompt_tokens: int
    fault: str | None
    streamed: bool
    scored: bool = False  # Azure ML's scoring format
    says: str = "text"
    sent_ns: list[int] = field(default_factory=list)  # of each event
    event_tokens: list[int] = field(default_factory=list)
    first_answer_event: int | None = None
    tokens: int = 0  # so far
    held: bytes = b""  # events that wait for the last
    plain: bytes = b""  # an event's bytes, where all events are the same

    @property
    def reasoning(self) -> int:
        """Tokens of reasoning, which come first."""
        return 0 if self.says in ("text", "tool_calls") else self.total // 2

    def next_tokens(self, most: int) -> int:
        """Of the next event; none has both reasoning and answer."""
        return min(most, (self.reasoning if self.tokens < self.reasoning else self.total) - self.tokens)


def listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen(4096)
    listener.setblocking(False)
    return listener


def whole(status: bytes, value: Any) -> bytes:
    body = msgspec.json.encode(value)
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + body


def text_asked(ask: dict[str, Any]) -> tuple[str, int]:
    """(prompt, tokens wanted) of a completion, a chat, or a score of Azure ML."""
    if "input_data" in ask:
        data = ask["input_data"]
        return data["input_string"][0], int(data["parameters"]["max_new_tokens"])
    prompt = ask.get("prompt") or " ".join(str(m.get("content")) for m in ask.get("messages", []))
    return prompt, int(ask.get("max_tokens") or ask.get("max_completion_tokens") or 16)


def kind(stream: Stream) -> dict[str, Any]:
    """What OpenAI puts at the head of every chunk."""
    what = "chat.completion.chunk" if stream.chat else "text_completion"
    return {"id": "reference", "object": what, "created": 0}


def said(stream: Stream, text: str) -> dict[str, Any]:
    """A chat's delta, or message, with this text."""
    if stream.tokens < stream.reasoning:
        thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]
        return {"content": thinking} if stream.says == "parts" else {"reasoning_content": text}
    if stream.says == "parts":
        return {"content": [{"type": "text", "text": text}]}
    if not stream.says.endswith("tool_calls"):
        return {"content": text}
    if stream.tokens == stream.reasoning:  # the call begins: its first token is the tool's name
        return {"content": None, "tool_calls": [{"index": 0, "id": "call", "function": {"name": text.strip()}}]}
    return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}


def usage(stream: Stream, done: int) -> dict[str, Any]:
    counts: dict[str, Any] = {"prompt_tokens": stream.prompt_tokens, "completion_tokens": done}
    counts["total_tokens"] = stream.prompt_tokens + done
    if stream.reasoning:
        counts["completion_tokens_details"] = {"reasoning_tokens": min(done, stream.reasoning)}
    return {"usage": counts}


def chunk(value: Any) -> bytes:
    data = b"data: " + msgspec.json.encode(value) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


ERROR = chunk({"error": {"message": "the engine died", "code": 500}})
LAST_WORDS = {
    "broken_chunk": b"twelve\r\nnot a length\r\n",
    "broken_json": b"f\r\ndata: {broken\n\n\r\n" + END,
    "error_event": ERROR + END,
    "error_close": ERROR,
    "no_end": b"0\r\n\r\n",
    "abort": chunk({"choices": [{"index": 0, "finish_reason": "abort"}]}) + END,
}
CLOSES = ("reset", "cut", "broken_chunk", "error_close")
MIDWAY = (*LAST_WORDS, *CLOSES, "stall")


def parse(doc: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000, help="0: a free one, said on the first line of output [8000]")
    add("--processes", type=int, default=1, help="that share the port [1]")
    add("--ttft", type=float, default=0.05, metavar="S", help="request to first event, in s [0.05]")
    add("--gap", type=float, default=0.01, metavar="S", help="event to event, in s [0.01]")
    add("--sigma", type=float, default=0.0, help="of lognormal delays with these means; 0 is constant [0]")
    add("--service", choices=["constant", "exponential"], default="constant", help="how --ttft varies [constant]")
    add("--tokens_per_event", type=int, default=1, metavar="N", help="[1]")
    add("--usage", choices=["none", "last", "each"], default="last", help="where token counts are said [last]")
    says = "; ".join(f"{name}: {what}" for name, what in SAYS.items())
    add("--say", choices=SAYS, default="text", help=f"what a chat answers; {says} [text]")
    add("--buffered", action="store_true", help="all events of an answer leave with its last, as through a proxy")
    add("--slots", type=int, default=0, metavar="N", help="answers at once; more requests wait [no limit]")
    add("--fault", choices=FAULTS, help="; ".join(f"{name}: {what}" for name, what in FAULTS.items()))
    add("--fault_every", type=int, default=1, metavar="N", help="every N-th request has the fault [1]")
    add("--key", default="", help="refuse requests without it (HTTP 401)")
    add("--record", type=Path, metavar="FILE", help="write FILE.<pid> at the end")
    return parser.parse_args()
