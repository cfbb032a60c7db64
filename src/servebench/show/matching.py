"""Which points of two folders are compared: those that were asked the same; and what else a reader has to know."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from servebench.analysis import differences, trust
from servebench.errors import InputError
from servebench.log import identity, schema
from servebench.log.config import all_fields
from servebench.log.schema import Log

# How it was asked, and what the client did when it went wrong: it may differ. All else has to be alike. (The
# template of a chat is part of the prompt: see _asked.)
CONDITIONS = (
    *("api", "stream", "request_timeout", "max_retries", "stop_when_overloaded", "repetition"),
    "dataset",  # its path; dataset_sha256 says what is in it
)
Runs = list[Log]


def matched(a: Runs, b: Runs) -> list[tuple[str, Runs, Runs]]:
    """(point, its runs in A, its runs in B) of the points that both have. Raises InputError for unlike ones."""
    with_backend = _several_backends(a, b)
    of_a, of_b = (_by_name(runs, with_backend) for runs in (a, b))
    common = [name for name in of_a if name in of_b]
    if not common:
        first, second = next(iter(of_a)), next(iter(of_b))
        raise InputError(f"no point is in both; the first has {first!r}, the second {second!r}")
    for name in common:
        _refuse_unlike(name, of_a[name], of_b[name])
    return [(name, of_a[name], of_b[name]) for name in common]


def _by_name(logs: Runs, with_backend: bool) -> dict[str, Runs]:
    found: dict[str, Runs] = {}
    for runs in identity.by_point(logs):
        name = _name(runs[0], with_backend)
        if name in found:
            what = ", ".join(_unlike(found[name][0], runs[0]) or differences.differing([found[name][0], runs[0]]))
            raise InputError(f"{name}: runs of unlike settings ({what}) in one folder; choose with --filter")
        found[name] = runs
    return found


def _several_backends(a: Runs, b: Runs) -> bool:
    """Has one side points of several backends? Then their names tell them apart."""
    return any(len({log.server.backend for log in logs}) > 1 for logs in (a, b))


def _unlike(a: Log, b: Log) -> list[str]:
    """The fields of server and run that are not the same in both."""
    theirs = b.fields
    return [name for name, ours in a.fields.items() if ours != theirs[name] and name != "repetition"]


def _name(log: Log, with_backend: bool) -> str:
    """What two points have in common that are to be compared: the name of the log, but for what may differ."""
    name = schema.log_name(log.server, replace(log.run, repetition=0)).removesuffix(".json")
    return f"{log.server.backend}/{name}" if with_backend else name


def _asked(log: Log) -> dict[str, Any]:
    asked = {name: value for name, value in all_fields(log.run).items() if name not in CONDITIONS}
    return asked | {"chat template": log.run.api == "chat"}


def _refuse_unlike(name: str, a: Runs, b: Runs) -> None:
    ours, theirs = _asked(a[0]), _asked(b[0])
    for field in ours:
        if ours[field] != theirs[field]:
            what = f"{field} is {ours[field]} and {theirs[field]}"
            how = "with one --seed, which a running server is else given anew" if field == "seed" else "alike"
            raise InputError(f"{name}: unlike workloads, {what}; measure both {how}")
    hashes = [{log.run.repetition: log.client.get("workload_sha256") for log in runs} for runs in (a, b)]
    for run in hashes[0].keys() & hashes[1].keys():
        if hashes[0][run] != hashes[1][run]:
            alike = "measure both with one --tokenizer and --seed"
            raise InputError(f"{name}: unlike prompts in run {run + 1}; {alike}")
    if not hashes[0].keys() & hashes[1].keys():
        raise InputError(f"{name}: no run has the same prompts in both; measure both with the same --runs")


def notes(a: Runs, b: Runs) -> list[str]:
    """What a reader has to know beside the table: what else differs, and whose times are not the engine's."""
    words = []
    for field in (name for name in CONDITIONS if name != "repetition"):
        values = [sorted({str(all_fields(log.run)[field]) for log in runs}) for runs in (a, b)]
        if values[0] != values[1]:
            words.append(f"{field}: {', '.join(values[0])} in A, {', '.join(values[1])} in B")
    stand_in = "is the stand-in of FastGen (fastgen-cpu), which says nothing about DeepSpeed-FastGen"
    sides = (("A", a), ("B", b))
    return words + [f"{side} {stand_in}" for side, runs in sides if any(map(trust.stand_in, runs))]


def left_out(a: Runs, b: Runs) -> list[str]:
    """Points that are not compared, and why: they failed on one side, or are in one folder alone."""
    measured: dict[str, dict[str, bool]] = {}  # name of a point -> of each side that has it: was a run measured?
    with_backend = _several_backends(a, b)
    for side, logs in (("A", a), ("B", b)):
        for log in logs:
            sides = measured.setdefault(_name(log, with_backend), {})
            sides[side] = sides.get(side, False) or log.status == "ok"
    words = []
    for name, sides in measured.items():
        failed = [side for side, good in sides.items() if not good]
        if failed:
            words.append(f"{name} failed in {' and '.join(failed)}")
        elif len(sides) == 1:
            words.append(f"{name} is in {next(iter(sides))} alone")
    return words
