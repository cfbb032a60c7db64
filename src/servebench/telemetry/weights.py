"""Are a model's weights in this host's memory already, when its server is started: a cold start or a warm one?"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import suppress
from mmap import PAGESIZE, PROT_READ, mmap
from pathlib import Path

import numpy as np

from servebench.log.config import ServerConfig
from servebench.workload.model_files import snapshot

FORMS = ("*.safetensors", "*.bin", "*.pt", "*.pth")  # the first that there is is what engines load
SAMPLES = 64  # of a file
PAGES = 256  # that each of them looks at


def cached_share(config: ServerConfig) -> float | None:
    """The share of the weights in the page cache, by samples; None where they are not here or cannot be told."""
    seen: list[np.ndarray] = []
    for file in () if config.urls else weight_files(config):
        with suppress(OSError, ValueError):
            seen.append(_in_memory(file))
    return round(float(np.concatenate(seen).mean()), 3) if seen else None


def weight_files(config: ServerConfig) -> Sequence[Path]:
    path = Path(os.path.expanduser(config.model))
    if path.is_file():
        return [path]
    folder = path if path.is_dir() else snapshot(config.model, config.engine_args)
    forms = ("*.gguf",) if config.backend == "llamacpp" else FORMS
    return next(filter(None, ([*folder.glob(form)] for form in forms)), []) if folder else []


def _in_memory(file: Path) -> np.ndarray:
    """Of pages all over a file, which are. Raises OSError for one of others: the kernel would say that all are."""
    if file.stat().st_uid != os.geteuid() and not os.access(file, os.W_OK):
        raise PermissionError(file)
    with file.open("rb") as data, mmap(data.fileno(), 0, prot=PROT_READ) as mapped:
        n, address = -(-len(mapped) // PAGESIZE), np.frombuffer(mapped, np.uint8).ctypes.data
        found = np.zeros((SAMPLES, min(n, PAGES)), np.uint8)
        for sample, first in zip(found, np.linspace(0, n - len(found[0]), SAMPLES, dtype=int), strict=True):
            where, size = ctypes.c_void_p(address + int(first) * PAGESIZE), ctypes.c_size_t(len(sample) * PAGESIZE)
            if ctypes.CDLL(None).mincore(where, size, ctypes.c_void_p(sample.ctypes.data)):
                raise OSError(file)
    return found.ravel() & 1
