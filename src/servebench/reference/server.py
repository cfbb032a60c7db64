"""A server whose times are known: OpenAI-compatible streaming with given delays, faults on demand, and a record of
when every event really left. Tests, calibration and `benchmarks/` measure the client against it.

    ./servebench reference-server --port 8000 --ttft 0.05 --gap 0.01 --record /tmp/truth
    ./servebench run --backend openai --openai_api_url http://localhost:8000 --model reference --tokenizer FOLDER

Answers are words in a fixed order, from a place that depends on the prompt. Questions of `--know FILE.jsonl` are
answered rightly, all but a `--wrong_share`. `--broken` breaks what answers say: always, for a `--broken_share` of
them, or while more than `--broken_above` requests are in flight.

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
from dataclasses import dataclass, fields
from itertools import cycle
from pathlib import Path
from time import time_ns
from typing import Any

import msgspec

from servebench.cli.commandline import Parser
from servebench.load.wire import ask_for_stamps, read_stamped, stamped_dummy
from servebench.reference.behaviour import (
    CLOSES,
    EVENTS_BEFORE,
    HEAD,
    LAST_BYTES,
    MIDWAY,
    REFUSALS,
    Answer,
    Behaviour,
    RequestRecord,
    add_options,
    metrics_page,
    plain_events,
    response,
)
from servebench.reference.texts import drawn, known_questions

MODEL = {"id": "reference", "max_model_len": 131072}


@dataclass(eq=False)
class Peer:
    """One accepted connection."""

    sock: socket.socket
    buffer: bytes = b""
    closed: bool = False

    def send(self, data: bytes) -> None:
        """A reader that is too slow blocks this server, which the record then shows."""
        sent = 0
        try:
            with suppress(BlockingIOError):
                sent = self.sock.send(data)
            if sent < len(data):
                self.sock.setblocking(True)
                self.sock.sendall(data[sent:])
                self.sock.setblocking(False)
        except OSError:
            self.closed = True


class Server:
    """The loop: requests in, events out when they are due."""

    def __init__(self, listener: socket.socket, behaviour: Behaviour) -> None:
        self.listener, self.behaviour = listener, behaviour
        self.epoll = select.epoll()
        self.epoll.register(listener, select.EPOLLIN)
        self.peers: dict[int, Peer] = {}
        self.due: list[tuple[int, int, Peer, Answer]] = []  # heap of (time, tie-breaker, receiver, answer)
        self.free_ns = [0] * behaviour.slots  # heap: when each slot is free
        self.requests = self.corrupted = 0
        self.done: list[RequestRecord] = []
        self.times_ns = dict.fromkeys(("request_queue_time", "request_prefill_time", "time_to_first_token"), 0)
        self.running = True

    def run(self) -> None:
        while self.running:
            self._send_what_is_due()
            for fd, _ in self.epoll.poll(self._wait_s()):
                if fd == self.listener.fileno():
                    self._accept()
                elif fd in self.peers:
                    self._receive(self.peers[fd])

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
            segment = read_stamped(peer.sock, 0)
        except BlockingIOError:
            return
        except OSError:
            return self._close(peer)
        if not segment.data:
            return self._close(peer)
        peer.buffer += segment.data
        head, blank, rest = peer.buffer.partition(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        length = int(headers.get(b"content-length", 0))
        if blank and len(rest) >= length:
            peer.buffer = rest[length:]
            self._respond(peer, head.split(b" ", 2)[1].decode(), headers, rest[:length], segment.stamp_ns)

    def _close(self, peer: Peer, reset: bool = False) -> None:
        self.epoll.unregister(peer.sock)
        self.peers.pop(peer.sock.fileno(), None)
        if reset:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()
        peer.closed = True

    def _respond(self, peer: Peer, path: str, headers: dict[bytes, bytes], body: bytes, arrived_ns: int) -> None:
        key = self.behaviour.key
        if path == "/v1/models":
            peer.send(response(b"200 OK", {"data": [MODEL]}))
        elif key and headers.get(b"authorization") != f"bearer {key}".lower().encode():
            peer.send(response(b"401 Unauthorized", {"error": {"message": "the key is wrong"}}))
        elif path == "/metrics":
            peer.send(metrics_page(self.behaviour.metrics, self._numbers()))
        elif not path.partition("?")[0].endswith(("/completions", "/score")):
            peer.send(response(b"200 OK", {}))
        else:
            request_id = headers.get(b"x-request-id", b"").decode()
            self._begin(peer, msgspec.json.decode(body), request_id, arrived_ns)

    def _numbers(self) -> dict[str, float]:
        """What an engine tells on /metrics, by vLLM's names."""
        inside, now_ns = [answer for *_, peer, answer in self.due if not peer.closed], time_ns()
        waiting = sum(answer.begin_ns > now_ns for answer in inside)
        sums = {f"{name}_seconds_sum": total_ns / 1e9 for name, total_ns in self.times_ns.items()}
        counts = dict.fromkeys((f"{name}_seconds_count" for name in self.times_ns), float(len(self.done)))
        states = {"num_requests_running": len(inside) - waiting, "num_requests_waiting": waiting}
        return states | {"corrupted_requests_total": self.corrupted} | sums | counts

    def _begin(self, peer: Peer, request: dict[str, Any], request_id: str, arrived_ns: int) -> None:
        self.requests += 1
        behaviour = self.behaviour
        fault = behaviour.fault if self.requests % behaviour.fault_every == 0 else ""
        answer = Answer(behaviour, fault, request, request_id, arrived_ns)
        self._decide(answer)
        if fault in REFUSALS:
            peer.send(response(REFUSALS[fault], {"error": {"message": "as asked for"}}))
        elif fault == "garbage":
            peer.send(b"SSH-2.0-not-http\r\n\r\n")
        elif fault == "silent_close":
            self._close(peer)
        elif answer.streamed:
            self._begin_stream(peer, answer)
        else:
            first_s = behaviour.first_s()
            begin_ns = answer.begin_ns = self._slot_ns(first_s, answer.total, arrived_ns)
            self._schedule(peer, answer, begin_ns + behaviour.delay_ns(first_s + behaviour.gap * answer.total))

    def _decide(self, answer: Answer) -> None:
        """What it says, broken if it is one of those: chosen by its prompt and its number in the client's id."""
        behaviour, number = self.behaviour, answer.record.request_id.rpartition("-")[2]
        spared = drawn(answer.prompt + number) >= behaviour.broken_share if behaviour.broken else True
        if spared or len(self.due) < behaviour.broken_above:
            return answer.decide()
        others = (other.prompt for *_, other in self.due if other.prompt != answer.prompt)
        return answer.decide(behaviour.broken, next(others, answer.prompt))

    def _begin_stream(self, peer: Peer, answer: Answer) -> None:
        behaviour, first_s = self.behaviour, self.behaviour.first_s()
        if answer.fault != "slow_headers":
            peer.send(HEAD)
        if answer.events_are_plain:
            answer.plain = cycle(plain_events(answer.chat, behaviour.tokens_per_event, answer.text.first))
            answer.record.first_answer_event = 0
        begin_ns = self._slot_ns(first_s, behaviour.events(answer.total) - 1, answer.record.arrived_ns)
        answer.begin_ns = begin_ns
        if answer.kind == "hidden_reasoning":
            answer.tokens = answer.reasoning
            begin_ns += behaviour.delay_ns(behaviour.gap * behaviour.events(answer.reasoning))
        self._schedule(peer, answer, begin_ns + behaviour.delay_ns(first_s))

    def _slot_ns(self, first_s: float, gaps: int, arrived_ns: int) -> int:
        """When a slot is free for an answer of so many gaps; it takes it for its mean duration."""
        if not self.free_ns:
            return arrived_ns
        begin_ns = max(arrived_ns, self.free_ns[0])
        heapq.heapreplace(self.free_ns, begin_ns + round((first_s + gaps * self.behaviour.gap) * 1e9))
        return begin_ns

    def _schedule(self, peer: Peer, answer: Answer, due_ns: int) -> None:
        heapq.heappush(self.due, (due_ns, id(answer), peer, answer))

    def _send_what_is_due(self) -> None:
        due = self.due
        gap_ns, varied = round(self.behaviour.gap * 1e9), self.behaviour.sigma > 0
        step = self.behaviour.tokens_per_event
        while due and due[0][0] <= time_ns():
            due_ns, tie, peer, answer = due[0]
            if answer.plain and answer.tokens + 2 * step < answer.total and not answer.fault:  # nothing special
                answer.record.events_ns.append(time_ns())
                peer.send(next(answer.plain))
                answer.record.event_tokens.append(step)
                answer.tokens += step
                gap = self.behaviour.delay_ns(self.behaviour.gap) if varied else gap_ns
                heapq.heapreplace(due, (due_ns + gap, tie, peer, answer))
            else:
                heapq.heappop(due)
                if not peer.closed:
                    self._send_special(peer, answer, due_ns)

    def _send_special(self, peer: Peer, answer: Answer, due_ns: int) -> None:
        """First, last and faulty events, and answers that are not streamed."""
        if not answer.streamed:
            self._send_whole(peer, answer)
        elif answer.fault in MIDWAY and len(answer.record.events_ns) >= EVENTS_BEFORE:
            self._fail(peer, answer.fault)
        else:
            if answer.fault == "slow_headers" and not answer.record.events_ns:
                time.sleep(0.5)
                peer.send(HEAD)
            self._send_event(peer, answer)
            if answer.tokens < answer.total:
                self._schedule(peer, answer, due_ns + self.behaviour.delay_ns(self.behaviour.gap))
            else:
                self._finish(peer, answer)

    def _send_event(self, peer: Peer, answer: Answer) -> None:
        tokens, event, record = answer.next_tokens, answer.event(), answer.record
        if record.first_answer_event is None and answer.tokens >= answer.reasoning:
            record.first_answer_event = len(record.events_ns)
        record.events_ns.append(time_ns())
        if self.behaviour.buffered:
            answer.held += event
        else:
            peer.send(event)
        record.event_tokens.append(tokens)
        answer.tokens += tokens

    def _fail(self, peer: Peer, fault: str) -> None:
        """A fault after some events, after which nothing follows."""
        if fault in LAST_BYTES:
            peer.send(LAST_BYTES[fault])
        if fault in CLOSES:
            self._close(peer, reset=fault == "reset")

    def _send_whole(self, peer: Peer, answer: Answer) -> None:
        record = answer.record
        record.event_tokens = [answer.total - (answer.reasoning if answer.kind == "hidden_reasoning" else 0)]
        record.first_answer_event = 0
        record.events_ns.append(time_ns())
        peer.send(answer.whole())
        self._count(answer)

    def _finish(self, peer: Peer, answer: Answer) -> None:
        end, record = answer.held + answer.end(), answer.record
        if answer.held:
            record.events_ns = [time_ns()] * len(record.events_ns)
        peer.send(end)
        self._count(answer)
        if answer.fault == "close":
            self._close(peer)

    def _count(self, answer: Answer) -> None:
        arrived_ns, first_ns = answer.record.arrived_ns, answer.record.events_ns[0]
        times_ns = (answer.begin_ns - arrived_ns, first_ns - answer.begin_ns, first_ns - arrived_ns)
        for name, took_ns in zip(self.times_ns, times_ns, strict=True):
            self.times_ns[name] += took_ns
        self.corrupted += answer.broken == "nan"
        self.done.append(answer.record)


def main() -> None:
    args = parser().parse_args()
    behaviour = Behaviour(**{f.name: getattr(args, f.name) for f in fields(Behaviour)})
    known_questions(behaviour.know, behaviour.wrong_share)  # what is wrong with the file is said at once
    listener = listen(args.host, args.port)
    port = listener.getsockname()[1]
    print(f"http://{f'[{args.host}]' if ':' in args.host else args.host}:{port}", flush=True)
    children: list[int] = []
    for _ in range(args.processes - 1):
        pid = os.fork()
        if not pid:  # a child listens on the same port by its own socket, and has no children
            listener.close()
            listener, children = listen(args.host, port), []
            break
        children.append(pid)
    done = serve(listener, behaviour, children)
    if args.record:
        args.record.with_name(f"{args.record.name}.{os.getpid()}").write_bytes(msgspec.json.encode(done))
    for pid in children:
        os.waitpid(pid, 0)


def parser() -> Parser:
    result = Parser(description=__doc__)
    add = result.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000, help="0: a free one, printed on the first line of output [8000]")
    add("--processes", type=int, default=1, help="processes that share the port [1]")
    add_options(result)
    add("--record", type=Path, metavar="FILE", help="write FILE.<pid> at the end")
    return result


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=4096, reuse_port=True)
    listener.setblocking(False)
    return listener


def serve(listener: socket.socket, behaviour: Behaviour, children: list[int]) -> list[RequestRecord]:
    """Answer until SIGTERM or SIGINT, which the first process hands on. Returns the records of all answers."""
    server = Server(listener, behaviour)

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
    return server.done
