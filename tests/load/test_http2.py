"""HTTP/2 and MII's messages, against the h2 library's server side in memory: every byte is a real one."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

from servebench.errors import HttpError
from servebench.load import answers, mii
from servebench.load.http2 import Http2, Http2Answer, frame_kind, grpc_timeout
from servebench.load.wire import Endpoint, Segment

ENDPOINT = Endpoint.of("http://127.0.0.1:50050" + mii.SERVICE + "GeneratorReplyStream")


class Peer:
    """A server's side of one connection."""

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.headers: dict[str, str] = {}
        self.body, self.stream, self.complete = b"", 0, False

    def hear(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self.headers, self.stream, self.body, self.complete = (
                    dict(event.headers),
                    event.stream_id,
                    b"",
                    False,
                )
            elif isinstance(event, DataReceived):
                self.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.complete |= isinstance(event, StreamEnded)

    def head(self) -> bytes:
        self.h2.send_headers(self.stream, [(":status", "200"), ("content-type", "application/grpc")])
        return self.h2.data_to_send()

    def data(self, data: bytes) -> bytes:
        self.h2.send_data(self.stream, data)
        return self.h2.data_to_send()

    def end(self, status: int = 0, message: str = "") -> bytes:
        trailers = [("grpc-status", str(status)), ("grpc-message", message)]
        self.h2.send_headers(self.stream, trailers, end_stream=True)
        return self.h2.data_to_send()


@pytest.fixture
def talk() -> tuple[Http2, Peer, Http2Answer]:
    """A request of ours that the server has read, and the answer that is to come."""
    http, peer = Http2(ENDPOINT, {"X-Extra": "1"}, 60), Peer()
    return http, peer, ask(http, peer)


def ask(http: Http2, peer: Peer, body: bytes = b"hello") -> Http2Answer:
    answer = http.answer()
    peer.hear(http.request("tag-1", body))
    return answer


def reply(text: str, reason: str = "none", prompt: int = 7, tokens: int = 1) -> bytes:
    """One message of MII, with its head."""
    single = mii.classes()["SingleGenerationReply"](
        response=text, finish_reason=reason, prompt_tokens=prompt, generated_tokens=tokens
    )
    message = mii.classes()["MultiGenerationReply"](response=[single]).SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


def feed(answer: Http2Answer, *segments: bytes) -> list[bool]:
    return [answer.add(Segment(data, 1000 + i, 0, True)) for i, data in enumerate(segments)]


def test_a_request_is_a_grpc_call_with_a_deadline(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, peer, _ = talk
    assert peer.complete and peer.body == b"hello"
    assert peer.headers[":path"] == "/modelresponse.ModelResponse/GeneratorReplyStream"
    wanted = {"grpc-timeout": "60000m", "te": "trailers", "x-extra": "1", "x-request-id": "tag-1"}
    assert wanted.items() <= peer.headers.items()


def test_windows_are_open_as_wide_as_they_go(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, peer, _ = talk
    assert peer.h2.local_flow_control_window(peer.stream) == 2**31 - 1


def test_every_reply_keeps_the_piece_that_it_came_with(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, peer, answer = talk
    segments = [peer.head(), *(peer.data(reply(word)) for word in ("a", "b", "c")), peer.data(reply("", "length"))]
    assert feed(answer, *segments, peer.end()) == [False] * 5 + [True]
    reading = answers.read(answer, "mii")
    assert (reading.segments, reading.texts, reading.tokens) == ([1, 2, 3], ["a", "b", "c"], [1, 1, 1])
    assert (reading.finish_reason, reading.error) == ("length", None)
    assert reading.usage and (reading.usage.prompt_tokens, reading.usage.completion_tokens) == (7, 3)


def test_whole_data_frames_wait_to_be_framed(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    """The event loop does no parsing while tokens arrive."""
    _, peer, answer = talk
    feed(answer, peer.head(), peer.data(reply("a")), peer.data(reply("b")))
    assert answer.body == []
    feed(answer, peer.end())
    assert len(answer.body) == 2


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 64])
def test_an_answer_may_be_cut_anywhere(size: int) -> None:
    http, peer = Http2(ENDPOINT, {}, 60), Peer()
    answer = ask(http, peer)
    words = ["one", "two", "", "three"]
    stream = (
        peer.head()
        + b"".join(peer.data(reply(word)) for word in words)
        + peer.data(reply("", "stop"))
        + peer.end()
    )
    done = feed(answer, *(stream[i : i + size] for i in range(0, len(stream), size)))
    assert done[-1] and not any(done[:-1])
    reading = answers.read(answer, "mii")
    assert (reading.texts, reading.tokens) == (["one", "two", "three"], [1, 1, 2])


def test_tokens_are_counted_here_where_mii_starts_to_count_anew(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    """It does when a request was thrown out of a full cache: the prompt then holds what was generated."""
    _, peer, answer = talk
    replies = [
        reply("a", tokens=1),
        reply("b", tokens=2),
        reply("c", prompt=9, tokens=1),
        reply("", "length", 9, 1),
    ]
    feed(answer, peer.head(), *map(peer.data, replies), peer.end())
    reading = answers.read(answer, "mii")
    assert reading.tokens == [1, 1, 1] and reading.usage and reading.usage.prompt_tokens == 7


def test_a_whole_answer_is_one_event_with_all_its_tokens(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, peer, answer = talk
    feed(answer, peer.head(), peer.data(reply("all of it", "length", tokens=5)), peer.end())
    reading = answers.read(answer, "mii")
    assert (reading.texts, reading.tokens) == (["all of it"], [5])


def test_one_connection_carries_one_request_after_the_other() -> None:
    http, peer = Http2(ENDPOINT, {}, 60), Peer()
    for word in ("first", "second"):
        answer = ask(http, peer, word.encode())
        assert peer.body == word.encode()
        assert feed(answer, peer.head(), peer.data(reply(word)), peer.data(reply("", "stop")), peer.end())[-1]
        assert answers.read(answer, "mii").texts == [word] and answer.keep_alive()


def test_a_long_request_waits_for_the_servers_windows() -> None:
    http, peer = Http2(ENDPOINT, {}, 60), Peer()
    body = bytes(1_000_000)
    http.answer()
    peer.hear(http.request("tag-1", body))
    assert http.waiting and len(peer.body) == 65535  # HTTP/2's first window
    for _ in range(100):
        assert http.on_idle_data(peer.h2.data_to_send())
        peer.hear(http.control_bytes())
    assert peer.complete and peer.body == body and not http.waiting


def test_a_ping_is_answered(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    http, peer, answer = talk
    peer.h2.ping(b"12345678")
    assert feed(answer, peer.h2.data_to_send()) == [False]
    answered = peer.h2.receive_data(http.control_bytes())
    assert "PingAckReceived" in [type(event).__name__ for event in answered]


def test_a_failed_call_says_why(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, peer, answer = talk
    with pytest.raises(HttpError, match="gRPC status UNAVAILABLE: no replica is left"):
        feed(answer, peer.head(), peer.end(14, "no%20replica is left"))


def test_a_reset_stream_says_so(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, peer, answer = talk
    peer.h2.reset_stream(peer.stream, 8)
    with pytest.raises(HttpError, match="reset the stream: CANCEL"):
        feed(answer, peer.h2.data_to_send())


def test_bytes_of_another_protocol_are_named(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, _, answer = talk
    with pytest.raises(HttpError, match="not an HTTP/2 answer"):
        feed(answer, b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(20))


def test_another_status_than_200_is_no_answer(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, peer, answer = talk
    peer.h2.send_headers(peer.stream, [(":status", "503")], end_stream=True)
    with pytest.raises(HttpError, match="HTTP 503"):
        feed(answer, peer.h2.data_to_send())


def test_after_a_goodbye_the_connection_is_not_used_again(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    http, peer, answer = talk
    feed(answer, peer.head(), peer.data(reply("a")), peer.data(reply("", "stop")))
    end = peer.end()
    peer.h2.close_connection()
    assert feed(answer, end + peer.h2.data_to_send()) == [True]
    assert not answer.keep_alive() and not http.on_idle_data(b"")


def test_an_answer_that_was_cut_off_keeps_what_came(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, peer, answer = talk
    feed(answer, peer.head(), peer.data(reply("a")), peer.data(reply("b"))[:-3])
    assert not answer.end_of_stream()
    assert answers.read(answer, "mii").texts == ["a"]


def test_a_message_that_is_no_reply_is_an_error(talk: tuple[Http2, Peer, Http2Answer]) -> None:
    _, peer, answer = talk
    feed(answer, peer.head(), peer.data(b"\0\0\0\0\3\xff\xff\xff"), peer.end())
    assert "not a reply of MII" in (answers.read(answer, "mii").error or "")


def test_a_request_of_mii_says_false_and_zero() -> None:
    """A keyword without a value would be an error there."""
    sent = mii.encode({"prompt": "Hello", "do_sample": False, "top_k": 0, "top_p": 0.5, "stop": ""})
    request = mii.classes()["MultiStringRequest"].FromString(sent[mii.HEAD :])
    said = {k.key: [field.name for field, _ in k.value.ListFields()] for k in request.query_kwargs}
    assert list(request.request) == ["Hello"]
    assert said == {"do_sample": ["bvalue"], "top_k": ["ivalue"], "top_p": ["fvalue"], "stop": ["svalue"]}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0001, "1m"), (600, "600000m"), (99_999, "99999000m"), (10**6, "1000000S")]
)
def test_deadlines_have_eight_digits_at_most(seconds: float, text: str) -> None:
    assert grpc_timeout(seconds) == text


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\2\0\0\0\0\0\1ab", "data"),
        (b"\0\0\2\0\0\0\0\0\1ab" * 2, "data"),
        (b"\0\0\2\0\1\0\0\0\1ab", "other"),  # ends the stream
        (b"\0\0\0\4\0\0\0\0\0", "other"),  # SETTINGS
        (b"\0\0\2\0\0\0\0\0\1a", "broken"),
        (b"\0\0\2", "broken"),
    ],
)
def test_frames_are_told_apart_without_parsing(data: bytes, kind: str) -> None:
    assert frame_kind(data) == kind


@pytest.mark.parametrize("batch", range(4))
def test_whatever_comes_is_read_or_named(batch: int) -> None:
    """A good answer with bytes changed, cut out, doubled and in segments."""
    rng = random.Random(batch)
    for _ in range(1000):
        http, peer = Http2(ENDPOINT, {}, 60), Peer()
        answer = ask(http, peer)
        parts = [peer.head(), *(peer.data(reply(w)) for w in "abc"), peer.data(reply("", "stop")), peer.end()]
        data = bytearray(b"".join(parts))
        for _ in range(rng.randint(1, 4)):
            at, span = rng.randrange(len(data)), rng.randint(1, 20)
            data[at : at + rng.choice([0, 1, span])] = rng.choice([b"", rng.randbytes(span), data[at : at + span]])
        edges = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(3))})
        broken = None
        try:
            feed(answer, *(bytes(data[i:j]) for i, j in pairwise(edges)))
            answer.end_of_stream()
        except HttpError as error:
            broken = str(error)
            assert broken
        reading = answers.read(answer, "mii")
        assert len(reading.segments) == len(reading.tokens) == len(reading.texts)
        assert broken or reading.error or reading.segments
