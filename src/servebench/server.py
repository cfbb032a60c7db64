"""The server's life: start, ready, watch, stop; nothing of it is left behind.

    with running_server(config, settings, results / "vllm") as server:
        run_load(..., server.target(run))

A launched server lives in a session of its own, writes to a log beside the results, counts as ready only when it
answers and it is our process that listens, and is stopped with everything that it started.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import secrets
import shlex
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
import psutil
from tqdm import tqdm

from servebench.arguments import Settings
from servebench.backends import BACKENDS
from servebench.backends.contract import Launch
from servebench.backends.openai import endpoint, root_url
from servebench.load.dealing import Target
from servebench.load.fleet import PointFailed
from servebench.prefix_cache import Counters, read_counters
from servebench.records import InputError, RunConfig, ServerConfig, ServerFacts, log_name, model_label
from servebench.sessions import end_session, session
from servebench.workload import Request as Ask

PR_SET_PDEATHSIG = 1
TAIL_LINES = 20
_open = build_opener(ProxyHandler({})).open  # a proxy would stand between the client and the stamps


class ServerFailed(PointFailed):
    """The server did not start, or is no longer there. `log_tail` has its last words."""

    def __init__(self, why: str, log_tail: str = "") -> None:
        super().__init__(why)
        self.log_tail = log_tail


@dataclass(frozen=True)
class Process:
    """One launched replica."""

    popen: subprocess.Popen[bytes]
    port: int
    command: str
    log_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def check(self) -> None:
        """Raises ServerFailed when it has ended."""
        status = self.popen.poll()
        if status is not None:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            raise ServerFailed(f"the server {how}", tail(self.log_file))

    def listens(self) -> bool:
        """Is it one of ours that listens on the port?"""
        for process in session(self.popen.pid):
            with suppress(psutil.Error):
                if any(c.status == "LISTEN" and c.laddr.port == self.port for c in process.net_connections("tcp")):
                    return True
        return False

    def stop(self) -> None:
        end_session(self.popen.pid)
        self.popen.poll()  # or it would stay a zombie


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
        headers = {"Accept": "text/event-stream" if run.stream else "application/json"}
        headers |= backend.headers(self.config) | dict(self.extra_headers)
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        salt = {"cache_salt": secrets.token_hex(8)} if backend.salted else {}  # no prompt is in the cache already

        def body(ask: Ask) -> dict[str, Any]:
            chat = {"messages": list(ask.messages)} if ask.messages else {}
            return backend.body(run, self.model, ask.prompt, ask.max_new_tokens) | salt | chat | run.extra_body

        urls = [endpoint(url, run.api) for url in self.facts.urls]
        return Target(urls, headers, body, self.check)

    def empty_cache(self) -> None:
        """Forget the prompts of the point before, where the engine can."""
        path = BACKENDS[self.config.backend].reset_cache
        for url in self.facts.urls if path else []:
            with suppress(OSError):
                _open(Request(f"{root_url(url)}{path}", method="POST"), timeout=30).close()

    def cache_counters(self) -> Counters | None:
        """What the engine has counted of its prefix cache so far, if it does."""
        names = BACKENDS[self.config.backend].cache_counters
        return read_counters([root_url(url) for url in self.facts.urls], names) if names else None


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
            urls = [process.url for process in processes]
        api_key = settings.aml_api_key if config.backend == "aml" else settings.openai_api_key
        model, context = config.model, None
        if backend.lists_models:
            model, context = _ask_for_model(root_url(urls[0]), config.model, api_key)
        facts = ServerFacts(
            urls=urls,
            commands=[process.command for process in processes],
            engine=backend.version() if processes else "attached",
            log_files=[str(process.log_file) for process in processes],
            start_s=round(time.monotonic() - started, 1),
        )
        yield Server(config, facts, model, context, tuple(processes), api_key, settings.extra_headers)


def launch_replicas(
    config: ServerConfig, settings: Settings, log_dir: Path, stack: ExitStack, outlive: bool = False
) -> list[Process]:
    """Start every replica and wait until all are ready. The stack stops them; with `outlive` nothing else does."""
    launch = BACKENDS[config.backend].launch
    assert launch
    processes = []
    name = log_name(config, RunConfig()).partition("-prompt")[0]
    for replica in range(config.num_replicas):
        port = settings.port + replica if settings.port else free_port()
        process = _start(launch(config, port, replica), port, log_dir / f"{name}-{replica}.log", outlive)
        stack.callback(process.stop)
        processes.append(process)
    _wait_until_ready(processes, settings.server_timeout, config)
    return processes


def _end_with_parent() -> None:
    """In the child: be sent SIGTERM when the benchmark is gone, even by SIGKILL (Linux)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _start(launch: Launch, port: int, log_file: Path, outlive: bool) -> Process:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as log:
        popen = subprocess.Popen(
            launch.command,
            env=os.environ | launch.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=None if outlive else _end_with_parent,
        )
    variables = [f"{name}={value}" for name, value in launch.env.items()]
    return Process(
        popen, port, shlex.join([*(["env", *variables] if variables else []), *launch.command]), log_file
    )


def _wait_until_ready(processes: list[Process], timeout_s: float, config: ServerConfig) -> None:
    """Until every replica answers on its port itself; shows how long that has taken."""
    start = time.monotonic()
    label = f"  starting {config.backend} tp{config.tp_size} x {config.num_replicas}"
    form = "{desc}: {postfix} {elapsed}"
    waiting = list(processes)
    with tqdm(desc=label, bar_format=form, leave=False, disable=None, position=1) as bar:
        while waiting:
            for process in waiting:
                process.check()
            if time.monotonic() - start > timeout_s:
                first = waiting[0]
                raise ServerFailed(f"not ready after {timeout_s:g} s (--server_timeout)", tail(first.log_file))
            bar.set_postfix_str(last_words(waiting[0].log_file)[:60])
            waiting = [process for process in waiting if not (_healthy(process.url) and process.listens())]
            time.sleep(0.2)


def _wait_while_loading(urls: list[str], timeout_s: float) -> None:
    """A server that says 503 is still loading its model; no other answer, or none, is waited for."""
    end = time.monotonic() + timeout_s
    for url in urls:
        while time.monotonic() < end:
            try:
                _open(f"{url}/health", timeout=10).close()
                break
            except HTTPError as error:
                if error.code != 503:
                    break
            except OSError:
                break
            time.sleep(0.5)


def _healthy(url: str) -> bool:
    try:
        with _open(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _ask_for_model(url: str, model: str, api_key: str) -> tuple[str, int | None]:
    """(its name for the model, its context length). Raises InputError when nothing sensible answers."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with _open(Request(f"{url}/v1/models", headers=headers), timeout=30) as answer:
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log_file: Path, lines: int = TAIL_LINES) -> str:
    try:
        with log_file.open(errors="replace") as file:
            return "".join(deque(file, lines)).rstrip()
    except OSError:
        return ""


def last_words(log_file: Path) -> str:
    return " ".join(tail(log_file, 1).split())


if __name__ == "__main__":
    runpy.run_module("servebench.standing", run_name="__main__")
