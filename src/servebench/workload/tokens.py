"""The model's tokenizer, and texts that are exactly so many of its tokens long."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from servebench.records import InputError

SPACES = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write a word's leading space
REPAIRS = 20


def load_tokenizer(name: str) -> Tokenizer:
    """From a directory with tokenizer.json, such a file, or the Hugging Face hub."""
    path = Path(name).expanduser()
    file = path if path.is_file() else path / "tokenizer.json"
    try:
        if file.is_file():
            return Tokenizer.from_file(str(file))
        if path.exists():
            raise InputError(f"{path}: no tokenizer.json in it; name the model's tokenizer with --tokenizer")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        return Tokenizer.from_pretrained(name)
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"--tokenizer {name}: cannot be loaded ({reason}); give a directory or file") from error


class Words(NamedTuple):
    """Words that are one token each: at the start of a text, and after a space."""

    first: list[str]
    later: list[str]

    def text(self, n: int, rng: np.random.Generator) -> list[str]:
        """n random words, n at least 1."""
        rest = [self.later[i] for i in rng.integers(len(self.later), size=n - 1)]
        return [self.first[rng.integers(len(self.first))], *rest]


@lru_cache(maxsize=1)  # the same for every point of a sweep
def plain_words(tokenizer: Tokenizer, special: int) -> Words:
    """What texts are made of, so that n words are n tokens nearly always."""
    vocabulary = sorted(tokenizer.get_vocab())
    spaced = [token[1:] for token in vocabulary if token.startswith(SPACES)]
    words = [w for w in spaced or vocabulary if len(w) > 2 and w.isascii() and w.isalpha() and w.islower()]
    alone = tokenizer.encode_batch_fast(words)
    first = [word for word, encoded in zip(words, alone, strict=True) if len(encoded.ids) == special + 1]
    if len(words) < 100:
        raise InputError("this tokenizer has no words to make prompts of; use another one with --tokenizer")
    return Words(first or words, words)


def exact_texts(tokenizer: Tokenizer, lengths: list[int], rng: np.random.Generator) -> list[str]:
    """One text a length, that the tokenizer (special tokens included) encodes to exactly so many tokens.

    Texts are random words from the very first on: no two share a prefix that a cache could hold.
    """
    special = len(tokenizer.encode("").ids)
    words = plain_words(tokenizer, special)
    texts = [words.text(max(1, n - special), rng) for n in lengths]
    wrong = list(range(len(texts)))
    for _ in range(REPAIRS):
        encoded = tokenizer.encode_batch_fast([" ".join(texts[i]) for i in wrong])
        off = {i: len(e.ids) - lengths[i] for i, e in zip(wrong, encoded, strict=True)}
        wrong = [i for i in wrong if off[i]]
        if not wrong:
            return [" ".join(text) for text in texts]
        for i in wrong:  # about as many words fewer or more as there are tokens too many or too few
            texts[i] = words.text(max(1, len(texts[i]) - off[i]), rng)
    shortest = min(lengths[i] for i in wrong)
    raise InputError(
        f"no text of exactly {shortest} tokens can be made with this tokenizer; ask for longer prompts"
    )
