"""What makes two points the same: if their identities are equal, measuring again would measure the same.

The log keeps it, so that one can see in what two logs differ. Its hash tells logs of one name apart.
Fields at their default are left out, so that a new option voids nothing: no default in config.py may ever change.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from servebench.cli.keys import is_key
from servebench.log.config import RunConfig, ServerConfig, non_default_fields
from servebench.log.schema import Log, model_label
from servebench.log.urls import ENDPOINTS, endpoint

MEASUREMENT_VERSION = 1  # raise it when a version of this program measures something else under the same settings
# Paths of files (their content is hashed), the number of the run (the log's name has it), a name for flags.
NOT_IN_IDENTITY = {"dataset", "check", "request_timeout", "repetition", "variant"}
ENGINE_VARIABLE = re.compile("(CUDA|DS|GGML|HIP|LLAMA|MII|NCCL|OMP|PYTORCH|ROCR|SGL|SGLANG|TORCH|VLLM)_").match
IGNORED_VARIABLE = re.compile(r"LOGGING|USAGE_STATS|CACHE_(DIR|ROOT)").search
MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.model", "*.py")
OTHER_TOKENIZERS = ("*.tiktoken", "tokenizer.model.v*")  # which count where there is no tokenizer.json
WHOLE, SAMPLE = 1 << 25, 1 << 16  # bytes: of larger files only the ends are hashed
CONTAINER = re.compile(r"[0-9a-f]{12}").fullmatch  # a container's random host name


def identity_of(server: ServerConfig, run: RunConfig, environment: dict[str, Any]) -> dict[str, Any]:
    """Of a point; all its runs have the same."""
    drawn = {"seed"} if "seed" in environment else set()  # drawn for this time only
    of_server, of_run = (
        {name: value for name, value in non_default_fields(part).items() if name not in NOT_IN_IDENTITY | drawn}
        for part in (server, run)
    )
    of_server["model"] = content_of(server.model)
    if server.urls:
        of_server["urls"] = [_where(url, run.api) for url in server.urls]
    return {"measures": MEASUREMENT_VERSION, "server": of_server, "run": of_run, "environment": environment}


def _where(url: str, api: str) -> str:
    """Where requests go, which a base with or without its `/v1` or a `/` at its end says alike."""
    return endpoint(url, api) if api in ENDPOINTS else url.rstrip("/")


def fingerprint(identity: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:16]


def environment_of(
    engine: str,
    launched: bool,
    tokenizer: str,
    headers: Iterable[tuple[str, str]],
    gpus: Sequence[str] = (),
    model_revision: str = "",
) -> dict[str, Any]:
    """What a point depends on beyond what was asked for: the engine, the tokenizer, this host and its settings.

    `gpus`: the names of those of this host. `model_revision`: the commit of a model of the hub, if it is known.
    """
    found: dict[str, Any] = {"engine": engine, "tokenizer": content_of(tokenizer), "headers": _of_headers(headers)}
    found |= {
        "host": _host(),
        "gpus": list(gpus) if launched else [],
        "model_revision": model_revision if launched else "",
        "variables": engine_variables() if launched else {},
    }
    return {name: value for name, value in found.items() if value}


@cache
def content_of(name: str) -> str:
    """A model or tokenizer here: its name and a hash of what is in it, wherever it lies. Else the name alone."""
    path = Path(os.path.expanduser(name))
    forms = MODEL_FILES if (path / "tokenizer.json").exists() else (*MODEL_FILES, *OTHER_TOKENIZERS)
    files = [path] if path.is_file() else sorted(file for form in forms for file in path.glob(form))
    if not path.exists() or not files:
        return name
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        digest.update(file.read_bytes() if size <= WHOLE else _ends_of(file, size))
    return f"{model_label(str(path.absolute()))} {digest.hexdigest()[:12]}"


def _ends_of(file: Path, size: int) -> bytes:
    with file.open("rb") as data:
        head = data.read(SAMPLE)
        data.seek(size - SAMPLE)
        return head + data.read()


def _of_headers(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Their names, and a trace of their values where the name does not say that it is a secret."""
    traces = [
        (name.lower(), "" if is_key(name) else hashlib.sha256(value.encode()).hexdigest()[:6])
        for name, value in headers
    ]
    return sorted(" ".join(pair).strip() for pair in traces)


def engine_variables() -> dict[str, str]:
    """Of the environment, those that change engines."""
    return {
        n: v
        for n, v in sorted(os.environ.items())
        if ENGINE_VARIABLE(n) and not (is_key(n) or IGNORED_VARIABLE(n))
    }


def _host() -> str:
    name = "" if CONTAINER(platform.node()) else platform.node()
    return f"{name} {platform.machine()} {os.cpu_count()} cores".strip()


def point_key(server: ServerConfig, run: RunConfig) -> bytes:
    """What was asked for, whichever run."""
    return msgspec.json.encode([server, msgspec.structs.replace(run, repetition=0)], order="sorted")


def point_of(log: Log) -> tuple[bytes, str]:
    """The same for all runs of a point, and only for them; another version of the engine is another point."""
    if log.identity:
        return log.fingerprint.encode(), ""
    return point_key(log.server, log.run), log.server_facts.engine


def by_point(logs: Iterable[Log]) -> list[list[Log]]:
    """The runs of each point, in the order in which points appear."""
    points: dict[tuple[bytes, str], list[Log]] = {}
    for log in logs:
        points.setdefault(point_of(log), []).append(log)
    return [sorted(runs, key=lambda log: log.run.repetition) for runs in points.values()]
