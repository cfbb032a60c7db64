"""The results folder of a backend: who may write to it, what is in it already, and what replaces what."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Literal

import msgspec

from servebench import records
from servebench.records import InputError, Log


class LogHead(msgspec.Struct):
    """What of a log tells whether it needs to be measured again; one that was cut short has none."""

    status: str = "failed"
    fingerprint: str = ""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Within it no other benchmark measures into this folder. Raises InputError when one does, or none can.

    The kernel frees the lock with its process, however that ends; what a killed one left half done is removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab+", buffering=0)
    except OSError as error:
        why = f"cannot be written to ({error.strerror}); give another"
        raise InputError(f"--out_json_dir: {folder} {why}") from error
    with lock:
        if _locked(lock, folder):
            for leftover in folder.glob("*.parts"):
                shutil.rmtree(leftover, ignore_errors=True)
            for leftover in folder.glob("*.tmp[0-9]*"):
                leftover.unlink(missing_ok=True)
        yield


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
    """Of the point that this log is of."""
    if not path.exists():
        return "new"
    try:
        head = msgspec.json.decode(path.read_bytes(), type=LogHead)
    except (OSError, msgspec.MsgspecError):
        return "failed"
    return "done" if head.status == "ok" and head.fingerprint == fingerprint else "failed"


def save(log: Log, path: Path) -> bool:
    """Write a log; one that failed never replaces one that did not. Returns whether it was written."""
    keep = log.status != "ok" and state_of(path, log.fingerprint) == "done"
    if not keep:
        records.save(log, path)
    return not keep
