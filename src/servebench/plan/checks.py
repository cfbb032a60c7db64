"""Combinations of options that make no sense. Each check raises InputError with one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from servebench.analysis.sla import goals
from servebench.cli import keys
from servebench.errors import InputError
from servebench.log.config import Rate, Trace
from servebench.log.urls import api_of
from servebench.plan.options import ClientsPerReplica, Connection, Decide, FindMax, FindPeak
from servebench.plan.settings import Settings
from servebench.servers.backends import BACKENDS

Given = dict[str, Any]


def check_engines(backends: Sequence[str], given: Given) -> None:
    """Refuse what only one engine of several could be meant by."""
    several = len(backends) > 1
    running = [name for name in ("client_only", "openai_api_url", "aml_api_url") if given.get(name)]
    attached = [name for name in backends if not BACKENDS[name].launch]
    flags = [alternatives[-1][0] for alternatives in given.get("engine_grid", ())]
    sizes = [f"--{name}" for name in ("tp_size", "num_replicas") if name in given]
    args = given.get("engine_args") or ()
    named = [name.partition(": ")[0] for name, _ in args]
    foreign = next((name for name in named if name in BACKENDS and name not in backends), "")
    nameless = next((" ".join(words) for name, words in args if name.partition(": ")[0] not in backends), None)
    refuse(
        {
            f"--{''.join(running[:1])} is one server, and --backend names {len(backends)} engines; give one": (
                several and running
            ),
            f"--backend {''.join(attached[:1])} measures servers that are already running; give it alone": several
            and attached,
            f'--engine_args "{nameless}" is for which of the engines? write "{backends[0]}: {nameless}"': (
                several and nameless is not None and not foreign
            ),
            f'--engine_args "{foreign}: ..." is for an engine that --backend does not name; leave it out': foreign,
            "--engine_grid is of one engine; give it with one --backend, or write each variant as --engine_args "
            f'"{backends[0]}: --x 1" "{backends[0]}: --x 2"': several and given.get("engine_grid"),
            "--engine_path is of one engine; give it with one --backend": several and given.get("engine_path"),
            "--backend command is one engine; give it alone": several and "command" in backends,
            "--engine_grid has a flag twice; give all of its values in one text": len(set(flags)) < len(flags),
            f"--layouts says TP size and replicas; leave {' and '.join(sizes)} out": "layouts" in given and sizes,
        }
    )


# Where the servers are.


def urls_of(given: Given, connection: Connection) -> tuple[str, ...]:
    """The URLs of servers that run already, as they were given; none where servers are started."""
    for url in connection.openai_api_url:
        _refuse_url("openai_api_url", url)
    if connection.aml_api_url:
        _refuse_url("aml_api_url", connection.aml_api_url)
    _refuse_headers(connection)
    _refuse_endpoints(given["backend"], given, connection)
    if given["backend"] == "aml":
        _refuse_without_azure(given)
        return (connection.aml_api_url,)
    if connection.client_only and not connection.openai_api_url:
        return (f"http://127.0.0.1:{connection.port}",)
    return connection.openai_api_url


def _refuse_endpoints(backend: str, given: Given, connection: Connection) -> None:
    urls = connection.openai_api_url
    reasons = {
        "--backend openai measures a running server; say which: --openai_api_url http://HOST:PORT/v1": (
            backend == "openai" and not urls
        ),
        "--client_only measures a running server; say which: --port N or --openai_api_url URL": (
            connection.client_only and not (urls or connection.port)
        ),
        "--aml_api_url is an endpoint of Azure ML; measure it with --backend aml": (
            connection.aml_api_url and backend != "aml"
        ),
        "--backend aml measures --aml_api_url; leave --openai_api_url out": urls and backend == "aml",
        f"--backend {backend} would start another server beside --openai_api_url; "
        "add --client_only to measure the running one": urls
        and not connection.client_only
        and backend != "openai",
    }
    if not given.get("list_models"):
        refuse(reasons)


def refuse(reasons: Mapping[str, object]) -> None:
    """Raises InputError with the first reason that holds."""
    for why, holds in reasons.items():
        if holds:
            raise InputError(why)


def _refuse_url(option: str, url: str) -> None:
    if fault := _fault_of(url):
        shown = re.sub(r"//.*@", f"//{keys.HIDDEN}@", keys.hide_in_url(url))
        form = {"openai_api_url": "http://HOST:PORT/v1", "aml_api_url": "https://HOST/score or https://HOST/v1"}
        raise InputError(f"--{option} {shown} is not a URL: {fault}; give {form[option]}")


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
        return "there is a character in it that no URL has"
    return "" if parts.hostname else "it has no host"


def _refuse_headers(connection: Connection) -> None:
    """The same go to every server, each once."""
    if len({urlsplit(url).netloc.rpartition("@")[0] for url in connection.openai_api_url}) > 1:
        raise InputError("--openai_api_url: every server gets the same user:password@; measure them separately")
    names = [name.lower() for name, _ in connection.extra_headers]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise InputError(f"--extra_headers has {twice} twice; join its values with a comma")


def _refuse_without_azure(given: Given) -> None:
    """All that is missing is named in one line."""
    wanted = ("model", "deployment_name", "aml_api_url", "aml_api_key")
    if missing := [f"--{name}" for name in wanted if not given.get(name)]:
        raise InputError(f"--backend aml needs {', '.join(missing)} too")
    if not (given["deployment_name"].isascii() and given["deployment_name"].isprintable()):
        raise InputError("--deployment_name has a character that is not allowed in a header; copy it again")


def api_of_urls(urls: Sequence[str], given: Given) -> str:
    """The API that the URLs name, else the one asked for. Raises InputError where they contradict."""
    asked = given.get("api")
    named = {api_of(url, "") for url in urls} - {""}
    if "score" in named and given["backend"] != "aml":
        raise InputError("a URL that ends in /score is Azure ML's; measure it with --backend aml")
    if asked and named - {asked} and "score" not in named:
        raise InputError(f"--api {asked}, but the URL names {named.pop()}; leave --api out or correct the URL")
    if len(named) > 1:
        raise InputError(f"the URLs name {' and '.join(sorted(named))}; all have to speak one API")
    return named.pop() if named else asked or "completions"


# What is measured on them.


def check_combination(given: Given, load: type, strategy: type) -> None:
    """Refuse a load, requests and a strategy that do not go together."""
    open_loop, search = load in (Rate, Trace), strategy in (FindMax, FindPeak, Decide)
    option = next((name for name in ("find_max", "decide", "sla") if given.get(name)), "sla")
    limits = goals(given[option], f"--{option}") if given.get(option) else ()
    wanted = any(limit.metric.of_tokens for limit in limits) or strategy is FindPeak
    refuse(
        {
            "--clients_per_replica fixes the load; leave the search out": search and load is ClientsPerReplica,
            "a search tries clients or rates; give --num_clients or --request_rate": search and load is Trace,
            "a search looks for a rate, which a ramp is not; leave --ramp_from out": search
            and "ramp_from" in given,
            "--trace_speed sends a trace at its own times; give it with --dataset": (
                load is Trace and "dataset" not in given
            ),
            "--multi_turn waits for answers, which an open loop does not; give --num_clients": (
                open_loop and given.get("multi_turn")
            ),
            "--num_requests 1 leaves an open loop no time to measure; give more": (
                open_loop and given.get("num_requests") == 1
            ),
            "--check_floor is about the answers to questions; give them with --check": (
                given.get("check_floor") is not None and not given.get("check")
            ),
            f"whole answers have no TTFT or TPOT to search by; give --{option} limits of e2e": (
                wanted and not given["stream"]
            ),
        }
    )


def check_servers(settings: Settings) -> None:
    """Refuse options that these servers do not have: some are for those that we start, some for one backend."""
    backend, name = BACKENDS[settings.backend], settings.backend
    first, starts = settings.servers[0], settings.starts
    for size in () if starts else ("tp_size", "max_ragged_batch_size", "num_replicas"):
        values = list(dict.fromkeys(str(getattr(server, size)) for server in settings.servers))
        if len(values) > 1:
            raise InputError(f"--{size} {' '.join(values)}: a running server has only one; give that one")
    if len(settings.variants) > 1 and not starts:
        raise InputError("--engine_args of several variants: a running server has only one; leave the others out")
    urls, replicas = len(settings.access.urls), max(server.num_replicas for server in settings.servers)
    ours = next((each for each in ("gpus", "engine_path") if getattr(first, each)), "")
    per_replica = isinstance(settings.loads[0], ClientsPerReplica)
    own = next((f"--{each}" for each in ("serve", "ready_path", "label") if getattr(first, each)), "")
    refuse(
        {
            f"{own} goes with --backend command; leave it out": own and name != "command",
            "--backend command starts what you say; give it: --serve 'ENGINE {model} --port {port}'": (
                name == "command" and starts and not first.serve
            ),
            "--engine_path is of an engine that a recipe installs; --serve names its program itself": (
                first.engine_path and name == "command"
            ),
            f"--label {first.label}: it names a folder and an engine; give letters, digits, . - _ or spaces": (
                first.label and not re.fullmatch(r"\w[\w .-]*", first.label)
            ),
            f"--label {first.label} is what an engine of ours is called; give another": (
                first.label in BACKENDS and first.label != name
            ),
            f"--{ours} is for servers that are started, and this one is already running; leave it out": (
                ours and not starts
            ),
            f"--fp6 is an option of DeepSpeed; --backend {name} does not have it, leave it out": (
                first.fp6 and name != "fastgen"
            ),
            f"--router goes in front of replicas that are started one by one; --backend {name} has none here": (
                first.router and (not starts or backend.deployment_ports)
            ),
            f"--clients_per_replica counts --num_replicas; for {urls} URLs give --num_replicas {urls}": (
                per_replica and urls > replicas
            ),
        }
    )
