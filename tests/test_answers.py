"""From bytes to tokens: HTTP framing, events, and what an OpenAI-compatible answer says, however it is cut."""

from __future__ import annotations

import json
import random

import pytest

from servebench.load import answers, sse
from servebench.load.http import Answer, HttpError
from servebench.load.wire import Piece

DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def text(said: str, **fields: object) -> bytes:
    return event(choices=[{"index": 0, "text": said}], **fields)


def pieces(*parts: bytes) -> list[Piece]:
    """Piece i is stamped 1000 * (i + 1)."""
    return [Piece(part, 1000 * (i + 1), 1000 * i, True) for i, part in enumerate(parts)]


def answered(*parts: bytes) -> Answer:
    answer = Answer()
    for piece in pieces(*parts):
        answer.add(piece)
    return answer


def read(*events: bytes) -> answers.Reading:
    """The reading of a stream of these events, a piece each."""
    return answers.read(answered(HEAD, *map(chunk, events), b"0\r\n\r\n"), form="events")


# Framing.


def test_an_answer_is_complete_with_its_last_chunk() -> None:
    answer = Answer()
    ended = [
        answer.add(piece) for piece in pieces(HEAD, chunk(b"data: a\n\n"), chunk(b"data: b\n\n"), b"0\r\n\r\n")
    ]
    assert ended == [False, False, False, True]
    assert answer.keep_alive()


@pytest.mark.parametrize("seed", range(30))
def test_an_answer_may_be_cut_anywhere(seed: int) -> None:
    stream = HEAD + b"".join(chunk(text(f"w{i} é")) for i in range(5)) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    cuts = sorted(random.Random(seed).sample(range(1, len(stream)), 12))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    answer = Answer()
    ended = [answer.add(piece) for piece in pieces(*parts)]
    assert ended.index(True) == len(parts) - 1
    reading = answers.read(answer, form="events")
    assert reading.error is None and "".join(reading.texts) == "".join(f"w{i} é" for i in range(5))


def test_an_answer_with_a_length_ends_there() -> None:
    answer = Answer()
    parts = pieces(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nno", b"pe")
    assert [answer.add(p) for p in parts] == [False, True]
    assert answers.read(answer, form="events").error == "HTTP 503: nope"


def test_an_answer_without_length_ends_with_the_connection() -> None:
    answer = answered(b"HTTP/1.1 200 OK\r\n\r\n", text("a"))
    assert not answer.complete
    assert answer.end_of_stream()


def test_a_chunked_answer_that_is_cut_is_not_complete() -> None:
    assert not answered(HEAD, chunk(text("a"))).end_of_stream()


def test_100_continue_is_not_the_answer() -> None:
    answer = answered(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (answer.status, answer.complete) == (200, True)


def test_connection_close_is_obeyed() -> None:
    answer = answered(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert answer.complete and not answer.keep_alive()


def test_what_is_not_http_is_refused() -> None:
    with pytest.raises(HttpError):
        answered(b"SSH-2.0-hello\r\n\r\n")


# Events.


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"data: a\n\n"], [(b"a", 0)]),
        ([b"data: a\n\ndata: b\n\n"], [(b"a", 0), (b"b", 0)]),
        ([b"data: a\n", b"\ndata: b\n\n"], [(b"a", 1), (b"b", 1)]),
        ([b"data:a\n\n"], [(b"a", 0)]),
        ([b"data: a\r\n\r\ndata: b\r\n\r\n"], [(b"a", 0), (b"b", 0)]),
        ([b"data: a\r\n\r", b"\ndata: b\r\r"], [(b"a", 0), (b"b", 1)]),
        ([b"data: a\ndata: b\n\n"], [(b"a\nb", 0)]),
        ([b": ping\n\n", b"data: a\n\n"], [(b"a", 1)]),
        ([b"event: x\nid: 1\ndata: a\n\n"], [(b"a", 0)]),
        ([b"\xef\xbb\xbfdata: a\n\n"], [(b"a", 0)]),
        ([b"data: a\n\n", b"data: [DONE]"], [(b"a", 0), (b"[DONE]", 1)]),
        ([b"\n\ndata: a\n\n"], [(b"a", 0)]),
        ([], []),
    ],
)
def test_events_are_split_as_the_standard_says(parts: list[bytes], expected: list[tuple[bytes, int]]) -> None:
    assert sse.split([(part, i) for i, part in enumerate(parts)]) == expected


# Meaning.


def test_ttft_is_the_first_event_with_content() -> None:
    role = event(choices=[{"delta": {"role": "assistant", "content": ""}}])
    said = event(choices=[{"delta": {"content": "hi"}}])
    assert read(role, said).piece == [2]  # the head, the role, this


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_content(field: str) -> None:
    reading = read(event(choices=[{"delta": {field: "hm"}}]), event(choices=[{"delta": {"content": "hi"}}]))
    assert reading.texts == ["hm", "hi"]


def test_usage_in_every_event_counts_each() -> None:
    reading = read(
        text("a", usage={"completion_tokens": 1, "prompt_tokens": 7}),
        text("bcd", usage={"completion_tokens": 4, "prompt_tokens": 7}),
        event(choices=[], usage={"completion_tokens": 5, "prompt_tokens": 7}),
    )
    assert (reading.tokens, reading.token_source) == ([1, 4], "usage in every event")  # the fifth had no text


def test_tokens_without_text_belong_to_the_next_content() -> None:
    half = text("", usage={"completion_tokens": 1})
    reading = read(half, text("é", usage={"completion_tokens": 2}), text("a", usage={"completion_tokens": 3}))
    assert (reading.texts, reading.tokens) == (["é", "a"], [2, 1])


def test_token_ids_count_each() -> None:
    ids = [event(choices=[{"text": "x", "token_ids": list(range(n))}]) for n in (1, 3)]
    assert read(*ids).tokens == [1, 3]


def test_usage_of_the_whole_is_spread_over_the_text() -> None:
    last = event(choices=[], usage={"completion_tokens": 6})
    assert read(text("ab"), text("abcd"), last).tokens == [2, 4]
    assert read(*[text("ab")] * 6, last).tokens == [1] * 6


def test_without_any_usage_events_stand_for_tokens() -> None:
    reading = read(text("a"), text("b"))
    assert (reading.tokens, reading.token_source) == ([1, 1], "events")


def test_an_answer_of_tokens_without_text_is_not_empty() -> None:
    silent = [text("", usage={"completion_tokens": n}) for n in (1, 2)]
    reading = read(*silent, DONE)
    assert (reading.tokens, reading.error) == ([1, 1], None)


def test_an_empty_answer_is_a_failure() -> None:
    assert "empty answer" in (read(b"data: [DONE]\n\n").error or "")


def test_an_error_inside_a_200_is_a_failure_that_keeps_what_came() -> None:
    reading = read(text("a"), event(error={"message": "engine died"}))
    assert "engine died" in (reading.error or "") and reading.texts == ["a"]


def test_an_event_that_is_not_json_is_a_failure() -> None:
    assert "not a completion chunk" in (read(text("a"), b"data: {broken\n\n").error or "")


def test_the_finish_reason_is_kept() -> None:
    assert read(text("a"), event(choices=[{"text": "", "finish_reason": "length"}])).finish_reason == "length"


def test_utf8_split_over_segments_is_whole() -> None:
    data = text("né")
    cut = data.index("é".encode()) + 1
    assert read(data[:cut], data[cut:]).texts == ["né"]


def test_an_answer_that_came_whole_is_one_event() -> None:
    body = json.dumps(
        {"choices": [{"text": "a b", "finish_reason": "length"}], "usage": {"completion_tokens": 2}}
    ).encode()
    answer = answered(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    reading = answers.read(answer, form="object")
    assert (reading.tokens, reading.texts, reading.error) == ([2], ["a b"], None)
