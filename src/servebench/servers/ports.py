"""Which local ports servers get: those asked for, or free ones."""

from __future__ import annotations

import random
import socket

from servebench.errors import ServerFailed
from servebench.log.config import ServerConfig
from servebench.servers.backends import BACKENDS

PORTS = range(10_000, 30_000)  # below those that the kernel gives to connections
TRIES = 100


def first_ports(config: ServerConfig, asked: int | None) -> list[int]:
    """The first port of each launched process, counted up from the port asked for, or from a free one."""
    processes, ports_each = BACKENDS[config.backend].processes(config)
    first = asked or first_free_port(processes * ports_each)
    return [first + i * ports_each for i in range(processes)]


def first_free_port(n: int) -> int:
    """The first of n consecutive ports that nobody listens on. Raises ServerFailed."""
    for first in random.sample(PORTS, TRIES):
        if all(is_free(port) for port in range(first, first + n)):
            return first
    raise ServerFailed(f"no {n} consecutive ports are free")


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
