"""What an engine says of itself: version, the settings in effect that decide, and the room in its KV cache.

Whatever a server answers, and however slowly, is survived: what cannot be read stays unknown.
"""

from __future__ import annotations

import re
import shlex
import time
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from servebench.cli.keys import pop_option
from servebench.load.chunks import json_object
from servebench.log.schema import ENGINE_NAMES
from servebench.log.urls import beside
from servebench.servers.http_call import call

PATIENCE_S = 2.0
OURS_S = 10.0  # for servers that we started: a vLLM first collects what is installed on the machine
MOST_BYTES, MOST_LETTERS = 1 << 20, 200  # of an answer or a log; of a setting
# Where engines tell. SGLang's newer name is that of vLLM's developers' page.
PATHS = ("/version", "/metrics", "/server_info?config_format=json", "/get_server_info", "/props")
# Names that give an engine away.
MARKS = {"llamacpp": "total_slots", "sglang": "max_total_num_tokens", "vllm": "block_size"}
# What is kept, wherever it stands in an answer. Where a name says too little alone, its section stands before it.
SETTINGS = """
    total_slots default_generation_settings.n_ctx model_ftype speculative.types dtype quantization load_format
    max_model_len enforce_eager cache_dtype block_size gpu_memory_utilization enable_prefix_caching
    num_gpu_blocks max_num_seqs max_num_batched_tokens enable_chunked_prefill async_scheduling
    tensor_parallel_size pipeline_parallel_size data_parallel_size attention_config.backend
    compilation_config.mode cudagraph_mode speculative_config.method speculative_config.model
    num_speculative_tokens VLLM_BUILD_COMMIT kv_cache_dtype context_length page_size mem_fraction_static
    max_running_requests max_total_num_tokens effective_max_running_requests_per_dp chunked_prefill_size
    max_prefill_tokens schedule_policy attention_backend sampling_backend disable_radix_cache
    disable_cuda_graph disable_overlap_schedule enable_torch_compile speculative_algorithm
    speculative_num_draft_tokens tp_size dp_size ep_size
"""
# Of vLLM's /metrics; and of its log, which alone tells the attention backend that it chose.
CACHE_CONFIG, LABEL = re.compile("^vllm:cache_config_info{.*", re.M), re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ATTENTION = re.compile(r"Using (?:AttentionBackendEnum\.)?([A-Z][A-Z0-9_]+)(?: attention)? backend(?! for)")


class Said(NamedTuple):
    """By one server."""

    engine: str
    name: str  # and version
    configuration: dict[str, Any]
    kv_cache_tokens: int | None


def asked(urls: Sequence[str], headers: Mapping[str, str], commands: Sequence[str]) -> list[Said]:
    """What each server says, all pages asked for side by side; nothing of those that are too slow.

    `commands`: how those that we launched were started; () when attached.
    """
    answers = [dict.fromkeys(PATHS, b"") for _ in urls]
    patience_s = OURS_S if commands else PATIENCE_S

    def ask(i: int, path: str) -> None:
        with suppress(OSError, ValueError):
            answers[i][path] = call(beside(urls[i], path), headers, patience_s, at_most=MOST_BYTES)

    threads = [Thread(target=ask, args=(i, path), daemon=True) for i in range(len(urls)) for path in PATHS]
    end_s = time.monotonic() + patience_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    return [
        understood(each, command) for each, command in zip(answers, commands or [""] * len(urls), strict=False)
    ]


def understood(answers: Mapping[str, bytes], command: str = "") -> Said:
    """By the names in what came, since an attached server may be any engine."""
    said = [_cache_config(answers.get("/metrics", b"")), *map(json_object, answers.values())]
    found: dict[str, Any] = {}
    with suppress(RecursionError):
        found = dict(sorted(_flat(said), key=lambda each: each[0].count(".")))
    engine = next((name for name, mark in MARKS.items() if _kept(found, [mark])), "")
    version = " ".join(map(str, _kept(found, ["build_info" if engine == "llamacpp" else "version"]).values()))
    name = f"{ENGINE_NAMES.get(engine, '')} {version}".strip() if version else ""
    return Said(engine, name, _kept(found, SETTINGS.split()) if engine else {}, _tokens(engine, found, command))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of all that JSON holds: `.cache_config.block_size`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _flat(inner, path)
    else:
        yield path, value


def _kept(found: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of these names that are short. Of several of a name the first, which stands least deep."""
    paths = [path for path, value in found.items() if 0 < len(str(value)) <= MOST_LETTERS]
    first = {name: next((path for path in paths if path.endswith(f".{name}")), None) for name in names}
    return {name: found[path] for name, path in first.items() if path}


def _cache_config(metrics: bytes) -> dict[str, Any]:
    """Of a vLLM, a line for each of its engines: that of the first, with the tokens of all."""
    lines = [LABEL.findall(line) for line in CACHE_CONFIG.findall(metrics.decode(errors="replace"))]
    engines = [{name: _value(text) for name, text in labels} for labels in lines]
    tokens = None
    with suppress(KeyError, TypeError):
        tokens = sum(of.get("kv_cache_size_tokens") or of["num_gpu_blocks"] * of["block_size"] for of in engines)
    return engines[0] | {"kv_cache_size_tokens": tokens} if engines else {}


def _value(text: str) -> Any:
    """A label as the value that it was: `16`, `0.9`, `True`."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _tokens(engine: str, found: dict[str, Any], command: str) -> int | None:
    """Slots of a llama.cpp that we started share one context of --ctx-size; how those of others do, it hides."""
    of = {path.rpartition(".")[2]: found[path] for path in reversed(found)}
    with suppress(KeyError, TypeError, ValueError):
        if engine == "llamacpp":
            given = pop_option(shlex.split(command), "--ctx-size")[1]
            return int(given or (of["n_ctx"] if of["total_slots"] == 1 else ""))
        if engine == "sglang":
            return int(of["max_total_num_tokens"] * of.get("dp_size", 1))
        return int(of["kv_cache_size_tokens"]) or None
    return None


def attention_backend(log_file: Path) -> dict[str, str]:
    """What the log of a vLLM says that it chose."""
    with suppress(OSError), log_file.open("rb") as log:
        if chosen := ATTENTION.search(log.read(MOST_BYTES).decode(errors="replace")):
            return {"attention_config.backend": chosen[1]}
    return {}
