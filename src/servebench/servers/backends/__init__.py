"""The serving engines: one file each, one line each here."""

from __future__ import annotations

from itertools import chain

from servebench.servers.backends import aml, command, fastgen, llamacpp, openai, sglang, vllm
from servebench.servers.backends.contract import Backend

BACKENDS: dict[str, Backend] = {
    "fastgen": fastgen.BACKEND,
    "vllm": vllm.BACKEND,
    "sglang": sglang.BACKEND,
    "llamacpp": llamacpp.BACKEND,
    "command": command.BACKEND,
    "openai": openai.BACKEND,
    "aml": aml.BACKEND,
}


def metrics_of(backend: str) -> dict[str, tuple[str, ...]]:
    """Our names of metrics -> the engine's. What no recipe installs may be any engine: all names of all."""
    own = BACKENDS[backend]
    tables = [own.metrics] if own.environments else [each.metrics for each in BACKENDS.values()]
    names = dict.fromkeys(chain(*tables))
    return {name: tuple(chain(*(table.get(name, ()) for table in tables))) for name in names}
