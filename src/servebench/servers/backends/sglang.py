"""SGLang: `sglang.launch_server` from .engines/sglang (CUDA), one server a replica."""

from __future__ import annotations

from servebench.log.config import ServerConfig
from servebench.log.schema import model_label
from servebench.servers.backends.contract import Backend, Launch, batch_args, gpu_env
from servebench.servers.backends.installed import Installed
from servebench.servers.backends.openai import body_counting_every_event

METRICS = {
    "running": ("sglang:num_running_reqs",),
    "waiting": ("sglang:num_queue_reqs",),
    "kv_cache_usage": ("sglang:token_usage",),
    "preemptions": ("sglang:num_retracted_requests_total",),
    "prefix_cache_hits": ("sglang:cached_tokens_total",),
    "prefix_cache_queries": ("sglang:prompt_tokens_total",),
    "queue_s": ("sglang:queue_time_seconds",),
    "ttft_s": ("sglang:time_to_first_token_seconds",),
}


def launch(engine: Installed, config: ServerConfig, port: int, replica: int) -> Launch:
    command = [str(engine.program), "-m", "sglang.launch_server"]
    command += ["--model-path", config.model, "--served-model-name", model_label(config.model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--tp-size", str(config.tp_size)]
    command += [*batch_args(config, "--max-running-requests"), "--enable-metrics"]
    return Launch((*command, *config.engine_args), gpu_env(config, replica))


BACKEND = Backend(
    body_counting_every_event,
    launch,
    environments=("sglang",),
    packages=("sglang", "sglang-cpu"),
    reset_cache_path="/flush_cache",
    unsaid="the model's generation_config.json",
    metrics=METRICS,
    gives_logprobs=True,
)
