"""What run_benchmark.py says of its plan, and at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from servebench.analysis import samples
from servebench.log import identity, store
from servebench.log.config import Clients, Dataset, RunConfig
from servebench.log.schema import Log
from servebench.plan import defaults
from servebench.plan.strategies import Search
from servebench.plan.sweep import Point, ServerPlan
from servebench.show.terminal import load_of, name_of, report


def _prompts(run: RunConfig) -> str | int:
    """The dataset, or the mean length."""
    asked = run.requests
    return asked.name if isinstance(asked, Dataset) else asked.mean_prompt_length


def _requests_about(run: RunConfig) -> int:
    """With those of the warm-up and the cooldown."""
    clients = run.load.num_clients if isinstance(run.load, Clients) else 1
    return run.num_requests + clients * (run.warmup + 1)


def table(plan: list[ServerPlan]) -> str:
    """The plan: one row a server; of a search only where it begins is known."""
    rows = []
    for server, points in ((server_plan.server, server_plan.points) for server_plan in plan):
        todo = [p for p in points if p.pending]
        states = {state: sum(p.state == state for p in points) for state in ("done", "failed")}
        row = [server.backend, server.tp_size, server.max_ragged_batch_size, server.num_replicas]
        row += [_set(_prompts(p.run) for p in points)]
        row += [_set(p.run.requests.mean_max_new_tokens for p in points)]
        row += [" ".join(dict.fromkeys(load_of(p.run) for p in points))]
        row += [len({identity.point_key(server, p.run) for p in points}), len(points)]
        row += [*states.values(), len(todo)]
        rows.append([*row, sum(_requests_about(p.run) for p in todo)])
    header = ["backend", "tp", "batch", "repl", "prompt", "gen", "load", "points", "runs"]
    header += ["done", "failed before", "to run", "requests (about)"]
    searches = any(isinstance(server_plan.strategy, Search) for server_plan in plan)
    more = "\nthe first point of each search; what it finds says how it goes on" if searches else ""
    return tabulate(rows, header) + more


def _set(values: object) -> str:
    return " ".join(map(str, sorted(set(values))))  # type: ignore[call-overload]


def models_table() -> str:
    """Models with defaults of their own."""
    rows = [
        [name, _set(m.tp_size), _set(m.mean_prompt_length), _set(m.mean_max_new_tokens), m.max_prompt_length]
        for name, m in {**defaults.MODELS, "any other": defaults.ANY_MODEL}.items()
    ]
    return tabulate(rows, ["model", "tp_size", "mean_prompt_length", "mean_max_new_tokens", "max_prompt_length"])


def closing(points: Iterable[Point], failed: Sequence[Log], folder: Path) -> str:
    """The last words of a run: the table of all of the plan's logs, what failed, where everything is."""
    marks = {p.path: p.fingerprint for p in points if p.path.exists()}
    logs = [log for path, log in store.read(marks) if log.fingerprint == marks[path]]
    good = identity.by_point(log for log in logs if log.status == "ok")
    why = {name_of(log): log.failure for log in (*logs, *failed) if log.status != "ok"}
    partly = sum(samples.failed_of(*runs)[0] > 0 for runs in good)
    words = ["", report(logs)] if logs else []
    measured = f"{len(good)} point{'s' * (len(good) != 1)} measured"
    measured += f" ({partly} with failed requests)" if partly else ""
    words.append(f"{measured}, {len(why)} failed; logs are in {folder}/")
    words += [f"  failed: {name}: {failure}" for name, failure in why.items()]
    return "\n".join(words)
