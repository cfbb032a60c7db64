"""Which servers fit: combinations of TP size and replicas that need more GPUs than there are are left out."""

from __future__ import annotations

from collections.abc import Sequence

from servebench.errors import InputError
from servebench.log.config import ServerConfig
from servebench.servers.backends import BACKENDS
from servebench.servers.backends.contract import visible_gpus
from servebench.telemetry.gpus import names


def fitting(servers: Sequence[ServerConfig], starts: bool) -> tuple[list[ServerConfig], str]:
    """(the servers that fit, what a reader has to know of the others). Raises InputError where none fits."""
    gpus, where = _gpus(servers) if starts else (None, "")
    good = [server for server in servers if gpus is None or server.workers <= gpus]
    left_out = list(dict.fromkeys(server.layout for server in servers if server not in good))
    if not good:
        least = min(servers, key=lambda server: server.workers)
        raise InputError(f"{least.layout} needs {least.workers} GPUs, and {where}; give more GPUs or ask for less")
    if left_out:
        return good, f"left out: {', '.join(left_out)}, since {where}"
    most = max(server.workers for server in servers)
    unknown = starts and gpus is None and most > 1 and BACKENDS[servers[0].backend].uses_gpus(servers[0])
    return good, f"the largest server takes {most} GPUs; none is seen on this machine" if unknown else ""


def _gpus(servers: Sequence[ServerConfig]) -> tuple[int | None, str]:
    """(how many GPUs may be used, who says so); None where nobody can say."""
    named, visible = servers[0].gpus, visible_gpus()
    if named:
        return len(named), f"--gpus names {len(named)}"
    if not BACKENDS[servers[0].backend].uses_gpus(servers[0]):
        return None, ""
    if visible is not None:
        return len(visible), f"$CUDA_VISIBLE_DEVICES shows {len(visible)} ({','.join(visible)})"
    there = len(names()) if max(server.workers for server in servers) > 1 else 0
    return (there, f"this machine has {there}") if there else (None, "")
