"""Azure ML online endpoints: attached to by URL, key and deployment name.

A URL that ends in `/score` takes the scoring format of the original suite, whose answers are not streamed. Any
other URL is an OpenAI-compatible endpoint, streaming included.
"""

from __future__ import annotations

from typing import Any

from servebench.log.config import RunConfig, ServerConfig
from servebench.servers.backends import openai
from servebench.servers.backends.contract import Backend


def headers(config: ServerConfig) -> dict[str, str]:
    return {"azureml-model-deployment": config.deployment_name}


def body(run: RunConfig, model: str, prompt: str, max_new_tokens: int) -> dict[str, Any]:
    if run.api != "score":
        return openai.standard_body(run, model, prompt, max_new_tokens)
    sampling = {"do_sample": run.temperature > 0, "temperature": run.temperature, "top_p": run.top_p}
    length = {"max_new_tokens": max_new_tokens, "max_tokens": max_new_tokens}
    parameters = {**length, "return_full_text": False, **sampling}
    return {"input_data": {"input_string": [prompt], "parameters": parameters}}


BACKEND = Backend(body, headers=headers, lists_models=False)
