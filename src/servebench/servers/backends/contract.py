"""What the file of an engine declares: how it is launched, and what its requests carry beyond OpenAI's fields.

A new engine is one such file and its line in BACKENDS. Below are the parts that several engines share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from servebench.errors import InputError
from servebench.log.config import DEFAULTS, RunConfig, ServerConfig
from servebench.servers.backends.installed import Installed, in_active, installed_at

REPOSITORY = Path(__file__).parents[4]


@dataclass(frozen=True)
class Launch:
    """One process to start: its command, and environment variables beside those of this program."""

    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Backend:
    """An engine. Its functions raise InputError for what it cannot do."""

    # (run, model, prompt, max_new_tokens) -> the fields of a request.
    body: Callable[[RunConfig, str, str, int], dict[str, Any]]
    # (engine, config, port, replica) -> the process to start. None: such servers are only attached to.
    launch: Callable[[Installed, ServerConfig, int, int], Launch] | None = None
    # Folders under .engines that its recipes install it to. The first that exists is used.
    environments: tuple[str, ...] = ()
    # The packages that it may come in, and what starts it in the bin folder of their environment.
    packages: tuple[str, ...] = ()
    program: str = "python"
    cpu_only: bool = False  # does it run on the CPU whatever its version says?
    # (config) -> name and version of an engine that no recipe installs.
    named: Callable[[ServerConfig], str] | None = None
    # (config, requests at once, tokens of the longest request) -> engine arguments that make room for them.
    capacity_args: Callable[[ServerConfig, int, int], tuple[str, ...]] = lambda *_: ()
    # For an engine that starts all replicas in one launch: the number of consecutive ports that this takes.
    # None: a launch and a port for each replica.
    deployment_ports: Callable[[ServerConfig], int] | None = None
    # A text that its log has when it is ready. None: it answers GET /health or GET /v1/models then.
    ready_line: str | None = None
    # Whether it answers GET /v1/models, GET /health with 503 while it loads, and maybe POST /tokenize.
    lists_models: bool = True
    # The only API that it speaks. None: the API that the user chooses.
    api: str | None = None
    # (base URL, run) -> where requests go. None: OpenAI's paths.
    endpoint: Callable[[str, RunConfig], str] | None = None
    # Headers of every call, beyond the key.
    headers: Callable[[ServerConfig], dict[str, str]] = lambda _: {}
    # Fields of a request -> bytes.
    encode: Callable[[dict[str, Any]], bytes] = msgspec.json.encode
    # What it samples by where a request does not say, in words.
    unsaid: str = ""
    # A path that empties the prefix cache when POSTed to. "": it has no such path.
    reset_cache_path: str = ""
    # Whether it knows the field `cache_salt`: requests with different salts share nothing in the prefix cache.
    knows_cache_salt: bool = False
    # Whether it gives the log-probabilities of tokens when it is asked for them.
    gives_logprobs: bool = False
    # Names of counters in /metrics: prompt tokens found in the prefix cache, and prompt tokens looked up.
    cache_counters: tuple[str, str] | None = None
    # Of /metrics, our names (telemetry/engine_metrics.py) -> the names that it has had for each, newest first.
    metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def installed(self, config: ServerConfig) -> Installed:
        """The engine at --engine_path, else a recipe's, else the active environment's. Raises InputError."""
        if self.named:
            return Installed(Path(), self.named(config))
        if config.engine_path:
            return installed_at(config.engine_path, self.program, self.packages)
        try:
            folder = environment(*self.environments)
        except InputError:
            if found := in_active(self.program, self.packages):
                return found
            raise
        return Installed(folder / "bin" / self.program, (folder / ".installed").read_text().strip())

    def uses_gpus(self, config: ServerConfig) -> bool:
        """Whether what is installed runs on GPUs; where nothing is, whether it would on a machine with GPUs."""
        if self.named:
            return visible_gpus() != []
        with suppress(InputError):
            return not (self.cpu_only or self.installed(config).on_cpu)
        return True

    def processes(self, config: ServerConfig) -> tuple[int, int]:
        """(how many processes are launched, how many consecutive ports each needs)."""
        return (1, self.deployment_ports(config)) if self.deployment_ports else (config.num_replicas, 1)


def environment(*names: str) -> Path:
    """The first of these folders under .engines (or $SERVEBENCH_ENGINES) that is fully installed."""
    root = Path(os.environ.get("SERVEBENCH_ENGINES", REPOSITORY / ".engines"))
    for name in names:
        if (root / name / ".installed").exists():
            return root / name
    recipes = " or ".join(f"./engines/{name}.sh" for name in names)
    raise InputError(f"{names[0]} is not installed in {root}; install it: {recipes}")


def batch_args(config: ServerConfig, option: str) -> list[str]:
    """The option that limits sequences in a batch. At our default, which is MII's, the engine keeps its own."""
    batch = config.max_ragged_batch_size
    return [] if batch == DEFAULTS["max_ragged_batch_size"] else [option, str(batch)]


def gpu_env(config: ServerConfig, replica: int) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES for a replica: the next tp_size GPUs of --gpus, or of those visible.

    A single replica without --gpus sees what we see. Raises InputError if there are too few.
    """
    check_gpus(config)
    alone = config.num_replicas == 1 and not config.gpus
    return {} if alone else {"CUDA_VISIBLE_DEVICES": ",".join(gpus_of(config, replica))}


def gpus_of(config: ServerConfig, replica: int) -> list[str]:
    """The GPUs of a replica, by their names in --gpus or $CUDA_VISIBLE_DEVICES."""
    first, last = replica * config.tp_size, (replica + 1) * config.tp_size
    gpus = [*map(str, config.gpus)] or visible_gpus() or [str(gpu) for gpu in range(last)]
    return gpus[first:last]


def visible_gpus() -> list[str] | None:
    """The GPUs that $CUDA_VISIBLE_DEVICES names, each once; None if it is not set."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if named is None else list(dict.fromkeys(gpu.strip() for gpu in named.split(",") if gpu.strip()))


def check_gpus(config: ServerConfig) -> None:
    """Raises InputError if workers would have to share GPUs."""
    wanted, visible = config.workers, visible_gpus()
    if not config.gpus and visible is not None and len(visible) < wanted:
        raise InputError(
            f"--tp_size {config.tp_size} x --num_replicas {config.num_replicas} needs {wanted} GPUs, and "
            f"$CUDA_VISIBLE_DEVICES shows {len(visible)} ({','.join(visible)}); show more or ask for less"
        )
