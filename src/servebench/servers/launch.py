"""Engines as processes: from the command that starts one to the moment when it is ready.

A launched server lives in a session of its own, writes to a log beside the results, counts as ready only when it
answers and it is our process that listens, and is stopped with everything that it started.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import msgspec
import psutil
from tqdm import tqdm

from servebench.cli.keys import hide_in_file, hide_in_text, hide_in_url, hide_in_words
from servebench.errors import ServerFailed
from servebench.load.http import over
from servebench.log.schema import RunConfig, ServerConfig, log_name
from servebench.servers.access import Access
from servebench.servers.backends import BACKENDS
from servebench.servers.backends.contract import Launch, engine_home
from servebench.servers.process_group import end_session, session

PR_SET_PDEATHSIG = 1
TAIL_LINES, CAUSES = 15, 3
EXCEPTION = re.compile(r"\b[A-Z]\w*(?:Error|Exception): .+")
PORTS, PORTS_TRIED = range(10_000, 30_000), 100  # below those that the kernel gives to connections
SAID_AFTER_S = 3.0  # that something is waited for

# What an engine's last words mean, and what to try; looked for in any case of letters.
ADVICE = {
    "out of memory": "it does not fit: more --tp_size, a smaller --max_ragged_batch_size, or other --gpus",
    "failed to allocate": "it does not fit: shorter lengths, fewer clients or a smaller --max_ragged_batch_size",
    "cannot allocate memory": "this host has too little memory for it",
    "available memory": "no room for the KV cache: change the engine's share of memory (--engine_args)",
    "sigkill": "the kernel does that when memory runs out (dmesg tells)",
    "address already in use": "another process took the port; leave --port out",
    "no space left on device": "the disk is full",
}


class OnItsHost(HTTPRedirectHandler):
    """Follows what has moved on its host alone, since headers may hold a key. Other moves are refused answers."""

    def redirect_request(self, req: Request, *moved: Any) -> Request | None:
        here, there = urlsplit(req.full_url), urlsplit(moved[-1])
        same = req.get_method() == "GET" and here[:2] == there[:2]  # scheme and host
        return super().redirect_request(req, *moved) if same else None


opener = build_opener(ProxyHandler({}), OnItsHost())  # a proxy would stand between us and the server


def server_failed(why: str, log_tail: str = "") -> ServerFailed:
    """The error to raise, with what its words mean and what to try."""
    tips = [tip for sign, tip in ADVICE.items() if sign in f"{why} {log_tail}".lower()]
    return ServerFailed("; ".join([why, *tips]), log_tail)


@dataclass(frozen=True)
class Process:
    """One launched server: a replica, a whole deployment, or the router before them."""

    popen: subprocess.Popen[bytes]
    port: int
    command: str
    log_file: Path
    ready: str | None  # what its log says when it is ready; None: it answers GET /health, or lists its models

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def check(self) -> None:
        """Raises ServerFailed when it has ended."""
        status = self.popen.poll()
        if status is not None:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            raise server_failed(f"the server {how}", tail(self.log_file))

    def is_ready(self) -> bool:
        """Does it answer, and is it one of ours that listens on the port?"""
        there = answers(self.url) if self.ready is None else self.ready in tail(self.log_file)
        return there and self._listens()

    def _listens(self) -> bool:
        for process in session(self.popen.pid):
            with suppress(psutil.Error):
                if any(c.status == "LISTEN" and c.laddr.port == self.port for c in process.net_connections("tcp")):
                    return True
        return False

    def stop(self) -> None:
        end_session(self.popen.pid)
        self.popen.poll()  # or it would stay a zombie
        hide_in_file(self.log_file)


def launch_replicas(
    config: ServerConfig, access: Access, log_dir: Path, stack: ExitStack, outlive: bool = False
) -> list[Process]:
    """Start every replica and wait until all are ready. The stack stops them; with `outlive` nothing else does.

    A router, where one is asked for, is the last.
    """
    backend = BACKENDS[config.backend]
    name = log_name(config, RunConfig()).partition("-prompt")[0]
    ports = first_ports(config, access.port)
    processes = []
    for replica, port in enumerate(ports):
        launch = launch_of(config, access, port, replica)
        processes.append(_start(launch, port, log_dir / f"{name}-{replica}.log", backend.ready, outlive))
        stack.callback(processes[-1].stop)
    _wait_until_ready(processes, access.server_timeout, config)
    if config.router:
        port = access.port + len(ports) if access.port else free_ports(1)
        launch = router([process.url for process in processes], port)
        processes.append(_start(launch, port, log_dir / f"{name}-router.log", None, outlive))
        stack.callback(processes[-1].stop)
        _wait_until_ready(processes[-1:], access.server_timeout, config)
    return processes


def launch_of(config: ServerConfig, access: Access, port: int, replica: int) -> Launch:
    """The process of a replica, with the keys that the engine's words have, and room for what is to come."""
    backend = BACKENDS[config.backend]
    assert backend.launch
    config = msgspec.structs.replace(config, engine_args=access.engine_args)
    launch = backend.launch(config, port, replica)
    if not backend.room:
        return launch
    room = backend.room(config, access.requests_at_once, access.request_tokens)
    return replace(launch, command=(*launch.command, *room))


def urls_of(config: ServerConfig, processes: list[Process]) -> list[str]:
    """Where requests go."""
    return [process.url for process in (processes[-1:] if config.router else processes)]


def router(urls: Sequence[str], port: int) -> Launch:
    """vLLM's router from .engines/vllm-router: it deals in turn, and does not try again unseen what failed."""
    command = [str(engine_home("vllm-router") / "bin/vllm-router"), "--policy", "round_robin", "--disable-retries"]
    command += ["--disable-circuit-breaker", "--port", str(port), "--prometheus-port", str(free_ports(1))]
    return Launch((*command, "--worker-urls", *urls))


def first_ports(config: ServerConfig, asked: int | None) -> list[int]:
    """The first port of every launch, one after the other: from the one that was asked for on, else free ones."""
    launches, each = BACKENDS[config.backend].launches(config)
    first = asked or free_ports(launches * each)
    return [first + i * each for i in range(launches)]


def free_ports(n: int) -> int:
    """The first of n consecutive ports on which nobody listens."""
    for first in random.sample(PORTS, PORTS_TRIED):
        if all(is_free(port) for port in range(first, first + n)):
            return first
    raise server_failed(f"no {n} consecutive ports are free")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def end_with_parent() -> None:
    """In the child: be sent SIGTERM when the benchmark is gone, even by SIGKILL (Linux)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _start(launch: Launch, port: int, log_file: Path, ready: str | None, outlive: bool) -> Process:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as log:
        popen = subprocess.Popen(
            launch.command,
            env=os.environ | launch.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=None if outlive else end_with_parent,
        )
    variables = [f"{name}={value}" for name, value in launch.env.items()]
    command = shlex.join(hide_in_words([*(["env", *variables] if variables else []), *launch.command]))
    return Process(popen, port, command, log_file, ready)


def _wait_until_ready(processes: list[Process], timeout_s: float, config: ServerConfig) -> None:
    """Until every one of them is ready; shows how long that has taken."""
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
                raise server_failed(f"not ready after {timeout_s:g} s (--server_timeout)", tail(first.log_file))
            bar.set_postfix_str(last_words(waiting[0].log_file)[:60])
            waiting = [process for process in waiting if not process.is_ready()]
            time.sleep(0.2)
    for process in processes:
        hide_in_file(process.log_file)


def call(url: str, headers: Mapping[str, str], timeout_s: float, body: bytes | None = None) -> bytes:
    """The answer (2xx) to one call beside the load: a POST of JSON where there is a body, else a GET.

    Raises OSError for any other answer, HTTPError where it is HTTP.
    """
    kind = {"Content-Type": "application/json"} if body else {}
    waiting = Timer(SAID_AFTER_S, say, [f"waiting for an answer from {hide_in_url(url)}"])
    waiting.start()
    try:
        with opener.open(Request(url, body, over(kind, dict(headers))), timeout=timeout_s) as answer:
            return bytes(answer.read())
    except HTTPException as error:
        raise OSError(f"what came is no HTTP: {str(error)[:100]!r}") from error
    finally:
        waiting.cancel()


def say(line: str) -> None:
    """To the terminal, above the bars."""
    tqdm.write(line, file=sys.stderr)


def tried(url: str, headers: Mapping[str, str], timeout_s: float, body: bytes | None = None) -> tuple[int, str]:
    """(HTTP status, what came with it) of such a call; status 0 where no answer came."""
    try:
        return 200, call(url, headers, timeout_s, body).decode(errors="replace")
    except HTTPError as error:
        with suppress(OSError, HTTPException):  # it may break off
            return error.code, error.read(4096).decode(errors="replace")
        return error.code, ""
    except OSError:
        return 0, ""


def answers(url: str) -> bool:
    """Is /health good, or where there is none, are models listed? A server that wants a key is there too."""
    status, _ = tried(f"{url}/health", {}, 2)
    return status == 200 or (status == 404 and tried(f"{url}/v1/models", {}, 2)[0] in (200, 401))


def tail(log_file: Path) -> str:
    """A log's first exceptions, of which later ones often are but echoes, and its last lines."""
    lines = [hide_in_text(line) for line in _lines(log_file)]
    last = "\n".join(lines[-TAIL_LINES:])
    raised = dict.fromkeys(found.group(0) for line in lines if (found := EXCEPTION.search(line)))
    return "\n".join([*[cause for cause in raised if cause not in last][:CAUSES], last])


def _lines(log_file: Path) -> list[str]:
    try:
        return log_file.read_text(errors="replace").rstrip().splitlines()
    except OSError:
        return []


def last_words(log_file: Path) -> str:
    return hide_in_text(" ".join("".join(_lines(log_file)[-1:]).split()))
