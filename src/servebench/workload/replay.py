"""A dataset's entries -> requests: texts as they are, traces with made-up texts of their lengths.

The history of a conversation holds the dataset's own answers, not the server's: every engine is then asked the
same, and the hash in the log says so.
"""

from __future__ import annotations

from itertools import islice, takewhile

import numpy as np
from tokenizers import Tokenizer

from servebench.errors import InputError
from servebench.log.schema import RunConfig
from servebench.workload.datasets import Conversation, Dataset, read
from servebench.workload.formats import Row
from servebench.workload.lengths import HIGHEST, lengths_of
from servebench.workload.requests import Request
from servebench.workload.synthetic import of_lengths
from servebench.workload.tokens import count, plain_words

BLOCKS = 4  # stream of the seed's random numbers


def requests(
    run: RunConfig, tokenizer: Tokenizer, context: int | None, rng: np.random.Generator
) -> tuple[list[Request], np.ndarray | None, str]:
    """(requests, arrival times in s of a trace, what the context left out or cut, in words).

    A trace keeps its order; others are shuffled by the seed.

    With run.trace_speed the first run.warmup requests are those that come before the counted ones.
    """
    dataset, needed = checked(run)
    if not dataset.is_trace:
        chosen, too_long = _chosen(dataset.conversations, run, tokenizer, context, rng)
        return _replayed(chosen, run), None, _beyond(context, too_long, "left out, longer than")
    rows = _first(dataset, needed)
    lengths = np.array([[row.prompt_tokens, row.max_new_tokens] for row in rows])
    openings = [_words_of(row, tokenizer, run) for row in rows] if any(r.blocks for r in rows) else []
    times_s = np.array([row.at_s for row in rows]) if run.trace_speed else None
    cut = int((lengths.sum(axis=1) > context).sum()) if context else 0
    made = of_lengths(run, tokenizer, context, rng, lengths, openings)
    return made, times_s, _beyond(context, cut, "cut to")


def checked(run: RunConfig) -> tuple[Dataset, int]:
    """(what is in the dataset, requests that are needed of it). Raises InputError when it cannot be as asked."""
    dataset = read(run.dataset, run.multi_turn, run.trace_format)
    if run.trace_speed and dataset.no_times:
        raise InputError(f"--dataset {run.dataset} {dataset.no_times}")
    if run.multi_turn and dataset.is_trace:
        raise InputError(f"--dataset {run.dataset} is a trace, which has no conversations; leave out --multi_turn")
    there, needed = sum(map(len, dataset.conversations)), run.num_requests + (run.warmup if run.trace_speed else 0)
    if there < needed:
        raise _too_few(run, there, needed)
    if run.trace_speed and len({row.at_s for row in _first(dataset, needed)}) == 1:
        raise InputError(
            f"--dataset {run.dataset}: its first {needed} requests all come at the same time; "
            "give --request_rate, not --trace_speed"
        )
    return dataset, needed


def _first(dataset: Dataset, n: int) -> list[Row]:
    """The first n of a trace, by its times."""
    return sorted((row for row, *_ in dataset.conversations), key=lambda row: row.at_s or 0.0)[:n]


def _too_few(run: RunConfig, there: int, needed: int) -> InputError:
    return InputError(
        f"--dataset {run.dataset} has {there} request{'s' * (there != 1)} that can be used, {needed} are needed; "
        "lower --num_requests"
    )


def _beyond(context: int | None, n: int, what: str) -> str:
    return f"{n} request{'s' * (n > 1)} {what} the context of {context} tokens" if n else ""


def _words_of(row: Row, tokenizer: Tokenizer, run: RunConfig) -> list[str]:
    """The words that the hashes of a prompt stand for: the same for a hash wherever it comes in a run."""
    words = plain_words(tokenizer)
    streams = [np.random.default_rng([run.seed, run.repetition, BLOCKS, block]) for block in row.blocks]
    texts = [words.draw(row.block, rng, start=not i) for i, rng in enumerate(streams)]
    return [word for text in texts for word in text]


def _chosen(
    conversations: list[Conversation],
    run: RunConfig,
    tokenizer: Tokenizer,
    context: int | None,
    rng: np.random.Generator,
) -> tuple[list[Conversation], int]:
    """As many at random, none twice, as hold enough requests, and how many requests the context left out.

    A conversation ends before the first that exceeds it: those behind hold it as their history.
    """
    too_long = 0
    order = iter(rng.permutation(len(conversations)).tolist())
    chosen: list[Conversation] = []
    while (missing := run.num_requests - sum(map(len, chosen))) > 0:
        batch = [conversations[i] for i in islice(order, missing)]
        if not batch:
            raise _too_few(run, run.num_requests - missing, run.num_requests)
        measured = _measured(batch, run, tokenizer, rng)
        fitting = [list(takewhile(lambda row: _fits(row, context), c)) for c in measured]
        chosen += filter(None, fitting)
        too_long += sum(map(len, measured)) - sum(map(len, fitting))
    return chosen, too_long


def _fits(row: Row, context: int | None) -> bool:
    return not context or (row.prompt_tokens or 0) + (row.max_new_tokens or 0) <= context


def _measured(
    batch: list[Conversation], run: RunConfig, tokenizer: Tokenizer, rng: np.random.Generator
) -> list[Conversation]:
    """With lengths in tokens; answers are as long as the dataset's, or drawn where it has none."""
    rows = [row for conversation in batch for row in conversation]
    prompts = count(tokenizer, [row.text for row in rows])
    answers = count(tokenizer, [row.answer for row in rows], special=False)  # a server begins none with a BOS
    _, of_answers = lengths_of(run)
    drawn = of_answers.draw(len(rows), HIGHEST * of_answers.mean, rng).tolist()
    measured = iter(
        row._replace(prompt_tokens=p, max_new_tokens=row.max_new_tokens or (a if row.answer else d))
        for row, p, a, d in zip(rows, prompts, answers, drawn, strict=True)
    )
    return [list(islice(measured, len(conversation))) for conversation in batch]


def _replayed(conversations: list[Conversation], run: RunConfig) -> list[Request]:
    requests = [
        _request(row, number, run.think_time if turn else 0.0, run)
        for number, conversation in enumerate(conversations)
        for turn, row in enumerate(conversation)
    ]
    return requests[: run.num_requests]


def _request(row: Row, conversation: int, think_s: float, run: RunConfig) -> Request:
    messages = row.messages if run.api == "chat" else ()
    return Request(row.text, row.prompt_tokens or 1, row.max_new_tokens or 1, messages, conversation, think_s)
