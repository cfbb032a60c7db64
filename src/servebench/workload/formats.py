"""Entries of datasets, in the formats of the tools that wrote them -> rows: what is asked, how long, and when.

A text is under `prompt`, a chat under `conversations` or `messages`. A trace has only lengths in tokens, and each
tool has its own names for them. The unit of its times and the tokens that a hash stands for depend on its format,
which --trace_format gives, or which shows in its keys and in len(hash_ids) compared with the prompt's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import dropwhile, zip_longest
from typing import Any, NamedTuple

TEXTS = ("prompt", "text_input", "text")
CHATS = ("messages", "conversations", "conversation")
PROMPT_TOKENS = (
    *("input_length", "prompt_len", "input_len", "prompt_length", "prompt_tokens", "input_tokens"),
    *("prompt_tokens_count", "input_tokens_count", "ContextTokens", "Request tokens"),
)
ANSWER_TOKENS = (
    *("max_tokens", "max_completion_tokens", "max_new_tokens", "max_output_tokens", "output_tokens"),
    *("output_length", "output_len", "response_length", "completion_tokens", "output_tokens_count"),
    *("completion_tokens_count", "expected_output_len", "GeneratedTokens", "Response tokens"),
)
TIMES = ("timestamp", "TIMESTAMP", "Timestamp", "arrival_time", "arrived_at")

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant"}
ROLES |= {"system": "system", "developer": "developer", "bing": "assistant", "bard": "assistant"}

WITHOUT_TEXT = "without text"
WITHOUT_TOKENS = "without tokens of prompt or answer"


class Row(NamedTuple):
    """One request of a dataset. None: the dataset does not say."""

    messages: tuple[dict[str, str], ...] = ()  # the chat up to this request; empty in a trace
    answer: str = ""
    prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    at_s: float | None = None  # since any time; in units of the file until its format is known
    hashes: tuple[int, ...] = ()  # of the prompt's blocks: prompts whose hashes begin alike begin alike
    block_tokens: int = 0  # tokens that one hash stands for

    @property
    def text(self) -> str:
        """The chat as a plain prompt: a single message as it is, several with their roles."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n\n".join(f"{m['role']}: {m['content']}" for m in self.messages)


class Trace(NamedTuple):
    """What the numbers in a format of traces mean."""

    unit_s: float  # of its times
    block_tokens: int = 0  # tokens that one hash stands for, if it has hashes


TRACES = {"mooncake": Trace(1e-3, 512), "bailian": Trace(1.0, 16), "guidellm": Trace(1.0)}
TRACES |= {"azure": Trace(1.0), "burstgpt": Trace(1.0)}  # Azure's times are dates
BLOCK_SIZES = [2**i for i in range(3, 14)]  # tried where the format's own size does not fit
HASH_RANGE = 1 << 64  # no tool's hash is longer; Python's may be negative
MIN_FITTING = 0.5  # share of a trace's rows that a block size must fit


def rows_of(entry: Any) -> tuple[list[Row], str]:
    """(requests of one entry, why if there are none). Raises ValueError with the reason if it is no request."""
    if not isinstance(entry, dict):
        raise ValueError(f"it is not an object with keys, but {type(entry).__name__}")
    if isinstance(entry.get("body"), dict):  # a batch file of OpenAI's
        entry = entry["body"]
    key = next((key for key in (*CHATS, *TEXTS) if key in entry), None)
    if key:
        tokens = _tokens(entry, ANSWER_TOKENS)
        if tokens == 0:
            return [], WITHOUT_TOKENS
        return list(_answered(_messages(key, entry[key]), tokens)), WITHOUT_TEXT
    row = _trace_row(entry)
    return [row] if row.prompt_tokens and row.max_new_tokens else [], WITHOUT_TOKENS


def _messages(key: str, text: Any) -> list[dict[str, str]]:
    """A text or a chat as messages with role and content."""
    if isinstance(text, str) and key in TEXTS:
        text = [{"role": "user", "content": text}]
    if not text:
        return []
    if not isinstance(text, list) or not all(isinstance(message, dict) for message in text):
        raise ValueError(f"its {key} is {_kind(text)}; give a text, or a list of messages with role and content")
    messages = [_message(message) for message in text]
    if key != "messages":  # chats that people saved may begin in the middle
        messages = list(dropwhile(lambda m: m["role"] == "assistant", messages))
    return messages


def _kind(value: Any) -> str:
    """What is there instead of a text or a chat."""
    if isinstance(value, list) and all(isinstance(v, int) for v in value):
        return "a list of token ids"
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return "a list of texts, each of which needs its own entry"
    kinds: dict[type, str] = {dict: "an object", list: "a list of other things"}
    return kinds.get(type(value), f"{value!r}"[:40])


def _message(message: dict[str, Any]) -> dict[str, str]:
    who = message.get("role", message.get("from"))
    content = next((message[key] for key in ("content", "value", "text") if key in message), ...)
    if who is None or content is ...:
        raise ValueError(f"a message needs role and content, and has {', '.join(message) or 'nothing'}")
    role = ROLES.get(str(who).lower())
    if role is None:
        raise ValueError(f"a message is from {who!r}; those of {', '.join(ROLES)} are sent")
    return {"role": role, "content": _content(content)}


def _content(content: Any) -> str:
    """A message's text; one that comes in parts is joined."""
    if isinstance(content, str) or content is None:
        return content or ""
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else None
            raise ValueError(f"a message that is not text, but {kind or type(part).__name__}; only text is sent")
    return "\n".join(part["text"] for part in parts)


def _answered(messages: list[dict[str, str]], tokens: int | None) -> Iterator[Row]:
    """A request for every answer in a chat, and for a last message without one. A blank message ends the chat."""
    for i, (message, following) in enumerate(zip_longest(messages, messages[1:])):
        if message["role"] in ("user", "assistant") and not message["content"].strip():
            return
        if message["role"] != "user":
            continue
        answer = following["content"] if following and following["role"] == "assistant" else ""
        if answer.strip() or not following:
            yield Row(tuple(messages[: i + 1]), answer, max_new_tokens=tokens)


def _trace_row(entry: dict[str, Any]) -> Row:
    prompt, answer = _tokens(entry, PROMPT_TOKENS), _tokens(entry, ANSWER_TOKENS)
    if prompt is None or answer is None:
        raise ValueError(f"neither a text nor both lengths are in it, its keys are {', '.join(map(str, entry))}")
    _, time = _first(entry, TIMES)
    if time is None and entry.get("delay") is not None:
        raise ValueError(
            "its time is a delay after the session's last answer, which is not replayed; give timestamps"
        )
    hashes = tuple(int(number) % HASH_RANGE for number in entry.get("hash_ids") or ())
    return Row((), "", prompt, answer, None if time is None else _time(time), hashes)


def _tokens(entry: dict[str, Any], names: Sequence[str]) -> int | None:
    name, value = _first(entry, names)
    if value is None:
        return None
    try:
        tokens = int(float(value))
    except (TypeError, ValueError):
        tokens = -1
    if tokens < 0:
        raise ValueError(f"its {name} is {value!r}, which is not a number of tokens")
    return tokens


def _first(entry: dict[str, Any], names: Sequence[str]) -> tuple[str, Any]:
    """The first of these keys that is in the entry and not blank, and its value; else ("", None)."""
    return next(((name, entry[name]) for name in names if entry.get(name) not in (None, "")), ("", None))


def _is_date(time: Any) -> bool:
    return isinstance(time, str) and not time.replace(".", "", 1).isdecimal()


def _time(time: Any) -> float:
    """A number in the dataset's own unit, or a date in s. A date without a time zone is UTC: no summer time."""
    if not _is_date(time):
        return float(time)
    # Azure's 2023 trace writes seven digits of a second (Python 3.10 reads six), that of 2024 a time zone.
    six_digits = re.sub(r"\.(\d*)", lambda m: f".{m[1][:6]:0<6}", time, count=1)
    date = datetime.fromisoformat(six_digits.replace("Z", "+00:00"))
    return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()


def trace_format(name: str, first: dict[str, Any], rows: Sequence[Row]) -> tuple[str, float, int]:
    """(name of a trace's format, s of a unit of its times, tokens of a block). "auto" asks for what the rows show.

    The name is "" if it could be several. The size of blocks is another than the format's if only that fits.
    """
    fitting = _fitting_blocks(rows)
    if name == "auto":
        name = _recognised(first, rows, fitting)
    trace = TRACES.get(name, Trace(unit_s=1.0))
    block = trace.block_tokens if trace.block_tokens in fitting or not fitting else fitting[0]
    return name, trace.unit_s, block


def _recognised(first: dict[str, Any], rows: Sequence[Row], fitting: list[int]) -> str:
    if {"chat_id", "turn"} <= first.keys():
        return "bailian"
    if "Request tokens" in first:
        return "burstgpt"
    if _is_date(_first(first, TIMES)[1]):
        return "azure"
    whole = all(float(row.at_s or 0).is_integer() for row in rows)
    return "mooncake" if whole and TRACES["mooncake"].block_tokens in fitting else ""


def _fitting_blocks(rows: Sequence[Row]) -> list[int]:
    """Block sizes that explain how many hashes prompts of these lengths have, the best first."""
    hashed = [(row.prompt_tokens or 0, len(row.hashes)) for row in rows if row.hashes]
    fitting = {size: sum(-(-tokens // size) == n for tokens, n in hashed) for size in BLOCK_SIZES}
    return sorted((b for b in BLOCK_SIZES if fitting[b] > MIN_FITTING * len(hashed)), key=lambda b: -fitting[b])
