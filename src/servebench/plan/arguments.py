"""Command line -> Settings, one for each engine.

Bad input is refused in one line, before anything starts: types and bounds by the parser (cli/declare.py), values
of one kind by the kind (log/config.py), combinations by checks.py, files and the machine by preflight.py.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from servebench.cli import keys
from servebench.cli.declare import file_of, options_of, words_of_file
from servebench.errors import InputError
from servebench.log.config import DEFAULT_MODEL, RunConfig, ServerConfig, from_fields
from servebench.plan import checks, defaults, sizes
from servebench.plan.options import (
    KINDS_OF_REQUESTS,
    LOADS,
    STRATEGIES,
    Connection,
    Execution,
    build_parser,
    declared,
)
from servebench.plan.settings import Settings
from servebench.plan.variants import Variant, variants_of
from servebench.servers.access import Access
from servebench.servers.backends import BACKENDS
from servebench.servers.backends.command import name_of
from servebench.workload import datasets
from servebench.workload.checks import checked
from servebench.workload.model_files import expanded

Given = dict[str, Any]  # what was typed, by the options' names
T = TypeVar("T", bound=msgspec.Struct)
KEYS = ("openai_api_key", "aml_api_key")


def parse(argv: Sequence[str] | None = None) -> list[Settings]:
    """Raises SystemExit(2) for what argparse refuses, InputError for what only makes no sense together."""
    given, typed = _given(sys.argv[1:] if argv is None else argv)
    shown = keys.hide_in_options(typed)
    given |= {"model": _model(given["model"])} if "model" in given else {}
    given |= {"dry_run": True} if given.get("show_request") else {}
    backends = given.pop("backend", ["fastgen"])
    checks.check_engines(backends, given)
    engines = [given | {"backend": backend} | _own_args(given, backend, backends) for backend in backends]
    asked = [replace(_settings(each), options=shown) for each in engines]
    if asked[0].execution.print_config:
        _print_config(typed, shown, asked[0].access)
        raise SystemExit(0)
    return asked


def _print_config(typed: Given, shown: Given, access: Access) -> None:
    """The options as a --config file, but for those with a key. Of headers the name tells, as in an identity."""
    in_header = any(keys.is_key(name) for name, _ in access.extra_headers)
    secret = [name for name in typed if typed[name] != shown[name] and (name != "extra_headers" or in_header)]
    print(file_of(typed | {name: shown[name] for name in secret}, secret), end="")
    if secret:
        print(f"note: keys are not printed; give again: --{', --'.join(secret)}", file=sys.stderr)


def _own_args(given: Given, backend: str, backends: Sequence[str]) -> Given:
    """The arguments that name this engine, `"vllm: --x 1"`, without its name; of one alone also those without."""
    if "engine_args" not in given:
        return {}
    parts = [(*name.partition(": "), name, words) for name, words in given["engine_args"]]
    own = [
        (rest if engine == backend else name, words)
        for engine, _, rest, name, words in parts
        if engine == backend or len(backends) == 1
    ]
    return {"engine_args": own or [("", ())]}


def _settings(given: Given) -> Settings:
    """What is asked of one engine."""
    execution, connection = _build(Execution, given), _build(Connection, given)
    given |= {name: _key(name, getattr(connection, name)) for name in KEYS}
    urls = checks.urls_of(given, connection)
    given.setdefault("model", DEFAULT_MODEL)
    given["api"] = BACKENDS[given["backend"]].api or checks.api_of_urls(urls, given)
    given["stream"] = given.get("stream", True) and given["api"] != "score"
    load, requests, strategy = (choose_kind(kinds, given) for kinds in (LOADS, KINDS_OF_REQUESTS, STRATEGIES))
    checks.check_combination(given, load, strategy)
    _fill_in(given, bool(urls))
    variants = variants_of(given)
    serve = tuple(keys.hide_in_words(given.get("serve", ())))
    label = given.get("label") or _label_of(name_of(serve))
    shown = {"urls": tuple(map(keys.hide_in_url, urls)), "serve": serve, "label": label}
    servers, fit = sizes.fitting(list(_servers(given | shown, variants)), starts=not urls)
    settings = Settings(
        servers=tuple(servers),
        fit=fit,
        variants=tuple(variants),
        loads=tuple(expand_sweep(load, given)),
        requests=tuple(expand_sweep(requests, given)),
        common=_build(RunConfig, given | {"extra_body": keys.hide_in_fields(given.get("extra_body", {}))}),
        num_requests=given.get("num_requests"),
        warmup=given.get("warmup"),
        seed=given.get("seed"),
        strategy=_build(strategy, given),
        access=_access(given, connection, urls),
        tokenizer=connection.tokenizer or _tokenizer_of(given["model"]),
        execution=execution,
    )
    if not execution.list_models:
        checks.check_servers(settings)
    return settings


def _given(argv: Sequence[str]) -> tuple[Given, Given]:
    """What was typed over what a --config file says, values once each; and the same as it stands there."""
    parser = build_parser()
    given = vars(parser.parse_args(argv))
    if given["config"]:
        argv = [*words_of_file(given["config"], declared()), *argv]
        given = vars(parser.parse_args(argv))
    del given["config"]
    typed = parser.typed(argv)
    as_typed = {each.name: typed[each.name] for each in declared() if each.name in typed.keys() - {"print_config"}}
    return {name: list(dict.fromkeys(v)) if isinstance(v, list) else v for name, v in given.items()}, as_typed


def choose_kind(kinds: Mapping[str, type[T]], given: Given) -> type[T]:
    """The kind whose own option is given, else the first. Raises InputError for options of another kind."""
    named = [name for name in kinds if name in given]
    of = {name: [each.name for each in options_of(kind)] for name, kind in kinds.items()}
    own = named[0] if named else next(iter(kinds))
    for name in given:
        owners = [f"--{chooser}" for chooser, options in of.items() if name in options]
        if name in kinds and name != own:
            raise InputError(f"--{own} and --{name} exclude each other; leave one of them out")
        if owners and name not in of[own]:
            beside = f"beside --{own} " if named else ""
            raise InputError(f"--{name} goes with {' or '.join(owners)}; {beside}leave it out")
    return kinds[own]


def _servers(given: Given, variants: Sequence[Variant]) -> Iterator[ServerConfig]:
    """Every combination of TP size, batch and replicas, or of each layout that is named, with every variant."""
    layouts = [{"tp_size": [tp_size], "num_replicas": [n]} for tp_size, n in given.get("layouts", ())]
    for layout, variant in product(layouts or [{}], variants):
        args, env = variant.flags
        flags = {"engine_args": args, "engine_env": env, "variant": variant.name}
        yield from expand_sweep(ServerConfig, given | layout | flags)


def expand_sweep(kind: type[T], given: Given) -> Iterator[T]:
    """One of the kind for every combination of the values that are swept, the last option's fastest."""
    swept = [each.name for each in options_of(kind) if each.option.swept]
    several = [name for name in swept if isinstance(given.get(name), list | tuple)]
    for values in product(*(given[name] for name in several)):
        yield _build(kind, given | dict(zip(several, values, strict=True)))


def _build(kind: type[T], given: Given) -> T:
    """From those of the options that are of this kind. Lists are tuples in it."""
    try:
        return from_fields(kind, {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})
    except ValueError as error:
        raise InputError(str(error)) from error


def _fill_in(given: Given, attached: bool) -> None:
    """Defaults that the model has, and what follows from the options themselves."""
    model = defaults.of_model(given["model"])
    given.setdefault("tp_size", model.tp_size[:1] if attached else model.tp_size)  # a running server has one
    given.setdefault("max_prompt_length", model.max_prompt_length)
    given.setdefault("num_clients", defaults.NUM_CLIENTS[:1] if "decide" in given else defaults.NUM_CLIENTS)
    for name in ("mean_prompt_length", "mean_max_new_tokens"):
        given.setdefault(name, getattr(model, name))
    if "dataset" in given:  # an answer that it does not have is as long as the first mean
        given["mean_max_new_tokens"] = given["mean_max_new_tokens"][:1]
        given["dataset_sha256"] = datasets.sha256_of(given["dataset"])
    if given.get("check"):
        given["check_sha256"] = checked(given["check"], given["api"])
    if "max_runs" in given:  # keep min_runs <= max_runs
        given.setdefault("min_runs", min(3, given["max_runs"]))


def _label_of(program: str) -> str:
    """What an engine is called that has no --label; not as one of ours, whose folder it would share."""
    name = re.sub(r"[^\w .-]+", "_", program).lstrip("._- ")
    return f"{name}-command" if name in BACKENDS else name


def _access(given: Given, connection: Connection, urls: Sequence[str]) -> Access:
    return Access(
        urls=tuple(urls),
        key=given["aml_api_key" if given["backend"] == "aml" else "openai_api_key"],
        extra_headers=connection.extra_headers,
        extra_body=given.get("extra_body", {}),
        serve=tuple(given.get("serve", ())),
        api=given["api"],
        port=connection.port,
        server_timeout=connection.server_timeout,
    )


def _key(name: str, given: str) -> str:
    """From its option or its variable, without what a file or a shell put behind it. No message shows it."""
    variable = name.upper()
    key = (given or os.environ.get(variable, "")).strip()
    if not (key.isascii() and key.isprintable()):
        where = f"--{name}" if given else f"${variable}"
        raise InputError(f"the key in {where} has a character that is not allowed in a header; copy it again")
    return key


def _model(name: str) -> str:
    """The model's name on the hub, also for names that only the original suite's documents have."""
    right = defaults.hub_name(name)
    if right == name or Path(name).exists():
        return name
    print(f"--model {name}: measured as {right}, its name on the Hugging Face hub", file=sys.stderr)
    return right


def _tokenizer_of(model: str) -> str:
    """The model's own; that of a .gguf file is a tokenizer.json beside it, if there is one."""
    folder = expanded("--model", model).parent
    return str(folder) if model.endswith(".gguf") and (folder / "tokenizer.json").is_file() else model
