"""What each server of a plan will be asked (`--show_request`), made by the functions that start and ask it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from servebench.campaign.measure import Bench, load_tokenizer_once
from servebench.cli import keys
from servebench.errors import InputError
from servebench.log.schema import engine_name
from servebench.plan.sweep import ServerPlan
from servebench.servers.backends import BACKENDS
from servebench.servers.launch import command_line, launch_of
from servebench.servers.ports import first_ports
from servebench.servers.server import Server, planned_server
from servebench.show.layouts import server_name
from servebench.workload import Request, build_workload
from servebench.workload.model_files import NoTokenizer, cached_file

FILES = ("tokenizer.json", "tokenizer.model", "tekken.json")  # of tokenizers in the hub's cache
LONG = re.compile(r'("(?:[^"\\]|\\.){80})(?:[^"\\]|\\.){80,}((?:[^"\\]|\\.){80}")')  # a text in JSON
SAMPLING = ("temperature", "top_p", "do_sample", "ignore_eos")  # other fields are of --extra_body, for all alike


def lines(plans: list[ServerPlan]) -> Iterator[str]:
    """Of each server its command and its first request; then the fields of sampling in which engines differ."""
    sent: dict[str, tuple[str, dict[str, Any]]] = {}
    for plan in plans:
        port = plan.access.port or first_ports(plan.server, None)[0]
        plan = replace(plan, access=replace(plan.access, port=port))
        yield f"\n{server_name(plan.server, True)}"
        if plan.settings.starts:
            yield _command(plan, port)
        server, run = planned_server(plan.server, plan.access), plan.points[0].run
        request, about = _first_request(plan, server)
        target, body = server.target(run), server.fields_of(run)(request)
        sent[engine_name(plan.server.engine)] = BACKENDS[plan.server.backend].unsaid, body
        yield f"is asked, {about}:\nPOST {keys.hide_in_url(target.urls[0])}"
        for name, value in target.headers.items():
            yield f"{name}: {value if name.lower() in keys.NO_SECRETS else keys.HIDDEN}"
        text = msgspec.json.format(msgspec.json.encode(keys.hide_in_fields(body)), indent=2).decode()
        yield LONG.sub(r"\1 ... \2", text)
    yield from _unlike(sent)


def _command(plan: ServerPlan, port: int) -> str:
    processes, _ = BACKENDS[plan.server.backend].processes(plan.server)
    of = f" ({processes} of these)" * (processes > 1) + " (behind vllm-router)" * plan.server.router
    try:
        return f"is started by{of}: {command_line(launch_of(plan.server, plan.access, port, 0))}"
    except InputError as lacking:
        return f"cannot be started: {lacking}"


def _first_request(plan: ServerPlan, server: Server) -> tuple[Request, str]:
    """And its length, or why its text is not known: nothing is loaded from the hub only to be shown."""
    settings, run = plan.settings, plan.points[0].run
    name, learnt = settings.tokenizer, "; a short request before it tells if max_tokens has another name there"
    try:
        if not Path(name).expanduser().exists() and not any(cached_file(name, file) for file in FILES):
            raise InputError(f"the tokenizer {name} is not on this machine")
        bench = Bench(server, settings, load_tokenizer_once(name, settings.tokenizer_option), None)
    except NoTokenizer:
        about = "with prompts not known yet, whose tokens the server's /tokenize counts"
        return Request("PROMPT", 0, run.requests.mean_max_new_tokens), about
    except InputError as lacking:
        return Request("PROMPT", 0, run.requests.mean_max_new_tokens), f"with prompts not known yet: {lacking}"
    request = build_workload(run, bench.tokenizer, bench.context).measured[0]
    return request, f"with a prompt of {request.prompt_tokens} tokens{learnt * (run.api == 'chat')}"


def _unlike(sent: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Of each engine what it samples by on its own, and the fields that it is sent."""
    for field in SAMPLING:
        values = {name: str(body.get(field, "not sent")) for name, (_, body) in sent.items()}
        if len(set(values.values())) > 1:
            yield f"note: {field} differs: {', '.join(map(': '.join, values.items()))}"
    unsaid = [f"{name}: {words}" for name, (words, _) in sent.items() if words]
    if len(unsaid) > 1:
        yield f"note: what requests do not say, engines decide: {'; '.join(unsaid)}"
