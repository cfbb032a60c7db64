"""Any server that speaks OpenAI's completions or chat API: attached to, never started. And its requests."""

from __future__ import annotations

from typing import Any

from servebench.backends.contract import Backend
from servebench.records import RunConfig

ENDPOINTS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


def root_url(url: str) -> str:
    """`http://host/v1`, `http://host/v1/completions`, ... -> `http://host`."""
    url = url.rstrip("/")
    for ending in (*ENDPOINTS.values(), "/v1"):
        url = url.removesuffix(ending)
    return url


def request_body(run: RunConfig, model: str, prompt: str, max_new_tokens: int) -> dict[str, Any]:
    """The fields that every OpenAI-compatible server knows."""
    text = {"prompt": prompt} if run.api == "completions" else {"messages": [{"role": "user", "content": prompt}]}
    sampling = {"temperature": run.temperature, "top_p": run.top_p}
    return {"model": model, **text, "max_tokens": max_new_tokens, "stream": run.stream, **sampling}


def version() -> str:
    return "attached"


def extra_body(run: RunConfig) -> dict[str, Any]:
    """`ignore_eos` is known to vLLM, SGLang, llama.cpp, ... ; others ignore it or need --respect_eos."""
    counting = {"stream_options": {"include_usage": True}} if run.stream else {}
    return counting | ({} if run.respect_eos else {"ignore_eos": True})


BACKEND = Backend(version, None, extra_body)
