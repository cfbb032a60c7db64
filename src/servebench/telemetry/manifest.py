"""What a server turns out to be, once it is ready: its engine in its own words, its GPUs, its model's files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import psutil
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
from servebench.workload.model_files import OTHER_TOKENIZERS, cached_file, snapshot

LOG_BYTES = 1 << 20  # of an engine's log, from its start


def begun(server: Server, weights_cached_share: float | None) -> Server:
    """With what is known before it was asked anything: the GPUs that a server of ours uses, how it started."""
    if not server.processes:
        return server
    used = used_gpus(server.config)
    facts = replace(server.facts, gpus=used, weights_cached_share=weights_cached_share)
    return dataclasses.replace(server, facts=facts)


def described(server: Server, tokenizer: str) -> ServerFacts:
    """What the server is by its own words and its files; to be asked after a load, since answers take it time."""
    said = []
    if BACKENDS[server.config.backend].lists_models:
        commands = [process.command for process in server.processes]
        said = engine_says.asked(server.engines, server.config.backend, server.headers, commands)
    configuration = next((each.configuration for each in said if each.configuration), {})
    facts = replace(
        server.facts,
        version=", ".join(dict.fromkeys(each.name for each in said if each.name)),
        configuration=configuration | _attention_backend(server),
        kv_cache_tokens=_together([each.kv_cache_tokens for each in said]),
        tokenizer_hash=tokenizer_hash(tokenizer),
    )
    if not server.processes:
        return facts
    return replace(
        facts,
        other_processes=other_processes(facts.gpus, [process.popen.pid for process in server.processes]),
        model_revision=model_revision(server.config),
        variables=engine_variables(),
    )


def _together(tokens: Sequence[int | None]) -> int | None:
    known = [n for n in tokens if n is not None]
    return sum(known) if known and len(known) == len(tokens) else None


def _attention_backend(server: Server) -> dict[str, str]:
    """vLLM says in its log alone which one it chose."""
    for process in server.processes if server.config.backend == "vllm" else ():
        with suppress(OSError), process.log_file.open("rb") as log:
            if chosen := engine_says.attention_backend(log.read(LOG_BYTES).decode(errors="replace")):
                return {"attention.backend": chosen}
    return {}


# Its files.


def model_revision(config: ServerConfig) -> str:
    """The commit of a model of the hub; of one here a hash of what is in it."""
    of_content = content_of(config.model)
    if of_content != config.model:
        return of_content.rpartition(" ")[2]
    folder = snapshot(config.model, config.engine_args)
    return folder.name if folder else ""


@cache
def tokenizer_hash(name: str) -> str:
    """Of the tokenizer that requests are made with."""
    path = Path(os.path.expanduser(name))
    folder = path.parent if path.suffix == ".gguf" else path
    forms = ("tokenizer.json", *OTHER_TOKENIZERS)
    here = [path] if path.is_file() and folder == path else [file for form in forms for file in folder.glob(form)]
    file = here[0] if here else None if path.exists() else cached_file(name, "tokenizer.json")
    with suppress(OSError):
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file else ""
    return ""


# Its machine.


def used_gpus(config: ServerConfig) -> list[int]:
    """Of this machine's GPUs those that a server of ours uses."""
    if not BACKENDS[config.backend].uses_gpus():
        return []
    visible = [*map(str, config.gpus)] or visible_gpus()
    return [] if visible == [] else gpus.used_by(visible or (), config.workers, machine().gpus)


def other_processes(used: Sequence[int], leaders: Sequence[int]) -> list[str]:
    """What else computes on these GPUs. Where our engine is not listed, pids are of another namespace."""
    with suppress(OSError):
        reader = gpus.Reader(used) if used else None
        found = dict(pair for index in used for pair in (reader and reader.processes(index)) or [])
        others = {pid: name for pid, name in found.items() if not of_sessions(pid, leaders)}
        if len(others) < len(found):
            return [f"{pid} {name}".strip() for pid, name in sorted(others.items())]
    return []


def machine_of(server: Server) -> Machine | None:
    """This host, if the server runs on it."""
    return machine() if server.processes or all(map(is_here, server.urls)) else None


def is_here(url: str) -> bool:
    """Whether a URL leads to this host, as far as it can be told without asking a name server."""
    name = (urlsplit(url).hostname or "").lower()
    try:
        address = ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost") or name == socket.gethostname().lower()
    own = {each.address.partition("%")[0] for of_port in psutil.net_if_addrs().values() for each in of_port}
    return address.is_loopback or str(address) in own
