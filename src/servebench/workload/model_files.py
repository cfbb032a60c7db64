"""Files that come with a model: in its directory, in the Hugging Face hub's cache, or on the hub.

The cache is asked first, so that a model whose files are there needs no network; $HF_HOME, $HF_HUB_CACHE,
$HF_HUB_OFFLINE and $HF_TOKEN mean what they mean to every program that uses the hub.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from servebench.errors import InputError

# Names for the most tokens of prompt and generation together, of which a model may have several.
CONTEXT = (
    *("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_length", "max_seq_len"),
    *("seq_length", "seq_len", "n_ctx", "model_max_length"),
)
INNER = ("text_config", "llm_config", "language_config")  # where a model of several kinds says it of its text
UNSAID = {"falcon": 2048, "RefinedWeb": 2048, "RefinedWebModel": 2048}  # by model_type: what its code has instead


unreachable: list[Exception] = []  # why the hub was not; with its retries that takes long enough once


def expanded(option: str, text: str) -> Path:
    """A path with ~ as the home. Raises InputError where this user has none."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{option} {text}: this user has no home; give the whole path") from error


def hub_file(name: str, file: str) -> Path:
    """A file of a model on the hub. Raises what the hub's library does."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import errors, hf_hub_download  # take a quarter of a second to import

    if found := cached_file(name, file):
        return found
    if unreachable:
        raise unreachable[0]
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every retry
    try:
        return Path(hf_hub_download(name, file, etag_timeout=5))
    except errors.LocalEntryNotFoundError as error:
        unreachable.append(error)
        raise


def cached_file(name: str, file: str) -> Path | None:
    """A file of a model in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError, OSError):  # no name that the hub could have
        found = try_to_load_from_cache(name, file)
        return Path(found) if isinstance(found, str) else None
    return None


@lru_cache
def model_context(model: str, from_hub: bool) -> int | None:
    """Most tokens, prompt and generation together, that a model takes; None when that is not to be known."""
    config = _config(model, from_hub)
    for part in (config, *(config.get(name) for name in INNER)):
        if isinstance(part, dict) and (context := _context(part)):
            return context
    return UNSAID.get(str(config.get("model_type")))


def _config(model: str, from_hub: bool) -> dict[str, Any]:
    path: Path | None = expanded("--model", model) / "config.json"
    assert path
    if not path.is_file():
        path = None if path.parent.exists() else _hub_config(model, from_hub)
    with suppress(msgspec.MsgspecError, OSError):
        config = msgspec.json.decode(path.read_bytes()) if path else None
        return config if isinstance(config, dict) else {}
    return {}


def _hub_config(model: str, from_hub: bool) -> Path | None:
    try:
        return hub_file(model, "config.json") if from_hub else cached_file(model, "config.json")
    except Exception:  # of many kinds; whether the model can be had at all is for the engine to say
        return None


def _context(config: dict[str, Any]) -> int | None:
    """The least that it says, stretched as far as its position embeddings are by an engine."""
    lengths = [n for name in CONTEXT if type(n := config.get(name)) is int and n > 0]  # true is no int here
    if not lengths:
        return None
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    factor = scaling.get("factor") or 1
    if kind in ("linear", "dynamic"):
        return int(min(lengths) * factor)
    if kind == "yarn" and scaling.get("original_max_position_embeddings"):
        return int(scaling["original_max_position_embeddings"] * factor)
    return min(lengths)
