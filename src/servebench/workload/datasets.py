"""Files of requests (JSON, JSONL, CSV): what is in them, and what of it asks nothing and is left out.

Formats and their keys are formats.py's; docs/datasets.md shows an example of each.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from servebench.errors import InputError
from servebench.workload.formats import TIMES, TRACES, Row, Trace, format_of, in_seconds, rows_of
from servebench.workload.model_files import expanded

NO_TIMES = "tells no arrival times; give --request_rate, not --trace_speed"
WHOSE = "say whose they are: --trace_format mooncake (ms, AIPerf's too), bailian or guidellm (s)"
NOT_REPLAYED = "has times beside texts, which are not replayed; give --request_rate, not --trace_speed"
UNKNOWN = Trace(1.0)

Conversation = list[Row]  # its requests in order; one, unless turns were asked for


class Dataset(NamedTuple):
    conversations: list[Conversation]
    left_out: Mapping[str, int]  # entries that ask nothing, by why
    no_times: str = ""  # why its requests cannot be sent at times of its own

    @property
    def is_trace(self) -> bool:
        """Lengths alone, no text."""
        return not self.conversations[0][0].messages

    @property
    def remark(self) -> str:
        """What was left out, in words; "" when nothing was."""
        return ", ".join(f"{n} {why}" for why, n in self.left_out.items())


def sha256_of(path: str) -> str:
    """Identity of a dataset. Raises InputError when it cannot be read."""
    try:
        return hashlib.sha256(expanded("--dataset", path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"--dataset {path}: cannot be read ({error.strerror}); give a file") from error


@lru_cache(maxsize=1)  # the same for every point of a sweep
def read(path: str, multi_turn: bool, trace_format: str = "auto") -> Dataset:
    """All that is in the file. Raises InputError with the entry that is not understood."""
    conversations, left_out, first = [], Counter[str](), None
    for number, entry in _entries(path):
        try:
            rows, why_not = rows_of(entry)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"--dataset {path}: entry {number} is not understood: {error} (docs/datasets.md shows what is)"
            ) from error
        left_out.update([] if rows else [why_not])
        conversations += [rows if multi_turn else rows[:1]] if rows else []
        first = first or (entry if rows else None)
    if not conversations:
        rest = f" ({Dataset([], left_out).remark})" if left_out else ""
        raise InputError(f"--dataset {path}: no request in it{rest}; give ShareGPT, JSONL prompts, or a trace")
    return _timed(path, Dataset(conversations, left_out), first, trace_format)


def _entries(path: str) -> Iterable[tuple[int, Any]]:
    """(number, entry) of a JSON list, or (line, entry) of JSONL or CSV."""
    try:
        with expanded("--dataset", path).open(encoding="utf-8-sig", newline="") as stream:
            start = stream.read(256).lstrip()[:1]
            stream.seek(0)
            if start == "[":
                yield from enumerate(msgspec.json.decode(stream.read()), 1)
            elif start == "{":
                yield from _of_lines(path, stream)
            else:
                csv.field_size_limit(sys.maxsize)
                yield from enumerate(csv.DictReader(stream), 2)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError, csv.Error) as error:
        raise InputError(
            f"--dataset {path}: cannot be read ({error}); give JSON, JSONL or CSV in UTF-8"
        ) from error


def _of_lines(path: str, stream: Iterable[str]) -> Iterable[tuple[int, Any]]:
    for number, line in enumerate(stream, 1):
        try:
            if line.strip():
                yield number, msgspec.json.decode(line)
        except msgspec.MsgspecError as error:
            raise InputError(
                f"--dataset {path}: line {number} is no JSON of its own ({error}); give an entry a line, or a list"
            ) from error


def _timed(path: str, dataset: Dataset, first: Any, trace_format: str) -> Dataset:
    """A trace with its times in s, where it is known or said what they are in."""
    if len({bool(c[0].messages) for c in dataset.conversations}) > 1:
        raise InputError(f"--dataset {path}: some entries have texts and others lengths alone; give one kind")
    if not dataset.is_trace:
        if trace_format != "auto":
            raise InputError(f"--dataset {path} has texts, not lengths alone; leave out --trace_format")
        told = any(key in first for key in TIMES)
        return dataset._replace(no_times=NOT_REPLAYED if told else NO_TIMES)
    rows = [row for row, *_ in dataset.conversations]
    name = format_of(first, rows) if trace_format == "auto" else trace_format
    try:
        conversations = [[row] for row in in_seconds(rows, TRACES.get(name, UNKNOWN))]
    except ValueError as error:
        raise InputError(f"--dataset {path}: {error}") from error
    unclear = "" if name else f"has times that may be s or ms (keys: {', '.join(first)}); {WHOSE}"
    untimed = any(row.at_s is None for row in rows)
    return dataset._replace(conversations=conversations, no_times=NO_TIMES if untimed else unclear)
