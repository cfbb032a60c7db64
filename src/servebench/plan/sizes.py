"""Which servers fit: combinations of TP size and replicas that need more GPUs than there are are left out."""

from __future__ import annotations

from collections.abc import Sequence

from servebench.errors import InputError
from servebench.log.config import ServerConfig
from servebench.log.identity import gpu_names
from servebench.servers.backends import BACKENDS
from servebench.servers.backends.contract import visible_gpus


def fitting(servers: Sequence[ServerConfig], starts: bool) -> tuple[list[ServerConfig], str]:
    """(the servers that fit, what a reader has to know of the others). Raises InputError where none fits."""
    gpus, where = _gpus(servers) if starts else (None, "")
    good = [server for server in servers if gpus is None or workers(server) <= gpus]
    left_out = list(dict.fromkeys(map(_sizes, (server for server in servers if server not in good))))
    if not good:
        least = min(servers, key=workers)
        raise InputError(
            f"{_sizes(least)} needs {workers(least)} GPUs, and {where}; give more GPUs or ask for less"
        )
    if left_out:
        return good, f"left out: {', '.join(left_out)}, since {where}"
    most = max(map(workers, servers))
    unknown = starts and gpus is None and most > 1 and BACKENDS[servers[0].backend].uses_gpus()
    return good, f"the largest server takes {most} GPUs; none is seen on this machine" if unknown else ""


def workers(server: ServerConfig) -> int:
    """GPUs that it takes (on a CPU: processes)."""
    return server.tp_size * server.num_replicas


def _sizes(server: ServerConfig) -> str:
    return f"TP {server.tp_size} x {server.num_replicas}"


def _gpus(servers: Sequence[ServerConfig]) -> tuple[int | None, str]:
    """(how many GPUs may be used, who says so); None where nobody can say."""
    named, visible = servers[0].gpus, visible_gpus()
    if named:
        return len(named), f"--gpus names {len(named)}"
    if not BACKENDS[servers[0].backend].uses_gpus():
        return None, ""
    if visible is not None:
        return len(visible), f"$CUDA_VISIBLE_DEVICES shows {len(visible)} ({','.join(visible)})"
    there = len(gpu_names()) if max(map(workers, servers)) > 1 else 0
    return (there, f"this machine has {there}") if there else (None, "")
