"""SGLang: `sglang.launch_server` from .engines/sglang (CUDA), one server a replica."""

from __future__ import annotations

from servebench.log.schema import ServerConfig, model_label
from servebench.servers.backends import openai
from servebench.servers.backends.contract import (
    Backend,
    Launch,
    engine_home,
    gpus_of,
    installed_version,
    most_sequences,
)


def version() -> str:
    return installed_version(engine_home("sglang"))


def launch(config: ServerConfig, port: int, replica: int) -> Launch:
    command = [str(engine_home("sglang") / "bin/python"), "-m", "sglang.launch_server"]
    command += ["--model-path", config.model, "--served-model-name", model_label(config.model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--tp-size", str(config.tp_size)]
    command += most_sequences(config, "--max-running-requests")
    return Launch((*command, *config.engine_args), gpus_of(config, replica))


BACKEND = Backend(version, launch, openai.body_counting_every_event, reset_cache="/flush_cache")
