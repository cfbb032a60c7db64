"""What an engine says of itself: version, the settings in effect that decide, and the room in its KV cache.

Whatever a server answers, and however slowly, is survived: what cannot be read stays unknown.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, NamedTuple

import msgspec

from servebench.cli.keys import hide_in_fields, pop_option
from servebench.load.chunks import UNREADABLE, tolerant_json
from servebench.log.schema import ENGINE_NAMES
from servebench.log.urls import beside
from servebench.servers.http_call import call

PATIENCE_S = 2.0
OURS_S = 10.0  # for servers that we started: a vLLM first collects what is installed on the machine
MOST_BYTES = 1 << 20  # of an answer
MOST_LETTERS = 200  # of a setting
PAGES = {  # where engines tell; a server of an unknown engine is asked for all of them
    "vllm": ("/version", "/metrics", "/server_info?config_format=json"),
    "sglang": ("/get_server_info", "/server_info"),  # the older name, the newer one
    "llamacpp": ("/props",),
}
VLLM_INFO = PAGES["vllm"][-1]
UNKNOWN = ("/version", "/metrics", "/get_server_info", "/props")
# What is kept. Of vLLM's names those that say too little alone are written with their section.
VLLM = {
    "model_config": ("dtype", "max_model_len", "quantization", "enforce_eager"),
    "cache_config": (
        "cache_dtype",
        "block_size",
        "gpu_memory_utilization",
        "enable_prefix_caching",
        "num_gpu_blocks",
    ),
    "scheduler_config": ("max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill", "async_scheduling"),
    "parallel_config": ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
    "attention_config": ("backend",),
    "compilation_config": ("mode", "cudagraph_mode"),
    "load_config": ("load_format",),
    "speculative_config": ("method", "model", "num_speculative_tokens"),
}
OF_SECTION = ("backend", "mode", "method", "model", "num_speculative_tokens")
SGLANG = (
    *("dtype", "quantization", "kv_cache_dtype", "context_length", "page_size", "mem_fraction_static"),
    *("max_running_requests", "effective_max_running_requests_per_dp", "max_total_num_tokens"),
    *("chunked_prefill_size", "max_prefill_tokens", "schedule_policy", "attention_backend", "sampling_backend"),
    *("disable_radix_cache", "disable_cuda_graph", "disable_overlap_schedule", "enable_torch_compile"),
    *("speculative_algorithm", "speculative_num_draft_tokens", "tp_size", "dp_size", "ep_size", "load_format"),
)
LLAMACPP = ("n_ctx", "total_slots", "model_ftype", "speculative.types")
# Which attention backend vLLM chose is in its log alone.
ATTENTION = re.compile(r"Using (?:AttentionBackendEnum\.)?([A-Z][A-Z0-9_]+)(?: attention)? backend(?! for)")
CACHE_CONFIG, LABEL = "vllm:cache_config_info{", re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Said(NamedTuple):
    """By one server."""

    engine: str = ""
    version: str = ""
    configuration: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    kv_cache_tokens: int | None = None

    @property
    def name(self) -> str:
        return f"{ENGINE_NAMES.get(self.engine, '')} {self.version}".strip() if self.version else ""


def asked(urls: Sequence[str], backend: str, headers: Mapping[str, str], commands: Sequence[str]) -> list[Said]:
    """What each server says. `commands`: how those that we launched were started; () when attached."""
    paths = PAGES.get(backend, UNKNOWN)
    addresses = [_address(url, path) for url in urls for path in paths]
    found = pages(addresses, headers, OURS_S if commands else PATIENCE_S)
    answers = [dict(zip(paths, found[i:], strict=False)) for i in range(0, len(found), len(paths))]
    of_each = [*commands, *[""] * len(urls)]
    return [understood(each, command) for each, command in zip(answers, of_each, strict=False)]


def _address(url: str, path: str) -> str:
    path, _, query = path.partition("?")
    page = beside(url, path)
    return page + (f"{'&' if '?' in page else '?'}{query}" if query else "")


def pages(urls: Sequence[str], headers: Mapping[str, str], patience_s: float) -> list[bytes]:
    """The answers, asked for side by side; empty where none came in time. Of a long one only the beginning."""
    answers = [b""] * len(urls)

    def ask(i: int) -> None:
        with suppress(OSError, ValueError):
            answers[i] = call(urls[i], headers, patience_s, at_most=MOST_BYTES)

    threads = [Thread(target=ask, args=(i,), daemon=True) for i in range(len(urls))]
    end_s = time.monotonic() + patience_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    return list(answers)


def understood(answers: Mapping[str, bytes], command: str = "") -> Said:
    """By the shape of what came, since an attached server may be any engine."""
    props = _fields(answers.get("/props", b""))
    if "total_slots" in props:
        return _llamacpp(props, command)
    info = _fields(answers.get("/server_info", b"")) | _fields(answers.get("/get_server_info", b""))
    if "max_total_num_tokens" in info or "internal_states" in info:
        return _sglang(info)
    version = str(_fields(answers.get("/version", b"")).get("version", ""))[:MOST_LETTERS]
    return _vllm(
        version, answers.get("/metrics", b"").decode(errors="replace"), _fields(answers.get(VLLM_INFO, b""))
    )


def _fields(answer: bytes) -> dict[str, Any]:
    with suppress(*UNREADABLE):
        found = tolerant_json(answer)
        return found if isinstance(found, dict) else {}
    return {}


def _kept(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of these names, without keys, and only what is short."""
    shown = hide_in_fields({name: values[name] for name in names if values.get(name) not in (None, "", {}, [])})
    return {name: value for name, value in shown.items() if len(str(value)) <= MOST_LETTERS}


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _llamacpp(props: dict[str, Any], command: str) -> Said:
    """The slots of our servers share one context of --ctx-size; how those of others do, it does not tell."""
    settings = props.get("default_generation_settings")
    settings = settings if isinstance(settings, dict) else {}
    params = settings.get("params") if isinstance(settings.get("params"), dict) else {}
    kept = _kept({**(params or {}), **props, "n_ctx": settings.get("n_ctx")}, LLAMACPP)
    given = pop_option(shlex.split(command), "--ctx-size")[1]
    alone = _whole(kept.get("n_ctx")) if kept.get("total_slots") == 1 else None
    tokens = int(given) if given.isdecimal() else alone
    return Said("llamacpp", str(props.get("build_info", ""))[:MOST_LETTERS], kept, tokens)


def _sglang(info: dict[str, Any]) -> Said:
    states = info.get("internal_states")
    state = states[0] if isinstance(states, list) and states and isinstance(states[0], dict) else {}
    tokens, ranks = _whole(info.get("max_total_num_tokens")), _whole(info.get("dp_size")) or 1
    version = str(info.get("version", ""))[:MOST_LETTERS]
    return Said("sglang", version, _kept(state | info, SGLANG), tokens and tokens * ranks)


def _vllm(version: str, metrics: str, info: Mapping[str, Any]) -> Said:
    """By its metrics, a line for each of its engines; in full by the page of its developers' mode."""
    lines = [dict(LABEL.findall(line)) for line in metrics.splitlines() if line.startswith(CACHE_CONFIG)]
    read = [{name: _value(text) for name, text in labels.items()} for labels in lines]
    config, variables = info.get("vllm_config"), info.get("vllm_env")
    if not read and not isinstance(config, dict):
        return Said("", version)
    commit = variables.get("VLLM_BUILD_COMMIT", "") if isinstance(variables, dict) else ""
    if commit not in ("", "unknown") and str(commit) not in version:
        version = f"{version} {commit}"
    tokens = [_tokens(labels) for labels in read]
    known = sum(filter(None, tokens)) if tokens and all(tokens) else None
    kept = _kept(read[0], VLLM["cache_config"]) if read else {}
    return Said("vllm", version, kept | (vllm_settings(config) if isinstance(config, dict) else {}), known)


def _tokens(cache: Mapping[str, Any]) -> int | None:
    """It counts them itself since 2026; before that in blocks."""
    blocks, size = _whole(cache.get("num_gpu_blocks")), _whole(cache.get("block_size"))
    return _whole(cache.get("kv_cache_size_tokens")) or (blocks * size if blocks and size else None)


def _value(text: str) -> Any:
    """A label as the value that it was: `16`, `0.9`, `True`."""
    try:
        return {"True": True, "False": False, "None": None}[text]
    except KeyError:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(text)
    return text


def vllm_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section, names in VLLM.items():
        values = config.get(section)
        kept = _kept(values, names) if isinstance(values, dict) else {}
        prefix = section.removesuffix("_config")
        found |= {f"{prefix}.{name}" if name in OF_SECTION else name: value for name, value in kept.items()}
    return found


def attention_backend(log: str) -> str:
    found = ATTENTION.search(log)
    return found[1] if found else ""
