"""Entries of datasets, as the tools that wrote them have them -> rows: what is asked, how long, and when.

Texts stand under `prompt` or as a chat under `conversations` or `messages`; a trace has lengths in tokens alone,
under names of its own. What a trace does not say of itself, the unit of its times and the tokens of a block that
a hash stands for, is known by its format: by keys that no other has, by len(hash_ids) against the prompt's
length, or from --trace_format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
FAILED = "without tokens of prompt or answer"


class Row(NamedTuple):
    """One request of a dataset. None: the dataset does not say."""

    messages: tuple[dict[str, str], ...] = ()  # what was said up to here; none in a trace
    answer: str = ""
    prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    at_s: float | None = None  # since whenever
    blocks: tuple[int, ...] = ()  # hashes of the prompt's blocks: equal ones are equal prefixes
    block: int = 0  # tokens that one of them stands for

    @property
    def text(self) -> str:
        """The chat as a plain prompt: a single message as it is, several with who said them."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n\n".join(f"{m['role']}: {m['content']}" for m in self.messages)


class Trace(NamedTuple):
    """What a format of traces means by its numbers."""

    unit_s: float  # of its times
    block: int = 0  # tokens that one hash stands for, where it has hashes


TRACES = {"mooncake": Trace(1e-3, 512), "bailian": Trace(1.0, 16), "guidellm": Trace(1.0)}
TRACES |= {"azure": Trace(1.0), "burstgpt": Trace(1.0)}  # Azure's times are dates
BLOCKS = [2**i for i in range(3, 14)]  # tokens a hash, of traces cut otherwise than their format's own
HASHES = 1 << 64  # no hash is as long; those of Python are negative too
CLEAR = 0.5  # share of a trace's rows that a block size must fit


def rows_of(entry: Any) -> tuple[list[Row], str]:
    """(requests of one entry, or none and why it asks nothing). Raises ValueError in words for what is no request.

    A trace's times are in units of its own here.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"it is no object with keys, but {type(entry).__name__}")
    if isinstance(entry.get("body"), dict):  # a batch file of OpenAI's
        entry = entry["body"]
    key = next((key for key in (*CHATS, *TEXTS) if key in entry), None)
    if key:
        tokens = _tokens(entry, ANSWER_TOKENS)
        return ([], FAILED) if tokens == 0 else (list(_asked(key, entry[key], tokens)), WITHOUT_TEXT)
    row = _traced(entry)
    return [row] if row.prompt_tokens and row.max_new_tokens else [], FAILED


def _asked(key: str, text: Any, tokens: int | None) -> Iterator[Row]:
    """The requests of a text or of a chat."""
    if isinstance(text, str) and key in TEXTS:
        text = [{"role": "user", "content": text}]
    if not text:
        return
    if not isinstance(text, list) or not all(isinstance(message, dict) for message in text):
        raise ValueError(f"its {key} is {_kind(text)}; give a text, or a list of messages with role and content")
    messages = [_message(message) for message in text]
    if key != "messages":  # chats that people saved may begin in the middle
        messages = list(dropwhile(lambda m: m["role"] == "assistant", messages))
    yield from _turns(messages, tokens)


def _kind(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(v, int) for v in value):
        return "a list of token ids"
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return "a list of texts, each of which needs an entry of its own"
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
    return {"role": role, "content": _joined(content)}


def _joined(content: Any) -> str:
    """A message's text, which may come in parts."""
    if isinstance(content, str) or content is None:
        return content or ""
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else None
            raise ValueError(f"a message that is not text, but {kind or type(part).__name__}; only text is sent")
    return "\n".join(part["text"] for part in parts)


def _turns(messages: list[dict[str, str]], tokens: int | None) -> Iterator[Row]:
    """A request for every answer in a chat, and for what is not answered in it. A blank message ends it."""
    for i, (message, behind) in enumerate(zip_longest(messages, messages[1:])):
        if message["role"] in ("user", "assistant") and not message["content"].strip():
            return
        if message["role"] != "user":
            continue
        reply = behind["content"] if behind and behind["role"] == "assistant" else ""
        if reply.strip() or not behind:
            yield Row(tuple(messages[: i + 1]), reply, max_new_tokens=tokens)


def _traced(entry: dict[str, Any]) -> Row:
    prompt, answer = _tokens(entry, PROMPT_TOKENS), _tokens(entry, ANSWER_TOKENS)
    if prompt is None or answer is None:
        raise ValueError(f"neither a text nor both lengths are in it, its keys are {', '.join(map(str, entry))}")
    time = _first(entry, TIMES)
    if time is None and entry.get("delay") is not None:
        raise ValueError(
            "it comes a delay after its session's last answer, which is not replayed; give timestamps"
        )
    blocks = tuple(int(block) % HASHES for block in entry.get("hash_ids") or ())
    return Row((), "", prompt, answer, None if time is None else _number(time), blocks)


def _tokens(entry: dict[str, Any], names: Sequence[str]) -> int | None:
    name = next((name for name in names if entry.get(name) not in (None, "")), None)
    if name is None:
        return None
    try:
        tokens = int(float(entry[name]))
    except (TypeError, ValueError):
        tokens = -1
    if tokens < 0:
        raise ValueError(f"its {name} is {entry[name]!r}, which is no number of tokens")
    return tokens


def _first(entry: dict[str, Any], names: Sequence[str]) -> Any:
    """What stands under the first of these names that says something."""
    return next((entry[name] for name in names if entry.get(name) not in (None, "")), None)


def _is_date(time: Any) -> bool:
    return isinstance(time, str) and not time.replace(".", "", 1).isdecimal()


def _number(time: Any) -> float:
    """A time in units of its own, or a date in s."""
    if _is_date(time):
        date = datetime.fromisoformat(_microseconds(time.replace("Z", "+00:00")))
        return (
            date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        ).timestamp()  # no summer time between two
    return float(time)


def _microseconds(time: str) -> str:
    """Azure's 2023 trace writes seven digits of a second (Python 3.10 reads six), that of 2024 a time zone."""
    whole, dot, rest = time.partition(".")
    if not dot:
        return time
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return f"{whole}.{digits[:6]:0<6}{rest[len(digits) :]}"


def format_of(entry: dict[str, Any], rows: Sequence[Row]) -> str:
    """The name of a trace's format, by its first entry and all of its rows; "" when it could be several."""
    if {"chat_id", "turn"} <= entry.keys():
        return "bailian"
    if "Request tokens" in entry:
        return "burstgpt"
    if _is_date(_first(entry, TIMES)):
        return "azure"
    whole = all(float(row.at_s or 0).is_integer() for row in rows)
    return "mooncake" if whole and TRACES["mooncake"].block in fitting_blocks(rows) else ""


def fitting_blocks(rows: Iterable[Row]) -> list[int]:
    """Block sizes by which prompts of these lengths have these numbers of hashes, the best first."""
    hashed = [(row.prompt_tokens or 0, len(row.blocks)) for row in rows if row.blocks]
    fits = {block: sum(-(-tokens // block) == n for tokens, n in hashed) for block in BLOCKS}
    return sorted((b for b in BLOCKS if fits[b] > CLEAR * len(hashed)), key=lambda b: -fits[b])


def in_seconds(rows: Sequence[Row], trace: Trace) -> list[Row]:
    """The rows with times in s and the size of their blocks. Raises ValueError when that is not to be known."""
    fitting = fitting_blocks(rows)
    block = trace.block if trace.block in fitting or not fitting else fitting[0]
    if not block and any(row.blocks for row in rows):
        raise ValueError("len(hash_ids) goes with no size of blocks; say whose trace it is with --trace_format")
    return [row._replace(at_s=None if row.at_s is None else row.at_s * trace.unit_s, block=block) for row in rows]
