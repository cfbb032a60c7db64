"""Tokens of events, counted by the tokenizer: against encoding what had come up to each of them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from conftest import make_result
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from servebench.workload import load_tokenizer, token_counts
from servebench.workload.texts import plain_words
from servebench.workload.token_counts import tokens_of_events, with_token_counts

PROSE = (Path(token_counts.__file__).parent / "prose.txt").read_text(encoding="utf-8").splitlines()
ODD = ["héé", "日本語", "👩‍👩‍👧", "😀", "\n", "  ", "\n\n", "ß…", "e\u0301"]


def sentencepiece_like() -> Tokenizer:
    """Spaces as a letter, text begun with one, bytes for what it has no letter for: as Llama-2's."""
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=["<unk>", *bytes_], show_progress=False)
    tokenizer.train_from_iterator(PROSE, trainer)
    written = json.loads(tokenizer.to_str())
    written["added_tokens"] = [t for t in written["added_tokens"] if t["content"] == "<unk>"]
    return Tokenizer.from_str(json.dumps(written))


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(PROSE, trainer)
    return tokenizer


def up_to_each(events: list[str], tokenizer: Tokenizer) -> list[int]:
    """Tokens of all that had come when an event had, less those before it. What counting means, but too slow."""
    so_far = [0, *(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in accumulate(events))]
    return [b - a for a, b in pairwise(so_far)]


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like])
def test_tokens_of_events_are_those_of_what_had_come(make: Callable[[], Tokenizer]) -> None:
    rng, tokenizer = random.Random(0), make()
    words = [word for line in PROSE for word in line.split()] + 20 * ODD
    for _ in range(100):
        text = " ".join(rng.choices(words, k=rng.randint(1, 60)))
        encoded = tokenizer.encode(text, add_special_tokens=False)
        ends = sorted({end for _, end in encoded.offsets})
        ends = sorted({*rng.sample(ends, len(ends) // 2), len(text)})  # several tokens in some events
        events = [text[a:b] for a, b in pairwise([0, *ends])]
        (counted,) = tokens_of_events([events], tokenizer)
        assert counted == up_to_each(events, tokenizer)
        cut = rng.sample(range(len(text)), len(text) // 3)  # anywhere, within tokens too
        events = [text[a:b] for a, b in pairwise(sorted({0, *cut, len(text)}))]
        (counted,) = tokens_of_events([events], tokenizer)
        assert sum(counted) == len(encoded.ids)


def test_a_token_of_two_events_counts_where_it_ends(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_dir))
    word, other = plain_words(tokenizer).first[0], plain_words(tokenizer).later[0]
    assert tokens_of_events([[word[:2], "", word[2:], f" {other}"]], tokenizer) == [[0, 0, 1, 1]]


def test_half_of_a_surrogate_pair_is_counted_as_a_character(tokenizer_dir: Path) -> None:
    (tokens,) = tokens_of_events([["ba", "\ud83d", "\ude00", "be"]], load_tokenizer(str(tokenizer_dir)))
    assert all(n > 0 for n in tokens)


def test_only_what_no_server_counted_is_counted(tokenizer_dir: Path) -> None:
    said = make_result(0, 0.0, [0.1, 0.2], texts=["ba be", " bi"], event_tokens=[], token_source="none")
    told = make_result(1, 0.0, [0.1])
    tokenizer = load_tokenizer(str(tokenizer_dir))
    counted, same = with_token_counts([said, told], tokenizer)
    assert same == told and counted.texts == [] and counted.token_source == "tokenizer"
    assert counted.event_tokens == up_to_each(["ba be", " bi"], tokenizer)
    assert counted.generated_tokens == sum(counted.event_tokens)


def test_the_time_to_count_grows_with_the_answer_and_no_faster(tokenizer_dir: Path) -> None:
    """4,096 tokens take some 5 ms; encoding all prefixes took half a minute. The limit is for a busy machine."""
    events = [" babe" if i % 2 else " gugolu" for i in range(4096)]
    begun = time.perf_counter()
    tokens_of_events([events], load_tokenizer(str(tokenizer_dir)))
    assert time.perf_counter() - begun < 2
