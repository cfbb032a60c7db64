"""What run_benchmark.py says of its plan, and at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from servebench.analysis import samples
from servebench.figures.selection import KINDS_OF_LOAD, load_text
from servebench.log import identity
from servebench.log.config import Dataset, Rate, RunConfig
from servebench.log.schema import Log, model_name
from servebench.plan import defaults
from servebench.plan.strategies import Search
from servebench.plan.sweep import Point, ServerPlan, logs_of
from servebench.show import decide, layouts, progress, tables, verdict
from servebench.show.candidates import Question, of_logs
from servebench.show.layouts import server_name
from servebench.show.summary import report
from servebench.show.tables import Column, counted, duration
from servebench.show.terminal import name_of
from servebench.show.verdict import SearchResult

COLUMNS = [Column("server", left=True, cut=True), Column("prompt"), Column("generation"), Column("load")]
COLUMNS += [Column("points"), Column("runs"), Column("done"), Column("failed\nbefore"), Column("to run")]
COLUMNS += [Column("requests\nabout")]


def table(plan: list[ServerPlan], earlier: Sequence[Log] = ()) -> str:
    """The plan: one row a server. What all have in common stands above; of a search only its begin is known.

    The time that it takes follows from earlier logs.
    """
    asked = [_asked(server_plan) for server_plan in plan]
    same = [cells[0] if len(set(cells)) == 1 else "" for cells in zip(*asked, strict=True)]
    batches = len({server_plan.server.max_ragged_batch_size for server_plan in plan}) > 1
    rows = []
    for server_plan, cells in zip(plan, asked, strict=True):
        points = server_plan.points
        own = ["" if shared else cell for cell, shared in zip(cells, same, strict=True)]
        numbers = [len({identity.point_key(server_plan.server, p.run) for p in points}), len(points)]
        numbers += [sum(p.state == state for p in points) for state in ("done", "failed")]
        numbers += [
            sum(p.pending for p in points),
            sum(progress.requests_about(p.run) for p in points if p.pending),
        ]
        rows.append([server_name(server_plan.server, batches), *own, *map(str, numbers)])
    words = [f"{name} {cell}" for name, cell in zip(("prompt", "generation", "load"), same, strict=True) if cell]
    head = tables.wrapped(", ".join([model_name(plan[0].server.model), *words]))
    return "\n".join([head, tables.table(COLUMNS, rows), *map(tables.wrapped, _in_all(plan, earlier))])


def _asked(plan: ServerPlan) -> tuple[str, str, str]:
    """Prompt, generation and loads."""
    runs = [point.run for point in plan.points]
    unit = KINDS_OF_LOAD[runs[0].load.kind].unit if runs else ""
    loads = " ".join(dict.fromkeys(load_text(run).removesuffix("/s") for run in runs))
    return _set(map(_prompts, runs)), _set(run.requests.mean_max_new_tokens for run in runs), f"{loads} {unit}"


def _prompts(run: RunConfig) -> str | int:
    """The dataset, or the mean length."""
    asked = run.requests
    return asked.name if isinstance(asked, Dataset) else asked.mean_prompt_length


def _set(values: Iterable[str | int]) -> str:
    return " ".join(map(str, sorted(set(values))))


def _in_all(plan: list[ServerPlan], earlier: Sequence[Log]) -> list[str]:
    """What is to be measured, and about how long that takes."""
    if any(isinstance(server_plan.strategy, Search) for server_plan in plan):
        return ["This is the first point of each search; its result decides what is measured next."]
    todo = [point for server_plan in plan for point in server_plan.points if point.pending]
    if not todo:
        return ["Everything is measured already."]
    servers = len({identity.point_key(point.server, RunConfig()) for point in todo})
    requests = sum(progress.requests_about(point.run) for point in todo)
    what = f"{counted(len(todo), 'run')} on {counted(servers, 'server')}, about {counted(requests, 'request')}"
    return [f"To measure: {what}; {_time(todo, earlier)}."]


def _time(todo: list[Point], earlier: Sequence[Log]) -> str:
    known = progress.known_from(earlier)
    times_s = [progress.seconds(point.server, point.run, _like(point, known)) for point in todo]
    known_s = [each for each in times_s if each is not None]
    if len(known_s) < len(times_s):
        return "the first point will tell how long that takes"
    if all(isinstance(point.run.load, Rate) for point in todo):
        return f"at least {duration(sum(known_s))}"
    return f"about {duration(sum(known_s))} plus server starts, if it goes as fast as in the logs of the folder"


def _like(point: Point, known: Sequence[progress.Known]) -> list[progress.Known]:
    """The runs that were asked the same of the same model: others tell nothing of it."""
    model, requests = point.server.model, point.run.requests
    return [each for each in known if each.server.model == model and each.run.requests == requests]


def models_table() -> str:
    """Models with defaults of their own."""
    rows = [
        [name, _set(m.tp_size), _set(m.mean_prompt_length), _set(m.mean_max_new_tokens), m.max_prompt_length]
        for name, m in {**defaults.MODELS, "any other": defaults.ANY_MODEL}.items()
    ]
    return tabulate(rows, ["model", "tp_size", "mean_prompt_length", "mean_max_new_tokens", "max_prompt_length"])


def closing(
    points: Iterable[Point],
    failed: Sequence[Log],
    folder: Path,
    searches: Sequence[SearchResult] = (),
    in_words: bool = True,
    price: float | None = None,
    within: str = "",
) -> str:
    """The last words of a run: the table of all of the plan's logs, what failed, where all is, the result.

    `within`: the limits by which servers are ranked; "": by requests/s alone.
    """
    logs = logs_of(points, price)
    good = identity.by_point(log for log in logs if log.status == "ok")
    why = {name_of(log): log.failure for log in (*logs, *failed) if log.status != "ok"}
    partly = sum(samples.failed_of(*runs)[0] > 0 for runs in good)
    words = ["", report(logs, searches=searches), ""] if logs else []
    words += (
        [] if searches or within or not in_words else map(tables.wrapped, verdict.result(layouts.studies(logs)))
    )
    measured = f"{counted(len(good), 'point')} measured"
    measured += f" ({partly} with failed requests)" if partly else ""
    words.append(tables.wrapped(f"{measured}, {len(why)} failed; logs are in {folder}/"))
    words += [tables.wrapped(f"  failed: {name}: {failure}", "    ") for name, failure in why.items()]
    words += ["", decide.said(of_logs(logs, Question(decide.read_limits(within))))] if within else []
    return "\n".join(words)
