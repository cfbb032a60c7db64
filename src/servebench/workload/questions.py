"""Files of questions with known answers (JSONL, or MMLU's CSV) -> what is asked, and whether an answer is right.

A line has a prompt, messages or both (the same question for either API), the right answer, and the scorer that
compares. Files of published benchmarks are read as they are (known_sets.py).
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from servebench.errors import InputError
from servebench.workload.known_sets import of_gsm8k, of_mmlu, of_mmlu_row
from servebench.workload.scorers import SCORERS, checked, is_right

BASIC = Path(__file__).with_name("questions_basic.jsonl")  # our own set
MAX_TOKENS = {"choice": 4, "contains": 16, "number": 256, "json_schema": 256, "agreement": 32}
AGREEMENT = "agreement"  # no answer is right: texts are compared with each other
EXAMPLE = '{"prompt": "2 + 2 =", "answer": 4, "scorer": "number"}'

Text = Annotated[str, Meta(min_length=1)]


class _Message(msgspec.Struct):
    role: Text
    content: str


class _Line(msgspec.Struct):
    scorer: str
    prompt: Text | None = None
    messages: Annotated[list[_Message], Meta(min_length=1)] | None = None
    answer: Any = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop: Text | list[Text] = []


@dataclass(frozen=True)
class Question:
    """What is asked, and what is right."""

    id: str  # 12 hex digits: the same for the same question, answer and scorer in any file
    prompt: str  # "" where it is a chat alone
    messages: tuple[dict[str, str], ...]  # () where it is a prompt alone
    answer: Any  # text, number, a list of which any is right, or a JSON schema; None for agreement
    scorer: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()

    def right(self, text: str) -> bool | None:
        """None: not scored."""
        return None if self.scorer == AGREEMENT else is_right(self.scorer, text, self.answer)


def read_questions(path: Path) -> list[Question]:
    """The questions of a file in its order, each once. Raises InputError, with the line that is not understood."""
    questions: dict[str, Question] = {}
    for number, line in _lines(path):
        try:
            question = _question(of_mmlu_row(line) if isinstance(line, list) else _own(_decoded(line)))
        except (ValueError, msgspec.MsgspecError) as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        questions.setdefault(question.id, question)
    if not questions:
        raise InputError(f"{path}: no question in it; give one per line, such as {EXAMPLE}")
    return list(questions.values())


def _lines(path: Path) -> Iterator[tuple[int, str | list[str]]]:
    """(number, text) of each line, or (number of its last line, cells) of each row of CSV."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix.lower() == ".csv":
                rows = csv.reader(stream)
                yield from ((rows.line_num, row) for row in rows if row)
            else:
                yield from ((number, line) for number, line in enumerate(stream, 1) if line.strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise InputError(f"{path}: cannot be read ({why}); give a file of questions, JSONL in UTF-8") from error


def _decoded(line: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a JSON object by itself ({error}); give one per line, such as {EXAMPLE}") from error


def _own(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with the keys of a line of ours. Raises ValueError when one is missing."""
    if {"question", "answer"} <= entry.keys():
        return of_mmlu(entry) if "choices" in entry else of_gsm8k(entry)
    needed = {"scorer"} if entry.get("scorer") == AGREEMENT else {"answer", "scorer"}
    missing = sorted(needed - entry.keys()) + ["prompt or messages"] * (not {"prompt", "messages"} & entry.keys())
    if missing:
        found = ", ".join(entry) or "none"
        raise ValueError(f"without {', '.join(missing)} (its keys: {found}); give all, such as {EXAMPLE}")
    return entry


def _question(entry: dict[str, Any]) -> Question:
    """Raises ValueError or MsgspecError when it cannot be asked or scored."""
    line = msgspec.convert(entry, _Line)
    if line.scorer not in (*SCORERS, AGREEMENT):
        raise ValueError(f"scorer {line.scorer} is not known; give {', '.join(SCORERS)} or {AGREEMENT}")
    if line.scorer == AGREEMENT and line.answer is not None:
        raise ValueError("an answer, which agreement does not compare with; leave it out or give another scorer")
    answer = None if line.scorer == AGREEMENT else checked(line.scorer, line.answer)
    messages = tuple({"role": m.role, "content": m.content} for m in line.messages or ())
    asked = msgspec.json.encode([line.prompt or "", messages, answer, line.scorer], order="sorted")
    tokens = line.max_tokens or MAX_TOKENS.get(line.scorer) or _tokens_of(answer)
    stop = (line.stop,) if isinstance(line.stop, str) else tuple(line.stop)
    name = hashlib.sha256(asked).hexdigest()[:12]
    return Question(name, line.prompt or "", messages, answer, line.scorer, tokens, stop)


def _tokens_of(answer: Any) -> int:
    """Enough for the longest of these texts: a token has two bytes or more, nearly always."""
    answers = answer if isinstance(answer, list) else [answer]
    return max(len(one.encode()) for one in answers) // 2 + 8
