"""Any server that speaks OpenAI's completions or chat API: attached to, never started. And its requests."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from servebench.backends.contract import Backend
from servebench.records import RunConfig

CACHE_COUNTERS = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")  # where it is a vLLM
ENDPOINTS = {"completions": "/v1/completions", "chat": "/v1/chat/completions", "score": "/score"}


def root_url(url: str) -> str:
    """`http://host/v1`, `http://host/v1/completions`, ... -> `http://host`."""
    url = url.rstrip("/")
    for ending in (*ENDPOINTS.values(), "/v1"):
        url = url.removesuffix(ending)
    return url


def api_of(url: str, otherwise: str) -> str:
    """Which API a URL speaks, if its path names one."""
    path = urlsplit(url).path.rstrip("/")
    endings = {"/score": "score", "/chat/completions": "chat", "/completions": "completions"}
    return next((api for ending, api in endings.items() if path.endswith(ending)), otherwise)


def endpoint(url: str, api: str) -> str:
    """Where requests go: the URL itself if it names this API's endpoint, else the server's for that API."""
    return url if api_of(url, "none") == api else root_url(url) + ENDPOINTS[api]


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
    """Usage in every event counts tokens exactly, also where the engine merged several into one event."""
    counting = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}} if run.stream else {}
    return body(run, model, prompt, max_new_tokens) | counting


def version() -> str:
    return "attached"


BACKEND = Backend(version, None, body, cache_counters=CACHE_COUNTERS)
