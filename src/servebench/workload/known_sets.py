"""Entries of published benchmarks, as their files have them -> lines of questions.py, with our scorers.

GSM8K's JSONL has question and answer; MMLU is CSV without a header, or JSONL of its dataset on the hub.
"""

from __future__ import annotations

from typing import Any

LETTERS = "ABCDEFGHIJ"


def of_gsm8k(entry: dict[str, Any]) -> dict[str, Any]:
    """A worked answer that ends in "#### 18"."""
    _, mark, number = str(entry["answer"]).rpartition("####")
    if not mark:
        raise ValueError("no #### before a number in its answer, as GSM8K has it; give prompt, answer and scorer")
    prompt = f"Question: {entry['question']}\nAnswer:"
    return {"prompt": prompt, "answer": number.strip(), "scorer": "number", "stop": "\nQuestion:"}


def of_mmlu_row(cells: list[str]) -> dict[str, Any]:
    """Question, four choices, letter."""
    if len(cells) != 6:
        raise ValueError(
            f"{len(cells)} columns, not the 6 of MMLU: question, A, B, C, D, letter; give these, or JSONL"
        )
    return of_mmlu({"question": cells[0], "choices": cells[1:5], "answer": cells[5].strip()})


def of_mmlu(entry: dict[str, Any]) -> dict[str, Any]:
    """The answer is a letter, or an index from 0."""
    choices, answer = entry["choices"], entry["answer"]
    there = LETTERS[: len(choices)] if isinstance(choices, list) else ""
    letter = there[answer : answer + 1] if type(answer) is int and answer >= 0 else answer
    if not (isinstance(letter, str) and letter and letter in tuple(there)):
        raise ValueError(
            f"answer {answer!r} is none of its {len(there)} choices; give a letter, or an index from 0"
        )
    lines = [f"{name}. {choice}" for name, choice in zip(there, choices, strict=False)]
    prompt = "\n".join([str(entry["question"]).strip(), *lines, "Answer:"])
    return {"prompt": prompt, "answer": letter, "scorer": "choice"}
