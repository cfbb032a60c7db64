"""Made-up requests that take a while, kept on disk for the next time that the same are asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from servebench.log.schema import RunConfig
from servebench.log.store import write_whole
from servebench.workload.lengths import lengths_of
from servebench.workload.requests import Request

WORTH = 5_000_000  # prompt tokens from which on they are kept; making so many takes half a second
MOST_BYTES = 1 << 30  # of all that is kept; the oldest make room
Requests = list[list[Request]]  # counted and spare ones


def kept(run: RunConfig, tokenizer: Tokenizer, context: int | None, make: Callable[[], Requests]) -> Requests:
    """What make() gives, from disk if it was kept. A cache that cannot be read or written does not matter."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if run.num_requests * lengths_of(run)[0].mean < WORTH or not os.path.isabs(cache):  # a ~ without a home
        return make()
    path = Path(cache) / "servebench" / f"{_key(run, tokenizer, context)}.msgpack"
    with suppress(OSError, msgspec.MsgspecError):
        found: Requests = msgspec.msgpack.decode(path.read_bytes(), type=Requests)
        path.touch()
        return found
    requests = make()
    with suppress(OSError):
        _keep(path, msgspec.msgpack.encode(requests))
    return requests


def _key(run: RunConfig, tokenizer: Tokenizer, context: int | None) -> str:
    """All that decides about requests, the code that makes them too."""
    digest = hashlib.sha256(msgspec.json.encode([run, context]))
    digest.update(tokenizer.to_str().encode())
    for file in sorted(Path(__file__).parent.glob("*.*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _keep(path: Path, data: bytes) -> None:
    write_whole(path, data)
    room = MOST_BYTES
    for file in sorted(path.parent.glob("*.msgpack"), key=lambda file: -file.stat().st_mtime):
        room -= file.stat().st_size
        if room < 0:
            file.unlink()
