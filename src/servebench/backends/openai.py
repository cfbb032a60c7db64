"""Any server that speaks OpenAI's completions or chat API: attached to, never started. And its requests."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from servebench.backends.contract import Backend
from servebench.records import RunConfig

CACHE_COUNTERS = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")  # where it is a vLLM
ENDPOINTS = {"chat": "/chat/completions", "completions": "/completions", "score": "/score"}


def api_of(url: str, otherwise: str) -> str:
    """Which API a URL speaks, if its path names one."""
    path = urlsplit(url).path.rstrip("/")
    return next((api for api, ending in ENDPOINTS.items() if path.endswith(ending)), otherwise)


def endpoint(url: str, api: str) -> str:
    """Where requests go. The rule for URLs, as OpenAI's own clients have it:

    - what names its API (`.../chat/completions`) is taken as it stands;
    - anything else with a path is a base: `/v1`, `/api/v3`, `/openai/deployments/NAME`; the API's path follows it;
    - a URL without a path has the base `/v1`.
    A query (`?api-version=...`) goes with every call.
    """
    return _joined(url, urlsplit(url).path if api_of(url, "") == api else _base(url) + ENDPOINTS[api])


def models_url(url: str) -> str:
    """Where models are listed: beside the API."""
    return _joined(url, f"{_base(url)}/models")


def beside(url: str, path: str) -> str:
    """Where a server has what is not of the API, such as /health and /metrics: above its `/v1`."""
    return _joined(url, _base(url).removesuffix("/v1") + path)


def _base(url: str) -> str:
    path = urlsplit(url).path.rstrip("/")
    for ending in ENDPOINTS.values():
        if path.endswith(ending):
            return path.removesuffix(ending)
    return path or "/v1"


def _joined(url: str, path: str) -> str:
    """The URL with this path instead, and without what is no part of a call: user, password, fragment."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, fragment=""))


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
