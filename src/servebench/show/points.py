"""What the points of a folder are called: by the settings in which they differ, and by their load."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from servebench.analysis import differences
from servebench.analysis.cache import once_a_log
from servebench.log.config import RunConfig, all_fields
from servebench.log.schema import Log, engine_name, model_name

Runs = list[Log]  # of one point
LAYOUT = (
    "backend",
    "model",
    "tp_size",
    "num_replicas",
    "max_ragged_batch_size",
)  # what a server is, before all else
NO_SETTINGS = ("repetition", "variant", "check_sha256")  # a name for flags; what `check` says
LOADS = {"clients": "{} clients", "rate": "{} requests/s", "trace": "trace x{}"}


@once_a_log
def settings(log: Log) -> dict[str, Any]:
    """All that a point was measured with, whichever run: what it is of first, then the rest."""
    fields = log.fields | log.identity.get("environment", {}) | {"engine": log.server_facts.engine}
    fields |= {"model": model_name(log.server.model), "backend": log.server.engine}
    first = {name: fields[name] for name in LAYOUT}
    return first | {name: _hashable(value) for name, value in fields.items() if name not in NO_SETTINGS}


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | tuple | None) else str(value)


def varying(logs: Iterable[Log]) -> list[str]:
    """The settings that are not the same in all of them."""
    values: dict[str, set[Any]] = {}
    for log in logs:
        for name, value in settings(log).items():
            values.setdefault(name, set()).add(value)
    return [name for name, different in values.items() if len(different) > 1]


def telling(*sides: Sequence[Log]) -> list[str]:
    """The settings that, with requests and load, tell the points of each side apart.

    Of a layout all that vary. Of what else a server has, those that do not follow from these; of a run, those that
    do not follow from its requests and load either.
    """
    of_run = all_fields(RunConfig())
    found: list[str] = []
    for name in dict.fromkeys(name for side in sides for name in varying(side)):
        if name in LAYOUT or any(not _follows(side, name, found, name in of_run) for side in sides):
            found.append(name)
    return found


def _follows(logs: Iterable[Log], name: str, names: Sequence[str], of_run: bool) -> bool:
    """Does a setting follow from others, and of a run also from its requests and load?"""
    seen: dict[Any, Any] = {}
    for log in logs:
        key = (values(log, names), asked(log.run) if of_run else "")
        if seen.setdefault(key, settings(log).get(name)) != settings(log).get(name):
            return False
    return True


def values(log: Log, names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(settings(log).get(name) for name in names)


def asked(run: RunConfig) -> tuple[str, str]:
    """Requests and load, in words."""
    requests = run.requests
    lengths = f"prompt {requests.mean_prompt_length} gen {requests.mean_max_new_tokens}"
    return requests.name or lengths, load_words(run)


def load_words(run: RunConfig) -> str:
    """`8 clients`, `4 requests/s`."""
    return sized(run.load.kind, run.load.size)


def sized(kind: str, size: float) -> str:
    """A load of this kind and size, likewise."""
    load = LOADS[kind].format(f"{size:g}")
    return "1 client" if load == "1 clients" else load


def named(points: Sequence[Runs], names: Sequence[str]) -> list[str]:
    """Each point by these settings, by its requests if there are several kinds, and by its load."""
    several = len({asked(runs[0].run)[0] for runs in points}) > 1
    logs = [runs[0] for runs in points]
    shown = differences.shown(logs)
    parts = [[in_words(log, names, shown), *(asked(log.run) if several else asked(log.run)[1:])] for log in logs]
    return [", ".join(filter(None, part)) for part in parts]


def in_words(log: Log, names: Collection[str], shown: Callable[[Log, Iterable[str]], list[str]]) -> str:
    """`vLLM TP 2 x 1, batch 768, enforce-eager`: only these settings; `shown` is of differences.shown."""
    server = log.server
    words = [engine_name(server.engine)] if "backend" in names else []
    words += [server.layout] if {"tp_size", "num_replicas"} & set(names) else []
    parts = [" ".join(words)]
    parts += [model_name(server.model)] if "model" in names else []
    parts += [f"batch {server.max_ragged_batch_size}"] if "max_ragged_batch_size" in names else []
    rest = [name for name in names if name not in LAYOUT]
    return ", ".join(filter(None, [*parts, *shown(log, rest)]))
