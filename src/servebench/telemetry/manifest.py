"""What a server turns out to be, once it is ready: its engine in its own words, its GPUs, its model's files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from servebench.log.config import ServerConfig
from servebench.log.identity import content_of, engine_variables
from servebench.log.schema import ServerFacts
from servebench.log.telemetry import Machine
from servebench.servers.backends import BACKENDS
from servebench.servers.backends.contract import visible_gpus
from servebench.servers.server import Server
from servebench.telemetry import engine_says, gpus
from servebench.telemetry.host import of_sessions
from servebench.telemetry.machine import machine
from servebench.workload.model_files import cached_file, kv_values_per_token, snapshot


def begun(server: Server, weights_cached_share: float | None) -> Server:
    """With what is known before it was asked anything: the GPUs that a server of ours uses, how it started."""
    if not server.processes:
        return server
    config, visible = server.config, [*map(str, server.config.gpus)] or visible_gpus()
    some = visible != [] and BACKENDS[config.backend].uses_gpus(config)
    used = gpus.used_by(visible or (), config.workers, machine().gpus) if some else []
    facts = replace(server.facts, gpus=used, weights_cached_share=weights_cached_share)
    return dataclasses.replace(server, facts=facts)


def described(server: Server, tokenizer: str) -> ServerFacts:
    """What the server is by its own words and its files; to be asked after a load, since answers take it time."""
    config, facts, processes = server.config, server.facts, server.processes
    commands = [process.command for process in processes]  # that of a router comes last
    known = BACKENDS[config.backend].lists_models
    said = engine_says.asked(server.engines, server.headers, commands) if known else []
    tokens = [each.kv_cache_tokens for each in said]
    facts = replace(
        facts,
        version=", ".join(dict.fromkeys(each.name for each in said if each.name)),
        configuration=next((each.configuration for each in said if each.configuration), {}),
        kv_cache_tokens=sum(filter(None, tokens)) if tokens and None not in tokens else None,
        kv_values_per_token=kv_values_per_token(config.model),
        tokenizer_hash=tokenizer_hash(tokenizer),
    )
    if not processes:
        return facts
    backend = engine_says.attention_backend(processes[0].log_file) if config.backend == "vllm" else {}
    return replace(
        facts,
        configuration=facts.configuration | backend,
        other_processes=_other_processes(facts.gpus, [pid for process in processes for pid in process.leaders]),
        model_revision=model_revision(config),
        variables=engine_variables(),
    )


def model_revision(config: ServerConfig) -> str:
    """The commit of a model of the hub; of one here a hash of what is in it."""
    of_content = content_of(config.model)
    if of_content != config.model:
        return of_content.rpartition(" ")[2]
    folder = snapshot(config.model, config.engine_args)
    return folder.name if folder else ""


@cache
def tokenizer_hash(name: str) -> str:
    """Of the tokenizer.json that requests are made with; of one of another form it is unknown."""
    path = Path(os.path.expanduser(name))
    folder = path.parent if path.suffix == ".gguf" else path
    here = path if path.is_file() and folder == path else folder / "tokenizer.json"
    file = here if path.exists() else cached_file(name, "tokenizer.json")
    with suppress(OSError):
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file else ""
    return ""


def _other_processes(used: Sequence[int], leaders: Sequence[int]) -> list[str]:
    """What else computes on these GPUs. Where our engine is not listed, pids are of another namespace."""
    found: dict[int, str] = {}
    with suppress(OSError):
        reader = gpus.Reader(used) if used else None
        found = {pid: name for index in used if reader for pid, name in reader.processes(index) or []}
    others = [f"{pid} {name}".strip() for pid, name in sorted(found.items()) if not of_sessions(pid, leaders)]
    return others if len(others) < len(found) else []


def machine_of(server: Server) -> Machine | None:
    """This host, if the server runs on it."""
    return machine() if server.processes or all(map(is_here, server.urls)) else None


def is_here(url: str) -> bool:
    """Whether a URL leads to this host, as far as its name alone tells."""
    name = (urlsplit(url).hostname or "").lower()
    return name in ("localhost", "::1", socket.gethostname().lower()) or name.startswith("127.")
