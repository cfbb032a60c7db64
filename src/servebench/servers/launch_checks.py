"""Checks of this machine before servers are started: programs, engines and ports. Each raises InputError."""

from __future__ import annotations

import os

from servebench.cli.keys import hide_in_words
from servebench.errors import InputError
from servebench.log.config import ServerConfig
from servebench.servers import containers
from servebench.servers.access import Access
from servebench.servers.backends import BACKENDS
from servebench.servers.backends.contract import Launch
from servebench.servers.http_call import notify
from servebench.servers.launch import launch_of, router
from servebench.servers.ports import is_free

HIGHEST_PORT = 65535


def check_launch(config: ServerConfig, access: Access) -> None:
    """The engine is installed and takes these options, and its ports are free."""
    backend = BACKENDS[config.backend]
    processes, ports_each = backend.processes(config)
    if access.port:
        check_ports(access.port, processes * ports_each + config.router)
    for replica in range(processes if backend.launch else 0):
        check_program(launch_of(config, access, access.port or 0, replica))
    if containers.client_of(access.serve):
        containers.check(access.serve)
    if config.router:
        check_program(router([], 0))


def check_program(launch: Launch) -> None:
    if not os.access(launch.command[0], os.X_OK):
        raise InputError(f"{launch.command[0]} cannot be run; install the engine again")
    if hide_in_words(launch.command) != list(launch.command):
        notify(
            "the engine takes the key of its options from its command line alone, which everybody here can read"
        )


def check_ports(first: int, n: int) -> None:
    if first + n - 1 > HIGHEST_PORT:
        raise InputError(f"--port {first} and {n - 1} behind it are more than there are; give a lower one")
    taken = [port for port in range(first, first + n) if not is_free(port)]
    if taken:
        which = f"port {taken[0]} of --port {first} to {first + n - 1}" if n > 1 else f"--port {first}"
        raise InputError(f"{which} is taken; give another or leave it out")
