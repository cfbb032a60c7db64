"""Are a model's weights in this host's memory already, when its server is started: a cold start or a warm one?"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from servebench.log.config import ServerConfig
from servebench.workload.model_files import snapshot

FORMS = (("*.safetensors",), ("*.bin", "*.pt", "*.pth"))  # the first that there are is what engines load
GGUF = (("*.gguf",),)
WINDOW = 1 << 20  # bytes that are looked at, of every so many
WINDOWS, PATIENCE_S = 64, 0.1  # of a file, and for all


def cached_share(config: ServerConfig) -> float | None:
    """The share of the weights in the page cache, by samples; None where they are not here or cannot be told."""
    files = [] if config.urls else weight_files(config)
    end_s, seen, cached = time.monotonic() + PATIENCE_S, 0.0, 0.0
    for file in files:
        with suppress(OSError, ValueError):
            share, size = _share(file), file.stat().st_size
            seen, cached = seen + size, cached + share * size
        if time.monotonic() > end_s:
            break
    return round(cached / seen, 3) if seen else None


def weight_files(config: ServerConfig) -> Sequence[Path]:
    path = Path(os.path.expanduser(config.model))
    if path.is_file():
        return [path]
    folder = path if path.is_dir() else snapshot(config.model, config.engine_args)
    forms = GGUF if config.backend == "llamacpp" else FORMS
    found = [[file for form in each for file in sorted(folder.glob(form))] for each in forms] if folder else []
    return next(filter(None, found), [])


def _share(file: Path) -> float:
    """Raises OSError for a file of others: the kernel would say that all of it is cached."""
    if file.stat().st_uid != os.geteuid() and not os.access(file, os.W_OK):
        raise PermissionError(file)
    with file.open("rb") as data, mmap.mmap(data.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        try:
            return _resident(view.ctypes.data, len(mapped))
        finally:
            del view  # else the mapping could not be closed


def _resident(address: int, size: int) -> float:
    """The share of the pages of a mapping that are in memory."""
    libc, every = (
        ctypes.CDLL(None, use_errno=True),
        max(WINDOW, -(-size // WINDOWS) // mmap.PAGESIZE * mmap.PAGESIZE),
    )
    pages = (ctypes.c_ubyte * (WINDOW // mmap.PAGESIZE))()
    seen = cached = 0
    for start in range(0, size, every):
        length = min(WINDOW, size - start)
        if libc.mincore(ctypes.c_void_p(address + start), ctypes.c_size_t(length), pages):
            raise OSError(ctypes.get_errno(), "mincore")
        n = -(-length // mmap.PAGESIZE)
        seen, cached = seen + n, cached + sum(page & 1 for page in pages[:n])
    return cached / seen
