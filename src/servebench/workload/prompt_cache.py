"""A cache on disk for synthetic requests that take long to make."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from servebench.log import lengths
from servebench.log.store import write_whole
from servebench.workload.requests import Recipe, Request

MIN_PROMPT_TOKENS = 5_000_000  # to make fewer takes less than half a second
MAX_BYTES = 1 << 30  # of the whole cache; the oldest files make room
Requests = list[list[Request]]  # measured and filler


def cached(recipe: Recipe, prompt_tokens: int, make: Callable[[], Requests]) -> Requests:
    """What make() returns, or returned the last time; made anew each time if it has few prompt tokens.

    A cache that cannot be read or written does no harm.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if prompt_tokens < MIN_PROMPT_TOKENS or not os.path.isabs(cache):  # ~ stays ~ for a user without a home
        return make()
    path = Path(cache) / "servebench" / f"{_key(recipe)}.msgpack"
    with suppress(OSError, msgspec.MsgspecError):
        found: Requests = msgspec.msgpack.decode(path.read_bytes(), type=Requests)
        path.touch()
        return found
    requests = make()
    with suppress(OSError):
        write_whole(path, msgspec.msgpack.encode(requests))
        _make_room(path.parent)
    return requests


def _key(recipe: Recipe) -> str:
    """Hash of all that decides about the requests, including the code that makes them."""
    digest = hashlib.sha256(msgspec.json.encode([recipe.run, recipe.context]))
    digest.update(recipe.tokenizer.to_str().encode())
    code = {*Path(__file__).parent.glob("*.*"), Path(lengths.__file__)}
    for file in sorted(code):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _make_room(folder: Path) -> None:
    room = MAX_BYTES
    for file in sorted(folder.glob("*.msgpack"), key=lambda file: -file.stat().st_mtime):
        room -= file.stat().st_size
        if room < 0:
            file.unlink()
