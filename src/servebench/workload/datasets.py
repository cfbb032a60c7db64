"""Files of requests (JSON, JSONL, CSV) -> the requests of a run: texts as they are, traces with synthetic texts.

docs/datasets.md shows an example of each format. The history of a conversation holds the dataset's own answers,
not the server's: every engine then gets the same requests, and the hash in the log shows it.
"""

from __future__ import annotations

import csv
import hashlib
import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice, takewhile
from typing import Any, NamedTuple

import msgspec
import numpy as np

from servebench.errors import InputError
from servebench.log.config import Dataset, RunConfig, Trace
from servebench.log.lengths import MAX_TIMES_MEAN
from servebench.workload.formats import TIMES, Row, rows_of, trace_format
from servebench.workload.model_files import expanded
from servebench.workload.requests import Recipe, Request, requests_of_lengths
from servebench.workload.seed import Stream
from servebench.workload.texts import plain_words
from servebench.workload.token_counts import count_tokens

NO_TIMES = "has no arrival times; give --request_rate, not --trace_speed"
WHOSE = "name the format: --trace_format mooncake (ms, AIPerf's too), bailian or guidellm (s)"
NOT_REPLAYED = "has times beside texts, which are not replayed; give --request_rate, not --trace_speed"

Conversation = list[Row]  # its requests in order; only the first, unless turns were asked for


class Contents(NamedTuple):
    """What a file of requests holds."""

    conversations: list[Conversation]
    remark: str = ""  # entries left out because they ask nothing, in words
    no_times: str = ""  # why its requests cannot be sent at its own times

    @property
    def is_trace(self) -> bool:
        """It has only lengths, no texts."""
        return not self.conversations[0][0].messages


def sha256_of(path: str) -> str:
    """Identity of a dataset. Raises InputError when it cannot be read."""
    try:
        return hashlib.sha256(expanded("--dataset", path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"--dataset {path}: cannot be read ({error.strerror}); give a file") from error


@lru_cache(maxsize=1)  # every point of a sweep reads the same
def read(dataset: Dataset) -> Contents:
    """Everything in the file. Raises InputError, with the entry that is not understood."""
    path = dataset.dataset
    conversations, left_out, first = [], Counter[str](), None
    for number, entry in _entries(path):
        try:
            rows, why_none = rows_of(entry)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"--dataset {path}: entry {number} is not understood: {error} (docs/datasets.md shows the formats)"
            ) from error
        if rows:
            conversations.append(rows if dataset.multi_turn else rows[:1])
            first = first or entry
        else:
            left_out[why_none] += 1
    remark = ", ".join(f"{n} {why}" for why, n in left_out.items())
    if not conversations:
        rest = f" ({remark})" if remark else ""
        raise InputError(f"--dataset {path}: no request in it{rest}; give ShareGPT, JSONL prompts, or a trace")
    return _timed(dataset, Contents(conversations, remark), first)


def _entries(path: str) -> Iterable[tuple[int, Any]]:
    """(number, entry) of a JSON list, or (line, entry) of JSONL or CSV."""
    try:
        with expanded("--dataset", path).open(encoding="utf-8-sig", newline="") as stream:
            start = stream.read(256).lstrip()[:1]
            stream.seek(0)
            if start == "[":
                yield from enumerate(msgspec.json.decode(stream.read()), 1)
            elif start == "{":
                yield from _json_lines(path, stream)
            else:
                csv.field_size_limit(sys.maxsize)
                yield from enumerate(csv.DictReader(stream), 2)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError, csv.Error) as error:
        raise InputError(
            f"--dataset {path}: cannot be read ({error}); give JSON, JSONL or CSV in UTF-8"
        ) from error


def _json_lines(path: str, stream: Iterable[str]) -> Iterable[tuple[int, Any]]:
    for number, line in enumerate(stream, 1):
        try:
            if line.strip():
                yield number, msgspec.json.decode(line)
        except msgspec.MsgspecError as error:
            raise InputError(
                f"--dataset {path}: line {number} is not JSON by itself ({error}); "
                "give one entry per line, or a list"
            ) from error


def _timed(dataset: Dataset, contents: Contents, first: Any) -> Contents:
    """With a trace's times in s if its format is known, or else with the reason why there are no times."""
    path = dataset.dataset
    if len({bool(c[0].messages) for c in contents.conversations}) > 1:
        raise InputError(f"--dataset {path}: some entries have texts and others only lengths; give one kind")
    if not contents.is_trace:
        if dataset.trace_format != "auto":
            raise InputError(f"--dataset {path} has texts, not lengths alone; leave out --trace_format")
        has_times = any(key in first for key in TIMES)
        return contents._replace(no_times=NOT_REPLAYED if has_times else NO_TIMES)
    rows = list(chain(*contents.conversations))
    name, unit_s, block = trace_format(dataset.trace_format, first, rows)
    if not block and any(row.hashes for row in rows):
        no_size = "len(hash_ids) fits no block size; name the format with --trace_format"
        raise InputError(f"--dataset {path}: {no_size}")
    unclear = "" if name else f"has times that may be s or ms (keys: {', '.join(first)}); {WHOSE}"
    no_times = NO_TIMES if any(row.at_s is None for row in rows) else unclear
    rows = [row._replace(at_s=row.at_s and row.at_s * unit_s, block_tokens=block) for row in rows]
    return contents._replace(conversations=[[row] for row in rows], no_times=no_times)


def contents_for(run: RunConfig, dataset: Dataset) -> Contents:
    """What the run's dataset holds. Raises InputError when it cannot be used as the run asks."""
    path, contents = dataset.dataset, read(dataset)
    needed, replayed = _needed(run), isinstance(run.load, Trace)
    if replayed and contents.no_times:
        raise InputError(f"--dataset {path} {contents.no_times}")
    if dataset.multi_turn and contents.is_trace:
        raise InputError(f"--dataset {path} is a trace, which has no conversations; leave out --multi_turn")
    there = sum(map(len, contents.conversations))
    if there < needed:
        raise _too_few(path, there, needed)
    if replayed and len({row.at_s for row in _earliest(contents, needed)}) == 1:
        raise InputError(
            f"--dataset {path}: its first {needed} requests all come at the same time; "
            "give --request_rate, not --trace_speed"
        )
    return contents


def _needed(run: RunConfig) -> int:
    """Requests; the beginning of a replayed trace is the warm-up."""
    return run.num_requests + (run.warmup if isinstance(run.load, Trace) else 0)


def _too_few(path: str, there: int, needed: int) -> InputError:
    return InputError(
        f"--dataset {path} has {there} request{'s' * (there != 1)} that can be used, {needed} are needed; "
        "lower --num_requests"
    )


def _earliest(contents: Contents, n: int) -> list[Row]:
    return sorted(chain(*contents.conversations), key=lambda row: row.at_s or 0.0)[:n]


def dataset_requests(recipe: Recipe, dataset: Dataset) -> tuple[list[Request], np.ndarray | None, str]:
    """(requests, arrival times in s of a replayed trace, what the context left out or cut, in words).

    A trace keeps its order; if it is replayed, its first run.warmup requests are the warm-up's. Conversations are
    shuffled by the seed. Raises InputError.
    """
    contents = contents_for(recipe.run, dataset)
    return _of_trace(recipe, contents) if contents.is_trace else _of_texts(recipe, dataset, contents.conversations)


def _of_trace(recipe: Recipe, contents: Contents) -> tuple[list[Request], np.ndarray | None, str]:
    rows = _earliest(contents, _needed(recipe.run))
    lengths = np.array([[row.prompt_tokens, row.max_new_tokens] for row in rows])
    openings = [_words_of(row, recipe) for row in rows] if any(row.hashes for row in rows) else []
    times_s = np.array([row.at_s for row in rows]) if isinstance(recipe.run.load, Trace) else None
    cut = int((lengths.sum(axis=1) > recipe.context).sum()) if recipe.context else 0
    return requests_of_lengths(recipe, lengths, openings), times_s, _beyond_context(recipe, cut, "cut to")


def _words_of(row: Row, recipe: Recipe) -> list[str]:
    """The words that the hashes of a prompt stand for: the same wherever a hash comes in a run."""
    words = plain_words(recipe.tokenizer)
    seed = [recipe.run.seed, recipe.run.repetition, Stream.HASHES]
    streams = (np.random.default_rng([*seed, number]) for number in row.hashes)
    return [word for i, rng in enumerate(streams) for word in words.draw(row.block_tokens, rng, start=not i)]


def _of_texts(
    recipe: Recipe, dataset: Dataset, conversations: list[Conversation]
) -> tuple[list[Request], None, str]:
    """Random conversations that together hold enough requests.

    A conversation ends before its first request that exceeds the context, since the next ones repeat it.
    """
    run, limit = recipe.run, recipe.context or math.inf
    order = iter(recipe.rng.permutation(len(conversations)).tolist())
    chosen: list[Request] = []
    number = too_long = 0
    while (missing := run.num_requests - len(chosen)) > 0:
        batch = [conversations[i] for i in islice(order, missing)]
        if not batch:
            raise _too_few(dataset.dataset, len(chosen), run.num_requests)
        for requests in _with_lengths(recipe, dataset, batch):
            fitting = list(takewhile(lambda r: r.prompt_tokens + r.max_new_tokens <= limit, requests))
            too_long += len(requests) - len(fitting)
            chosen += [replace(request, conversation=number) for request in fitting]
            number += bool(fitting)
    return chosen[: run.num_requests], None, _beyond_context(recipe, too_long, "left out, longer than")


def _with_lengths(recipe: Recipe, dataset: Dataset, batch: list[Conversation]) -> list[list[Request]]:
    """The requests of each conversation. Answers are as long as the dataset's, or drawn where it has none."""
    run, rows = recipe.run, list(chain(*batch))
    prompts = count_tokens(recipe.tokenizer, [row.text for row in rows])
    answers = count_tokens(recipe.tokenizer, [row.answer for row in rows], special=False)
    of_answers = dataset.answer_lengths
    drawn = of_answers.draw(len(rows), MAX_TIMES_MEAN * of_answers.mean, recipe.rng).tolist()
    lengths = zip(prompts, answers, drawn, strict=True)
    return [
        [
            Request(
                prompt=row.text,
                prompt_tokens=prompt or 1,
                max_new_tokens=row.max_new_tokens or (answer or 1 if row.answer else draw),
                messages=row.messages if run.api == "chat" else (),
                think_s=dataset.think_time if turn else 0.0,
            )
            for (turn, row), (prompt, answer, draw) in zip(enumerate(conversation), lengths, strict=False)
        ]
        for conversation in batch
    ]


def _beyond_context(recipe: Recipe, n: int, what: str) -> str:
    return f"{n} request{'s' * (n > 1)} {what} the context of {recipe.context} tokens" if n else ""
