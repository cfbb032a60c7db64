"""HTTP/1.1: the bytes of a request, and the framing of an answer by httptools, after its bytes were stamped.

Framing waits as long as it can: the segments of a chunked answer stay as they came until one looks like its
end, so that the event loop does not parse while tokens arrive.
"""

from __future__ import annotations

from itertools import accumulate

import httptools

from servebench.errors import HttpError
from servebench.load import sse
from servebench.load.wire import Endpoint, Segment, Segments

HEADERS_WE_READ = (b"content-type", b"content-encoding", b"location", b"retry-after", b"retry-after-ms")


def merge_headers(defaults: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """The headers that are given, and the defaults of other names; upper and lower case are the same."""
    names = {name.lower() for name in given}
    return {name: value for name, value in defaults.items() if name.lower() not in names} | given


class Http1:
    """What a connection sends. HTTP/1.1 has no state between requests, so that all connections share one."""

    waiting = False  # nothing of a request waits for the server

    def __init__(self, endpoint: Endpoint, headers: dict[str, str]) -> None:
        self.path = endpoint.path.partition("?")[0]  # without a query, which may hold a key
        defaults = {"Host": endpoint.netloc, "Content-Type": "application/json"}
        lines = [f"{name}: {value}" for name, value in merge_headers(defaults, headers).items()]
        self.head = "\r\n".join([f"POST {endpoint.path} HTTP/1.1", *lines, ""]).encode("latin-1")
        self.id_header = b"" if "x-request-id" in map(str.lower, headers) else b"X-Request-Id: %b\r\n"

    def request(self, request_id: str, body: bytes) -> bytes:
        id_header = self.id_header and self.id_header % request_id.encode()
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self.head, id_header, len(body), body)

    def control_bytes(self) -> bytes:
        return b""

    def answer(self) -> Answer:
        return Answer(self.path)

    def on_idle_data(self, data: bytes) -> bool:
        """Bytes that nobody asked for: the connection cannot be used any more."""
        return False


class Answer:
    """One HTTP answer to a request for this path. `segments` came over the wire.

    `body` has (body bytes, index of the segment they ended in).
    """

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.segments = Segments()
        self.body: list[tuple[bytes, int]] = []
        self.complete = self.chunked = False
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # HEADERS_WE_READ alone
        self._framed = 0  # segments that the parser has seen
        self._has_length = self._keep_alive = False
        self._parsed: list[bytes] = []
        self.on_body = self._parsed.append  # httptools calls it with all body bytes, in parts
        self._parser = httptools.HttpResponseParser(self)

    def add(self, segment: Segment) -> bool:
        """Keep a segment; True when the answer is complete with it. Raises HttpError."""
        self.segments.add(segment)
        data = segment.data
        if self.chunked and len(data) >= 5:
            if not data.endswith(b"\r\n\r\n"):
                return False  # cannot be the end: the last chunk is "0", an empty line, and perhaps trailers
            if data.endswith(b"\r\n0\r\n\r\n"):
                return True  # no JSON event can hold such a line; framed and checked later
        self.frame()
        return self.complete

    def skim(self) -> list[sse.Part]:
        """Take the events of simple segments without the parser; `frame` does the rest.

        Only where that changes nothing: after a whole event, and not in the last segment.
        """
        if not (self.chunked and self.status == 200 and self._between_events()):
            return []
        texts = self.segments.data[self._framed : -1]
        first, events = self._framed, sse.plain_events(texts)
        self._framed += len(events)
        return list(zip(events, range(first, self._framed), strict=True))

    def _between_events(self) -> bool:
        """Has the parser seen just the head, or a last chunk that ended an event?"""
        seen = self.segments.data[self._framed - 1]
        if not self.body:
            return seen.endswith(b"\r\n\r\n")
        last, _ = self.body[-1]
        return last.endswith(b"\n\n") and seen.endswith(last + b"\r\n")

    def frame(self) -> None:
        """Parse the segments that were not parsed yet, and find out which segment each part of the body ended in.

        Raises HttpError; `body` then has what came before the fault.
        """
        texts = self.segments.data[self._framed :]
        if not texts:
            return
        ends, raw = list(accumulate(map(len, texts))), b"".join(texts)
        fault = None
        try:
            self._parser.feed_data(raw)
        except httptools.HttpParserError as error:
            fault = HttpError(f"not an HTTP answer: {error}")
        at, position = 0, 0
        for part in self._parsed:
            position = raw.find(part, position) + len(part)
            while ends[at] < position:
                at += 1
            self.body.append((part, self._framed + at))
        self._framed = len(self.segments)
        self._parsed.clear()
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
        self.complete |= bool(self.status) and not self.chunked and not self._has_length
        return self.complete

    def keep_alive(self) -> bool:
        """May another request follow on the connection, once the answer is complete?"""
        return self._keep_alive

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in HEADERS_WE_READ:
            self.headers[name] = value.strip()
        self._has_length |= name == b"content-length"
        self.chunked |= name == b"transfer-encoding" and value.lower().split(b",")[-1].strip() == b"chunked"

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._keep_alive = self._parser.should_keep_alive()  # later it would speak of the next message

    def on_message_complete(self) -> None:
        self.complete = self.status >= 200  # 100 Continue and its like are followed by the answer
