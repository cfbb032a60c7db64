"""Servers that outlive a benchmark: `python -m servebench server start|stop|restart|status`.

    python -m servebench server start --backend llamacpp --model FILE.gguf --port 8080
    python run_benchmark.py --backend llamacpp --model FILE.gguf --client_only --port 8080
    python -m servebench server stop --port 8080

`start` takes the options of run_benchmark.py (the first value of a list) and returns when the server is ready.
What was started is kept in servers.json beside the logs; only that is ever stopped, while it is the same process.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import msgspec
import psutil
from tabulate import tabulate

from servebench.cli import commandline, keys
from servebench.cli.signals import ends_on_signals
from servebench.errors import InputError, ServerFailed
from servebench.log.store import write_whole
from servebench.plan import arguments
from servebench.plan.preflight import check_launch, check_model, check_results_folder
from servebench.plan.sweep import make_plan
from servebench.servers.launch import launch_replicas, urls_of
from servebench.servers.process_group import end_session


class Standing(msgspec.Struct, frozen=True):
    """One replica, as servers.json keeps it. `created` tells its process from a later one of that number."""

    backend: str
    model: str
    port: int
    pid: int
    created: float
    log_file: str
    arguments: list[str]

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def start(words: list[str]) -> int:
    settings = arguments.parse(words)
    if settings.access.extra_headers:  # they may be secrets, and words are kept in servers.json
        raise InputError("--extra_headers go with requests; give them to run_benchmark.py")
    if settings.execution.dry_run:
        raise InputError("start starts; to look at a plan give --dry_run to run_benchmark.py")
    plan, *_ = make_plan(settings)
    config, root = plan.server, settings.execution.out_json_dir
    check_model(settings)
    check_results_folder(root)
    if config.urls:
        raise InputError(f"--backend {settings.backend} is attached to, never started")
    check_launch(config, plan.access)
    with ExitStack() as stack:
        processes = launch_replicas(config, plan.access, settings.folder, stack, outlive=True)
        stack.pop_all()
    running = [
        Standing(
            config.backend, config.model, p.port, p.popen.pid, psutil.Process(p.popen.pid).create_time(),
            str(p.log_file), keys.hide_in_words(words),
        )
        for p in processes
    ]  # fmt: skip
    file = root / "servers.json"
    _write(file, [*_read(file), *running])
    print(f"ready; measure it with --client_only --openai_api_url {' '.join(urls_of(config, processes))}")
    return 0


def stop(file: Path, port: int | None) -> list[Standing]:
    """Stop the server on this port, or all. Returns what was stopped."""
    known = _read(file)
    chosen = [server for server in known if port in (None, server.port)]
    if not chosen:
        raise InputError(f"no server{f' on port {port}' if port else ''} was started from {file.parent}/")
    for server in chosen:
        end_session(server.pid)
        print(f"stopped {server.backend} on port {server.port}")
    _write(file, [server for server in known if server not in chosen])
    return chosen


def status(file: Path) -> int:
    rows = [
        [s.backend, s.model, s.port, s.pid, f"{datetime.fromtimestamp(s.created):%Y-%m-%d %H:%M:%S}", s.log_file]
        for s in _read(file)
    ]
    print(tabulate(rows, ["backend", "model", "port", "pid", "since", "log"]) if rows else "no server runs")
    return 0


def _read(file: Path) -> list[Standing]:
    """Those that still run."""
    known = msgspec.json.decode(file.read_bytes(), type=list[Standing]) if file.exists() else []
    return [server for server in known if server.alive()]


def _write(file: Path, servers: list[Standing]) -> None:
    write_whole(file, msgspec.json.format(msgspec.json.encode(servers)))


def _refuse_lost_keys(file: Path, port: int | None, verb: str) -> None:
    """A server's key is not kept, so its words are not enough to start it again."""
    lost = [s for s in _read(file) if port in (None, s.port) and any(keys.HIDDEN in word for word in s.arguments)]
    if lost and verb == "restart":
        raise InputError(
            f"the server on port {lost[0].port} was started with a key, which is not kept; stop and start it"
        )


def run(verb: str, words: list[str]) -> int:
    if verb == "start":
        return start(words)
    parser = commandline.Parser(prog=f"servebench server {verb}")
    parser.add_argument("--port", type=commandline.COUNT, metavar="N", help="of the server [all]")
    parser.add_argument("--out_json_dir", type=Path, default=Path("results"), metavar="DIR", help="[results]")
    given = parser.parse_args(words)
    file = given.out_json_dir / "servers.json"
    if verb == "status":
        return status(file)
    _refuse_lost_keys(file, given.port, verb)
    stopped = stop(file, given.port)
    again = {tuple(server.arguments) for server in stopped} if verb == "restart" else set()
    return max((start(list(words)) for words in again), default=0)


def main() -> int:
    parser = commandline.Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=["start", "stop", "restart", "status"])
    keys.hide_own_keys()
    verb = parser.parse_args(sys.argv[1:2]).verb
    try:
        with ends_on_signals():
            return run(verb, sys.argv[2:])
    except ServerFailed as failure:
        print(f"the server did not start: {failure}\n{failure.log_tail}", file=sys.stderr)
        return 1
