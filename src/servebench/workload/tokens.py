"""The model's tokenizer, and texts that are exactly so many of its tokens long."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from servebench.errors import InputError
from servebench.workload.model_files import expanded, hub_file

SPACES = ("Ġ", "▁")  # how byte-level BPE and SentencePiece write a word's leading space
TWO_WORDS = re.compile("[!-~][Ġ▁ ]").search  # in a token: the end of a word and the space of the next
OTHERS = ("tokenizer.model", "*.tiktoken", "tekken.json", "*.spm", "vocab.json")  # files of other tokenizers
REPAIRS = 20
SAMPLE = 32  # texts that are encoded although their lengths follow from their words
AT_ONCE = 256  # texts encoded in one call, on all cores
NONCE = 8  # random words before prose, so that no two prompts begin alike


def load_tokenizer(name: str) -> Tokenizer:
    """From a directory with tokenizer.json, such a file, or the Hugging Face hub.

    Truncation and padding, which some files still have from training, are switched off: they falsify every count.
    """
    path = expanded("--tokenizer", name)
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputError(f"--tokenizer {name}: there is no such directory or file; give one, or a Hugging Face id")
    beside = path.parent if path.suffix == ".gguf" else path
    file = path if path.is_file() and beside == path else beside / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else _elsewhere(name, path)
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"--tokenizer {name}: cannot be loaded ({reason}); give a directory or file") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _elsewhere(name: str, path: Path) -> Tokenizer:
    """Where no tokenizer.json lies at hand: from the hub, or made from files of another kind."""
    from huggingface_hub import errors

    try:
        if not path.exists():
            return Tokenizer.from_file(str(hub_file(name, "tokenizer.json")))
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"--tokenizer {name}: neither a path nor in the hub's cache, and the hub cannot be reached; "
            "give the directory of the model, or connect"
        ) from error
    except errors.RepositoryNotFoundError as error:  # also what the hub says of gated models
        key = "with the key in $HF_TOKEN" if os.environ.get("HF_TOKEN") else "without $HF_TOKEN"
        raise InputError(
            f"--tokenizer {name}: the hub has no such model, or does not give it away {key}; correct the name, "
            "or accept the model's licence on its page and set $HF_TOKEN"
        ) from error
    except errors.EntryNotFoundError:
        pass
    return _converted(name, path)


def _converted(name: str, path: Path) -> Tokenizer:
    """By transformers, if that is installed, from SentencePiece's or tiktoken's file."""
    if path.suffix == ".gguf":
        raise InputError(
            f"--tokenizer {name}: no tokenizer.json is beside it; give the folder that it was made of"
        )
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        others = [file.name for pattern in OTHERS for file in sorted(path.glob(pattern))]
        there = f", only {others[0]}" if others else ""
        raise InputError(
            f"--tokenizer {name}: no tokenizer.json in it{there}; name another that counts alike, or make one "
            'with transformers: python -c "from transformers import AutoTokenizer as A; '
            f"A.from_pretrained('{name}').save_pretrained('tokenizer')\" and give --tokenizer tokenizer"
        ) from error
    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(name).backend_tokenizer
    return tokenizer


class Words(NamedTuple):
    """Words that are one token each: at the start of a text, and after a space."""

    first: list[str]
    later: list[str]
    special: int  # tokens that the tokenizer adds to every text
    additive: bool  # is a text as long as its words are, whatever stands beside them?

    def draw(self, n: int, rng: np.random.Generator, start: bool = True) -> list[str]:
        """n random words; the first of them begins a text, unless start is False."""
        if n < 1:
            return []
        rest = [self.later[i] for i in rng.integers(len(self.later), size=n - start).tolist()]
        return [self.first[rng.integers(len(self.first))], *rest] if start else rest


@lru_cache(maxsize=1)  # the same for every point of a sweep
def plain_words(tokenizer: Tokenizer) -> Words:
    """What texts are made of.

    Where no token holds the end of a word and a space, none spans two words, so that a text is as long as its
    words are together: by BPE, which merges into tokens only, and by the best path of a unigram model alike.
    """
    special = len(tokenizer.encode("").ids)
    vocabulary = sorted(tokenizer.get_vocab())
    spaced = [token[1:] for token in vocabulary if token.startswith(SPACES)]
    words = [w for w in spaced or vocabulary if len(w) > 2 and w.isascii() and w.isalpha() and w.islower()]
    first = [w for w, cost in zip(words, costs(tokenizer, words, special), strict=True) if cost == 1]
    if len(words) < 100 or not first:
        raise InputError("this tokenizer has no words to make prompts of; use another one with --tokenizer")
    pairs = costs(tokenizer, [f"{first[0]} {word}" for word in words], special)
    later = [w for w, cost in zip(words, pairs, strict=True) if cost == 2]
    additive = bool(later) and not any(map(TWO_WORDS, vocabulary))
    return Words(first, later or words, special, additive)


def costs(tokenizer: Tokenizer, texts: Sequence[str], special: int) -> list[int]:
    """Tokens of each text, without those that the tokenizer adds to all."""
    return [n - special for n in count(tokenizer, texts)]


def count(tokenizer: Tokenizer, texts: Sequence[str], special: bool = True) -> list[int]:
    """Tokens of each text as a server counts them; on all cores, with a bar for those who wait.

    Prompts have the special tokens that the tokenizer adds, answers (special=False) have not.
    """
    tokens: list[int] = []
    with tqdm(total=len(texts), desc="  tokenizing", unit="text", leave=False, disable=None, delay=1) as bar:
        for start in range(0, len(texts), AT_ONCE):
            batch = list(texts[start : start + AT_ONCE])
            tokens += map(len, tokenizer.encode_batch_fast(batch, add_special_tokens=special))
            bar.update(min(AT_ONCE, len(texts) - start))
    return tokens


class Prose:
    """Sentences of natural language (prose.txt), as long in tokens as they are behind a space."""

    def __init__(self, tokenizer: Tokenizer, words: Words) -> None:
        text = Path(__file__).with_name("prose.txt").read_text(encoding="utf-8")
        self.sentences = text.split("\n")[:-1]
        parts = sorted({part for sentence in self.sentences for part in sentence.split()})
        lead = words.first[0]
        measured = [
            tokens - 1
            for tokens in costs(tokenizer, [f"{lead} {t}" for t in [*self.sentences, *parts]], words.special)
        ]
        self.lengths = measured[: len(self.sentences)]
        self.part_length = dict(zip(parts, measured[len(self.sentences) :], strict=True))

    def draw(self, n: int, rng: np.random.Generator) -> tuple[list[str], int]:
        """Random sentences, the last cut short, of at most n tokens. Returns (pieces, tokens still missing)."""
        pieces: list[str] = []
        for i in rng.integers(len(self.sentences), size=n + 1):
            if self.lengths[i] > n:
                break
            pieces.append(self.sentences[i])
            n -= self.lengths[i]
        for part in self.sentences[i].split():
            if self.part_length[part] > n:
                break
            pieces.append(part)
            n -= self.part_length[part]
        return pieces, n


@lru_cache(maxsize=1)
def prose_of(tokenizer: Tokenizer) -> Prose:
    return Prose(tokenizer, plain_words(tokenizer))


def exact_texts(
    tokenizer: Tokenizer,
    lengths: Sequence[int],
    rng: np.random.Generator,
    openings: Sequence[Sequence[str]] = (),
    prose: bool = False,
) -> list[str]:
    """One text a length, that the tokenizer (special tokens included) encodes to exactly so many tokens.

    Texts are random words from the very first on, so that no two share a prefix that a cache could hold, unless
    `openings` gives the words that each begins with (of `plain_words`; a shorter text is cut). Of the rest,
    `prose` makes sentences.
    """
    words = plain_words(tokenizer)
    texts = [
        _text(tokenizer, words, n - words.special, list(openings[i]) if openings else [], rng, prose)
        for i, n in enumerate(lengths)
    ]
    joined = [" ".join(text) for text in texts]
    checked = list(range(0, len(texts), max(1, len(texts) // SAMPLE) if words.additive else 1))
    found = count(tokenizer, [joined[i] for i in checked])
    if any(tokens != lengths[i] for i, tokens in zip(checked, found, strict=True)):
        return _repaired(tokenizer, words, texts, lengths, rng)
    return joined


def _text(
    tokenizer: Tokenizer, words: Words, n: int, opening: list[str], rng: np.random.Generator, prose: bool
) -> list[str]:
    """Pieces of one text of n tokens (at least one)."""
    n = max(1, n)
    opening = opening[:n]
    if not prose:
        return opening + words.draw(n - len(opening), rng, start=not opening)
    opening += words.draw(min(NONCE, n - len(opening)), rng, start=not opening)
    sentences, missing = prose_of(tokenizer).draw(n - len(opening), rng)
    return opening + sentences + words.draw(missing, rng, start=False)


def _repaired(
    tokenizer: Tokenizer, words: Words, texts: list[list[str]], lengths: Sequence[int], rng: np.random.Generator
) -> list[str]:
    """Encode every text, and change the end of those that are too long or too short, until all are exact."""
    wrong = list(range(len(texts)))
    for _ in range(REPAIRS):
        found = count(tokenizer, [" ".join(texts[i]) for i in wrong])
        off = {i: tokens - lengths[i] for i, tokens in zip(wrong, found, strict=True)}
        wrong = [i for i in wrong if off[i]]
        if not wrong:
            return [" ".join(text) for text in texts]
        for i in wrong:  # about as many words fewer or more as there are tokens too many or too few
            keep = max(0, len(texts[i]) - max(1, off[i]))
            fresh = max(1 - keep, len(texts[i]) - off[i] - keep)
            texts[i] = texts[i][:keep] + words.draw(fresh, rng, start=not keep)
    shortest = min(lengths[i] for i in wrong)
    raise InputError(
        f"no text of exactly {shortest} tokens can be made with this tokenizer; ask for longer prompts"
    )
