"""HTTP/2 as gRPC uses it, by the h2 library, over the same stamped sockets: one connection a client.

Windows are opened as wide as they go, so that our flow control never holds a server back. As with HTTP/1.1,
framing waits: segments of whole DATA frames stay as they came until something else arrives with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from urllib.parse import unquote

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from servebench.errors import HttpError
from servebench.load.wire import Endpoint, Segment, Segments

MAX_WINDOW = 2**31 - 1
FRAME_HEAD, DATA_FRAME, END_STREAM = 9, 0, 1  # RFC 9113: length (3 bytes), type, flags, stream (4)
TIMEOUT_LIMIT = 10**8  # of the number in a grpc-timeout
STATUS = {
    "1": "CANCELLED",
    "2": "UNKNOWN",
    "3": "INVALID_ARGUMENT",
    "4": "DEADLINE_EXCEEDED (--request_timeout)",
    "8": "RESOURCE_EXHAUSTED",
    "12": "UNIMPLEMENTED",
    "13": "INTERNAL",
    "14": "UNAVAILABLE",
}


class Http2:
    """What one connection sends and receives."""

    def __init__(self, endpoint: Endpoint, headers: dict[str, str], timeout_s: float) -> None:
        given = {name.lower(): value for name, value in headers.items()}
        ours = {
            ":method": "POST",
            ":scheme": "https" if endpoint.tls else "http",
            ":path": endpoint.path,
            ":authority": given.pop("host", endpoint.netloc),
            "te": "trailers",
            "content-type": "application/grpc",
            "grpc-timeout": grpc_timeout(timeout_s),
        }
        self.headers = [*(ours | given).items()]
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.local_settings = Settings(
            client=True,
            initial_values={SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: MAX_WINDOW},
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(MAX_WINDOW - 65535)
        self.stream, self.unsent = 0, memoryview(b"")
        self.going_away = False

    @property
    def waiting(self) -> bool:
        """Does a part of the request wait until the server has room for it?"""
        return bool(self.unsent)

    def request(self, request_id: str, body: bytes) -> bytes:
        """The bytes of a request, as far as the server has room for them now; control_bytes has the rest."""
        self.stream, self.unsent = self.h2.get_next_available_stream_id(), memoryview(body)
        self.h2.send_headers(self.stream, [*self.headers, ("x-request-id", request_id)])
        return self.control_bytes()

    def control_bytes(self) -> bytes:
        """What to send now: the preface, answers to settings and pings, more of a long request."""
        while self.unsent:
            room = min(self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                break
            part, self.unsent = self.unsent[:room], self.unsent[room:]
            self.h2.send_data(self.stream, bytes(part), end_stream=not self.unsent)
        return self.h2.data_to_send()

    def answer(self) -> Http2Answer:
        return Http2Answer(self)

    def on_idle_data(self, data: bytes) -> bool:
        """Bytes that came while no request was in flight: can the connection still be used?"""
        try:
            self.receive(data)
        except HttpError:
            return False
        return not self.going_away

    def receive(self, data: bytes) -> list[events.Event]:
        """What these bytes mean. Raises HttpError."""
        if data.startswith(b"HTTP/1."):  # h2 would take it for the head of a frame of 5 MB and wait
            raise HttpError("not an HTTP/2 answer: the server speaks HTTP/1.1")
        try:
            received = self.h2.receive_data(data)
        except ProtocolError as error:
            raise HttpError(f"not an HTTP/2 answer: {error}") from error
        self.going_away |= any(isinstance(event, events.ConnectionTerminated) for event in received)
        return received


class Http2Answer:
    """One answer, as `http.Answer`. Where its trailers say that the call failed, framing raises HttpError."""

    chunked = False  # that is HTTP/1.1: the fast way of reading is not for these answers
    headers: Mapping[bytes, bytes] = MappingProxyType({})  # none that matters here

    def __init__(self, http: Http2) -> None:
        self.http = http
        self.segments = Segments()
        self.body: list[tuple[bytes, int]] = []
        self.complete, self.status = False, 0
        self._framed = 0  # segments that h2 has seen
        self._aligned = True  # so far every segment was made of whole frames

    def add(self, segment: Segment) -> bool:
        """Keep a segment; True when the answer is complete with it. Raises HttpError."""
        self.segments.add(segment)
        kind = frame_kind(segment.data) if self._aligned else "broken"
        self._aligned = kind != "broken"
        if kind != "data":
            self.frame()
        return self.complete

    def frame(self) -> None:
        """Give h2 what it has not seen; note with which segment each part of the body came. Raises HttpError."""
        for at in range(self._framed, len(self.segments)):
            self._framed = at + 1
            for event in self.http.receive(self.segments.data[at]):
                self._note(event, at)

    def _note(self, event: events.Event, at: int) -> None:
        if getattr(event, "stream_id", 0) != self.http.stream:
            return
        if isinstance(event, events.ResponseReceived):
            headers = _texts(event.headers)
            self.status = int(headers.get(":status", "0"))
            if self.status != 200:
                raise HttpError(f"HTTP {self.status}: no answer to a gRPC call")
            self._refuse_failure(headers)
        elif isinstance(event, events.DataReceived):
            self.body.append((event.data, at))
            self.http.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.TrailersReceived):
            self._refuse_failure(_texts(event.headers))
        elif isinstance(event, events.StreamEnded):
            self.complete = True
        elif isinstance(event, events.StreamReset):
            raise HttpError(f"the server reset the stream: {reset_name(event.error_code)}")

    def _refuse_failure(self, headers: dict[str, str]) -> None:
        code = headers.get("grpc-status", "0")
        if code != "0":
            why = unquote(headers.get("grpc-message", ""))[:300]
            raise HttpError(f"gRPC status {STATUS.get(code, code)}: {why}")

    def release(self) -> None:
        """Nothing here holds a cycle."""

    def end_of_stream(self) -> bool:
        """The server closed: is the answer complete?"""
        self.frame()
        return self.complete

    def keep_alive(self) -> bool:
        return not self.http.going_away


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def frame_kind(data: bytes) -> str:
    """The kind of these frames: "data" (none ends a stream), "other", or "broken" (they are not whole)."""
    position, plain = 0, True
    while position + FRAME_HEAD <= len(data):
        plain = plain and data[position + 3] == DATA_FRAME and not data[position + 4] & END_STREAM
        position += FRAME_HEAD + int.from_bytes(data[position : position + 3], "big")
    if position != len(data):
        return "broken"
    return "data" if plain else "other"


def grpc_timeout(seconds: float) -> str:
    """A deadline as gRPC writes it: at most eight digits and a unit."""
    ms = max(1, round(seconds * 1000))
    return f"{ms}m" if ms < TIMEOUT_LIMIT else f"{min(round(seconds), TIMEOUT_LIMIT - 1)}S"


def reset_name(code: int) -> str:
    return ErrorCodes(code).name if code in set(ErrorCodes) else str(code)
