"""A server whose times are known: OpenAI-compatible streaming with given delays, faults on demand, and a record of
when every event really left. Tests, calibration and `benchmarks/` measure the client against it.

    python -m servebench reference-server --port 8000 --ttft 0.05 --gap 0.01 --record /tmp/truth

One epoll loop a process. The record holds, of each request: the client's X-Request-Id, the kernel's stamp of the
request's arrival, the time just before each send of a content event (ns of CLOCK_REALTIME), the tokens in each of
them, all tokens, the reasoning among them, and the index of the first event that is not reasoning.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from time import time_ns
from typing import Any

import msgspec

from servebench.load.wire import ask_for_stamps, read_stamped, stamped_dummy
from servebench.reference.answers import (
    AFTER,
    CLOSES,
    END,
    HEAD,
    LAST_WORDS,
    MIDWAY,
    REFUSALS,
    Behaviour,
    Peer,
    Slots,
    Stream,
    chunk,
    kind,
    listen,
    parse,
    said,
    text_asked,
    usage,
    whole,
)


class Server:
    """The loop: requests in, events out when they are due."""

    def __init__(self, listener: socket.socket, behaviour: Behaviour, record: Path | None) -> None:
        self.listener, self.behaviour, self.record = listener, behaviour, record
        self.epoll = select.epoll()
        self.epoll.register(listener, select.EPOLLIN)
        self.peers: dict[int, Peer] = {}
        self.due: list[tuple[int, int, Stream]] = []  # heap of (time, tie-breaker, stream)
        self.slots = Slots(behaviour)
        self.requests = 0
        self.done: list[Stream] = []
        self.running = True

    def run(self) -> None:
        while self.running:
            self._send_what_is_due()
            for fd, _ in self.epoll.poll(self._wait_s()):
                if fd == self.listener.fileno():
                    self._accept()
                elif fd in self.peers:
                    self._receive(self.peers[fd])
        self._write_record()

    def _wait_s(self) -> float:
        """epoll counts in ms, so what is due within one is waited for by a nap instead."""
        wait_s = (self.due[0][0] - time_ns()) / 1e9 if self.due else 0.1
        if 0 < wait_s < 0.001:
            time.sleep(wait_s)
        return max(0.0, min(wait_s - 0.001, 0.1))

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = self.listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ask_for_stamps(sock)
                self.peers[sock.fileno()] = Peer(sock)
                self.epoll.register(sock, select.EPOLLIN)

    def _receive(self, peer: Peer) -> None:
        try:
            piece = read_stamped(peer.sock, 0)
        except BlockingIOError:
            return
        except OSError:
            self._close(peer)
            return
        if not piece.data:
            self._close(peer)
            return
        peer.buffer += piece.data
        head, blank, rest = peer.buffer.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        length = int(headers.get(b"content-length", 0))
        if blank and len(rest) >= length:
            peer.buffer = rest[length:]
            self._answer(peer, head.split(b" ", 2)[1].decode(), headers, rest[:length], piece.stamp_ns)

    def _close(self, peer: Peer, reset: bool = False) -> None:
        self.epoll.unregister(peer.sock)
        self.peers.pop(peer.sock.fileno(), None)
        if reset:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()
        peer.closed = True

    def _answer(self, peer: Peer, path: str, headers: dict[bytes, bytes], body: bytes, arrived_ns: int) -> None:
        key = self.behaviour.key
        if path == "/v1/models":
            model = {"id": self.behaviour.model, "max_model_len": self.behaviour.context}
            peer.send(whole(b"200 OK", {"data": [model]}))
        elif key and headers.get(b"authorization") != f"bearer {key}".lower().encode():
            peer.send(whole(b"401 Unauthorized", {"error": {"message": "the key is wrong"}}))
        elif not path.partition("?")[0].endswith(("/completions", "/score")):
            peer.send(whole(b"200 OK", {}))
        else:
            request_id = headers.get(b"x-request-id", b"").decode()
            self._begin(peer, msgspec.json.decode(body), request_id, arrived_ns)

    def _begin(self, peer: Peer, ask: dict[str, Any], request_id: str, arrived_ns: int) -> None:
        self.requests += 1
        behaviour = self.behaviour
        fault = behaviour.fault if self.requests % behaviour.fault_every == 0 else None
        (prompt, tokens), chat = text_asked(ask), "messages" in ask
        first_s, says = behaviour.first_s(), behaviour.say if chat else "text"
        kind_of = (len(prompt.split()), fault, bool(ask.get("stream")), "input_data" in ask, says)
        stream = Stream(peer, request_id, arrived_ns, tokens, chat, *kind_of)
        if fault in REFUSALS:
            peer.send(whole(REFUSALS[fault], {"error": {"message": "as asked for"}}))
        elif fault == "garbage":
            peer.send(b"SSH-2.0-not-http\r\n\r\n")
        elif fault == "silent_close":
            self._close(peer)
        elif not stream.streamed:
            begin_ns = self.slots.begin_ns(first_s, stream.total, arrived_ns)
            self._schedule(stream, begin_ns + behaviour.delay_ns(first_s + behaviour.gap * stream.total))
        else:
            if fault != "slow_headers":
                peer.send(HEAD)
            same = behaviour.usage != "each" and stream.says == "text" and not behaviour.buffered
            if same:
                stream.plain, stream.first_answer_event = self._event(stream), 0
            begin_ns = self.slots.begin_ns(first_s, -(-stream.total // behaviour.tokens_per_event) - 1, arrived_ns)
            if stream.says == "hidden_reasoning":
                stream.tokens = stream.reasoning
                begin_ns += behaviour.delay_ns(behaviour.gap * -(-stream.reasoning // behaviour.tokens_per_event))
            self._schedule(stream, begin_ns + behaviour.delay_ns(first_s))

    def _schedule(self, stream: Stream, due_ns: int) -> None:
        heapq.heappush(self.due, (due_ns, id(stream), stream))

    def _event(self, stream: Stream) -> bytes:
        """One content event as a chunk."""
        text = " word" * stream.next_tokens(self.behaviour.tokens_per_event)
        choice: dict[str, Any] = {"index": 0} | ({"delta": said(stream, text)} if stream.chat else {"text": text})
        return chunk(kind(stream) | {"choices": [choice]} | self._usage(stream, "each"))

    def _usage(self, stream: Stream, when: str) -> dict[str, Any]:
        if self.behaviour.usage != when:
            return {}
        return usage(stream, stream.tokens + stream.next_tokens(self.behaviour.tokens_per_event))

    def _send_what_is_due(self) -> None:
        due = self.due
        gap_ns, varied = round(self.behaviour.gap * 1e9), self.behaviour.sigma > 0
        step = self.behaviour.tokens_per_event
        while due and due[0][0] <= time_ns():
            due_ns, tie, stream = due[0]
            if stream.plain and stream.tokens + 2 * step < stream.total and not stream.fault:  # nothing special
                stream.sent_ns.append(time_ns())
                stream.peer.send(stream.plain)
                stream.event_tokens.append(step)
                stream.tokens += step
                gap = self.behaviour.delay_ns(self.behaviour.gap) if varied else gap_ns
                heapq.heapreplace(due, (due_ns + gap, tie, stream))
            else:
                heapq.heappop(due)
                self._send_with_care(stream, due_ns)

    def _send_with_care(self, stream: Stream, due_ns: int) -> None:
        """First, last and faulty events, and answers that are not streamed."""
        peer, behaviour = stream.peer, self.behaviour
        if peer.closed:
            return
        if not stream.streamed:
            self._send_whole(stream)
            return
        if stream.fault and len(stream.sent_ns) >= AFTER and self._fail_midway(stream):
            return
        if stream.fault == "slow_headers" and not stream.sent_ns:
            time.sleep(0.5)
            peer.send(HEAD)
        self._send_event(stream)
        if stream.tokens < stream.total:
            self._schedule(stream, due_ns + behaviour.delay_ns(behaviour.gap))
        else:
            self._finish(stream)

    def _send_event(self, stream: Stream) -> None:
        tokens, event = stream.next_tokens(self.behaviour.tokens_per_event), self._event(stream)
        if stream.first_answer_event is None and stream.tokens >= stream.reasoning:
            stream.first_answer_event = len(stream.sent_ns)
        stream.sent_ns.append(time_ns())
        if self.behaviour.buffered:
            stream.held += event
        else:
            stream.peer.send(event)
        stream.event_tokens.append(tokens)
        stream.tokens += tokens

    def _fail_midway(self, stream: Stream) -> bool:
        """Do the fault; True when nothing is to follow."""
        if stream.fault in LAST_WORDS:
            stream.peer.send(LAST_WORDS[stream.fault])
        if stream.fault in CLOSES:
            self._close(stream.peer, reset=stream.fault == "reset")
        return stream.fault in MIDWAY

    def _send_whole(self, stream: Stream) -> None:
        text = " word" * stream.total
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        choice |= {"message": self._message(stream)} if stream.chat else {"text": text}
        stream.event_tokens = [stream.total - (stream.reasoning if stream.says == "hidden_reasoning" else 0)]
        stream.first_answer_event = 0
        stream.sent_ns.append(time_ns())
        answer = [{"0": text}] if stream.scored else {"choices": [choice]} | usage(stream, stream.total)
        stream.peer.send(whole(b"200 OK", answer))
        self.done.append(stream)

    def _message(self, stream: Stream) -> dict[str, Any]:
        """A chat's whole answer: its reasoning, if that is shown, and the rest."""
        thought = said(stream, " word" * stream.reasoning) if stream.says != "hidden_reasoning" else {}
        stream.tokens = stream.reasoning
        rest = said(stream, " word" * (stream.total - stream.reasoning))
        return {"content": thought["content"] + rest["content"]} if stream.says == "parts" else thought | rest

    def _finish(self, stream: Stream) -> None:
        why = "tool_calls" if stream.says.endswith("tool_calls") else "length"
        stop: dict[str, Any] = {"index": 0, "finish_reason": why}
        stop["delta" if stream.chat else "text"] = {} if stream.chat else ""
        last = chunk(kind(stream) | {"choices": [stop]})
        if self.behaviour.usage == "last":
            last += chunk(kind(stream) | {"choices": []} | self._usage(stream, "last"))
        if stream.held:
            stream.sent_ns = [time_ns()] * len(stream.sent_ns)
        stream.peer.send(stream.held + last + END)
        self.done.append(stream)
        if stream.fault == "close":
            self._close(stream.peer)

    def _write_record(self) -> None:
        if self.record:
            rows = [
                [s.request_id, s.arrived_ns, s.sent_ns, s.event_tokens, s.total, s.reasoning, s.first_answer_event]
                for s in self.done
            ]
            self.record.with_name(f"{self.record.name}.{os.getpid()}").write_bytes(msgspec.json.encode(rows))


def main() -> None:
    args = parse(__doc__)
    behaviour = Behaviour(**{f.name: getattr(args, f.name) for f in fields(Behaviour) if f.name in args})
    listener = listen(args.host, args.port)
    port = listener.getsockname()[1]
    print(f"http://{f'[{args.host}]' if ':' in args.host else args.host}:{port}", flush=True)
    children: list[int] = []
    for _ in range(args.processes - 1):
        pid = os.fork()
        if not pid:  # a child has a listener of its own on the same port, and no children
            listener.close()
            listener, children = listen(args.host, port), []
            break
        children.append(pid)
    serve(listener, behaviour, args.record, children)


def serve(listener: socket.socket, behaviour: Behaviour, record: Path | None, children: list[int]) -> None:
    """Until SIGTERM or SIGINT, which the first process hands on."""
    server = Server(listener, behaviour, record)

    def stop(*_: object) -> None:
        server.running = False
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    dummy = stamped_dummy()
    server.run()
    dummy.close()
    for pid in children:
        os.waitpid(pid, 0)
