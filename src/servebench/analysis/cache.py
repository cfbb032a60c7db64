"""What is derived of a log is worked out once: it stays with the log, and beside its file for the next command.

`load` gives a log that reads its requests only if they are needed. FOLDER/.derived/NAME.msgpack has all else of it
and what `derived` functions say of it. It counts as long as the log's own file is the same, and the code of
ServeBench is: else it is made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from hashlib import sha256
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

import msgspec
import numpy as np
from msgspec.structs import replace

from servebench.errors import LogError
from servebench.log import store
from servebench.log.schema import Log
from servebench.log.unread import Mark, Unread, mark_of

P = ParamSpec("P")


T = TypeVar("T")


LARGEST = 1 << 18  # bytes of a value that is kept on disk
CHECKSUM = 32  # bytes before what is kept


class Derived(msgspec.Struct):
    """What is beside a log's file."""

    code: str
    mark: Mark
    digest: bytes  # of the log's file: one that was copied or touched is still the same
    log: Log  # without its requests and samples
    values: dict[str, bytes] = {}  # by function and arguments

    def write(self, path: Path) -> None:
        """A folder that cannot be written to is no fault: all is worked out anew then."""
        data = msgspec.msgpack.encode(self)
        with suppress(OSError):
            store.write_whole(_beside(path), sha256(data).digest() + data, lasting=False)


def once_a_log(of_log: Callable[P, T]) -> Callable[P, T]:
    """A decorator: works a function or method of a log out once for each of its other arguments."""

    @wraps(of_log)
    def cached(*args: P.args, **kwargs: P.kwargs) -> T:
        log, others = _told_apart(args)
        memory: dict[Any, T] = log.__dict__.setdefault("memory", {})
        key = (of_log, others, tuple(kwargs.items()))  # not its name: two functions may have the same
        if key not in memory:
            memory[key] = of_log(*args, **kwargs)
        return memory[key]

    return cached


def derived(of_log: Callable[P, T]) -> Callable[P, T]:
    """A decorator: likewise, and what it says is kept beside the log's file, in the type that it declares.

    For functions of this package that depend on nothing but the log, and on no field that is `altered`. Their
    other arguments are plain, or known by their name.
    """
    name = f"{of_log.__module__}.{of_log.__qualname__}"

    @wraps(of_log)
    def kept(*args: P.args, **kwargs: P.kwargs) -> T:
        log, others = _told_apart(args)
        found: Derived | None = log.__dict__.get("derived")
        if found is None:
            return of_log(*args, **kwargs)
        key = " ".join([name, *(str(getattr(each, "name", each)) for each in (*others, *kwargs.values()))])
        if key not in found.values:
            data = msgspec.msgpack.encode(value := of_log(*args, **kwargs), enc_hook=_packed)
            if len(data) > LARGEST:
                return value
            found.values[key] = data
            if "path" in log.__dict__:  # `load` is done with it, and does not write any more
                found.write(log.__dict__["path"])
        decoded: T = _decoder(of_log).decode(found.values[key])
        return decoded

    return once_a_log(kept)


def altered(log: Log, **fields: Any) -> Log:
    """The log with other values of fields that nothing derived depends on: its price, the floor of its answers."""
    found = replace(log, **fields)
    found.__dict__.update({name: log.__dict__[name] for name in ("derived", "path") if name in log.__dict__})
    return found


def _told_apart(args: tuple[Any, ...]) -> tuple[Log, tuple[Any, ...]]:
    """The log among these arguments, the first of a function or the second of a method, and the others."""
    place = 0 if isinstance(args[0], Log) else 1
    return args[place], args[:place] + args[place + 1 :]


@cache
def _decoder(of_log: Callable[..., T]) -> msgspec.msgpack.Decoder[T]:
    return msgspec.msgpack.Decoder(get_type_hints(of_log)["return"], dec_hook=_unpacked)


def _packed(array: np.ndarray) -> tuple[str, bytes]:
    return array.dtype.str, array.tobytes()


def _unpacked(_: type, packed: tuple[str, bytes]) -> np.ndarray:
    return np.frombuffer(packed[1], packed[0])


def load(path: Path, derive: Callable[[Log], object] = lambda log: None) -> Log:
    """A log that reads its requests only if they are needed. Raises LogError.

    `derive` asks of it what will be asked of it: now, while its requests are in memory.
    """
    found = _found(path)
    log, found = (_without_requests(path, found), found) if found else _new(path)
    known = len(found.values)
    log.__dict__["derived"] = found
    derive(log)
    if len(found.values) > known or not known:
        found.write(path)
    log = _without_requests(path, found)
    log.__dict__.update(derived=found, path=path)
    return log


def _found(path: Path) -> Derived | None:
    """What is beside the log, if it is still true."""
    with suppress(OSError, msgspec.MsgspecError):
        file = _beside(path).read_bytes()
        checksum, data = file[:CHECKSUM], file[CHECKSUM:]
        found = msgspec.msgpack.decode(data, type=Derived) if sha256(data).digest() == checksum else None
        if not found or found.code != _code():
            return None
        if found.mark != (mark := mark_of(path)):
            found.mark = mark
            if sha256(path.read_bytes()).digest() != found.digest:
                return None
            found.write(path)
        return found
    return None


def _new(path: Path) -> tuple[Log, Derived]:
    try:
        mark, digest = mark_of(path), sha256(path.read_bytes()).digest()  # first, should it be replaced meanwhile
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error
    log = store.load(path)
    return log, Derived(_code(), mark, digest, replace(log, results=[], probes=[], series=None))


def _without_requests(path: Path, found: Derived) -> Log:
    results, probes = (Unread(path, found.mark, field) for field in ("results", "probes"))
    return replace(found.log, results=results, probes=probes)


def _beside(path: Path) -> Path:
    return path.parent / ".derived" / f"{path.name}.msgpack"


@cache
def _code() -> str:
    """A hash of all that a number may be made by."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files) + np.__version__.encode()).hexdigest()
