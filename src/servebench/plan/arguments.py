"""Command line -> Settings. Everything that can be known to be wrong is said here, before anything starts."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from servebench.analysis.sla import parse_limits
from servebench.cli import keys
from servebench.errors import InputError
from servebench.log.urls import api_of
from servebench.plan import defaults, load_options
from servebench.plan.options import build_parser
from servebench.servers.backends import BACKENDS
from servebench.workload.model_files import expanded


@dataclass(frozen=True)
class Settings:
    """What the user asked for, with defaults filled in. Names, units and meaning as in `--help`."""

    model: str
    backend: str
    tokenizer: str
    tp_size: tuple[int, ...]
    num_replicas: tuple[int, ...]
    max_ragged_batch_size: tuple[int, ...]
    fp6: bool
    engine_args: tuple[str, ...]
    gpus: tuple[int, ...]
    router: bool
    deployment_name: str | None
    client_only: bool
    port: int | None
    server_timeout: float
    openai_api_url: tuple[str, ...]
    openai_api_key: str
    aml_api_url: str | None
    aml_api_key: str
    api: str
    mean_prompt_length: tuple[int, ...]
    prompt_length_var: float
    max_prompt_length: int
    mean_max_new_tokens: tuple[int, ...]
    max_new_tokens_var: float
    num_clients: tuple[int, ...]  # none where there are clients_per_replica
    clients_per_replica: tuple[int, ...]
    num_requests: int | None
    runs: int
    target_ci: float | None
    min_runs: int
    max_runs: int
    warmup: int | None
    request_rate: tuple[float, ...]
    trace_speed: tuple[float, ...]
    arrival: str
    burstiness: float
    ramp_from: float | None
    max_concurrency: int | None
    probe_rate: float
    length_distribution: str
    scenario: tuple[str, ...]
    prompt_text: str
    shared_prefix: tuple[int, int] | None
    dataset: str
    dataset_sha256: str
    trace_format: str
    multi_turn: bool
    think_time: float
    find_max: str
    find_peak: float | None
    stream: bool
    temperature: float
    top_p: float
    respect_eos: bool
    request_timeout: float
    max_retries: int
    max_failed_share: float
    extra_body: dict[str, Any]
    extra_headers: tuple[tuple[str, str], ...]
    seed: int | None  # None: sweep.py finds one
    num_workers: int | None
    out_json_dir: Path
    overwrite_results: bool
    on_error: str
    dry_run: bool
    list_models: bool

    def __repr__(self) -> str:  # keys never reach a message
        return f"Settings(model={self.model!r}, backend={self.backend!r}, ...)"


def attached_urls(settings: Settings) -> tuple[str, ...]:
    """Of servers that run already, as they were given; none where servers are started."""
    if settings.backend == "aml":
        return (settings.aml_api_url or "",)
    if settings.client_only and not settings.openai_api_url:
        return (f"http://127.0.0.1:{settings.port}",)
    return settings.openai_api_url


def clients_of(settings: Settings, num_replicas: int) -> tuple[int, ...]:
    """The numbers of clients that are swept on a server of so many replicas."""
    return tuple(each * num_replicas for each in settings.clients_per_replica) or settings.num_clients


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Raises SystemExit(2) for what argparse refuses, InputError for what only makes no sense together."""
    args = build_parser().parse_args(_engine_args_joined(sys.argv[1:] if argv is None else argv))
    given: dict[str, Any] = dict(vars(args))
    given["model"] = _model(args.model or defaults.DEFAULT_MODEL)
    given["tokenizer"] = args.tokenizer or _tokenizer_of(given["model"])
    _fill_in_model_defaults(given)
    for name in ("openai_api_key", "aml_api_key"):
        given[name] = _key(name, given[name])
    given["engine_args"] = split(args.engine_args, "--engine_args")
    given["openai_api_url"] = [url.strip() for url in args.openai_api_url]
    given["aml_api_url"] = (args.aml_api_url or "").strip() or None
    _check_urls(given)
    _check_headers(given["openai_api_url"], args.extra_headers)
    given["api"] = BACKENDS[args.backend].api or _api(args.api, given)
    if args.backend == "aml":
        _take_azure(args, given)
    load_options.check(args, given["max_prompt_length"])
    load_options.complete(given)
    settings = Settings(**{f.name: _frozen(given[f.name]) for f in fields(Settings)})
    if not settings.list_models:
        check(settings)
    return settings


def _take_azure(args: argparse.Namespace, given: dict[str, Any]) -> None:
    """Scores come whole. All that is missing is named in one line."""
    wanted = ("model", "deployment_name", "aml_api_url", "aml_api_key")
    there = vars(args) | {"aml_api_key": given["aml_api_key"]}
    missing = [f"--{name}" for name in wanted if not there[name]]
    if missing:
        raise InputError(f"--backend aml needs {', '.join(missing)} too")
    if not (args.deployment_name.isascii() and args.deployment_name.isprintable()):
        raise InputError("--deployment_name has a sign that no header can carry; copy it again")
    given["stream"] = given["stream"] and given["api"] != "score"


def _check_urls(given: dict[str, Any]) -> None:
    wanted = {"openai_api_url": "http://HOST:PORT/v1", "aml_api_url": "https://HOST/score or https://HOST/v1"}
    for option, form in wanted.items():
        for url in _listed(given[option]):
            fault = _fault_of(url)
            if fault:
                shown = re.sub(r"//.*@", f"//{keys.HIDDEN}@", keys.hide_in_url(url))
                raise InputError(f"--{option} {shown} is not a URL: {fault}; give {form}")


def _check_headers(urls: Sequence[str], headers: Sequence[tuple[str, str]]) -> None:
    """The same go to every server, each once."""
    if len({urlsplit(url).netloc.rpartition("@")[0] for url in urls}) > 1:
        raise InputError("--openai_api_url: every server gets the same user:password@; measure them apart")
    names = [name.lower() for name, _ in headers]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise InputError(f"--extra_headers has {twice} twice; join its values with a comma")


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []


def _fault_of(url: str) -> str:
    """Why this is no URL to send requests to; "" if it is one."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # it is looked at now
    except ValueError:
        return "its host or its port cannot be read"
    if parts.scheme not in ("http", "https"):
        return "it does not begin with http:// or https://"
    if not url.isprintable() or " " in url or not url.isascii():
        return "there is a sign in it that no URL has"
    return "" if parts.hostname else "it has no host"


def _api(asked: str | None, given: dict[str, Any]) -> str:
    """The API that the URLs name, else the one asked for. Raises InputError where they contradict."""
    urls = [*_listed(given["openai_api_url"]), *_listed(given["aml_api_url"])]
    named = {api_of(url, "") for url in urls} - {""}
    if "score" in named and given["backend"] != "aml":
        raise InputError("a URL that ends in /score is Azure ML's; measure it with --backend aml")
    if asked and named - {asked} and "score" not in named:
        raise InputError(f"--api {asked}, but the URL names {named.pop()}; leave --api out or correct the URL")
    if len(named) > 1:
        raise InputError(f"the URLs name {' and '.join(sorted(named))}; all have to speak one API")
    return named.pop() if named else asked or "completions"


def _key(name: str, given: str | None) -> str:
    """From its option or its variable, without what a file or a shell put behind it. It is in no message."""
    variable = name.upper()
    key = (given or os.environ.get(variable, "")).strip()
    if not (key.isascii() and key.isprintable()):
        where = f"--{name}" if given else f"${variable}"
        raise InputError(f"the key in {where} has a sign that no header can carry; copy it again")
    return key


def _tokenizer_of(model: str) -> str:
    """The model's own; that of a .gguf file is a tokenizer.json beside it."""
    if not model.endswith(".gguf"):
        return model
    folder = expanded("--model", model).parent
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"--model {model}: prompts are measured with a tokenizer.json, and none is beside it; "
            "give --tokenizer, the Hugging Face id or the folder of the model that the .gguf was made of"
        )
    return str(folder)


def _engine_args_joined(argv: Sequence[str]) -> list[str]:
    """`--engine_args --flag` as `--engine_args=--flag`, since argparse takes the former for two options."""
    words = list(argv)
    for i in reversed([i for i, word in enumerate(words[:-1]) if word == "--engine_args"]):
        words[i : i + 2] = [f"--engine_args={words[i + 1]}"]
    return words


def _fill_in_model_defaults(given: dict[str, Any]) -> None:
    model = defaults.of_model(given["model"])
    attached = given["client_only"] or given["backend"] in ("openai", "aml")
    sizes = model.tp_size[:1] if attached else model.tp_size  # a server that runs has but one
    given["tp_size"] = given["tp_size"] or sizes
    for name in ("mean_prompt_length", "mean_max_new_tokens"):
        given[name] = given[name] or getattr(model, name)
    if not given["clients_per_replica"]:
        given["num_clients"] = given["num_clients"] or defaults.NUM_CLIENTS
    given["max_prompt_length"] = given["max_prompt_length"] or model.max_prompt_length


def _model(name: str) -> str:
    """A name that the hub does not have, but the original suite's documents do, stands for another."""
    right = defaults.hub_name(name)
    if right == name or Path(name).exists():
        return name
    print(f"--model {name}: measured as {right}, its name on the Hugging Face hub", file=sys.stderr)
    return right


def split(words: str, what: str) -> tuple[str, ...]:
    """Words in quotes, as a shell reads them."""
    try:
        return tuple(shlex.split(words))
    except ValueError as error:
        raise InputError(f"{what}: {error}; quote it as in a shell") from error


def _frozen(value: Any) -> Any:
    """Lists become tuples without repetitions, in the order given."""
    return tuple(dict.fromkeys(value)) if isinstance(value, list) else value


def check(settings: Settings) -> None:
    """Cross-checks between options. Raises InputError with the first that fails."""
    for why in chain(_of_endpoint(settings), _of_server(settings), _of_search(settings), _of_load(settings)):
        raise InputError(why)


def _of_endpoint(settings: Settings) -> Iterator[str]:
    backend, urls = settings.backend, settings.openai_api_url
    if backend == "openai" and not urls:
        yield "--backend openai measures a running server; say which: --openai_api_url http://HOST:PORT/v1"
    if settings.client_only and not (urls or settings.port):
        yield "--client_only measures a running server; say which: --port N or --openai_api_url URL"
    if settings.aml_api_url and backend != "aml":
        yield "--aml_api_url is an endpoint of Azure ML; measure it with --backend aml"
    if urls and backend == "aml":
        yield "--backend aml measures --aml_api_url; leave --openai_api_url out"
    if urls and not settings.client_only and backend != "openai":
        would = f"--backend {backend} would start a server of its own beside --openai_api_url"
        yield f"{would}; add --client_only to measure the running one"


def _of_server(settings: Settings) -> Iterator[str]:
    """Options of servers that we start, and that not every backend has."""
    backend, name = BACKENDS[settings.backend], settings.backend
    starts = bool(backend.launch) and not settings.client_only
    for size in () if starts else ("tp_size", "max_ragged_batch_size", "num_replicas"):
        values = getattr(settings, size)
        if len(values) > 1:
            yield f"--{size} {' '.join(map(str, values))}: a server that runs has but one; say which"
    if settings.gpus and not starts:
        yield "--gpus is for servers that are started, and this one runs already; leave it out"
    if settings.fp6 and name != "fastgen":
        yield f"--fp6 is DeepSpeed's; --backend {name} does not have it, leave it out"
    if settings.router and (not starts or backend.ports):
        yield f"--router stands before replicas that we start one by one; --backend {name} has none here"
    tp_size, replicas, urls = max(settings.tp_size), max(settings.num_replicas), len(settings.openai_api_url)
    if settings.clients_per_replica and urls > replicas:
        yield f"--clients_per_replica counts --num_replicas; for {urls} URLs give --num_replicas {urls}"
    if settings.gpus and len(settings.gpus) < tp_size * replicas:
        wanted = f"--tp_size {tp_size} x --num_replicas {replicas} needs {tp_size * replicas}"
        yield f"--gpus names {len(settings.gpus)}, but {wanted}; name more or ask for less"


def _of_search(settings: Settings) -> Iterator[str]:
    """A search goes by what answers tell."""
    limits = parse_limits(settings.find_max) if settings.find_max else ()
    if not settings.stream and (settings.find_peak or any(limit.metric != "e2e" for limit in limits)):
        yield "whole answers have no TTFT or TPOT to search by; give --find_max limits of e2e"


def _of_load(settings: Settings) -> Iterator[str]:
    longest, most = max(settings.mean_prompt_length), settings.max_prompt_length
    if longest > most and not (settings.scenario or settings.dataset):
        too_long = f"--mean_prompt_length {longest} is more than --max_prompt_length {most}"
        yield f"{too_long}; lower the former or raise the latter"
    if settings.target_ci and settings.runs > 1:
        yield "--runs fixes the number of runs and --target_ci finds it; give one of them"
    if settings.min_runs > settings.max_runs:
        yield f"--min_runs {settings.min_runs} is more than --max_runs {settings.max_runs}; raise the latter"
