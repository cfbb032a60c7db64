"""Server-sent events out of stamped segments (WHATWG HTML, section 9.2.6), after the answer is complete.

Some servers break the rules in ways whose meaning is clear: no empty line between events, JSON without a field
name, errors in other fields (`error: {...}`, `event: error`). Such errors are given as `{"error": ...}`, as in
data.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import msgspec

from servebench.load.chunks import UNREADABLE, is_error, json_object

Part = tuple[bytes, int]  # bytes, and the index of the segment in which they became whole


def plain_events(texts: list[bytes]) -> list[bytes]:
    """The data of each segment, as long as it is just one HTTP chunk with one event of one `data: ` line.

    Nearly every segment is that. The general way, to parse it and then `split`, takes three times as long.
    """
    found = []
    for text in texts:
        size, _, rest = text.partition(b"\r\ndata: ")
        if rest[-4:] != b"\n\n\r\n" or b"%x" % (len(rest) + 4) != size:
            break
        found.append(rest[:-4])
    joined = b"".join(found)
    return found if all(found) and b"\n" not in joined and b"\r" not in joined else []


def split(parts: list[Part]) -> list[Part]:
    """(data, index of the segment in which the event became whole) of every event that has data.

    An event is whole with the empty line after it. A last event without one counts too: some servers close right
    after `data: [DONE]`.
    """
    events: list[Part] = []
    for i, (data, at) in enumerate(parts):
        if data[:6] != b"data: " or data[-2:] != b"\n\n" or not 6 < data.find(b"\n") == len(data) - 2:
            return [*events, *_split(parts[i:])]
        events.append((data[6:-2], at))  # one plain event in a part, as nearly all of them are
    return events


def _split(parts: list[Part]) -> Iterator[Part]:
    texts = _with_unix_newlines([text for text, _ in parts])
    ends = list(accumulate(map(len, texts)))
    position, i = 0, 0
    for event in b"".join(texts).split(b"\n\n"):
        if event.startswith(b"data: ") and b"\n" not in event:
            found = [(event[6:], len(event) + 2)] if len(event) > 6 else []
        else:
            found = _data_of(event)
        for data, length in found:
            while i < len(ends) - 1 and ends[i] < position + length:
                i += 1
            yield data, parts[i][1]
        position += len(event) + 2


def _data_of(event: bytes) -> list[tuple[bytes, int]]:
    """(data, bytes up to where it is whole) of an event in any form; several where empty lines are missing."""
    whole = len(event) + 2
    if event.lstrip()[:1] == b"{":  # JSON without a field name: only errors come like that
        return [(event, whole)] if is_error(json_object(event)) else []
    data, errors, named, end = [], [], False, 0
    for line in event.split(b"\n"):
        end += len(line) + 1
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        named |= name == b"event" and value.strip() == b"error"
        if name == b"data":
            data.append((value, end))
        elif name == b"error":
            errors.append((_error(value), end))
    if len(data) < 2 or named or not all(_stands_alone(value) for value, _ in data):
        joined = b"\n".join(value for value, _ in data)
        data = [(_error(joined) if named else joined, whole)] if joined else []
    return [*((value, end) for value, end in data if value), *errors]


def _stands_alone(value: bytes) -> bool:
    """Is this line of data a whole event, whose empty line is missing?"""
    value = value.strip()
    return value == b"[DONE]" or (value[:1] == b"{" and value[-1:] == b"}")


def _error(words: bytes) -> bytes:
    """The error as others write it in data."""
    try:
        is_json = bool(msgspec.json.decode(words))
    except UNREADABLE:
        is_json = False
    return b'{"error": %b}' % (words if is_json else msgspec.json.encode(words.decode(errors="replace") or "?"))


def _with_unix_newlines(texts: list[bytes]) -> list[bytes]:
    """CRLF and CR as LF. Where a CRLF is split over two segments, the line ends with the CR."""
    if texts:
        texts = [texts[0].removeprefix(b"\xef\xbb\xbf"), *texts[1:]]
    if not any(b"\r" in text for text in texts):
        return texts
    converted, after_cr = [], False
    for text in texts:
        rest = text.removeprefix(b"\n") if after_cr else text
        after_cr = text.endswith(b"\r") if text else after_cr
        converted.append(rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    return converted
