"""The server under test, launched or attached to, for as long as its points are measured.

    with running_server(config, access, results / "vllm") as server:
        run_load(..., server.target(run))

Leaving the `with` stops what was launched (`Process.stop` in launch.py, by process_group.py). A server that was
attached to is left running.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from servebench.cli.keys import hide_in_url, secrets_of
from servebench.load.sharding import Target
from servebench.log.config import RunConfig, ServerConfig
from servebench.log.schema import ServerFacts, model_label
from servebench.log.urls import beside, endpoint
from servebench.servers.access import Access, headers_of, with_extra_body
from servebench.servers.attach import check_reachable, served_model, wait_while_loading
from servebench.servers.backends import BACKENDS
from servebench.servers.backends.contract import Backend
from servebench.servers.engine_log import tail
from servebench.servers.http_call import call
from servebench.servers.launch import Process, launch_replicas, request_urls
from servebench.servers.ports import first_ports
from servebench.servers.prefix_cache import Counters, read_counters
from servebench.workload import Request


@dataclass(frozen=True)
class Server:
    """A server that answers. `urls`, `headers` and `extra_body` are sent as they are, and may hold keys."""

    config: ServerConfig
    facts: ServerFacts
    urls: tuple[str, ...]
    context: int | None  # how many tokens a request may have, prompt and answer together; None: unknown
    processes: tuple[Process, ...]  # () when attached
    headers: Mapping[str, str]  # of every call
    extra_body: Mapping[str, Any]
    length_field: str = "max_tokens"  # the name that it wants for the length of an answer
    template_tokens: int = 0  # what its chat template adds to a prompt

    def check(self) -> None:
        """Raises ServerFailed if a process that we started has ended."""
        for process in self.processes:
            process.check()

    def alive(self) -> bool:
        return all(process.popen.poll() is None for process in self.processes)

    def log_tail(self) -> str:
        return "\n".join(tail(process.log_file) for process in self.processes)

    def target(self, run: RunConfig) -> Target:
        """Where and how the requests of this run go."""
        backend, fields = BACKENDS[self.config.backend], self.fields_of(run)
        where = backend.endpoint or (lambda url, run: endpoint(url, run.api))
        urls, headers = [where(url, run) for url in self.urls], dict(self.headers)
        secrets_sent = secrets_of(headers, urls, self.extra_body)
        return Target(urls, headers, lambda request: backend.encode(fields(request)), self.check, secrets_sent)

    def fields_of(self, run: RunConfig) -> Callable[[Request], dict[str, Any]]:
        """What the body of each request of this run says."""
        backend = BACKENDS[self.config.backend]
        # A random salt for all requests of the run, so that none of its prompts is in the prefix cache yet.
        salt = {"cache_salt": secrets.token_hex(8)} if backend.knows_cache_salt else {}

        greedy = replace(run, temperature=0.0, respect_eos=True)

        def fields(request: Request) -> dict[str, Any]:
            how, question = (greedy, asking(request, run, backend)) if request.question else (run, {})
            usual = backend.body(how, self.facts.model, request.prompt, request.max_new_tokens)
            chat = {"messages": list(request.messages)} if request.messages else {}
            found = with_extra_body(usual | salt | chat | question, self.extra_body)
            if request.question and "temperature" in usual.keys() & found.keys():  # whatever the user samples by
                found["temperature"] = usual["temperature"]
            return self._with_length_field(found)

        return fields

    def _with_length_field(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields with max_tokens under the name that this server wants."""
        if self.length_field in fields or "max_tokens" not in fields:
            return fields
        return {self.length_field if name == "max_tokens" else name: value for name, value in fields.items()}

    def empty_cache(self) -> None:
        """Make the engine forget the prompts of the point before, if it can."""
        path = BACKENDS[self.config.backend].reset_cache_path
        for url in self.engines if path else ():
            with suppress(OSError):
                call(beside(url, path), self.headers, timeout_s=30, body=b"")

    def cache_counters(self) -> Counters | None:
        """What the engine has counted of its prefix cache so far, if it does."""
        names = BACKENDS[self.config.backend].cache_counters
        return read_counters(self.engines, names, self.headers) if names else None

    @property
    def engines(self) -> list[str]:
        """URLs of the engines themselves, also of those behind our router."""
        behind = self.processes[:-1] if self.config.router else self.processes
        return [process.url for process in behind] or list(self.urls)


def asking(request: Request, run: RunConfig, backend: Backend) -> dict[str, Any]:
    """What only questions say: where their answers stop, and that log-probabilities are wanted of some."""
    assert request.question
    if run.api not in ("completions", "chat"):
        return {}
    stop = {"stop": list(request.question.stop)} if request.question.stop else {}
    wanted = backend.gives_logprobs and request.question.scorer == "agreement"
    return stop | ({"logprobs": True if run.api == "chat" else 1} if wanted else {})


def planned_server(config: ServerConfig, access: Access) -> Server:
    """As it will be asked. One that runs is asked for its model's name; InputError if it does not answer."""
    headers, model, context = headers_of(config, access), config.model, None
    if BACKENDS[config.backend].lists_models and access.urls:
        model, context = served_model(access.urls, model, headers, ours=False)
    elif BACKENDS[config.backend].lists_models:
        model = model_label(model)
    port = first_ports(config, access.port)[-1] + 1 if config.router else access.port
    urls = access.urls or (f"http://127.0.0.1:{port}",)
    return Server(config, ServerFacts(urls=[], model=model), urls, context, (), headers, access.extra_body)


@contextmanager
def running_server(config: ServerConfig, access: Access, log_dir: Path) -> Iterator[Server]:
    """Launch the server of a config, or attach to it. Raises ServerFailed, or InputError if there is no server."""
    backend = BACKENDS[config.backend]
    started, headers = time.monotonic(), headers_of(config, access)
    with ExitStack() as stack:
        processes: list[Process] = []
        if backend.launch and not config.urls:
            processes = launch_replicas(config, access, log_dir, stack)
        for url in () if processes else access.urls:
            if backend.lists_models:
                wait_while_loading(url, config, access, headers)
            else:
                check_reachable(url)
        urls = request_urls(config, processes) or access.urls
        model, context = config.model, None
        if backend.lists_models:
            model, context = served_model(urls, config.model, headers, ours=bool(processes))
        facts = ServerFacts(
            urls=[hide_in_url(url) for url in urls],
            commands=[process.command for process in processes],
            engine=backend.installed(config).version if processes else "attached",
            image=", ".join(dict.fromkeys(each.container.says(".Image") for each in processes if each.container)),
            model=model,
            log_files=[str(process.log_file) for process in processes],
            start_s=round(time.monotonic() - started, 1),
        )
        yield Server(config, facts, urls, context, tuple(processes), headers, access.extra_body)
