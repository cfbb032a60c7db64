"""The server's life: start, ready, watch, stop; nothing of it is left behind.

with running_server(config, settings, results / "vllm") as server:
    run_load(..., server.target(run))
"""

from __future__ import annotations

import runpy
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request

import msgspec

from servebench.arguments import Settings
from servebench.backends import BACKENDS
from servebench.backends.openai import endpoint, root_url
from servebench.launch import Process, launch_replicas, open_url, tail, urls_of
from servebench.load.dealing import Target
from servebench.prefix_cache import Counters, read_counters
from servebench.records import InputError, RunConfig, ServerConfig, ServerFacts, model_label
from servebench.workload import Request as Ask


@dataclass(frozen=True)
class Server:
    """A server that answers. `model` is its name for the model, `context` the most tokens it takes, if it says."""

    config: ServerConfig
    facts: ServerFacts
    model: str
    context: int | None
    processes: tuple[Process, ...]
    api_key: str
    extra_headers: tuple[tuple[str, str], ...] = ()

    def check(self) -> None:
        for process in self.processes:
            process.check()

    def alive(self) -> bool:
        return all(process.popen.poll() is None for process in self.processes)

    def log_tail(self) -> str:
        return "\n".join(tail(process.log_file) for process in self.processes)

    def target(self, run: RunConfig) -> Target:
        """Where and how the requests of this run go."""
        backend = BACKENDS[self.config.backend]
        headers = backend.headers(self.config) | dict(self.extra_headers)
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        salt = {"cache_salt": secrets.token_hex(8)} if backend.salted else {}  # no prompt is in the cache already

        def body(ask: Ask) -> bytes:
            fields = backend.body(run, self.model, ask.prompt, ask.max_new_tokens)
            chat = {"messages": list(ask.messages)} if ask.messages else {}
            return backend.encode(fields | salt | chat | run.extra_body)

        where = backend.endpoint or (lambda url, run: endpoint(url, run.api))
        urls = [where(url, run) for url in self.facts.urls]
        return Target(urls, headers, body, self.check)

    def empty_cache(self) -> None:
        """Forget the prompts of the point before, where the engine can."""
        path = BACKENDS[self.config.backend].reset_cache
        servers = [process.url for process in self.processes] or self.facts.urls
        for url in servers if path else []:
            with suppress(OSError):
                open_url(Request(f"{root_url(url)}{path}", method="POST"), timeout=30).close()

    def cache_counters(self) -> Counters | None:
        """What the engine has counted of its prefix cache so far, if it does."""
        names = BACKENDS[self.config.backend].cache_counters
        servers = [process.url for process in self.processes] or [root_url(url) for url in self.facts.urls]
        return read_counters(servers, names) if names else None


@contextmanager
def running_server(config: ServerConfig, settings: Settings, log_dir: Path) -> Iterator[Server]:
    """Launch the server of a config, or attach to it. Raises ServerFailed, or InputError if none is there."""
    backend = BACKENDS[config.backend]
    with ExitStack() as stack:
        started = time.monotonic()
        processes: list[Process] = []
        if config.urls or not backend.launch:
            urls = list(config.urls)
            if backend.lists_models:
                _wait_while_loading([root_url(url) for url in urls], settings.server_timeout)
        else:
            processes = launch_replicas(config, settings, log_dir, stack)
            urls = urls_of(config, processes)
        api_key = settings.aml_api_key if config.backend == "aml" else settings.openai_api_key
        model, context = config.model, None
        if backend.lists_models:
            model, context = _ask_for_model(
                root_url(processes[0].url if processes else urls[0]), config.model, api_key
            )
        facts = ServerFacts(
            urls=urls,
            commands=[process.command for process in processes],
            engine=backend.version() if processes else "attached",
            log_files=[str(process.log_file) for process in processes],
            start_s=round(time.monotonic() - started, 1),
        )
        yield Server(config, facts, model, context, tuple(processes), api_key, settings.extra_headers)


def _wait_while_loading(urls: list[str], timeout_s: float) -> None:
    """A server that says 503 is still loading its model; no other answer, or none, is waited for."""
    end = time.monotonic() + timeout_s
    for url in urls:
        while time.monotonic() < end:
            try:
                open_url(f"{url}/health", timeout=10).close()
                break
            except HTTPError as error:
                if error.code != 503:
                    break
            except OSError:
                break
            time.sleep(0.5)


def _ask_for_model(url: str, model: str, api_key: str) -> tuple[str, int | None]:
    """(its name for the model, its context length). Raises InputError when nothing sensible answers."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with open_url(Request(f"{url}/v1/models", headers=headers), timeout=30) as answer:
            listed = msgspec.json.decode(answer.read()).get("data", [])
    except HTTPError as error:
        if error.code in (401, 403):
            raise InputError(f"{url} refuses the key (HTTP {error.code}); give --openai_api_key") from error
        return model, None  # it speaks, but lists no models
    except (URLError, OSError) as error:
        raise InputError(f"nothing answers at {url} ({error}); start the server or correct the URL") from error
    except (msgspec.MsgspecError, AttributeError):
        return model, None
    known = {entry["id"]: entry for entry in listed if isinstance(entry, dict) and "id" in entry}
    names = [name for name in (model, model_label(model), *known) if name in known]
    return (names[0], known[names[0]].get("max_model_len")) if names else (model, None)


if __name__ == "__main__":
    runpy.run_module("servebench.standing", run_name="__main__")
