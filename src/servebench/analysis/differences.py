"""Settings in which logs differ: points that differ in one do not belong to one curve."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from servebench.analysis.cache import once_a_log
from servebench.analysis.variants import flags_of, names_of, shortened
from servebench.log.schema import Log

# Fields that a figure or a row shows as its sizes and load, or that the points of one curve need not share.
SHOWN_ELSEWHERE = {
    *("model", "tp_size", "max_ragged_batch_size", "num_replicas", "variant", "label"),
    *("mean_prompt_length", "mean_max_new_tokens", "scenario", "dataset"),
    *("num_clients", "request_rate", "trace_speed", "num_requests", "warmup", "repetition", "seed"),
    *("stop_when_overloaded", "request_timeout", "max_retries"),
}
FLAGS = ("engine_args", "engine_env", "serve", "variant")  # which have one name together


@once_a_log
def settings(log: Log) -> dict[str, str]:
    """What else a point was measured with, in words: two that differ in it are no points of one curve."""
    fields = log.fields | log.identity.get("environment", {})
    words = {name: _in_words(name, value) for name, value in fields.items() if name not in SHOWN_ELSEWHERE}
    return words | {"engine": log.server_facts.engine or "engine unknown"}


def shown(logs: Iterable[Log]) -> Callable[[Log, Iterable[str]], list[str]]:
    """How settings of one of these logs are shown, each once: flags by how they differ, the rest cut if long."""
    names = names_of(log.server for log in logs)

    def of_setting(log: Log, name: str) -> str:
        if name in FLAGS:
            return names[flags_of(log.server)]
        return shortened(settings(log).get(name) or f"{name} {log.fields.get(name)}")

    return lambda log, wanted: list(dict.fromkeys(of_setting(log, name) for name in wanted))


def _in_words(name: str, value: Any) -> str:
    """`stream False`, `no engine_args`, `dataset_sha256 1a2b3c`; of a URL only where it leads to."""
    if value in (None, "", (), {}):
        return f"no {name}"
    if name == "urls":
        value = [f"{url.hostname}:{url.port}" if url.port else url.hostname for url in map(urlsplit, value)]
    words = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"{name} {words[:6] if name == 'dataset_sha256' else words}"


def differing(logs: Iterable[Log]) -> list[str]:
    """The settings that are not the same in all of these logs. A point that failed may not know its engine."""
    values: dict[str, set[str]] = {}
    for log in logs:
        for name, words in settings(log).items():
            if name != "engine" or log.server_facts.engine:
                values.setdefault(name, set()).add(words)
    return [name for name, different in values.items() if len(different) > 1]


def differing_within(logs: Iterable[Log]) -> list[str]:
    """The settings in which logs of one backend differ: between backends some always do (the engine, the API)."""
    of_backend: dict[str, list[Log]] = {}
    for log in logs:
        of_backend.setdefault(log.server.engine, []).append(log)
    return list(dict.fromkeys(name for same in of_backend.values() for name in differing(same)))
