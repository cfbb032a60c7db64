"""The model's tokenizer, and texts that are exactly so many of its tokens long."""

from __future__ import annotations

import os
from pathlib import Path

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


def plain_words(tokenizer: Tokenizer) -> list[str]:
    """Words that are one token each, so that a text of n of them is about n tokens long."""
    vocabulary = sorted(tokenizer.get_vocab())
    spaced = [token[1:] for token in vocabulary if token.startswith(SPACES)]
    words = [w for w in spaced or vocabulary if len(w) > 2 and w.isascii() and w.isalpha() and w.islower()]
    if len(words) < 100:
        raise InputError("this tokenizer has no words to make prompts of; use another one with --tokenizer")
    return words


def exact_texts(tokenizer: Tokenizer, lengths: list[int], rng: np.random.Generator) -> list[str]:
    """One text a length, that the tokenizer (special tokens included) encodes to exactly so many tokens.

    Texts are random words from the very first on: no two share a prefix that a cache could hold.
    """
    words = plain_words(tokenizer)
    special = len(tokenizer.encode("").ids)
    texts = [[words[i] for i in rng.integers(len(words), size=max(1, n - special))] for n in lengths]
    wrong = list(range(len(texts)))
    for _ in range(REPAIRS):
        encoded = tokenizer.encode_batch_fast([" ".join(texts[i]) for i in wrong])
        off = {i: len(e.ids) - lengths[i] for i, e in zip(wrong, encoded, strict=True)}
        wrong = [i for i in wrong if off[i]]
        if not wrong:
            return [" ".join(text) for text in texts]
        for i in wrong:
            _repair(texts[i], off[i], words, rng)
    shortest = min(lengths[i] for i in wrong)
    raise InputError(
        f"no text of exactly {shortest} tokens can be made with this tokenizer; ask for longer prompts"
    )


def _repair(text: list[str], excess: int, words: list[str], rng: np.random.Generator) -> None:
    """Drop or add about as many words as there are tokens too many or too few, keeping at least one."""
    if excess > 0:
        del text[max(1, len(text) - excess) :]
        text[-1] = words[rng.integers(len(words))]  # the cut may leave a pair that merges; try another
    else:
        text.extend(words[i] for i in rng.integers(len(words), size=-excess))
