"""Questions with known answers (--check): asked alone, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from servebench.errors import InputError
from servebench.load.fleet import Watch, run_load
from servebench.load.sharding import Target
from servebench.log.checks import Asked
from servebench.log.config import Clients, RunConfig
from servebench.log.result import Result
from servebench.workload import Request, Workload

FIRST_TOKENS = 32  # of an answer, that are compared
FIRST = 3  # questions that are asked alone before the others
PATIENCE_S = 120.0  # with an answer alone
Answered = Sequence[tuple[Request, Result]]


def ask_alone(
    run: RunConfig, questions: Sequence[Request], target: Target, folder: Path, watch: Watch
) -> Answered:
    """Each question while nothing else is asked, at the server that gets it under load too.

    A server that fails the first ones is not asked the others.
    """
    found: list[tuple[Request, Result]] = []
    quiet = msgspec.structs.replace(
        run, load=Clients(), warmup=0, request_timeout=min(run.request_timeout, PATIENCE_S)
    )
    for server, url in enumerate(target.urls):
        own = [each for each in questions if (each.conversation or 0) % len(target.urls) == server]
        for part in filter(None, (own[:FIRST], own[FIRST:])):
            alone = msgspec.structs.replace(quiet, num_requests=len(part)), Workload(part, part)
            at = replace(target, urls=[url])
            outcome = run_load(*alone, at, folder, 1, lambda seen: watch(replace(seen, phase="asking alone")))
            came = [msgspec.structs.replace(r, server=server) for r in outcome.results if r.phase == "measured"]
            found += [(part[r.id], r) for r in came]
            if all(r.error for r in came):
                break
    return found


def judged(answered: Answered, tokenizer: Tokenizer) -> list[Asked]:
    """What came of questions; those that were cut off at the end are left out."""
    done = [(request, result) for request, result in answered if not result.cancelled]
    texts = [_text(request, result) for request, result in done]
    try:
        pieces = first_tokens(texts, tokenizer)
    except InputError:  # the server that splits texts is gone
        pieces = [[] for _ in texts]
    return [_asked(*each) for each in zip(done, texts, pieces, strict=True)]


def _text(request: Request, result: Result) -> str:
    """The answer without its reasoning, up to where it was to stop, whether or not the server did."""
    assert request.question
    text = "".join(result.texts[result.first_answer_event or 0 :]).encode("utf-8", "replace").decode()
    return min((text.partition(stop)[0] for stop in request.question.stop), key=len, default=text)


def first_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[str]]:
    """The first tokens of each text, as texts."""
    ends = [
        [0, *(end for _, end in e.offsets)] for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)
    ]
    return [
        [text[begin:end] for begin, end in pairwise(of_text[: FIRST_TOKENS + 1])]
        for text, of_text in zip(texts, ends, strict=True)
    ]


def _asked(of: tuple[Request, Result], text: str, tokens: list[str]) -> Asked:
    request, result = of
    question, logprobs = request.question, result.logprobs[:FIRST_TOKENS]
    assert question
    right = None if result.error else question.right(text)
    return Asked(
        question=question.id,
        server=result.server,
        scored=question.scorer != "agreement",
        right=bool(right),
        tokens=tokens,
        mean_logprob=sum(logprobs) / len(logprobs) if logprobs else None,
        error=result.error,
    )
