"""Any engine that speaks OpenAI's API, by its command line: one process or container a replica.

--backend command --serve "trtllm-serve {model} --port {port} --tp_size {tp_size}"
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from string import Formatter

from servebench.errors import InputError
from servebench.log.config import DEFAULTS, ServerConfig
from servebench.servers import containers
from servebench.servers.backends.contract import Backend, Launch, gpu_env, gpus_of
from servebench.servers.backends.installed import Installed
from servebench.servers.backends.openai import VLLM_COUNTERS, body

PLACEHOLDERS = ("model", "port", "tp_size", "gpus", "replica", "max_batch")


def launch(engine: Installed, config: ServerConfig, port: int, replica: int) -> Launch:
    check(config)
    gpus, batch = ",".join(gpus_of(config, replica)), config.max_ragged_batch_size
    values = dict(zip(PLACEHOLDERS, (config.model, port, config.tp_size, gpus, replica, batch), strict=True))
    program, *words = [word.format_map(values) for word in config.serve]
    if not (found := shutil.which(program)):
        raise InputError(f"--serve: the program {program} is not found; install it, or write its path")
    return Launch(
        (found, *words, *config.engine_args), gpu_env(config, replica) if BACKEND.uses_gpus(config) else {}
    )


def check(config: ServerConfig) -> None:
    """Raises InputError for a command that would not get what it is asked for."""
    try:
        named = {name for word in config.serve for _, name, _, _ in Formatter().parse(word) if name is not None}
    except ValueError as error:
        raise InputError(f"--serve: {error}; write {{{{ and }}}} for braces that are no placeholder") from error
    if unknown := sorted(named.difference(PLACEHOLDERS)):
        known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise InputError(f"--serve: {{{unknown[0]}}} is none of {known}; write {{{{ and }}}} for other braces")
    batch = config.max_ragged_batch_size
    asked = {
        "port": "each server gets a port",
        "tp_size": f"--tp_size is {config.tp_size}" if config.tp_size > 1 else "",
        "max_batch": f"--max_ragged_batch_size is {batch}" if batch != DEFAULTS["max_ragged_batch_size"] else "",
        "gpus": "a container gets --gpus" if config.gpus and containers.client_of(config.serve) else "",
    }
    for name, why in asked.items():
        if why and name not in named:
            raise InputError(f"{why}, but --serve has no {{{name}}}; write it where the engine takes it")


def name_of(serve: Sequence[str]) -> str:
    """The program, or the image without its registry and version."""
    if containers.client_of(serve):
        return re.split("[@:]", Path(containers.options_and_image(serve)[1]).name)[0]
    programs = (Path(word).name for word in serve if "=" not in word and not word.startswith("-"))
    return next((name for name in programs if name not in ("sudo", "env")), "")


def version(config: ServerConfig) -> str:
    """With its image, if that is here already. The version it tells once it runs."""
    return f"{config.engine} {containers.digest_of(config.serve).removeprefix('sha256:')[:12]}".strip()


BACKEND = Backend(body, launch, named=version, cache_counters=VLLM_COUNTERS)  # it may be a vLLM
