"""A server whose times are known: OpenAI-compatible streaming with given delays, faults on demand, and a record of
when every event really left. Tests, calibration and `benchmarks/` measure the client against it.

    python -m servebench.reference_server --port 8000 --ttft 0.05 --gap 0.01 --record /tmp/truth

One epoll loop a process. The record holds, a line a request, the client's X-Request-Id, the kernel's stamp of the
request's arrival and the time just before each send of a content event (ns of CLOCK_REALTIME).
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from time import time_ns
from typing import Any

import msgspec

from servebench.load.wire import ask_for_stamps, read_stamped, stamped_dummy
from servebench.reference_answers import (
    AFTER,
    END,
    HEAD,
    REFUSALS,
    Behaviour,
    Peer,
    Slots,
    Stream,
    chunk,
    kind,
    listen,
    parse,
    text_asked,
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
            for fd, _ in self.epoll.poll(self._patience_s()):
                if fd == self.listener.fileno():
                    self._accept()
                elif fd in self.peers:
                    self._receive(self.peers[fd])
        self._write_record()

    def _patience_s(self) -> float:
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
        if path == "/v1/models":
            model = {"id": self.behaviour.model, "max_model_len": self.behaviour.context}
            peer.send(whole(b"200 OK", {"data": [model]}))
        elif (
            self.behaviour.key and headers.get(b"authorization") != f"bearer {self.behaviour.key}".lower().encode()
        ):
            peer.send(whole(b"401 Unauthorized", {"error": {"message": "the key is wrong"}}))
        elif not path.partition("?")[0].endswith(("/completions", "/score")):
            peer.send(whole(b"200 OK", {}))
        else:
            ask = msgspec.json.decode(body)
            request_id = headers.get(b"x-request-id", b"").decode()
            self._begin(peer, ask, request_id, arrived_ns)

    def _begin(self, peer: Peer, ask: dict[str, Any], request_id: str, arrived_ns: int) -> None:
        self.requests += 1
        behaviour = self.behaviour
        fault = behaviour.fault if self.requests % behaviour.fault_every == 0 else None
        said, tokens = text_asked(ask)
        first_s = behaviour.first_s()
        stream = Stream(
            peer,
            request_id,
            arrived_ns,
            tokens,
            "messages" in ask,
            len(said.split()),
            fault,
            bool(ask.get("stream")),
            "input_data" in ask,
        )
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
            stream.plain = self._event(stream) if behaviour.usage != "each" else b""
            begin_ns = self.slots.begin_ns(first_s, -(-stream.total // behaviour.tokens_per_event) - 1, arrived_ns)
            self._schedule(stream, begin_ns + behaviour.delay_ns(first_s))

    def _schedule(self, stream: Stream, due_ns: int) -> None:
        heapq.heappush(self.due, (due_ns, id(stream), stream))

    def _event(self, stream: Stream) -> bytes:
        """One content event as a chunk."""
        text = " word" * min(self.behaviour.tokens_per_event, stream.total - stream.tokens)
        choice: dict[str, Any] = (
            {"index": 0, "delta": {"content": text}} if stream.chat else {"index": 0, "text": text}
        )
        return chunk(kind(stream) | {"choices": [choice]} | self._usage(stream, "each"))

    def _usage(self, stream: Stream, when: str) -> dict[str, Any]:
        if self.behaviour.usage != when:
            return {}
        done = min(stream.total, stream.tokens + self.behaviour.tokens_per_event)
        return {"usage": {"prompt_tokens": stream.prompt_tokens, "completion_tokens": done}}

    def _send_what_is_due(self) -> None:
        due = self.due
        gap_ns, varied = round(self.behaviour.gap * 1e9), self.behaviour.sigma > 0
        step = self.behaviour.tokens_per_event
        while due and due[0][0] <= time_ns():
            due_ns, tie, stream = due[0]
            if stream.plain and stream.tokens + 2 * step < stream.total and not stream.fault:  # nothing special
                stream.sent_ns.append(time_ns())
                stream.peer.send(stream.plain)
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
        stream.sent_ns.append(time_ns())
        peer.send(self._event(stream))
        stream.tokens += behaviour.tokens_per_event
        if stream.tokens < stream.total:
            self._schedule(stream, due_ns + behaviour.delay_ns(behaviour.gap))
        else:
            self._finish(stream)

    def _fail_midway(self, stream: Stream) -> bool:
        """Do the fault; True when nothing is to follow."""
        fault, peer = stream.fault, stream.peer
        if fault == "broken_chunk":
            peer.send(b"twelve\r\nnot a length\r\n")
        if fault in ("reset", "cut", "broken_chunk"):
            self._close(peer, reset=fault == "reset")
        elif fault == "broken_json":
            peer.send(b"f\r\ndata: {broken\n\n\r\n" + END)
        elif fault == "error_event":
            peer.send(chunk({"error": {"message": "the engine died", "code": 500}}) + END)
        return fault in ("reset", "cut", "stall", "broken_chunk", "broken_json", "error_event")

    def _send_whole(self, stream: Stream) -> None:
        text = " word" * stream.total
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        choice |= {"message": {"content": text}} if stream.chat else {"text": text}
        usage = {"prompt_tokens": stream.prompt_tokens, "completion_tokens": stream.total}
        stream.sent_ns.append(time_ns())
        answer = [{"0": text}] if stream.scored else {"choices": [choice], "usage": usage}
        stream.peer.send(whole(b"200 OK", answer))
        self.done.append(stream)

    def _finish(self, stream: Stream) -> None:
        stop: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        stop["delta" if stream.chat else "text"] = {} if stream.chat else ""
        last = chunk(kind(stream) | {"choices": [stop]})
        stream.tokens = stream.total
        if self.behaviour.usage == "last":
            last += chunk(kind(stream) | {"choices": []} | self._usage(stream, "last"))
        stream.peer.send(last + END)
        self.done.append(stream)
        if stream.fault == "close":
            self._close(stream.peer)

    def _write_record(self) -> None:
        if self.record:
            rows = [[s.request_id, s.arrived_ns, s.sent_ns] for s in self.done]
            self.record.with_name(f"{self.record.name}.{os.getpid()}").write_bytes(msgspec.json.encode(rows))


def main() -> None:
    args = parse(__doc__)
    names = (
        "ttft",
        "gap",
        "sigma",
        "service",
        "tokens_per_event",
        "usage",
        "slots",
        "fault",
        "fault_every",
        "key",
    )
    behaviour = Behaviour(**{name: getattr(args, name) for name in names})
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
    sys.stdout.close()


if __name__ == "__main__":
    main()
