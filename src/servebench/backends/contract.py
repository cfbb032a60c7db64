"""What an engine's file has to say: how it is launched and what its requests carry beyond OpenAI's fields."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servebench.records import InputError, RunConfig, ServerConfig

REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Launch:
    """One process to start: the command, and what its environment has on top of ours."""

    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Backend:
    """An engine. `launch(config, port, replica)` and `version()` raise InputError if it is not installed."""

    version: Callable[[], str]  # "package version", part of every point's identity
    launch: Callable[[ServerConfig, int, int], Launch] | None  # None: only attached to
    # The body of a request: (run, model, prompt, max_new_tokens).
    body: Callable[[RunConfig, str, str, int], dict[str, Any]]
    reset_cache: str | None = None  # POSTed between points, to empty the prefix cache
    salted: bool = False  # it knows `cache_salt`: requests of unlike salts share nothing in the prefix cache
    cache_counters: tuple[str, str] | None = (
        None  # in /metrics: prompt tokens found in the cache, looked for in it
    )
    headers: Callable[[ServerConfig], dict[str, str]] = lambda _: {}  # of a request, beyond the key
    lists_models: bool = True  # it answers GET /v1/models, and /health while it loads


def engine_home(*names: str) -> Path:
    """The first installed environment of these names under .engines (or $SERVEBENCH_ENGINES)."""
    root = Path(os.environ.get("SERVEBENCH_ENGINES", REPOSITORY / ".engines"))
    for name in names:
        if (root / name / ".installed").exists():
            return root / name
    recipes = " or ".join(f"./engines/{name}.sh" for name in names)
    raise InputError(f"{names[0]} is not installed in {root}; install it: {recipes}")


def installed_version(home: Path) -> str:
    return (home / ".installed").read_text().strip()
