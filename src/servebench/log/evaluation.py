"""How well a server answers: scores of lm-evaluation-harness, in one JSON file for each server and set of tasks.

They lie beside the logs, as `results/vllm/evaluations/*.json`, and find those of their server by its identity.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from servebench.log.config import ServerConfig
from servebench.log.identity import fingerprint
from servebench.log.schema import Log, ServerFacts
from servebench.log.urls import models_url

COPIES = {"num_replicas", "router", "gpus", "urls"}  # how often it is there, and where: not what it answers
WITHIN = {"engine", "model_revision", "hidden_flags"}  # of the environment


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of a task."""

    value: float
    stderr: float | None = None  # None: lm-eval does not know it
    higher_is_better: bool = True


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task, or a group of tasks that has a score of its own."""

    metrics: dict[str, Score]  # by lm-eval's names, with a filter: `exact_match,strict-match`; the main one first
    samples: int | None = None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One run of lm-evaluation-harness on one server."""

    servebench_evaluation: int = 1
    status: Literal["ok", "failed"] = "failed"
    failure: str = ""
    started_at: str = ""  # ISO 8601, UTC
    # How: API, --limit, --num_fewshot, lm-eval's version, ...; only like is compared with like.
    asked: dict[str, Any]
    identity: dict[str, Any]  # of the server
    server: ServerConfig
    server_facts: ServerFacts = ServerFacts(urls=[])
    num_concurrent: int
    command: str = ""  # of lm-eval; it never has a key
    tasks: dict[str, Task] = {}


def server_identity(server: ServerConfig, of_point: dict[str, Any]) -> dict[str, Any]:
    """Of the identity of a point, what says how its server answers."""
    of_server = {name: value for name, value in of_point["server"].items() if name not in COPIES}
    within = {name: value for name, value in of_point["environment"].items() if name in WITHIN}
    return {"server": of_server, "urls": [models_url(url) for url in server.urls], "environment": within}


def load(path: Path) -> Evaluation | None:
    """None where it is not there; what is none is named and left out."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Evaluation) if path.exists() else None
    except (OSError, msgspec.MsgspecError) as error:
        print(f"left out: {path}: not an evaluation: {error}", file=sys.stderr)
        return None


def read(folder: Path) -> list[Evaluation]:
    """All of a results folder, or of one backend's, the oldest first."""
    paths = (*folder.glob("evaluations/*.json"), *folder.glob("*/evaluations/*.json"))
    return sorted(filter(None, map(load, paths)), key=lambda each: each.started_at)


def merged(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """One for each server: the newest, with the tasks of earlier ones that were asked for alike."""
    servers: dict[str, list[Evaluation]] = {}
    for each in sorted(evaluations, key=lambda each: each.started_at):
        if each.status == "ok":
            servers.setdefault(fingerprint(each.identity), []).append(each)
    of = {mark: [each for each in own if each.asked == own[-1].asked] for mark, own in servers.items()}
    return [replace(own[-1], tasks={k: v for each in own for k, v in each.tasks.items()}) for own in of.values()]


def of_server(evaluations: Iterable[Evaluation], log: Log) -> Evaluation | None:
    """That of the server of a log; None if it was not evaluated, or if nobody knows."""
    mark = fingerprint(server_identity(log.server, log.identity)) if log.identity else ""
    return next((each for each in merged(evaluations) if fingerprint(each.identity) == mark), None)
