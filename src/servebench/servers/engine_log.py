"""The log that an engine writes: its last lines, and advice on the errors in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from servebench.cli.keys import hide_in_text
from servebench.errors import ServerFailed

TAIL_LINES, MAX_EXCEPTIONS = 15, 3
REFUSAL = re.compile(r"^(?:[\w ./-]+: )?error: .+")  # how programs refuse their options
MAX_LETTERS = 200
EXCEPTION = re.compile(r"\b[A-Z]\w*(?:Error|Exception): .+")

# What to try when these words (in any case) are in the error or in the log.
ADVICE = {
    "out of memory": "it does not fit: more --tp_size, a smaller --max_ragged_batch_size, or other --gpus",
    "failed to allocate": "it does not fit: shorter lengths, fewer clients or a smaller --max_ragged_batch_size",
    "cannot allocate memory": "this host has too little memory for it",
    "available memory": "no room for the KV cache: change the engine's share of memory (--engine_args)",
    "sigkill": "the kernel does that when memory runs out (see dmesg)",
    "address already in use": "another process took the port; leave --port out",
    "no space left on device": "the disk is full",
}


def server_failed(why: str, log_file: Path) -> ServerFailed:
    """The error to raise when a server with this log failed: why, and what to try."""
    log_tail = tail(log_file)
    tips = [tip for words, tip in ADVICE.items() if words in f"{why} {log_tail}".lower()]
    return ServerFailed("; ".join([why, *tips]), log_tail)


def own_words(log_file: Path) -> str:
    """What the engine says is wrong: the option that it refuses, else its first exception; "" if neither."""
    lines = _shown_lines(log_file)
    refusals = [line.strip() for line in lines if REFUSAL.search(line.strip())]
    return shorten((refusals or _raised(lines) or [""])[0], MAX_LETTERS, placeholder=" ...")


def tail(log_file: Path) -> str:
    """The last lines, and above them the first exceptions, since later ones often only follow from those."""
    lines = _shown_lines(log_file)
    last = "\n".join(lines[-TAIL_LINES:])
    return "\n".join([*[error for error in _raised(lines) if error not in last][:MAX_EXCEPTIONS], last])


def last_line(log_file: Path) -> str:
    return hide_in_text(" ".join("".join(_lines(log_file)[-1:]).split()))


def _shown_lines(log_file: Path) -> list[str]:
    return list(map(hide_in_text, _lines(log_file)))


def _raised(lines: Sequence[str]) -> list[str]:
    """The exceptions in them, each once."""
    return list(dict.fromkeys(found[0] for line in lines if (found := EXCEPTION.search(line))))


def _lines(log_file: Path) -> list[str]:
    try:
        return log_file.read_text(errors="replace").rstrip().splitlines()
    except OSError:
        return []
