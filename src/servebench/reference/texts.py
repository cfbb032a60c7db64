"""What answers of the reference server say: plain words, answers to known questions, and both of them broken."""

from __future__ import annotations

import re
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from servebench.workload.questions import Question

FOUR_LETTERS = """
trim lamp into book rose bank post days from salt good what blue noon meet week year well gave kept that name most
past nine load side call when fish come late then were with part asks move them paid each debt more than does long
they hand slow fast four sent went down over ones this keep copy been stay wall knew only star will seen clue five
hold says left many moon roof hear dark sold farm warm look shop took read help plan town tide came boat less time
iron send data full once tell made song weak hour last make ship size mile stop turn home your mind wars both kind
bell fire next word page used loud road lake mill lens view said know dust list easy hard gate else maps have vote
cold half none near bath find back fill calm ends room best
"""
WORDS = [f" {word}" for word in FOUR_LETTERS.split()]  # each is one token of SmolLM2, Llama 2 and Mistral

BROKEN = {
    "wrong": "a wrong answer to a known question",
    "swap": "what another request in flight should get",
    "repeat": "one word all through",
    "truncate": "half of the tokens, finish_reason length",
    "nan": "nothing but ! in the second half of the text",
    "blank": "spaces",
    "invalid": "U+FFFD in the first of every four tokens",
}


class Text(NamedTuple):
    """The tokens of an answer, and its finish_reason. Plain words have the place in WORDS where they begin."""

    tokens: list[str]
    why: str = "length"
    first: int = -1


def drawn(text: str) -> float:
    """A number from [0, 1) that depends on this text alone."""
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


def words(count: int, first: int = 0) -> list[str]:
    """So many of WORDS, from this place on and round again."""
    return (WORDS * (count // len(WORDS) + 2))[first : first + count]


def asked(request: dict[str, Any]) -> str:
    """The text of a request's prompt or messages."""
    return request.get("prompt") or " ".join(str(m.get("content")) for m in request.get("messages") or [])


@cache
def known_questions(file: str, wrong_share: float) -> dict[str, tuple[str, str]]:
    """What is asked -> the answer and a wrong one. Of each scorer's questions, for this share both are wrong."""
    if not file:
        return {}
    from servebench.workload.questions import read_questions  # a server that knows none starts sooner

    questions = [question for question in read_questions(Path(file)) if question.scorer != "json_schema"]
    questions.sort(key=lambda question: (question.scorer, drawn(question.id)))
    known: dict[str, tuple[str, str]] = {}
    for place, question in enumerate(questions):
        right, wrong = _right_and_wrong(question)
        fails = round(wrong_share * place) < round(wrong_share * (place + 1))
        answers = wrong if fails else right, wrong
        forms = asked({"prompt": question.prompt}), asked({"messages": question.messages})
        known |= dict.fromkeys(filter(None, forms), answers)
    return known


def _right_and_wrong(question: Question) -> tuple[str, str]:
    if question.scorer == "agreement":
        where = asked({"prompt": question.prompt, "messages": question.messages})
        first, other = (plain(text, question.max_new_tokens).tokens for text in (where, where + " wrongly"))
        return "".join(first), "".join(other)
    return str(question.answer[0] if isinstance(question.answer, list) else question.answer), "zzz"


def plain(prompt: str, count: int) -> Text:
    """So many words, from a place that depends on the prompt."""
    first = int(len(WORDS) * drawn(prompt))
    return Text(words(count, first), first=first)


def answer_of(known: str, most: int) -> Text:
    """A known answer, a word a token."""
    tokens = re.findall(r"\s*\S+", known)
    return Text(tokens[:most], "stop" if len(tokens) <= most else "length")


def broken(text: Text, how: str, most: int) -> Text:
    """This text, broken in one of the ways of BROKEN. A model that repeats itself goes on up to so many tokens."""
    tokens, sound = text.tokens, len(text.tokens) // 8  # "!" is short: most tokens make half of the text
    made = {
        "repeat": tokens[:1] * most,
        "truncate": tokens[: max(1, len(tokens) // 2)],
        "nan": tokens[:sound] + ["!"] * (most - sound),
        "blank": [" "] * most,
        "invalid": [token + "\ufffd" * (i % 4 == 0) for i, token in enumerate(tokens)],
    }
    return Text(made[how], text.why if how == "invalid" else "length") if how in made else text
