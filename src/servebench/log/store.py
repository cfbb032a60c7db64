"""The results folder of a backend: who may write to it, what is in it already, and what replaces what."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import shutil
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import force_setattr

from servebench.errors import InputError, LogError
from servebench.log import original
from servebench.log.schema import LOG_VERSION, Log
from servebench.log.telemetry import Series
from servebench.log.version1 import upgraded

# In the name of a point's log; that of the original suite's first release ends in _c8_p2600_g60.
POINT = re.compile(r"-(clients|rate|trace)\d|_c\d+_p\d+_g\d+").search
OTHER_FOLDERS = ("superseded", "searches", "evaluations")  # beside the logs (the first is of older versions)
HEAD = 1 << 17  # bytes that hold all of a log but what is in ROWS
ROWS = ("checks_alone", "checks", "probes", "results")  # the last fields, one entry a line
ALWAYS = ROWS[2:]  # written also where they have no entry
ROW = re.compile(rf',\n  "(?:{"|".join(ROWS)})": \['.encode()).split
VERSION_1 = re.compile(rb'"servebench_log": *1\b').search


class LogHead(msgspec.Struct):
    """The fields that decide whether to measure again. A log that was cut short has neither."""

    status: str = "failed"
    fingerprint: str = ""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Within it no other benchmark measures into this folder. Raises InputError when one does, or none can.

    The kernel frees the lock with its process, however that ends; what a killed one left half done is removed.
    """
    with open_lock(folder) as lock:
        if _locked(lock, folder):
            for leftover in folder.glob("*.parts"):
                shutil.rmtree(leftover, ignore_errors=True)
            for leftover in folder.glob("*.tmp[0-9]*"):
                leftover.unlink(missing_ok=True)
        yield


def open_lock(folder: Path) -> FileIO:
    """The lock file of a results folder, both made if need be. Raises InputError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".lock").open("ab+", buffering=0)
    except OSError as error:
        why = f"cannot be written to ({error.strerror}); give another"
        raise InputError(f"--out_json_dir: {folder} {why}") from error


def _locked(lock: FileIO, folder: Path) -> bool:
    """Take the lock and write who has it. False on a file system that knows no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise InputError(
            f"another benchmark ({lock.read().decode() or 'just started'}) measures into {folder}/; "
            "wait for its end, or give another --out_json_dir"
        ) from None
    except OSError:
        return False
    with suppress(OSError):  # a full disk
        lock.truncate(0)
        lock.write(f"process {os.getpid()} since {datetime.now():%Y-%m-%d %H:%M:%S}".encode())
    return True


def state_of(path: Path, fingerprint: str) -> Literal["new", "done", "failed"]:
    """The state of the run that is stored here: done if it succeeded under the same settings."""
    if not path.exists():
        return "new"
    head = _log_head(path)
    return "done" if head.status == "ok" and head.fingerprint == fingerprint else "failed"


def _log_head(path: Path) -> LogHead:
    try:
        return msgspec.json.decode(path.read_bytes(), type=LogHead)
    except (OSError, msgspec.MsgspecError):
        return LogHead()


def place(folder: Path, name: str, fingerprint: str) -> Path:
    """Where a run of this name belongs: where it lies already, if its variant had another name before."""
    _, digits, end = name.rpartition(fingerprint[:6])
    others = () if (folder / name).exists() else sorted(folder.glob(f"*-{digits}{end}"))
    return next((path for path in others if _log_head(path).fingerprint == fingerprint), folder / name)


def put(log: Log, path: Path) -> bool:
    """Write a log; one that failed never replaces one that did not. Returns whether it was written."""
    keep = log.status != "ok" and state_of(path, log.fingerprint) == "done"
    if not keep:
        save(log, path)
    return not keep


def save(log: Log, path: Path) -> None:
    """Write a log so that it is either there whole or not at all; one request a line, for grep and diff."""
    fields = msgspec.structs.asdict(log)
    rows = {name: fields.pop(name) for name in ROWS}
    fields.pop("series")
    text = msgspec.json.format(msgspec.json.encode(fields), indent=2).removesuffix(b"\n}")
    shown = [name for name in ROWS if rows[name] or name in ALWAYS]
    text += b"".join(b',\n  "%b": [%b]' % (name.encode(), _rows(rows[name])) for name in shown)
    text += b',\n  "series": %b' % _columns(log.series) if log.series else b""
    write_whole(path, text + b"\n}\n")


def write_whole(path: Path, data: bytes, lasting: bool = True) -> None:
    """The file is there with all of data or as it was before, whatever happens meanwhile. Raises OSError.

    `lasting`: even if the machine stops at once, for which a disk needs time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".tmp{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)  # of a full disk, or of a benchmark that was ended meanwhile


def _rows(rows: Sequence[msgspec.Struct]) -> bytes:
    return b"\n" + b",\n".join(msgspec.json.encode(row, enc_hook=list) for row in rows) + b"\n"


def _columns(series: Series) -> bytes:
    """One column a line."""
    return msgspec.json.encode(series).replace(b'],"', b'],\n"').replace(b'"columns":{', b'"columns":{\n')


def load(path: Path, requests: bool = True) -> Log:
    """Read one log, ours or the original suite's. Raises LogError with one clear line.

    `requests=False` leaves the requests out: what a log is of can be known without decoding its token times.
    """
    try:
        data = path.read_bytes()
        if b'"servebench_log"' not in data[:4096]:
            return original.decode(data, path.name)
        data = upgraded(data) if VERSION_1(data[:4096]) else data
        head, found, _ = data.partition(b'\n  "results": [')
        log = _decoded(data if requests or not found else head + found + b"]}")
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise LogError(f"{path}: not a benchmark log: {error}") from error
    if log.servebench_log > LOG_VERSION:
        raise LogError(f"{path}: log version {log.servebench_log} is newer than this ServeBench; update it")
    return log


def head(path: Path) -> Log | None:
    """A log of this version without ROWS, from its first bytes; None if that cannot be."""
    try:
        with path.open("rb") as file:
            begin, *rest = ROW(file.read(HEAD), maxsplit=1)
        return msgspec.json.decode(begin + b"}", type=Log) if rest else None
    except (OSError, msgspec.MsgspecError):
        return None


def heads(folder: Path) -> list[Log]:
    """The logs of this version in a folder, without their requests."""
    return [found for path in sorted(folder.glob("*.json")) if (found := head(path))]


def _decoded(data: bytes) -> Log:
    """Times and tokens become arrays. The collector would look through all lists of a log meanwhile, in vain."""
    collects = gc.isenabled()
    gc.disable()
    try:
        log = msgspec.json.decode(data, type=Log)
        for result in log.results:
            force_setattr(result, "event_ns", array("q", result.event_ns))
            force_setattr(result, "event_tokens", array("I", result.event_tokens))
        return log
    finally:
        if collects:
            gc.enable()


def load_folder(folder: Path, load: Callable[[Path], Log] = load) -> Iterator[tuple[Path, Log]]:
    """Every log of a results folder, or of one backend's, the runs of a point in succession.

    Files that are no logs are named and left out.
    """
    found = [path for path in (*folder.glob("*.json"), *folder.glob("*/*.json")) if POINT(path.name)]
    wanted = sorted((path for path in found if path.parent.name not in OTHER_FOLDERS), key=numbers_by_size)
    return read(wanted, load)


def read(paths: Iterable[Path], load: Callable[[Path], Log] = load) -> Iterator[tuple[Path, Log]]:
    """Logs one by one; files that are no logs are named and left out."""
    for path in paths:
        try:
            yield path, load(path)
        except LogError as error:
            print(f"left out: {error}", file=sys.stderr)


def numbers_by_size(text: Path | str) -> list[str]:
    """So that clients8 stands before clients16."""
    return [part.zfill(12) if part.isdigit() else part for part in re.split(r"(\d+)", str(text))]
