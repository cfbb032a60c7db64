"""What an engine's file has to say: how it is launched and what its requests carry beyond OpenAI's fields."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from servebench.errors import InputError
from servebench.log.schema import RunConfig, ServerConfig

MII_BATCH = 768  # the default of --max_ragged_batch_size
REPOSITORY = Path(__file__).parents[4]


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
    # The body of a request: (run, model, prompt, max_new_tokens), and its bytes.
    body: Callable[[RunConfig, str, str, int], dict[str, Any]]
    encode: Callable[[dict[str, Any]], bytes] = msgspec.json.encode
    endpoint: Callable[[str, RunConfig], str] | None = None  # where requests go; None: OpenAI's paths
    api: str | None = None  # the only one it speaks
    reset_cache: str | None = None  # POSTed between points, to empty the prefix cache
    salted: bool = False  # it knows `cache_salt`: requests of unlike salts share nothing in the prefix cache
    # In /metrics: prompt tokens that were found in the prefix cache, and that were looked for in it.
    cache_counters: tuple[str, str] | None = None
    headers: Callable[[ServerConfig], dict[str, str]] = lambda _: {}  # of a request, beyond the key
    lists_models: bool = True  # it answers GET /v1/models, and /health while it loads
    ready: str | None = None  # what its log says when it is ready; None: it answers GET /health
    # Words that give it room for so many requests at once, of so many tokens each; None: it fills its memory.
    room: Callable[[ServerConfig, int, int], tuple[str, ...]] | None = None
    # One launch brings all replicas, on so many ports from the first one; None: a launch and a port a replica.
    ports: Callable[[ServerConfig], int] | None = None

    def launches(self, config: ServerConfig) -> tuple[int, int]:
        """(how many processes are launched, consecutive ports that each needs)."""
        return (1, self.ports(config)) if self.ports else (config.num_replicas, 1)


def most_sequences(config: ServerConfig, option: str) -> list[str]:
    """The engine's own limit, unless another than the default is asked for, which is MII's: tokens of a step."""
    batch = config.max_ragged_batch_size
    return [] if batch == MII_BATCH else [option, str(batch)]


def gpus_of(config: ServerConfig, replica: int) -> dict[str, str]:
    """Each replica gets the next tp_size GPUs of --gpus, or of those visible; a single one sees what we see."""
    check_gpus(config)
    everything = [*map(str, config.gpus)] or visible_gpus()
    if config.num_replicas == 1 and not config.gpus:
        return {}
    first, last = replica * config.tp_size, (replica + 1) * config.tp_size
    return {"CUDA_VISIBLE_DEVICES": ",".join((everything or [str(gpu) for gpu in range(last)])[first:last])}


def visible_gpus() -> list[str] | None:
    """Those that $CUDA_VISIBLE_DEVICES names, each once; None where it does not say."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if named is None else list(dict.fromkeys(gpu.strip() for gpu in named.split(",") if gpu.strip()))


def check_gpus(config: ServerConfig) -> None:
    """No two workers share a GPU, and none goes without. Raises InputError."""
    wanted, visible = config.tp_size * config.num_replicas, visible_gpus()
    if not config.gpus and visible is not None and len(visible) < wanted:
        raise InputError(
            f"--tp_size {config.tp_size} x --num_replicas {config.num_replicas} needs {wanted} GPUs, and "
            f"$CUDA_VISIBLE_DEVICES shows {len(visible)} ({','.join(visible)}); show more or ask for less"
        )


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
