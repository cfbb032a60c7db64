"""Tokenizers without a tokenizer.json: SentencePiece, tiktoken and tekken, split by their own libraries."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

PROSE = Path(__file__).with_name("prose.txt")
FORMS = ("tekken*.json", "tokenizer.model*", "*.tiktoken", "tiktoken.model")  # the first that is there is read
# How Llama 3 splits a text into words, which its file does not say; Qwen has each digit on its own.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
SPLIT += r"\s*[\r\n]+|\s+(?!\S)|\s+"
Split = Callable[[Sequence[str]], list[list[bytes]]]  # texts -> the bytes of their tokens


@dataclass(frozen=True)
class Encoded:
    """A text and its tokens."""

    text: str
    tokens: list[bytes]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(0, where each token ends, in characters); within a character, where that does.

        Tokens may stand for more than the text, as for the space that SentencePiece puts before it.
        """
        data = np.frombuffer(b"".join(self.tokens), np.uint8)
        begun = np.concatenate([[0], np.cumsum(data & 0xC0 != 0x80)])  # characters
        ends = begun[np.cumsum([len(token) for token in self.tokens], dtype=int)]
        return [(0, end) for end in (ends * len(self.text) // max(1, begun[-1])).tolist()]


@dataclass(frozen=True, eq=False)
class OtherTokenizer:
    """Whoever splits texts, with those methods of a `tokenizers.Tokenizer` that are used here."""

    split: Split
    added: int  # special tokens that are added to each prompt
    vocabulary: Iterable[str]

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[Encoded]:
        added = [b""] * (self.added if add_special_tokens else 0)
        return [Encoded(text, added + found) for text, found in zip(texts, self.split(texts), strict=True)]

    encode_batch_fast = encode_batch

    def get_vocab(self) -> dict[str, int]:
        return dict.fromkeys(self.vocabulary, 0)

    def to_str(self) -> str:
        """What tells it from others: how it splits a known text."""
        return str(self.encode_batch([PROSE.read_text(encoding="utf-8")]))


def file_of(path: Path) -> Path | None:
    """The file of such a tokenizer: this one, or one in this folder."""
    there = [path] if path.is_file() else sorted(path.glob("*"), reverse=True)
    return next((file for form in FORMS for file in there if file.match(form)), None)


def other_tokenizer(file: Path) -> OtherTokenizer:
    """From such a file. Raises ImportError if its library is not installed."""
    about, data = file.with_name("tokenizer_config.json"), file.read_bytes()
    bos = msgspec.json.decode(about.read_bytes()).get("add_bos_token") if about.is_file() else None
    if file.suffix == ".json":
        tekken = msgspec.json.decode(data)
        config, ranked = tekken["config"], tekken["vocab"]
        size = config["default_vocab_size"] - config["default_num_special_tokens"]
        ranks = {base64.b64decode(each["token_bytes"]): each["rank"] for each in ranked[:size]}
        return _by_tiktoken(ranks, config["pattern"], bos is not False)
    if not re.match(rb"[\w+/=]+ \d+\s", data):
        return _by_sentencepiece(file, bos)
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines())}
    pattern = SPLIT.replace("{1,3}", "") if "qwen" in file.name else SPLIT
    return _by_tiktoken(ranks, pattern, file.name == "tokenizer.model" if bos is None else bos)  # Llama 3 adds it


def _by_tiktoken(ranks: dict[bytes, int], pattern: str, bos: bool) -> OtherTokenizer:
    import tiktoken

    encoding = tiktoken.Encoding("of a file", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    bytes_of = {rank: token for token, rank in ranks.items()}

    def split(texts: Sequence[str]) -> list[list[bytes]]:
        return [[bytes_of[i] for i in ids] for ids in encoding.encode_ordinary_batch(list(texts))]

    return OtherTokenizer(
        split, int(bos), [token.decode(errors="replace").replace(" ", "▁", 1) for token in ranks]
    )


def _by_sentencepiece(file: Path, bos: Any) -> OtherTokenizer:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]

    def split(texts: Sequence[str]) -> list[list[bytes]]:
        return [[piece_bytes(piece) for piece in found] for found in model.encode(list(texts), out_type=str)]

    return OtherTokenizer(split, int(model.bos_id() >= 0 if bos is None else bos), pieces)


def piece_bytes(piece: str) -> bytes:
    """The bytes that one of SentencePiece's pieces stands for."""
    return (
        bytes.fromhex(piece[3:5]) if re.fullmatch("<0x[0-9A-F]{2}>", piece) else piece.replace("▁", " ").encode()
    )
