"""Servers that outlive a benchmark: `./servebench server start|stop|restart|status`.

    ./servebench server start --backend llamacpp --model FILE.gguf --port 8080
    python run_benchmark.py --backend llamacpp --model FILE.gguf --client_only --port 8080
    ./servebench server stop --port 8080

`start` takes the options of run_benchmark.py (the first value of a list) and returns when the server is ready.
What was started is kept in servers.json beside the logs; only that is ever stopped, while it is the same process.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import msgspec
import psutil
from tabulate import tabulate

from servebench.cli import commandline, keys
from servebench.cli.signals import ends_on_signals
from servebench.errors import InputError
from servebench.log.config import ServerConfig
from servebench.log.store import open_lock, write_whole
from servebench.plan import arguments
from servebench.plan.preflight import check_model
from servebench.plan.sweep import make_plan
from servebench.servers.launch import Process, launch_replicas, request_urls, stop_server
from servebench.servers.launch_checks import check_launch
from servebench.show.layouts import server_name


class DetachedServer(msgspec.Struct, frozen=True):
    """One started process, an entry of servers.json. `created` tells it from a later process with the same pid."""

    backend: str
    model: str
    port: int
    pid: int
    created: float  # seconds since the epoch
    log_file: str
    arguments: list[str]  # of `start`, without keys
    removal: list[str] = []  # the command that removes its container

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def start(options: list[str]) -> None:
    """Start the first server of this command line's plan, and write it to servers.json."""
    settings, *_ = arguments.parse(options)
    if settings.access.extra_headers:  # they may be secrets, and servers.json has the options
        raise InputError("--extra_headers go with requests; give them to run_benchmark.py")
    if settings.execution.dry_run:
        raise InputError("start has no --dry_run; give it to run_benchmark.py to see a plan")
    plan, *others = make_plan(settings)
    config, file = plan.server, settings.execution.out_json_dir / "servers.json"
    check_model(settings)
    open_lock(file.parent).close()
    if config.urls:
        raise InputError(
            f"--backend {settings.backend} measures running servers; name an engine that can be started"
        )
    check_launch(config, plan.access)
    if others:
        print(f"note: {1 + len(others)} servers are asked for; the first one is started: {server_name(config)}")
    with ExitStack() as stack:
        processes = launch_replicas(config, plan.access, settings.folder, stack, detach=True)
        stack.pop_all()
    started = [_record(process, config, keys.hide_in_words(options)) for process in processes]
    _write(file, [*_running(file), *started])
    print(f"ready; measure it with --client_only --openai_api_url {' '.join(request_urls(config, processes))}")


def _record(process: Process, config: ServerConfig, options: list[str]) -> DetachedServer:
    pid, log_file = process.popen.pid, str(process.log_file)
    created = psutil.Process(pid).create_time()
    known = (config.engine, config.model, process.port, pid, created, log_file, options, process.removal)
    return DetachedServer(*known)


def stop(file: Path, port: int | None, restart: bool = False) -> None:
    """Stop the server on this port, or all that are in servers.json; and start them again if asked to."""
    running = _running(file)
    chosen = [server for server in running if port in (None, server.port)]
    if not chosen:
        raise InputError(f"no server{f' on port {port}' if port else ''} was started from {file.parent}/")
    if restart:
        _refuse_lost_keys(chosen)
    for server in chosen:
        stop_server(server.pid, Path(server.log_file), server.removal)
        print(f"stopped {server.backend} on port {server.port}")
    _write(file, [server for server in running if server not in chosen])
    for options in {tuple(server.arguments) for server in chosen} if restart else ():
        start(list(options))


def _refuse_lost_keys(servers: list[DetachedServer]) -> None:
    """servers.json has no keys, so the arguments there cannot start a server that needs one."""
    for server in servers:
        if any(keys.HIDDEN in option for option in server.arguments):
            raise InputError(
                f"the server on port {server.port} was started with a key, which is not kept; stop and start it"
            )


def status(file: Path) -> None:
    """List the servers that run."""
    rows = [
        [s.backend, s.model, s.port, s.pid, f"{datetime.fromtimestamp(s.created):%Y-%m-%d %H:%M:%S}", s.log_file]
        for s in _running(file)
    ]
    print(tabulate(rows, ["backend", "model", "port", "pid", "since", "log"]) if rows else "no server runs")


def _running(file: Path) -> list[DetachedServer]:
    """The servers of servers.json that still run."""
    known = msgspec.json.decode(file.read_bytes(), type=list[DetachedServer]) if file.exists() else []
    return [server for server in known if server.alive()]


def _write(file: Path, servers: list[DetachedServer]) -> None:
    write_whole(file, msgspec.json.format(msgspec.json.encode(servers)))


def run(verb: str, options: list[str]) -> None:
    if verb == "start":
        return start(options)
    parser = commandline.Parser(prog=f"servebench server {verb}")
    parser.add_argument("--port", type=commandline.COUNT, metavar="N", help="port of the server [all]")
    parser.add_argument(
        "--out_json_dir",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder of the benchmark [results]",
    )
    given = parser.parse_args(options)
    file = given.out_json_dir / "servers.json"
    return status(file) if verb == "status" else stop(file, given.port, restart=verb == "restart")


def main() -> None:
    parser = commandline.Parser(description=__doc__)
    parser.add_argument("verb", choices=["start", "stop", "restart", "status"])
    keys.hide_own_keys()
    verb = parser.parse_args(sys.argv[1:2]).verb
    with ends_on_signals():
        run(verb, sys.argv[2:])
