"""Engines as processes: how they are started, known to be ready, and stopped.

Each server leads a session, and writes to a log beside the results. It is ready only when it answers and one of
its own processes listens on the port, or its container runs. `stop_server` ends it with all that it started.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import psutil

from servebench.cli import live
from servebench.cli.keys import hide_in_file, hide_in_words
from servebench.errors import ServerFailed
from servebench.log.config import ServerConfig
from servebench.log.schema import engine_name, server_label
from servebench.servers import containers
from servebench.servers.access import Access
from servebench.servers.backends import BACKENDS
from servebench.servers.backends.contract import Launch, environment
from servebench.servers.containers import Container
from servebench.servers.engine_log import last_line, own_words, server_failed, tail
from servebench.servers.http_call import try_call
from servebench.servers.ports import first_free_port, first_ports, is_free
from servebench.servers.process_group import end_session, ends_with_us, session_processes

Ready = tuple[str | None, str]  # Process.ready_line, Process.ready_path


@dataclass(frozen=True)
class Process:
    """One launched server: a replica, a deployment of all replicas, or the router in front of them."""

    popen: subprocess.Popen[bytes]
    port: int
    command: str  # as typed into a shell, without keys
    log_file: Path
    ready_line: str | None  # see Backend
    ready_path: str  # see ServerConfig
    container: Container | None  # that popen is the client of

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def check(self) -> None:
        """Raises ServerFailed if it has ended."""
        status = self.popen.poll()
        if status is not None:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            how = ": ".join(filter(None, [how, "" if status < 0 else own_words(self.log_file)]))
            raise server_failed(f"the server {how}", self.log_file)

    def is_ready(self) -> bool:
        """Whether it answers, and whether it is our process that listens on the port, or our container runs."""
        if not (self.ready_line in tail(self.log_file) if self.ready_line else answers(self.url, self.ready_path)):
            return False
        return self.container.says(".State.Running") == "true" if self.container else self._listens()

    @property
    def leaders(self) -> list[int]:
        """The leaders of its sessions: what we started, and the first process of its container."""
        inside = int(self.container.says(".State.Pid") or 0) if self.container else 0
        return [self.popen.pid, *([inside] if inside else [])]

    def _listens(self) -> bool:
        for process in session_processes(self.popen.pid):
            with suppress(psutil.Error):
                if any(c.status == "LISTEN" and c.laddr.port == self.port for c in process.net_connections("tcp")):
                    return True
        return False

    @property
    def removal(self) -> list[str]:
        """The command that removes its container."""
        return self.container.removal() if self.container else []

    def stop(self) -> None:
        stop_server(self.popen.pid, self.log_file, self.removal)
        self.popen.poll()  # reaps the zombie


def stop_server(pid: int, log_file: Path, removal: Sequence[str] = ()) -> None:
    """End a server with all that it started, then hide the key that it may have logged."""
    end_session(pid)
    if removal:
        containers.told(removal)
        log_file.with_suffix(".cid").unlink(missing_ok=True)
    hide_in_file(log_file)


def answers(url: str, ready_path: str = "") -> bool:
    """Whether /health is good or, without one, models are listed. A server that wants a key (401) answers too."""
    if ready_path:
        return try_call(f"{url}/{ready_path.lstrip('/')}", {}, 2)[0] == 200
    status, _ = try_call(f"{url}/health", {}, 2)
    return status == 200 or (status == 404 and try_call(f"{url}/v1/models", {}, 2)[0] in (200, 401))


def launch_replicas(
    config: ServerConfig, access: Access, log_dir: Path, stack: ExitStack, detach: bool = False
) -> list[Process]:
    """Start all replicas, then the router if one is asked for, and wait until they are ready. The router is last.

    Leaving the stack stops them. With `detach` they live on when this program is killed.
    """

    def start(launch: Launch, port: int, which: str | int, ready: Ready = (None, "")) -> Process:
        process = _start(launch, port, log_dir / f"{server_label(config)}-{which}.log", ready, detach)
        if not detach:
            stack.enter_context(ends_with_us(process.popen.pid))
        stack.callback(process.stop)
        return process

    if (client := containers.client_of(access.serve)) and not detach:
        containers.remove_left(client, log_dir)
    ready = BACKENDS[config.backend].ready_line, config.ready_path
    ports = first_ports(config, access.port)
    processes = [start(launch_of(config, access, port, n), port, n, ready) for n, port in enumerate(ports)]
    _wait_until_ready(processes, access.server_timeout, config)
    if config.router:
        port = access.port + len(ports) if access.port else first_free_port(1)
        processes.append(start(router([process.url for process in processes], port), port, "router"))
        _wait_until_ready(processes[-1:], access.server_timeout, config)
    return processes


def launch_of(config: ServerConfig, access: Access, port: int, replica: int) -> Launch:
    """The command of a replica, with engine arguments as given, keys included. Raises InputError."""
    backend = BACKENDS[config.backend]
    assert backend.launch
    config = msgspec.structs.replace(config, engine_args=access.engine_args, serve=access.serve)
    launch = backend.launch(backend.installed(config), config, port, replica)
    room = backend.capacity_args(config, access.requests_at_once, access.request_tokens)
    own = dict(variable.split("=", 1) for variable in access.engine_env)
    command = (
        containers.with_variables(launch.command, own) if containers.client_of(access.serve) else launch.command
    )
    return replace(launch, command=(*command, *room), env=launch.env | own)


def router(urls: Sequence[str], port: int) -> Launch:
    """vLLM's router: round robin, and without retries, which would hide failures."""
    command = [str(environment("vllm-router") / "bin/vllm-router"), "--policy", "round_robin", "--disable-retries"]
    command += ["--disable-circuit-breaker", "--port", str(port), "--prometheus-port", str(first_free_port(1))]
    return Launch((*command, "--worker-urls", *urls))


def request_urls(config: ServerConfig, processes: list[Process]) -> tuple[str, ...]:
    """Where requests go: to the router, or to every replica."""
    return tuple(process.url for process in (processes[-1:] if config.router else processes))


def _start(launch: Launch, port: int, log_file: Path, ready: Ready, detach: bool) -> Process:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    container = None
    if client := containers.client_of(launch.command):
        if not is_free(port):  # who listens later cannot be told from the daemon
            raise ServerFailed(f"port {port} is taken; leave --port out")
        container, folder = Container(client, log_file.with_suffix(".cid")), None if detach else log_file.parent
        launch = replace(launch, command=containers.marked(launch.command, container.id_file, folder))
    with log_file.open("wb") as log:
        popen = subprocess.Popen(
            launch.command,
            env=os.environ | launch.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(popen, port, command_line(launch), log_file, *ready, container)


def command_line(launch: Launch) -> str:
    """As typed into a shell, without keys."""
    variables = [f"{name}={value}" for name, value in launch.env.items()]
    return shlex.join(hide_in_words([*(["env", *variables] if variables else []), *launch.command]))


def _wait_until_ready(processes: list[Process], timeout_s: float, config: ServerConfig) -> None:
    """Wait for all of them, showing the time and the log's last line. Raises ServerFailed."""
    start, waiting = time.monotonic(), list(processes)
    name = engine_name(config.engine)
    try:
        while waiting:
            for process in waiting:
                process.check()
            log_file, passed_s = waiting[0].log_file, time.monotonic() - start
            if passed_s > timeout_s:
                raise server_failed(f"not ready after {timeout_s:g} s (--server_timeout)", log_file)
            live.show(f"{name} starts: {passed_s:.0f} s", last_line(log_file)[:60])
            waiting = [process for process in waiting if not process.is_ready()]
            time.sleep(0.2)
    finally:
        live.clear()
    for process in processes:
        hide_in_file(process.log_file)
