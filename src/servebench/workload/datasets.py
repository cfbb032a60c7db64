"""Files of requests, told apart by what is in them:

    ShareGPT      JSON: [{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}, ...]}]
    prompts       JSONL: {"prompt": ..., "max_tokens": ...}, or {"messages": [...]} as OpenAI's chat has them
    Mooncake      JSONL: {"timestamp": ms, "input_length": ..., "output_length": ..., "hash_ids": [...]}
    Azure         CSV: TIMESTAMP,ContextTokens,GeneratedTokens (2023 and 2024)
    BurstGPT      CSV: Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type (s)

The last three are traces: they tell when requests came and how long they were, not what was said.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from servebench.records import InputError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant"}
ROLES |= {"system": "system", "bing": "assistant", "bard": "assistant"}


class Row(NamedTuple):
    """One request of a dataset. None: the dataset does not say."""

    messages: tuple[dict[str, str], ...] = ()  # what was said up to here; none in a trace
    answer: str = ""
    prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    at_s: float | None = None  # since whenever
    blocks: tuple[int, ...] = ()  # hashes of the prompt's blocks: equal ones are equal prefixes

    @property
    def text(self) -> str:
        """The chat as a plain prompt: a single message as it is, several with who said them."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n\n".join(f"{m['role']}: {m['content']}" for m in self.messages)


Conversation = list[Row]  # its requests in order; one, unless turns were asked for


def sha256_of(path: str) -> str:
    """Identity of a dataset. Raises InputError when it cannot be read."""
    try:
        return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"--dataset {path}: cannot be read ({error.strerror}); give a file") from error


@lru_cache(maxsize=1)  # the same for every point of a sweep
def read(path: str, multi_turn: bool) -> list[Conversation]:
    """All that is in the file. Raises InputError with the line that is not understood."""
    file = Path(path).expanduser()
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            start = stream.read(256).lstrip()[:1]
            stream.seek(0)
            entries: Iterable[tuple[int, Any]]
            if start == "[":
                entries = enumerate(msgspec.json.decode(stream.read()), 1)
            elif start == "{":
                entries = ((n, msgspec.json.decode(line)) for n, line in enumerate(stream, 1) if line.strip())
            else:
                entries = enumerate(csv.DictReader(stream), 2)
            found = [_conversation(path, number, entry, multi_turn) for number, entry in entries]
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError, csv.Error) as error:
        raise InputError(
            f"--dataset {path}: cannot be read ({error}); give JSON, JSONL or CSV in UTF-8"
        ) from error
    conversations = [conversation for conversation in found if conversation]
    if not conversations:
        raise InputError(f"--dataset {path}: no request in it; give ShareGPT, JSONL prompts, or a trace")
    return conversations


def _conversation(path: str, number: int, entry: Any, multi_turn: bool) -> Conversation:
    try:
        rows = list(_rows(entry))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"--dataset {path}: entry {number} is not understood ({type(error).__name__}: {error}); "
            "it takes ShareGPT, JSONL of prompts or messages, and traces of Azure, BurstGPT and Mooncake"
        ) from error
    return rows if multi_turn else rows[:1]


def _rows(entry: dict[str, Any]) -> Iterator[Row]:
    """The requests of one entry; none for what asks nothing (a failed request of BurstGPT, an empty chat)."""
    if "conversations" in entry:
        said = [{"role": ROLES[m["from"]], "content": m["value"]} for m in entry["conversations"]]
        yield from _turns(list(dropwhile(lambda m: m["role"] == "assistant", said)), None)
    elif "messages" in entry:
        said = [{"role": m["role"], "content": m["content"]} for m in entry["messages"]]
        yield from _turns(said, _tokens(entry))
    elif "prompt" in entry:
        yield Row(({"role": "user", "content": str(entry["prompt"])},), max_new_tokens=_tokens(entry))
    elif "input_length" in entry:
        answer, at_s = int(entry["output_length"]), entry["timestamp"] / 1e3
        yield from _traced(int(entry["input_length"]), answer, at_s, tuple(entry.get("hash_ids", ())))
    elif "ContextTokens" in entry:
        at_s = datetime.fromisoformat(_microseconds(entry["TIMESTAMP"])).timestamp()
        yield from _traced(int(entry["ContextTokens"]), int(entry["GeneratedTokens"]), at_s)
    else:
        tokens = int(entry["Request tokens"]), int(entry["Response tokens"])
        yield from _traced(*tokens, float(entry["Timestamp"]))


def _turns(said: list[dict[str, str]], tokens: int | None) -> Iterator[Row]:
    """A request for every answer in a chat, and for what is not answered in it. Raises ValueError."""
    if not all(isinstance(message["content"], str) for message in said):
        raise ValueError("a message that is not text")
    for i, message in enumerate(said):
        if message["role"] != "user":
            continue
        reply = said[i + 1]["content"] if i + 1 < len(said) and said[i + 1]["role"] == "assistant" else ""
        if reply or i + 1 == len(said):
            yield Row(tuple(said[: i + 1]), reply, max_new_tokens=tokens)


def _traced(prompt: int, answer: int, at_s: float, blocks: tuple[int, ...] = ()) -> Iterator[Row]:
    if prompt > 0 and answer > 0:
        yield Row(prompt_tokens=prompt, max_new_tokens=answer, at_s=at_s, blocks=blocks)


def _tokens(entry: dict[str, Any]) -> int | None:
    tokens = entry.get("max_tokens", entry.get("max_completion_tokens", entry.get("max_new_tokens")))
    return None if tokens is None else int(tokens)


def _microseconds(time: str) -> str:
    """Azure's 2023 trace writes seven digits of a second (Python 3.10 reads six), that of 2024 a time zone."""
    whole, dot, rest = time.partition(".")
    if not dot:
        return time
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return f"{whole}.{digits[:6]:0<6}{rest[len(digits) :]}"
