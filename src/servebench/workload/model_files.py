"""A model's configuration and tokenizer: in its directory, in the Hugging Face hub's cache, or on the hub.

The cache is tried first, so that a model whose files are there needs no network. $HF_HOME, $HF_HUB_CACHE,
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
from tokenizers import Tokenizer

from servebench.errors import InputError

# Keys for the largest number of tokens, prompt and generation together. A model may have several.
CONTEXT_KEYS = (
    *("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_length", "max_seq_len"),
    *("seq_length", "seq_len", "n_ctx", "model_max_length"),
)
TEXT_CONFIGS = ("text_config", "llm_config", "language_config")  # where a multimodal model keeps these keys
DEFAULT_CONTEXTS = {"falcon": 2048, "RefinedWeb": 2048, "RefinedWebModel": 2048}  # of the code, by model_type

OTHER_TOKENIZERS = ("tokenizer.model", "*.tiktoken", "tekken.json", "*.spm", "vocab.json")

unreachable: list[Exception] = []  # why the hub cannot be reached: its retries take too long to fail twice


def expanded(option: str, text: str) -> Path:
    """A path with ~ expanded. Raises InputError if this user has no home."""
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
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of every retry
    try:
        return Path(hf_hub_download(name, file, etag_timeout=5))
    except errors.LocalEntryNotFoundError as error:
        unreachable.append(error)
        raise


def cached_file(name: str, file: str) -> Path | None:
    """A file of a model in the hub's cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError, OSError):  # the name cannot be one of the hub
        found = try_to_load_from_cache(name, file)
        return Path(found) if isinstance(found, str) else None
    return None


@lru_cache
def model_context(model: str, from_hub: bool) -> int | None:
    """How many tokens a model takes at most, prompt and generation together; None when unknown."""
    config = _config(model, from_hub)
    for part in (config, *(config.get(name) for name in TEXT_CONFIGS)):
        if isinstance(part, dict) and (context := _context(part)):
            return context
    return DEFAULT_CONTEXTS.get(str(config.get("model_type")))


def _config(model: str, from_hub: bool) -> dict[str, Any]:
    """What config.json holds; empty if it cannot be read: the engine says better what is wrong with a model."""
    folder, find = expanded("--model", model), hub_file if from_hub else cached_file
    with suppress(Exception):  # the hub's library raises many kinds
        path = folder / "config.json" if folder.exists() else find(model, "config.json")
        if path and isinstance(config := msgspec.json.decode(path.read_bytes()), dict):
            return config
    return {}


def _context(config: dict[str, Any]) -> int | None:
    """The smallest context that a config names, stretched as far as an engine stretches position embeddings."""
    lengths = [n for n in map(config.get, CONTEXT_KEYS) if type(n) is int and n > 0]  # isinstance takes True too
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


def load_tokenizer(name: str) -> Tokenizer:
    """From a directory with tokenizer.json, such a file, or the Hugging Face hub. Raises InputError.

    Switches off truncation and padding, which some files still have from training: they falsify every count.
    """
    path = expanded("--tokenizer", name)
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputError(f"--tokenizer {name}: there is no such directory or file; give one, or a Hugging Face id")
    folder = path.parent if path.suffix == ".gguf" else path
    file = path if path.is_file() and folder == path else folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else _from_elsewhere(name, path)
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"--tokenizer {name}: cannot be loaded ({reason}); give a directory or file") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _from_elsewhere(name: str, path: Path) -> Tokenizer:
    """From the hub, or converted from other files, where no tokenizer.json is at hand."""
    from huggingface_hub import errors

    try:
        if not path.exists():
            return Tokenizer.from_file(str(hub_file(name, "tokenizer.json")))
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"--tokenizer {name}: neither a path nor in the hub's cache, and the hub cannot be reached; "
            "give the directory of the model, or connect"
        ) from error
    except errors.RepositoryNotFoundError as error:  # also the hub's answer for gated models
        key = "with the key in $HF_TOKEN" if os.environ.get("HF_TOKEN") else "without $HF_TOKEN"
        raise InputError(
            f"--tokenizer {name}: the hub has no such model, or does not give it away {key}; correct the name, "
            "or accept the model's licence on its page and set $HF_TOKEN"
        ) from error
    except errors.EntryNotFoundError:
        pass
    return _converted(name, path)


def _converted(name: str, path: Path) -> Tokenizer:
    """From SentencePiece's or tiktoken's file, by transformers if that is installed."""
    if path.suffix == ".gguf":
        raise InputError(
            f"--tokenizer {name}: no tokenizer.json is beside it; give the folder that it was made of"
        )
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        others = [file.name for pattern in OTHER_TOKENIZERS for file in sorted(path.glob(pattern))]
        there = f", only {others[0]}" if others else ""
        raise InputError(
            f"--tokenizer {name}: no tokenizer.json in it{there}; name another that counts alike, or make one "
            'with transformers: python -c "from transformers import AutoTokenizer as A; '
            f"A.from_pretrained('{name}').save_pretrained('tokenizer')\" and give --tokenizer tokenizer"
        ) from error
    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(name).backend_tokenizer
    return tokenizer
