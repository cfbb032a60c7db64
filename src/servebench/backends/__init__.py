"""The serving engines: one file each, one line each here."""

from __future__ import annotations

from servebench.backends import aml, llamacpp, openai, vllm
from servebench.backends.contract import Backend

BACKENDS: dict[str, Backend] = {
    "vllm": vllm.BACKEND,
    "llamacpp": llamacpp.BACKEND,
    "openai": openai.BACKEND,
    "aml": aml.BACKEND,
}

LATER = {  # named by the command line already, so that the spec's commands are understood
    "fastgen": "DeepSpeed-MII is not supported yet",
}
