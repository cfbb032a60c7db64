"""Random texts that are exactly as many tokens long as asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from servebench.errors import InputError
from servebench.workload.token_counts import count_tokens

SPACES = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write a word's leading space
SPANS_WORDS = re.compile("[!-~][Ġ▁ ]").search  # finds the end of a word and the space of the next in one token
MAX_REPAIRS = 20
SAMPLE = 32  # texts that are encoded as a check, although their lengths follow from their words
NONCE = 8  # random words before prose, so that no two prompts begin alike


class Words(NamedTuple):
    """Words that are one token each: `first` at the start of a text, `later` after a space."""

    first: list[str]
    later: list[str]
    special: int  # tokens that the tokenizer adds to every text
    additive: bool  # a text always has as many tokens as its words have together

    def draw(self, n: int, rng: np.random.Generator, start: bool = True) -> list[str]:
        """n random words, for the start of a text or for a place further on."""
        if n < 1:
            return []
        rest = [self.later[i] for i in rng.integers(len(self.later), size=n - start).tolist()]
        return [self.first[rng.integers(len(self.first))], *rest] if start else rest


@lru_cache(maxsize=1)  # every point of a sweep has the same tokenizer
def plain_words(tokenizer: Tokenizer) -> Words:
    """The words that texts are made of. Raises InputError if the tokenizer has too few.

    If no token holds the end of a word and a space, no token spans two words, and a text has as many tokens as its
    words have together. This is so for BPE, which merges into tokens only, and for a unigram model's best path.
    """
    vocabulary = sorted(tokenizer.get_vocab())
    spaced = [token[1:] for token in vocabulary if token.startswith(SPACES)]
    words = [w for w in spaced or vocabulary if len(w) > 2 and w.isascii() and w.isalpha() and w.islower()]
    tokens = count_tokens(tokenizer, words, special=False)
    first = [w for w, n in zip(words, tokens, strict=True) if n == 1]
    if len(words) < 100 or not first:
        raise InputError("this tokenizer has no words to make prompts of; use another one with --tokenizer")
    later = [w for w, n in zip(words, _tokens_after_space(tokenizer, first[0], words), strict=True) if n == 1]
    additive = bool(later) and not any(map(SPANS_WORDS, vocabulary))
    return Words(first, later or words, count_tokens(tokenizer, [""])[0], additive)


def _tokens_after_space(tokenizer: Tokenizer, first: str, texts: Sequence[str]) -> list[int]:
    """Tokens of each text behind `first`, a word of one token, and a space."""
    return [n - 1 for n in count_tokens(tokenizer, [f"{first} {text}" for text in texts], special=False)]


@lru_cache(maxsize=1)
def _prose(tokenizer: Tokenizer) -> tuple[list[str], dict[str, int]]:
    """(sentences of prose.txt, tokens of each of them and of each of their words, behind a space)."""
    sentences = Path(__file__).with_name("prose.txt").read_text(encoding="utf-8").split("\n")[:-1]
    pieces = [*sentences, *(word for sentence in sentences for word in sentence.split())]
    tokens = _tokens_after_space(tokenizer, plain_words(tokenizer).first[0], pieces)
    return sentences, dict(zip(pieces, tokens, strict=True))


def _draw_prose(tokenizer: Tokenizer, n: int, rng: np.random.Generator) -> tuple[list[str], int]:
    """Random sentences, the last cut short, of at most n tokens. Returns (pieces, tokens still missing)."""
    sentences, tokens = _prose(tokenizer)
    pieces: list[str] = []
    for i in rng.integers(len(sentences), size=n + 1):
        if tokens[sentences[i]] > n:
            break
        pieces.append(sentences[i])
        n -= tokens[sentences[i]]
    for word in sentences[i].split():
        if tokens[word] > n:
            break
        pieces.append(word)
        n -= tokens[word]
    return pieces, n


def exact_texts(
    tokenizer: Tokenizer,
    lengths: Sequence[int],
    rng: np.random.Generator,
    openings: Sequence[Sequence[str]] = (),
    prose: bool = False,
) -> list[str]:
    """One text for each length: the tokenizer encodes it to exactly so many tokens, special tokens included.

    Texts are random words from the first on, so that no two share a prefix that a cache could hold. `openings` has
    the words that each text begins with instead (of `plain_words`; cut if the text is shorter). `prose` makes
    sentences of the rest. Raises InputError if no such text can be made.
    """
    words = plain_words(tokenizer)
    texts = [
        _pieces(tokenizer, max(1, n - words.special), openings[i] if openings else (), rng, prose)
        for i, n in enumerate(lengths)
    ]
    joined = [" ".join(text) for text in texts]
    checked = range(0, len(texts), max(1, len(texts) // SAMPLE))
    if words.additive and count_tokens(tokenizer, [joined[i] for i in checked]) == [lengths[i] for i in checked]:
        return joined
    return _repaired(tokenizer, texts, lengths, rng)


def _pieces(
    tokenizer: Tokenizer, n: int, opening: Sequence[str], rng: np.random.Generator, prose: bool
) -> list[str]:
    """Words and sentences of one text of n tokens, without special ones."""
    words, pieces = plain_words(tokenizer), list(opening[:n])
    missing = n - len(pieces)
    pieces += words.draw(min(NONCE, missing) if prose else missing, rng, start=not pieces)
    if prose:
        sentences, missing = _draw_prose(tokenizer, n - len(pieces), rng)
        pieces += sentences + words.draw(missing, rng, start=False)
    return pieces


def _repaired(
    tokenizer: Tokenizer, texts: list[list[str]], lengths: Sequence[int], rng: np.random.Generator
) -> list[str]:
    """Encode every text and change the end of those that are too long or too short, until all are exact."""
    words, wrong = plain_words(tokenizer), list(range(len(texts)))
    for _ in range(MAX_REPAIRS):
        tokens = count_tokens(tokenizer, [" ".join(texts[i]) for i in wrong])
        excess = {i: n - lengths[i] for i, n in zip(wrong, tokens, strict=True) if n != lengths[i]}
        wrong = list(excess)
        if not wrong:
            return [" ".join(text) for text in texts]
        for i in wrong:  # about as many words fewer or more as there are tokens too many or too few
            keep = max(0, len(texts[i]) - max(1, excess[i]))
            fresh = max(1 - keep, len(texts[i]) - excess[i] - keep)
            texts[i] = texts[i][:keep] + words.draw(fresh, rng, start=not keep)
    shortest = min(lengths[i] for i in wrong)
    raise InputError(
        f"no text of exactly {shortest} tokens can be made with this tokenizer; ask for longer prompts"
    )
