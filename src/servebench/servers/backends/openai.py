"""Any server that speaks OpenAI's completions or chat API: attached to, never started. And its requests."""

from __future__ import annotations

from typing import Any

from servebench.log.config import RunConfig
from servebench.servers.backends.contract import Backend

VLLM_COUNTERS = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")

TGI_METRICS = {  # no launcher of ours starts it, but many such servers run
    "running": ("tgi_batch_current_size",),
    "waiting": ("tgi_queue_size",),
    "queue_s": ("tgi_request_queue_duration",),
}


def standard_body(run: RunConfig, model: str, prompt: str, max_new_tokens: int) -> dict[str, Any]:
    """The fields that every OpenAI-compatible server knows, and usage at the end of a stream."""
    text = {"prompt": prompt} if run.api == "completions" else {"messages": [{"role": "user", "content": prompt}]}
    sampling = {"temperature": run.temperature, "top_p": run.top_p}
    counting = {"stream_options": {"include_usage": True}} if run.stream else {}
    return {"model": model, **text, "max_tokens": max_new_tokens, "stream": run.stream, **sampling, **counting}


def body(run: RunConfig, model: str, prompt: str, max_new_tokens: int) -> dict[str, Any]:
    """`ignore_eos` is known to vLLM, SGLang, llama.cpp, ... ; others ignore it or need --respect_eos."""
    return standard_body(run, model, prompt, max_new_tokens) | ({} if run.respect_eos else {"ignore_eos": True})


def body_counting_every_event(run: RunConfig, model: str, prompt: str, max_new_tokens: int) -> dict[str, Any]:
    """With usage in every event, tokens are counted exactly even when the engine merges several into one event."""
    counting = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}} if run.stream else {}
    return body(run, model, prompt, max_new_tokens) | counting


BACKEND = Backend(body, cache_counters=VLLM_COUNTERS, metrics=TGI_METRICS)  # the server may be a vLLM
