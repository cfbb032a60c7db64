"""Tokens counted by the server's own /tokenize, where nothing here counts them. It is not called during a load."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from servebench.errors import InputError
from servebench.log.urls import beside
from servebench.servers.http_call import call
from servebench.servers.server import Server
from servebench.workload.other_tokenizers import PROSE, OtherTokenizer, piece_bytes

AT_ONCE, TIMEOUT_S = 8, 60  # calls


def server_tokenizer(server: Server) -> OtherTokenizer:
    """Counts as vLLM, SGLang or llama.cpp say. Raises InputError if the server does not count."""
    prose = PROSE.read_text(encoding="utf-8")
    # With sentences, for the spaces in them: whether tokens span words is not known, so every text is counted.
    vocabulary = [*prose.split("\n"), *(f"▁{word}" for word in prose.split())]

    def split(texts: Sequence[str]) -> list[list[bytes]]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda text: _tokens(server, text, special=False), texts))

    added = len(_tokens(server, "the", special=True)) - len(_tokens(server, "the", special=False))
    return OtherTokenizer(split, added, vocabulary)


def _tokens(server: Server, text: str, special: bool) -> list[bytes]:
    """What the tokens of a text stand for. Every engine knows some of the fields, and ignores the others."""
    url = beside(server.engines[0], "/tokenize")
    fields = {"model": server.facts.model, "prompt": text, "content": text, "add_special_tokens": special}
    fields |= {"add_special": special, "return_token_strs": True, "with_pieces": True}
    try:
        answer = msgspec.json.decode(call(url, server.headers, TIMEOUT_S, msgspec.json.encode(fields)))
        return [_bytes_of(token) for token in answer.get("token_strs") or answer["tokens"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{server.facts.urls[0]} does not count tokens at /tokenize ({error})") from error


def _bytes_of(token: Any) -> bytes:
    """Of vLLM's strings and llama.cpp's pieces. SGLang has only numbers, which count as equally long."""
    piece = token["piece"] if isinstance(token, dict) else token
    if isinstance(piece, int):
        return b"."
    return piece_bytes(piece) if isinstance(piece, str) else bytes(piece)
