"""The serving engines: one file each, one line each here."""

from __future__ import annotations

from servebench.backends import llamacpp, openai, vllm
from servebench.backends.contract import Backend

BACKENDS: dict[str, Backend] = {
    "vllm": vllm.BACKEND,
    "llamacpp": llamacpp.BACKEND,
    "openai": openai.BACKEND,
}

LATER = {  # named by the command line already, so that the spec's commands are understood
    "fastgen": "DeepSpeed-MII is not supported yet",
    "aml": "Azure ML endpoints are not supported yet",
}
