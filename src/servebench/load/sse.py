"""Server-sent events out of stamped pieces (WHATWG HTML, section 9.2.6), after the answer is complete."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

Part = tuple[bytes, int]  # bytes, and the index of the piece that they came with


def plain(texts: list[bytes]) -> list[bytes]:
    """The data of each piece up to the first that is not just one HTTP chunk with one event of one `data: ` line.

    Nearly every piece is that, and the general way, the parser's and then `split`, takes three times as long.
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
    """(data, index of the piece in which the event became whole) of every event that has data.

    An event is whole with the empty line after it. A last event without one is given too: some servers
    close right after `data: [DONE]`.
    """
    events: list[Part] = []
    for i, (data, at) in enumerate(parts):
        if data[:6] != b"data: " or data[-2:] != b"\n\n" or not 6 < data.find(b"\n") == len(data) - 2:
            return [*events, *_split(parts[i:])]
        events.append((data[6:-2], at))  # one plain event in a part, as nearly all of them are
    return events


def _split(parts: list[Part]) -> Iterator[Part]:
    texts = _with_plain_newlines([text for text, _ in parts])
    ends = list(accumulate(map(len, texts)))
    position, i = 0, 0
    for event in b"".join(texts).split(b"\n\n"):
        position += len(event) + 2
        while i < len(ends) - 1 and ends[i] < position:
            i += 1
        data = event[6:] if event.startswith(b"data: ") and b"\n" not in event else _data_of(event)
        if data:
            yield data, parts[i][1]


def _data_of(event: bytes) -> bytes:
    """The data lines of an event of any form: several lines, comments, other fields, no space after the colon."""
    fields = [line.partition(b":") for line in event.split(b"\n")]
    return b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == b"data")


def _with_plain_newlines(texts: list[bytes]) -> list[bytes]:
    """CRLF and CR as LF, also where a CRLF is split over two pieces: the event ends with the CR then."""
    if texts:
        texts = [texts[0].removeprefix(b"\xef\xbb\xbf"), *texts[1:]]
    if not any(b"\r" in text for text in texts):
        return texts
    given, after_cr = [], False
    for text in texts:
        rest = text.removeprefix(b"\n") if after_cr else text
        after_cr = text.endswith(b"\r") if text else after_cr
        given.append(rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    return given
