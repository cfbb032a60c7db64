"""100,000 broken answers: random bytes, and good answers with bytes changed, cut, doubled and moved.

Each goes through framing, event splitting and reading as the client does it; whatever comes, there is a reading
that is sound, or an error with a name.
"""

from __future__ import annotations

import itertools
import random

import pytest
from test_answers import HEAD, chunk, event, segments, text

from servebench.errors import HttpError
from servebench.load import answers
from servebench.load.http import Answer

BATCHES, A_BATCH = 20, 5000
SSE = [
    text("one"),
    text(" two é"),
    b": comment\n\n",
    event(choices=[], usage={"completion_tokens": 3}),
    b"data: [DONE]\n\n",
]
DELTAS = [event(choices=[{"delta": d}]) for d in ({"role": "assistant"}, {"reasoning": "hm"}, {"content": "yes"})]
ODD = [
    b'event: error\ndata: {"message": "no"}\n\n',
    b'error: {"code": 500}\n\n',
    b'{"error": "bare"}\n\n',
    text("no empty line")[:-1],
    b"data:[DONE] \n\n",
    text("half").replace(b"half", b"h\xe2\x82"),
    event(choices=None, usage=None, error=None),
]
DELTAS += [event(choices=[{"delta": {"tool_calls": [{"function": {"name": "f"}}]}}])]
DELTAS += [event(choices=[{"delta": {"content": [{"type": "thinking", "thinking": "hm"}]}}])]
WHOLE = b'{"choices": [{"text": "all of it"}], "usage": {"completion_tokens": 4}}'
GOOD = [
    HEAD + b"".join(map(chunk, SSE)) + b"0\r\n\r\n",
    HEAD + b"".join(chunk(e.replace(b"\n", b"\r\n")) for e in DELTAS) + b"0\r\nTrailer: x\r\n\r\n",
    HEAD + chunk(b"".join(SSE)) + b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE),
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"".join(SSE),
    HEAD + b"".join(chunk(text("x", usage={"completion_tokens": n})) for n in (1, 7, 3)) + b"0\r\n\r\n",
    HEAD + b"".join(map(chunk, [*SSE[:2], *ODD])) + b"0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy",
]
DICTIONARY = [
    b"\r\n",
    b"\n\n",
    b"0\r\n\r\n",
    b"data: ",
    b"{",
    b"\xff\xfe",
    b"\x00",
    b"ffffffffffffffff\r\n",
    b"[DONE]",
]
DICTIONARY += [b'"usage": null', b'{"choices": [null]}', b'"completion_tokens": -5', b"Content-Length: 99999\r\n"]


def mutated(rng: random.Random) -> bytes:
    if rng.random() < 0.05:
        return rng.randbytes(rng.randint(1, 300))
    return damaged(rng.choice(GOOD), rng, rng.randint(1, 5))


def damaged(good: bytes, rng: random.Random, times: int) -> bytes:
    data = bytearray(good)
    for _ in range(times):
        at, span = rng.randrange(len(data) + 1), rng.randint(1, 40)
        what = rng.randrange(5)
        if what == 0:
            data[at : at + 1] = rng.randbytes(1)
        elif what == 1:
            del data[at : at + span]
        elif what == 2:
            data[at:at] = rng.choice(DICTIONARY)
        elif what == 3:
            data[at:at] = data[at : at + span]
        else:
            other = rng.choice(GOOD)
            data[at:] = other[rng.randrange(len(other)) :]
    return bytes(data)


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """In up to eight parts."""
    edges = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 7)))})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def fed(parts: list[bytes]) -> tuple[Answer, str | None]:
    """The answer after these parts and a close by the server, and what was wrong with its framing."""
    answer = Answer()
    try:
        if any(answer.add(segment) for segment in segments(*parts)):
            return answer, None
        return answer, None if answer.end_of_stream() else "cut off"
    except HttpError as error:
        return answer, str(error)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_whatever_comes_is_read_or_named(batch: int) -> None:
    rng = random.Random(batch)
    for _ in range(A_BATCH):
        parts = cut(mutated(rng), rng)
        answer, broken = fed(parts)
        assert broken is None or broken
        for form in ("events", "object", "score"):
            reading = answers.read(answer, form)
            assert reading.error or reading.segments, parts
            assert len(reading.segments) == len(reading.tokens) == len(reading.texts), parts
            assert reading.segments == sorted(reading.segments), parts
            assert all(0 <= at < len(parts) for at in reading.segments), parts
            assert all(tokens >= 0 for tokens in reading.tokens), parts


@pytest.mark.parametrize("batch", range(BATCHES))
def test_what_is_skimmed_reads_as_what_is_parsed(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(batch)
    for _ in range(1000):
        chunks = [chunk(rng.choice(SSE[:2] * 4 + SSE + DELTAS + ODD)) for _ in range(rng.randint(1, 9))]
        parts = [rng.choice([HEAD, HEAD + chunk(text("first"))]), *chunks, chunk(SSE[-1]) + b"0\r\n\r\n"]
        if rng.random() < 0.7:
            at = rng.randrange(len(parts))
            parts[at] = damaged(parts[at], rng, 1) or b"x"
        skimmed = answers.read(fed(parts)[0], "events")
        with monkeypatch.context() as patch:
            patch.setattr(Answer, "skim", lambda answer: [])
            assert skimmed == answers.read(fed(parts)[0], "events"), parts
