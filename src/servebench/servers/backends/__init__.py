"""The serving engines: one file each, one line each here."""

from __future__ import annotations

from servebench.servers.backends import aml, fastgen, llamacpp, openai, sglang, vllm
from servebench.servers.backends.contract import Backend

BACKENDS: dict[str, Backend] = {
    "fastgen": fastgen.BACKEND,
    "vllm": vllm.BACKEND,
    "sglang": sglang.BACKEND,
    "llamacpp": llamacpp.BACKEND,
    "openai": openai.BACKEND,
    "aml": aml.BACKEND,
}
