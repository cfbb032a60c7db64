"""From bytes to tokens: HTTP framing, events, and what an OpenAI-compatible answer says, however it is cut."""

from __future__ import annotations

import gc
import json
import random
import time
from email.utils import formatdate

import pytest

from servebench.errors import HttpError
from servebench.load import answers, retry, sse
from servebench.load.http import Answer
from servebench.load.protocol import Form
from servebench.load.wire import Segment

DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def text(said: str, **fields: object) -> bytes:
    return event(choices=[{"index": 0, "text": said}], **fields)


def segments(*parts: bytes) -> list[Segment]:
    """Segment i is stamped 1000 * (i + 1)."""
    return [Segment(part, 1000 * (i + 1), 1000 * i, True) for i, part in enumerate(parts)]


def answered(*parts: bytes) -> Answer:
    answer = Answer()
    for segment in segments(*parts):
        answer.add(segment)
    return answer


def read(*events: bytes) -> answers.Reading:
    """The reading of a stream of these events, a segment each."""
    return answers.read(answered(HEAD, *map(chunk, events), b"0\r\n\r\n"), form="events")


# Framing.


def test_an_answer_is_complete_with_its_last_chunk() -> None:
    answer = Answer()
    ended = [
        answer.add(segment)
        for segment in segments(HEAD, chunk(b"data: a\n\n"), chunk(b"data: b\n\n"), b"0\r\n\r\n")
    ]
    assert ended == [False, False, False, True]
    assert answer.keep_alive()


@pytest.mark.parametrize("seed", range(30))
def test_an_answer_may_be_cut_anywhere(seed: int) -> None:
    stream = HEAD + b"".join(chunk(text(f"w{i} é")) for i in range(5)) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    cuts = sorted(random.Random(seed).sample(range(1, len(stream)), 12))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    answer = Answer()
    ended = [answer.add(segment) for segment in segments(*parts)]
    assert ended.index(True) == len(parts) - 1
    reading = answers.read(answer, form="events")
    assert reading.error is None and "".join(reading.texts) == "".join(f"w{i} é" for i in range(5))


def test_an_answer_with_a_length_ends_there() -> None:
    answer = Answer()
    parts = segments(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nno", b"pe")
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
    assert read(role, said).segments == [2]  # the head, the role, this


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


def test_every_event_with_text_has_a_token_where_there_are_enough() -> None:
    """As with an end of text that is counted and not shown: one more than events, whatever their lengths."""
    said = [text("a"), text("bcdefghijklmnop"), text("qr"), text("s")]
    assert read(*said, usage_event(completion_tokens=5), DONE).tokens == [1, 2, 1, 1]
    assert read(text("abcd"), text("e" * 20), usage_event(completion_tokens=6), DONE).tokens == [1, 5]
    assert read(text("ab"), text("cd"), text("ef"), usage_event(completion_tokens=2), DONE).tokens == [1, 0, 1]


def test_an_answer_of_another_api_is_no_error_of_the_server() -> None:
    for other in (
        event(type="message_start", message={"id": "x"}),
        b'{"message": {"content": "x"}, "done": false}',
    ):
        assert "error inside" not in (read(other).error or "error inside")


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


# What today's models say.


def delta(**fields: object) -> bytes:
    return event(choices=[{"index": 0, "delta": fields}])


def usage_event(**fields: object) -> bytes:
    return event(choices=[], usage=fields)


def call(**function: str) -> bytes:
    return delta(content=None, tool_calls=[{"index": 0, "type": "function", "function": function}])


def test_tool_calls_are_content_each_with_its_stamp() -> None:
    calls = [call(name="weather", arguments=""), call(arguments='{"ci'), call(arguments='ty": 1}')]
    reading = read(delta(role="assistant", content=None), *calls, usage_event(completion_tokens=3), DONE)
    assert (reading.segments, reading.tokens, reading.error) == ([2, 3, 4], [1, 1, 1], None)


def test_a_call_with_empty_arguments_is_content() -> None:
    assert read(call(name="now"), call(arguments=""), usage_event(completion_tokens=2), DONE).tokens == [1, 1]


def test_a_function_call_and_a_refusal_are_content() -> None:
    reading = read(delta(function_call={"name": "f", "arguments": "{}"}), delta(refusal="No"), DONE)
    assert reading.texts == ["f{}", "No"]


def test_reasoning_then_a_tool_call_keeps_every_stamp() -> None:
    events = [*[delta(reasoning="hm")] * 16, *[call(arguments="x")] * 4]
    each = [json.loads(e[6:]) | {"usage": {"completion_tokens": n + 1}} for n, e in enumerate(events)]
    for parts in ([*events, usage_event(completion_tokens=20)], [event(**e) for e in each]):
        reading = read(*parts, DONE)
        assert (reading.tokens, len(reading.segments), reading.first_answer_event) == ([1] * 20, 20, 16)


def test_parts_are_read_by_their_kind() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    reading = read(delta(content=[thinking]), delta(content=[{"type": "text", "text": "Well"}]), DONE)
    assert (reading.texts, reading.first_answer_event) == (["Hm", "Well"], 1)


def test_where_all_is_reasoning_there_is_no_answer() -> None:
    assert read(delta(reasoning="hm"), DONE).first_answer_event is None


@pytest.mark.parametrize(
    "usage", [{"completion_tokens_details": {"reasoning_tokens": 500}}, {"reasoning_tokens": 500}]
)
def test_hidden_reasoning_is_in_no_event(usage: dict[str, object]) -> None:
    reading = read(*[delta(content="a")] * 20, usage_event(completion_tokens=520, **usage), DONE)
    assert (reading.tokens, reading.generated) == ([1] * 20, 520)


@pytest.mark.parametrize("before", [0, 500])
def test_hidden_reasoning_stays_out_of_counts_in_every_event(before: int) -> None:
    """Some servers count it from the first event on, some in the last usage alone."""
    each = [
        event(choices=[{"delta": {"content": "a"}}], usage={"completion_tokens": before + n}) for n in range(1, 21)
    ]
    usage = usage_event(completion_tokens=520, completion_tokens_details={"reasoning_tokens": 500})
    reading = read(*each, usage, DONE)
    assert (reading.tokens, reading.generated) == ([1] * 20, 520)


def test_hidden_reasoning_that_usage_leaves_out_is_counted() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 500}}
    usage = usage_event(prompt_tokens=7, completion_tokens=20, total_tokens=527, **details)
    reading = read(*[delta(content="a")] * 20, usage, DONE)
    assert (reading.tokens, reading.generated) == ([1] * 20, 520)


def test_shown_reasoning_has_its_own_share() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 6}}
    reading = read(
        delta(reasoning="a"),
        delta(reasoning="b"),
        delta(content="c" * 9),
        usage_event(completion_tokens=7, **details),
    )
    assert (reading.tokens, reading.generated) == ([3, 3, 1], 7)


def test_several_choices_and_logprobs_break_nothing() -> None:
    both = [{"index": i, "delta": {"content": "ab"}, "logprobs": {"content": [{"logprob": -1.5}]}} for i in (0, 1)]
    reading = read(event(choices=both), event(choices=both[:1]), usage_event(completion_tokens=6), DONE)
    assert (reading.tokens, reading.error) == ([2, 2, 2], None)


# Failures inside a 200.


SERVER_SAYS = [
    event(error={"message": "out of memory", "code": 500}),
    event(error="out of memory"),
    event(object="error", message="out of memory", code=50001),
    event(detail="out of memory"),
    event(text="out of memory", error_code=50001),
    b'error: {"code":500,"message":"out of memory"}\n\n',
    b"error: out of memory\n\n",
    b'event: error\ndata: {"message": "out of memory"}\n\n',
    b"event: error\ndata: out of memory\n\n",
    b'{"error": {"message": "out of memory"}}\n\n',
    b'{"detail": "out of memory"}\n\n',
    event(choices=[{"text": "", "finish_reason": "error", "error": {"message": "out of memory"}}]),
]


@pytest.mark.parametrize("before", [[], [text("a")], [text("a"), text("b")]], ids=len)
@pytest.mark.parametrize("says", SERVER_SAYS)
def test_an_error_is_told_in_the_servers_words(says: bytes, before: list[bytes]) -> None:
    for after in ([], [DONE]):
        reading = read(*before, says, *after)
        assert "error inside the answer" in (reading.error or "") and "out of memory" in (reading.error or "")
        assert reading.from_server and len(reading.segments) == len(before)


def test_the_servers_words_are_kept_where_it_closes_after_them() -> None:
    cut_off = answered(HEAD, chunk(text("a")), chunk(SERVER_SAYS[0]))
    assert not cut_off.end_of_stream() and answers.read(cut_off, "events").from_server


@pytest.mark.parametrize("nothing", [None, "", {}, False, 0])
def test_no_error_is_none(nothing: object) -> None:
    assert read(text("a", error=nothing), DONE).error is None


@pytest.mark.parametrize("why", ["abort", "error"])
def test_an_aborted_answer_has_failed(why: str) -> None:
    ended = event(choices=[{"text": "", "finish_reason": why}])
    assert why in (read(text("a"), ended, usage_event(completion_tokens=1), DONE).error or "")


def test_a_filtered_answer_is_one() -> None:
    reading = read(text("a"), event(choices=[{"text": "", "finish_reason": "content_filter"}]), DONE)
    assert (reading.finish_reason, reading.error) == ("content_filter", None)


def test_a_stream_without_any_end_was_cut_off() -> None:
    assert "cut it off" in (read(text("a"), text("b")).error or "")
    ends = [DONE, event(choices=[{"text": "", "finish_reason": "stop"}]), usage_event(completion_tokens=2)]
    assert all(read(text("a"), text("b"), end).error is None for end in ends)


HTML, JSON, EVENTS = (f"Content-Type: {kind}" for kind in ("text/html", "application/json", "text/event-stream"))


def body(data: bytes, *headers: str) -> Answer:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(data)}", *headers]
    return answered("\r\n".join([*lines, "", ""]).encode() + data)


@pytest.mark.parametrize(
    ("answer", "form", "words"),
    [
        (body(b"<!DOCTYPE html><p>Sign in", HTML), "events", ["text/html", "web page", "Sign in"]),
        (body(b'{"choices": [{"text": "a"}]}', JSON), "events", ["application/json", "--no_stream"]),
        (body(b'{"output": "a"}', JSON), "events", ["application/json", "output"]),
        (body(b'{"choices": [{"message": {"content": "a"}, "error": 1}]}'), "events", ["--no_stream"]),
        (body(b"\x1f\x8b\x08\x00\x1b[31m", "Content-Encoding: gzip"), "events", ["gzip-compressed"]),
        (body(b'{"detail": "no such model"}'), "events", ["no such model"]),
        (body(b'{\n  "error": {\n    "message": "no"\n  }\n}\n'), "events", ["error inside the answer", '"no"']),
        (body(b"data: {}\n\n", EVENTS), "object", ["text/event-stream", "leave out --no_stream"]),
        (body(b"<html>", HTML), "score", ["text/html", "web page"]),
        (body(b'{"message": "busy"}'), "object", ["error inside the answer", "busy"]),
        (body(b""), "events", ["empty answer"]),
        (body(event(type="message_start", delta={})), "events", ["empty answer", "message_start"]),
        (body(usage_event(completion_tokens=4)), "events", ["empty answer", "4 tokens", "--api"]),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_described(answer: Answer, form: Form, words: list[str]) -> None:
    error = answers.read(answer, form).error or ""
    assert all(word in error for word in words) and error.isprintable()


def test_a_http_error_names_its_path_and_where_the_api_moved() -> None:
    answer = Answer("/v1/completions")
    head = b"HTTP/1.1 308 Moved\r\nLocation: https://x/v1/completions?token=secret\r\nContent-Length: 0\r\n\r\n"
    answer.add(segments(head)[0])
    error = answers.read(answer, "events").error or ""
    assert (
        "HTTP 308 for /v1/completions" in error and "https://x/v1/completions" in error and "secret" not in error
    )


def test_a_http_error_is_told_also_where_it_breaks_off() -> None:
    answer = Answer("/v1/completions")
    answer.add(segments(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\ntoo long")[0])
    reading = answers.read(answer, "events")
    assert reading.from_server and reading.error == "HTTP 400 for /v1/completions: too long"


def test_an_address_shows_no_password() -> None:
    answer = Answer("/v1")
    answer.add(segments(b"HTTP/1.1 301 Moved\r\nLocation: https://me:secret@x/v1\r\nContent-Length: 0\r\n\r\n")[0])
    assert answers.read(answer, "events").error == "HTTP 301 for /v1: moved to https://***@x/v1; give that URL"


# Good answers of servers that do as they like.


@pytest.mark.parametrize(
    "said",
    [
        b'{"choices": [{"text": "ab", "logprobs": null, "token_ids": null}], "usage": null, "error": null}',
        b'{"choices": [{"delta": {"role": null, "content": "ab", "tool_calls": null}, "text": null}]}',
        b'{"choices": [{"delta": {"content": "ab", "tool_calls": []}}], "usage": {"completion_tokens": null}}',
        b'{"choices": [{"delta": {"content": "ab"}, "logprobs": {"token_logprobs": [NaN, -Infinity]}}]}',
        b'{"choices": [null, {"text": "ab"}], "usage": {"prompt_tokens_details": null, "prompt_tokens": null}}',
        b'{"choices": [{"delta": {"content": "ab"}, "index": "0"}], "usage": []}',
        b'{"choices": [{"delta": {"content": "ab"}}], "usage": {"prompt_tokens": -1, "completion_tokens": 1}}',
    ],
)
def test_nulls_and_the_like_say_nothing(said: bytes) -> None:
    for silent in (b'{"choices": null}', b'{"choices": [{"delta": null}]}', b'{"choices": []}', b"null"):
        reading = read(b"data: " + silent + b"\n\n", b"data: " + said + b"\n\n", DONE)
        assert (reading.texts, reading.error) == (["ab"], None)


def test_counts_may_be_written_as_texts_or_fractions() -> None:
    usage = usage_event(prompt_tokens="9", completion_tokens=2.0)
    reading = read(text("a"), text("b"), usage, DONE)
    assert reading.usage and (reading.usage.prompt_tokens, reading.tokens) == (9, [1, 1])


def test_reasoning_may_be_an_object() -> None:
    reading = read(delta(reasoning={"text": "Hm"}), delta(content="Well"), DONE)
    assert (reading.texts, reading.first_answer_event) == (["Hm", "Well"], 1)


@pytest.mark.parametrize("half", [b"\xe2\x82", b"\\ud83d", b"\\ude00 x"])
def test_half_a_character_is_content(half: bytes) -> None:
    reading = read(
        b'data: {"choices": [{"text": "' + half + b'"}]}\n\n', text("b"), usage_event(completion_tokens=2), DONE
    )
    assert (reading.tokens, reading.error) == ([1, 1], None)
    "".join(reading.texts).encode()


@pytest.mark.parametrize(
    "done", [b"data: [DONE] \n\n", b"data:[DONE]\n\n", b"data: [DONE]", b"data:  [DONE]\r\n\r\n"]
)
def test_done_is_an_end_however_it_is_written(done: bytes) -> None:
    assert read(text("a"), done).error is None


def test_events_without_empty_lines_keep_their_stamps() -> None:
    lines = [text("a")[:-1], text("b")[:-1], usage_event(completion_tokens=2)[:-1], DONE]
    reading = read(*lines)
    assert (reading.segments, reading.tokens, reading.error) == ([1, 2], [1, 1], None)


def test_fields_and_comments_between_events_are_passed_over() -> None:
    said = b"\xef\xbb\xbf: hello\r\nid: 1\r\nretry: 10\r\nevent: message\r\n" + text("a").replace(b"\n", b"\r\n")
    assert read(said, b": ping\n\n", b"event: ping\ndata: {}\n\n", text("b"), DONE).texts == ["a", "b"]


def test_no_answer_leaves_a_cycle() -> None:
    """No collector runs while a load process measures."""
    streams = [
        [text("a"), DONE],
        [text("a"), SERVER_SAYS[0]],
        [text("a"), b"data: {\n\n"],
        [text("a")],
        [SERVER_SAYS[-1]],
    ]
    gc.collect()
    gc.disable()
    try:
        for events in streams:
            answer = answered(HEAD, *map(chunk, events), b"0\r\n\r\n")
            answers.read(answer, "events")
            answer.release()
            del answer
        assert gc.collect() == 0
    finally:
        gc.enable()


# When a request is sent again.


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({b"retry-after": b"2"}, 2, 2),
        ({b"retry-after": b"0.9"}, 0.9, 0.9),
        ({b"retry-after-ms": b"800", b"retry-after": b"1"}, 0.8, 0.8),
        ({b"retry-after": b"Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 0),
        ({b"retry-after": b"3600"}, retry.LONGEST_WAIT_S, retry.LONGEST_WAIT_S),
        ({b"retry-after": b"soon"}, 0.4, 0.4),
        ({}, 0.4, 0.4),
    ],
)
def test_the_wait_before_a_retry_is_the_servers(headers: dict[bytes, bytes], least: float, most: float) -> None:
    assert least <= retry.wait_s(2, headers) <= most


def test_the_wait_before_a_retry_may_be_a_date() -> None:
    date = formatdate(time.time() + 20, usegmt=True).encode()
    assert 10 <= retry.wait_s(2, {b"retry-after": date}) <= 20


# What a server tells of the times of one request.

ENDED = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def test_llamacpp_tells_its_prefill_in_the_last_chunk() -> None:
    timings = {"prompt_n": 31, "prompt_ms": 123.906, "predicted_ms": 14.734}
    times = read(text("a", timings={"prompt_ms": 9.0}), text("b"), event(**ENDED, timings=timings), DONE).times
    assert times and (times.queue_s(), times.prefill_s()) == (None, 0.123906)


def test_vllm_tells_queue_and_prefill_with_the_usage() -> None:
    metrics = {"time_to_first_token_ms": 20.0, "queue_time_ms": 1500.0, "tokens_per_second": 9.5}
    times = read(text("a"), text("b"), event(**ENDED, metrics=metrics), DONE).times
    assert times and (times.queue_s(), times.prefill_s()) == (1.5, 0.02)


NONSENSE = [
    {},
    {"timings": None},
    {"timings": [1]},
    {"timings": {"prompt_ms": "x"}},
    {"timings": {"prompt_ms": -1}},
]


@pytest.mark.parametrize("times", [*NONSENSE, {"metrics": {"queue_time_ms": None}}])
def test_times_that_make_no_sense_are_unknown(times: dict[str, object]) -> None:
    reading = read(text("a"), text("b"), event(**ENDED, **times), DONE)
    assert reading.error is None and reading.times
    assert (reading.times.queue_s(), reading.times.prefill_s()) == (None, None)
