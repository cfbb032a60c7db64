"""llama.cpp's HTTP server from .engines/llamacpp (the xllamacpp wheel), one server a replica."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from servebench.errors import InputError
from servebench.log.config import RunConfig, ServerConfig
from servebench.log.schema import model_label
from servebench.servers.backends import openai
from servebench.servers.backends.contract import REPOSITORY, Backend, Launch
from servebench.servers.backends.installed import Installed
from servebench.workload.model_files import expanded

MIN_CONTEXT = 8192  # tokens
MAX_SLOTS = 32  # llama.cpp decodes slots in lockstep; more than this only costs memory
METRICS = {
    "running": ("llamacpp:requests_processing",),
    "waiting": ("llamacpp:requests_deferred",),
    "kv_cache_usage": ("llamacpp:kv_cache_usage_ratio",),  # until 2025
    "draft_tokens": ("llamacpp:spec_decode_num_draft_tokens_total",),
    "accepted_tokens": ("llamacpp:spec_decode_num_accepted_tokens_total",),
}


def launch(engine: Installed, config: ServerConfig, port: int, replica: int) -> Launch:
    if config.tp_size > 1 or config.gpus:
        given = f"--tp_size {config.tp_size}" if config.tp_size > 1 else "--gpus"
        raise InputError(f"{given}: llama.cpp runs on the CPU here, each replica in one process; leave it out")
    slots = min(config.max_ragged_batch_size, MAX_SLOTS)
    command = [str(engine.program), str(REPOSITORY / "engines/llamacpp_server.py")]
    command += ["--model", str(gguf_file(config.model)), "--alias", model_label(config.model)]
    command += ["--port", str(port), "--parallel", str(slots), *config.engine_args]
    return Launch(tuple(command))


def context_size(config: ServerConfig, requests_at_once: int, request_tokens: int) -> tuple[str, ...]:
    """All slots share one context: when the requests of all slots together exceed it, they all fail."""
    if any(word.partition("=")[0] == "--ctx-size" for word in config.engine_args):
        return ()
    slots = min(config.max_ragged_batch_size, MAX_SLOTS, requests_at_once)
    return "--ctx-size", str(max(MIN_CONTEXT, slots * request_tokens))


def gguf_file(model: str) -> Path:
    """The model itself or the one .gguf in its directory."""
    path = expanded("--model", model)
    found = [path] if path.suffix == ".gguf" and path.is_file() else sorted(path.glob("*.gguf"))
    if len(found) != 1:
        raise InputError(
            f"--model {model}: llama.cpp needs one .gguf file, found {len(found)}; give its path, "
            "or for the example's model run ./engines/smollm2.sh"
        )
    return found[0]


def body(run: RunConfig, model: str, prompt: str, max_new_tokens: int) -> dict[str, Any]:
    """`cache_prompt` off: no prefix of an earlier prompt is reused."""
    return openai.body(run, model, prompt, max_new_tokens) | {"cache_prompt": False}


BACKEND = Backend(
    body,
    launch,
    environments=("llamacpp",),
    packages=("xllamacpp",),
    cpu_only=True,
    capacity_args=context_size,
    unsaid="top_k 40 and min_p 0.05",
    metrics=METRICS,
    gives_logprobs=True,
)
