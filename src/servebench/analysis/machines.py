"""May results be compared, as far as machines go? Only those of like GPUs, power limits and CPUs."""

from __future__ import annotations

from collections.abc import Sequence

from servebench.log.schema import Log
from servebench.log.telemetry import Gpu, Machine


def unlike(a: Sequence[Log], b: Sequence[Log]) -> tuple[str, str] | None:
    """(what A was measured on, what B was), as far as it is known to differ; None where it is not."""
    used = all(log.server_facts.gpus for log in (*a, *b))  # else one of the engines may run on the CPU
    sides = [zip(*(_traits(log, used) for log in side), strict=True) for side in (a, b)]
    pairs = [
        [" or ".join(sorted({*filter(None, of_logs)})) for of_logs in each] for each in zip(*sides, strict=True)
    ]
    differ = [pair for pair in pairs if all(pair) and pair[0] != pair[1]]
    return (", ".join(ours for ours, _ in differ), ", ".join(theirs for _, theirs in differ)) if differ else None


def _traits(log: Log, used: bool) -> list[str]:
    """What has to be alike, in words; "" where it is unknown."""
    machine = machine_of(log)
    gpus = [gpu for gpu in machine.gpus if not used or gpu.index in log.server_facts.gpus]
    limits = sorted({gpu.power_limit_w or 0.0 for gpu in gpus})
    limited = " and ".join(f"{limit_w:g} W" for limit_w in limits)
    return [
        " and ".join(sorted({gpu.name for gpu in gpus})),
        f"GPUs limited to {limited}" if limits and limits[0] else "",
        machine.cpu,
        f"{machine.cores} cores" if machine.cores else "",
    ]


def machine_of(log: Log) -> Machine:
    """Of a log without one, the GPUs that the identity of its point names."""
    around = {} if log.server.urls else log.identity.get("environment", {})
    gpus = [Gpu(index=i, name=name) for i, name in enumerate(around.get("gpus", []))]
    return log.machine or Machine(gpus=gpus)
