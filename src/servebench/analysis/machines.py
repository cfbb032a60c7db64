"""May results be compared, as far as machines go? Only those of like GPUs, power limits and CPUs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from servebench.log.schema import Log
from servebench.log.telemetry import Gpu, Machine

CORES = re.compile(r"(\d+) cores$")  # of a host, in identities


def unlike(a: Sequence[Log], b: Sequence[Log]) -> tuple[str, str] | None:
    """(what A was measured on, what B was), as far as it is known to differ; None where it is not."""
    used = all(log.server_facts.gpus for log in (*a, *b))  # else one of the engines may run on the CPU
    sides = [zip(*(_traits(log, used) for log in side), strict=True) for side in (a, b)]
    found = []
    for of_both in zip(*sides, strict=True):
        ours, theirs = ({value: words for value, words in of_logs if value} for of_logs in of_both)
        if ours and theirs and ours.keys() != theirs.keys():
            found.append((" or ".join(ours.values()), " or ".join(theirs.values())))
    return (", ".join(words for words, _ in found), ", ".join(words for _, words in found)) if found else None


def _traits(log: Log, used: bool) -> list[tuple[Hashable, str]]:
    """What has to be alike, and in words. Empty where unknown."""
    machine = machine_of(log)
    gpus = [gpu for gpu in machine.gpus if not used or gpu.index in log.server_facts.gpus]
    limited = [f"{gpu.power_limit_w:g} W" for gpu in gpus if gpu.power_limit_w]
    return [
        (frozenset(gpu.name for gpu in gpus), _counted(gpu.name for gpu in gpus)),
        (
            frozenset(limited) if len(limited) == len(gpus) else "",
            f"GPUs limited to {' and '.join(dict.fromkeys(limited))}",
        ),
        (machine.cpu, machine.cpu),
        (machine.cores or "", f"{machine.cores} cores"),
    ]


def _counted(names: Iterable[str]) -> str:
    return " and ".join(f"{n} x {name}" for name, n in sorted(Counter(names).items()))


def machine_of(log: Log) -> Machine:
    """Of a log without one, what the identity of its point says of the host that its server was started on."""
    if log.machine:
        return log.machine
    around = {} if log.server.urls else log.identity.get("environment", {})
    cores = CORES.search(around.get("host", ""))
    gpus = [Gpu(index=i, name=name) for i, name in enumerate(around.get("gpus", []))]
    return Machine(cores=int(cores[1]) if cores else None, gpus=gpus)
