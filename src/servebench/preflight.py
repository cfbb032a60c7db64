"""Checks that look at the machine before anything starts. Each raises InputError with one line."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from servebench.arguments import Settings, attached_urls
from servebench.backends import BACKENDS
from servebench.backends.contract import Launch
from servebench.keys import hide_in_words
from servebench.launch import is_free, launch_of, router
from servebench.records import InputError, ServerConfig
from servebench.server import say
from servebench.sweep import Plan, Point
from servebench.workload import replay

HIGHEST_PORT = 65535


def preflight(settings: Settings, plan: Plan) -> None:
    check_model(settings)
    check_lengths(plan, model_context(settings.model))
    check_dataset(plan)
    check_results_folder(settings.out_json_dir)
    for server, points in plan:
        check_body(server, points[0])
        if any(point.pending for point in points) and not server.urls:
            check_launch(settings, server)


def check_body(server: ServerConfig, point: Point) -> None:
    """Everything that is to be sent can be."""
    backend = BACKENDS[server.backend]
    backend.encode(backend.body(point.run, server.model, "", 1) | point.run.extra_body)


def check_model(settings: Settings) -> None:
    """What looks like a path must be there; a Hugging Face id is `owner/name` or `name`."""
    model = settings.model
    path = Path(model).expanduser()
    looks_local = model.startswith((".", "/", "~")) or model.count("/") > 1 or path.suffix == ".gguf"
    if attached_urls(settings) and settings.tokenizer != model:
        return  # a name that the server has, whatever it looks like
    if looks_local and not path.exists() and attached_urls(settings):
        raise InputError(
            f"--model {model}: there is no such directory or file here, to measure prompts with; if the server "
            "knows the model by this name, give --tokenizer too"
        )
    if looks_local and not path.exists():
        raise InputError(
            f"--model {model}: there is no such directory or file; give a path that exists or a model id"
        )
    if path.is_dir() and not (path / "config.json").exists() and not list(path.glob("*.gguf")):
        raise InputError(
            f"--model {model}: neither config.json nor a .gguf file is in it; give a model's directory"
        )


def model_context(model: str) -> int | None:
    """Most tokens, prompt and generation together, that a local model takes; None when it does not say."""
    file = Path(model).expanduser() / "config.json"
    if not file.is_file():
        return None
    config = msgspec.json.decode(file.read_bytes())
    return config.get("max_position_embeddings") if isinstance(config, dict) else None


def check_lengths(plan: Plan, context: int | None) -> None:
    """The mean prompt and the mean generation must fit the context; draws beyond it are cut by the workload."""
    for run in (point.run for _, points in plan for point in points if not point.run.dataset):
        if context and run.mean_prompt_length + run.mean_max_new_tokens > context:
            raise InputError(
                f"prompts of {run.mean_prompt_length} and generations of {run.mean_max_new_tokens} tokens exceed "
                f"the {context} tokens of the model's context; ask for at most {context} together"
            )


def check_dataset(plan: Plan) -> None:
    """It is understood and has enough requests; those beyond the context are only known by the tokenizer later."""
    for run in (point.run for _, points in plan for point in points if point.run.dataset):
        replay.checked(run)


def check_results_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"--out_json_dir {folder}: cannot be written to ({error.strerror}); give another"
        ) from error


def check_launch(settings: Settings, server: ServerConfig) -> None:
    """The engine is installed, knows the model, and its ports are free."""
    backend = BACKENDS[server.backend]
    launches, each = backend.launches(server)
    if settings.port:
        check_ports(settings.port, launches * each + server.router)
    for replica in range(launches if backend.launch else 0):
        check_program(launch_of(server, settings, settings.port or 0, replica))
    if server.router:
        check_program(router([], 0))


def check_program(launch: Launch) -> None:
    if not os.access(launch.command[0], os.X_OK):
        raise InputError(f"{launch.command[0]} cannot be run; install the engine again")
    if hide_in_words(launch.command) != list(launch.command):
        say("the engine takes the key of --engine_args from its command line alone, which everybody here can read")


def check_ports(first: int, n: int) -> None:
    if first + n - 1 > HIGHEST_PORT:
        raise InputError(f"--port {first} and {n - 1} behind it are more than there are; give a lower one")
    taken = [port for port in range(first, first + n) if not is_free(port)]
    if taken:
        which = f"port {taken[0]} of --port {first} to {first + n - 1}" if n > 1 else f"--port {first}"
        raise InputError(f"{which} is taken; give another or leave it out")
