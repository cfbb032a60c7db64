"""A model's configuration and tokenizer: in its directory, in the Hugging Face hub's cache, or on the hub.

The cache is tried first, so that a model whose files are there needs no network. $HF_HOME, $HF_HUB_CACHE,
$HF_HUB_OFFLINE and $HF_TOKEN mean what they mean to every program that uses the hub.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import msgspec
from tokenizers import Tokenizer

from servebench.cli.keys import pop_option
from servebench.errors import InputError
from servebench.workload.other_tokenizers import FORMS, file_of, other_tokenizer

# Keys for the largest number of tokens, prompt and generation together. A model may have several.
CONTEXT_KEYS = (
    *("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_length", "max_seq_len"),
    *("seq_length", "seq_len", "n_ctx", "model_max_length"),
)
TEXT_CONFIGS = ("text_config", "llm_config", "language_config")  # where a multimodal model keeps these keys
DEFAULT_CONTEXTS = {"falcon": 2048, "RefinedWeb": 2048, "RefinedWebModel": 2048}  # of the code, by model_type

unreachable: list[Exception] = []  # why the hub cannot be reached, which it then is for every file
HUB_TIMEOUT_S = 5


def expanded(option: str, text: str) -> Path:
    """A path with ~ expanded. Raises InputError if this user has no home."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{option} {text}: this user has no home directory; give the whole path") from error


def hub_file(name: str, file: str) -> Path:
    """A file of a model on the hub. Raises what the hub's library does."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import hf_hub_download  # takes a quarter of a second to import

    if found := cached_file(name, file):
        return found
    if unreachable:
        raise unreachable[0]
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of every retry
    _ask_once(name, file)
    return Path(hf_hub_download(name, file, etag_timeout=HUB_TIMEOUT_S))


def _ask_once(name: str, file: str) -> None:
    """Raise what keeps a file from being had. A download would try again for half a minute first."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(name, file), timeout=HUB_TIMEOUT_S)
    except (ValueError, errors.RepositoryNotFoundError, errors.EntryNotFoundError):
        raise
    except errors.HfHubHTTPError:
        return  # the hub is busy: the download waits for it
    except Exception as error:  # of the network; its kind changes with the version of the hub's library
        unreachable.append(error)
        raise


def cached_file(name: str, file: str, revision: str | None = None) -> Path | None:
    """A file of a model in the hub's cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError, OSError):  # the name cannot be one of the hub
        found = try_to_load_from_cache(name, file, revision=revision)
        return Path(found) if isinstance(found, str) else None
    return None


def snapshot(model: str, engine_args: Sequence[str]) -> Path | None:
    """The folder of a hub's model in the hub's cache, which its commit names; None if local, or not there."""
    if Path(os.path.expanduser(model)).exists():
        return None
    config = cached_file(model, "config.json", pop_option(engine_args, "--revision")[1] or None)
    return config.parent if config else None


@lru_cache
def model_context(model: str, from_hub: bool) -> int | None:
    """How many tokens a model takes at most, prompt and generation together; None when unknown."""
    config = _config(model, from_hub)
    for part in (config, *(config.get(name) for name in TEXT_CONFIGS)):
        if isinstance(part, dict) and (context := _context(part)):
            return context
    return DEFAULT_CONTEXTS.get(str(config.get("model_type")))


@lru_cache
def kv_values_per_token(model: str) -> int | None:
    """How many numbers the KV cache holds for a token, all layers together; None if it is not the same number for
    every token (a window, layers without attention) or unknown."""
    config = _config(model, from_hub=False)
    config = next((part for name in TEXT_CONFIGS if isinstance(part := config.get(name), dict)), config)
    kinds = {*(config.get("layer_types") or ()), *(config.get("layers_block_type") or ())} - {"full_attention"}
    windowed = config.get("sliding_window") and config.get("use_sliding_window", True)
    with suppress(KeyError, TypeError, ZeroDivisionError):
        if kinds or windowed or "mamba" in str(config.get("architectures")).lower():
            return None
        if config.get("kv_lora_rank"):  # latent attention: one vector for all heads
            return int(config["num_hidden_layers"] * (config["kv_lora_rank"] + config["qk_rope_head_dim"]))
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        return int(2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * width)
    return None


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


class NoTokenizer(InputError):
    """The model is there, but nothing that counts its tokens; its server may."""


def load_tokenizer(name: str, option: str = "--tokenizer") -> Tokenizer:
    """From a directory with a tokenizer's file, such a file, or the Hugging Face hub. Raises InputError.

    `option` is the one that names it: --model, unless the tokenizer is given on its own.
    Switches off truncation and padding, which some files still have from training: they falsify every count.
    """
    asked = f"{option} {name}"
    path = expanded(option, name)
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputError(f"{asked}: there is no such directory or file; give one, or a Hugging Face id")
    try:
        if not path.exists():
            with _hub_errors(asked, name):
                path = _hub_folder(name)
        folder = path.parent if path.suffix == ".gguf" else path
        file = path if path.is_file() and folder == path else folder / "tokenizer.json"
        known = file.is_file() and not file_of(file)
        tokenizer = Tokenizer.from_file(str(file)) if known else _of_other_files(asked, name, path)
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        short = shorten(reason, 150, placeholder=" ...")
        raise InputError(f"{asked}: its tokenizer cannot be loaded ({short}); give a directory or file") from error
    if isinstance(tokenizer, Tokenizer):
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def _hub_folder(name: str) -> Path:
    """Where the hub's cache has a model's tokenizer.json, else the files of another tokenizer."""
    from huggingface_hub import errors, snapshot_download

    try:
        return hub_file(name, "tokenizer.json").parent
    except Exception as error:
        if not unreachable and not isinstance(error, errors.EntryNotFoundError):
            raise
    files, here = [*FORMS, "*config.json"], bool(unreachable)
    return Path(snapshot_download(name, allow_patterns=files, etag_timeout=HUB_TIMEOUT_S, local_files_only=here))


@contextmanager
def _hub_errors(asked: str, name: str) -> Iterator[None]:
    """Say in one line why the hub does not give a model. That only the file is not there is no error here."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        key = "the key in $HF_TOKEN may not read it" if os.environ.get("HF_TOKEN") else "$HF_TOKEN is not set"
        licence = f"accept its licence at https://huggingface.co/{name} and set $HF_TOKEN"
        raise InputError(f"{asked}: this model is gated, and {key}; {licence}") from error
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise unreached(asked) from error
    except (errors.RepositoryNotFoundError, ValueError) as error:  # ValueError: it cannot be a name
        private = "" if os.environ.get("HF_TOKEN") else ", or set $HF_TOKEN if the model is private"
        nowhere = f"{asked}: no such directory, and no such model on the Hugging Face hub"
        raise InputError(f"{nowhere}; correct the name{private}") from error
    except Exception as error:
        if error not in unreachable:
            raise
        raise unreached(asked) from error


def unreached(asked: str) -> InputError:
    return InputError(
        f"{asked}: no such directory, not in the hub's cache, and the Hugging Face hub cannot be reached; "
        "give the model's directory, another --tokenizer, or connect to the network"
    )


def _of_other_files(asked: str, name: str, path: Path) -> Tokenizer:
    """By the library of their format, else by transformers, whichever is installed."""
    there = file_of(path.parent if path.suffix == ".gguf" else path)
    with suppress(ImportError):
        if there:
            return other_tokenizer(there)  # type: ignore[return-value]  # it has those methods that are used
    if path.suffix == ".gguf":
        raise NoTokenizer(
            f"{asked}: no tokenizer.json is beside it; give --tokenizer, the folder of the model it was made from"
        )
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        only = f", only {there.name}; pip install '.[tokenizers]' to read it, or" if there else ";"
        raise NoTokenizer(
            f"{asked}: no tokenizer.json in it{only} name another that gives the same counts, or make one "
            'with transformers: python -c "from transformers import AutoTokenizer as A; '
            f"A.from_pretrained('{name}').save_pretrained('tokenizer')\" and give --tokenizer tokenizer"
        ) from error
    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(name).backend_tokenizer
    return tokenizer
