"""Which questions a run asks (--check), and how many: at most 5 % of its requests, and 2 % of their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from servebench.errors import InputError
from servebench.log.config import RunConfig
from servebench.workload.questions import BASIC, Question, read_questions
from servebench.workload.requests import Request
from servebench.workload.seed import Stream
from servebench.workload.token_counts import count_tokens

SHARE, OF_TOKENS = 0.05, 0.02  # of the requests of a load, and of their tokens
ONE_IN = 8  # questions is one of agreement, which has no right answer

Counted = tuple[Question, int]  # a question, and the tokens of its prompt


@dataclass(frozen=True)
class Questions:
    """What a file asks, each with the tokens of its prompt. Questions of agreement are the file's, else ours."""

    scored: list[Counted]
    agreement: list[Counted]


def path_of(check: str) -> Path:
    return BASIC if check == "basic" else Path(check)


def checked(check: str, api: str) -> str:
    """The hash of what this file asks. Raises InputError where it asks nothing, or what the API cannot ask."""
    questions = read_questions(path_of(check))
    if all(question.scorer == "agreement" for question in questions):
        raise InputError(f"--check {check}: no question has a right answer; add some, or give --check basic")
    if api != "chat" and not all(question.prompt for question in questions):
        raise InputError(f"--check {check}: it has chats (messages); give --api chat, or questions with a prompt")
    return sha256(" ".join(question.id for question in questions).encode()).hexdigest()


def longest_question(check: str) -> int:
    """More tokens than any question takes with its answer: a token has two characters or more, nearly always."""
    return max(len(_text(each)) // 2 + each.max_new_tokens for each in read_questions(path_of(check)))


def requests_of(
    run: RunConfig, tokenizer: Tokenizer, context: int | None, measured: Sequence[Request]
) -> tuple[Request, ...]:
    """The questions that go with these requests, in an order of their own; each run and load asks others first.

    Raises InputError where a question does not fit the context.
    """
    found = counted(run.check, tokenizer)
    rng = np.random.default_rng([run.seed, run.repetition, Stream.CHECKS, round(run.load.size * 1e6)])
    scored, agreement = (_shuffled(part, rng) for part in (found.scored, found.agreement))
    asked = within_share(_mixed(scored, agreement), measured)
    for question, tokens in asked:
        if context and tokens + question.max_new_tokens > context:
            begin, needed = _text(question)[:40], tokens + question.max_new_tokens
            raise InputError(f"--check {run.check}: {begin!r}... takes {needed} of {context} tokens; leave it out")
    return tuple(
        Request(q.prompt, tokens, q.max_new_tokens, q.messages * (run.api == "chat"), conversation=i, question=q)
        for i, (q, tokens) in enumerate(asked)
    )


def _mixed(scored: Sequence[Counted], agreement: Sequence[Counted]) -> Iterator[Counted]:
    """One of agreement, in turn, after every ONE_IN - 1 that are scored."""
    for i, question in enumerate(scored):
        yield question
        if i % (ONE_IN - 1) == ONE_IN - 2:
            yield agreement[i // (ONE_IN - 1) % len(agreement)]


def within_share(questions: Iterable[Counted], measured: Sequence[Request]) -> list[Counted]:
    """Those that are together at most SHARE of these requests, and OF_TOKENS of their prompts and answers."""
    prompts, answers = (sum(getattr(r, name) for r in measured) for name in ("prompt_tokens", "max_new_tokens"))
    left = np.array([SHARE * len(measured), OF_TOKENS * prompts, OF_TOKENS * answers])
    taken = []
    for question, tokens in questions:
        cost = np.array([1, tokens, question.max_new_tokens])
        if (cost <= left).all():
            left -= cost
            taken.append((question, tokens))
    return taken


@cache
def counted(check: str, tokenizer: Tokenizer) -> Questions:
    """Raises InputError."""
    questions = read_questions(path_of(check))
    agreement = _of_agreement(questions) or _of_agreement(read_questions(BASIC))
    scored = [q for q in questions if q.scorer != "agreement"]
    tokens = count_tokens(tokenizer, [_text(question) for question in [*scored, *agreement]])
    pairs = list(zip([*scored, *agreement], tokens, strict=True))
    return Questions(pairs[: len(scored)], pairs[len(scored) :])


def _of_agreement(questions: Sequence[Question]) -> list[Question]:
    return [question for question in questions if question.scorer == "agreement"]


def _text(question: Question) -> str:
    return question.prompt or "\n".join(message["content"] for message in question.messages)


def _shuffled(part: list[Counted], rng: np.random.Generator) -> list[Counted]:
    return [part[i] for i in rng.permutation(len(part))]
