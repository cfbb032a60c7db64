"""HTTP/1.1: a request's bytes, and an answer's framing by httptools, after its bytes were stamped.

Framing waits as long as it can: pieces of a chunked answer are kept as they came until one looks like its end,
so that the event loop does not parse while tokens arrive.
"""

from __future__ import annotations

from itertools import accumulate

import httptools

from servebench.errors import HttpError
from servebench.load import sse
from servebench.load.wire import Endpoint, Piece, Pieces

KEPT = (b"content-type", b"content-encoding", b"location", b"retry-after", b"retry-after-ms")  # of its headers


def over(ours: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """Headers: ours, but where one is given whose name differs at most in case, that."""
    names = {name.lower() for name in given}
    return {name: value for name, value in ours.items() if name.lower() not in names} | given


class Http1:
    """What a connection says. HTTP/1.1 owes the server nothing but the request, so all connections share one."""

    waiting = False

    def __init__(self, endpoint: Endpoint, headers: dict[str, str]) -> None:
        self.asked = endpoint.path.partition("?")[0]
        ours = {"Host": endpoint.netloc, "Content-Type": "application/json"}
        lines = [f"{name}: {value}" for name, value in over(ours, headers).items()]
        self.head = "\r\n".join([f"POST {endpoint.path} HTTP/1.1", *lines, ""]).encode("latin-1")
        self.mark = b"" if "x-request-id" in map(str.lower, headers) else b"X-Request-Id: %b\r\n"

    def request(self, request_id: str, body: bytes) -> bytes:
        mark = self.mark and self.mark % request_id.encode()
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self.head, mark, len(body), body)

    def owed(self) -> bytes:
        return b""

    def answer(self) -> Answer:
        return Answer(self.asked)

    def idle(self, data: bytes) -> bool:
        """Bytes that nobody asked for: the connection is of no use any more."""
        return False


class Answer:
    """One HTTP answer. `pieces` came over the wire; `body` has (body bytes, index of the piece they ended in).

    `asked` is the path that it answers, without a query: that may hold a key.
    """

    def __init__(self, asked: str = "") -> None:
        self.asked = asked
        self.pieces = Pieces()
        self.body: list[tuple[bytes, int]] = []
        self.complete = self.chunked = False
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # those that are KEPT
        self._framed = 0  # pieces that the parser has seen
        self._sized = self._keeps = False
        self._found: list[bytes] = []
        self.on_body = self._found.append  # httptools calls it with every run of body bytes
        self._parser = httptools.HttpResponseParser(self)

    def add(self, piece: Piece) -> bool:
        """Keep a piece; True when the answer is complete with it. Raises HttpError."""
        self.pieces.add(piece)
        data = piece.data
        if self.chunked and len(data) >= 5:
            if not data.endswith(b"\r\n\r\n"):
                return False  # cannot be the end: the last chunk is "0", an empty line, and perhaps trailers
            if data.endswith(b"\r\n0\r\n\r\n"):
                return True  # a line of its own that no JSON event can hold; framed and checked later
        self.frame()
        return self.complete

    def skim(self) -> list[sse.Part]:
        """The events of pieces that the parser has not seen and now need not see; `frame` does the rest.

        Only where that changes nothing: after a whole event, and not the last piece.
        """
        if not (self.chunked and self.status == 200 and self._between_events()):
            return []
        texts = self.pieces.data[self._framed : -1]
        first, events = self._framed, sse.plain(texts)
        self._framed += len(events)
        return list(zip(events, range(first, self._framed), strict=True))

    def _between_events(self) -> bool:
        """Did what the parser has seen end with the head, or with a chunk that ended an event?"""
        seen = self.pieces.data[self._framed - 1]
        if not self.body:
            return seen.endswith(b"\r\n\r\n")
        last, _ = self.body[-1]
        return last.endswith(b"\n\n") and seen.endswith(last + b"\r\n")

    def frame(self) -> None:
        """Parse what was kept, and find out which piece each part of the body ended in.

        Raises HttpError; what came before the fault is in `body` then.
        """
        texts = self.pieces.data[self._framed :]
        if not texts:
            return
        ends, raw = list(accumulate(map(len, texts))), b"".join(texts)
        fault = None
        try:
            self._parser.feed_data(raw)
        except httptools.HttpParserError as error:
            fault = HttpError(f"not an HTTP answer: {error}")
        at, position = 0, 0
        for part in self._found:
            position = raw.find(part, position) + len(part)
            while ends[at] < position:
                at += 1
            self.body.append((part, self._framed + at))
        self._framed = len(self.pieces)
        self._found.clear()
        if fault:
            raise fault

    def whole(self) -> bytes:
        return b"".join(data for data, _ in self.body)

    def release(self) -> None:
        """Break the cycle with the parser, since no garbage collector runs while we measure."""
        del self._parser

    def end_of_stream(self) -> bool:
        """The server closed: is the answer complete? (It is when only the close could mark its end.)"""
        self.frame()
        self.complete |= bool(self.status) and not self.chunked and not self._sized
        return self.complete

    def keep_alive(self) -> bool:
        """May another request follow on the connection, once the answer is complete?"""
        return self._keeps

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in KEPT:
            self.headers[name] = value.strip()
        self._sized |= name == b"content-length"
        self.chunked |= name == b"transfer-encoding" and value.lower().split(b",")[-1].strip() == b"chunked"

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._keeps = self._parser.should_keep_alive()  # asked later, it speaks of the next message

    def on_message_complete(self) -> None:
        self.complete = self.status >= 200  # 100 Continue and its like are followed by the answer
