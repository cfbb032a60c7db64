"""Checks that look at the machine before anything starts. Each raises InputError with one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from servebench.analysis import answers
from servebench.errors import InputError
from servebench.log.config import Dataset, RunConfig, Scenario, ServerConfig, Synthetic
from servebench.log.lengths import MAX_TIMES_MEAN, Lengths
from servebench.log.schema import Log, log_name
from servebench.plan.settings import Settings
from servebench.plan.sweep import Point, ServerPlan
from servebench.servers.backends import BACKENDS
from servebench.servers.launch_checks import check_launch
from servebench.workload import checks, datasets
from servebench.workload.model_files import cached_file, expanded, model_context

OFF, DRAWS = 0.02, 100_000  # share of a mean that cutting may take unsaid, and draws that tell it


def preflight(settings: Settings, plan: list[ServerPlan]) -> None:
    check_model(settings)
    context = check_loads(settings, plan)
    for server_plan in plan:
        points = server_plan.points
        check_body(server_plan.server, points[0])
        if any(point.pending for point in points) and settings.starts:
            check_launch(server_plan.server, server_plan.access)
    for line in dict.fromkeys([*remarks(plan, context), *older(plan)]):
        print(f"note: {line}")


def notices(settings: Settings, plan: list[ServerPlan]) -> Iterator[str]:
    """What would stop the plan, of which a dry run only tells."""
    try:
        check_model(settings)
    except InputError as lacking:
        yield str(lacking)
    else:
        local = Path(settings.model).expanduser().exists()
        if settings.starts and not local and not cached_file(settings.model, "config.json"):
            yield f"the model {settings.model} is not on this machine yet; the engine will load it from the hub"
    try:
        for server_plan in plan if settings.starts else ():
            check_launch(server_plan.server, server_plan.access)
    except InputError as lacking:
        yield str(lacking)


def check_loads(settings: Settings, plan: list[ServerPlan]) -> int | None:
    """What is to be asked exists and fits the model. Returns the model's context."""
    context = model_context(settings.model, asks_hub(settings) and not settings.execution.dry_run)
    check_runs([run for server_plan in plan for run in server_plan.strategy.runs], context)
    return context


def check_body(server: ServerConfig, point: Point) -> None:
    """Everything that is to be sent can be."""
    backend = BACKENDS[server.backend]
    backend.encode(backend.body(point.run, server.model, "", 1) | point.run.extra_body)


def check_model(settings: Settings) -> None:
    """What looks like a path must be there; a Hugging Face id is `owner/name` or `name`."""
    model = settings.model
    path = expanded("--model", model)
    looks_local = model.startswith((".", "/", "~")) or model.count("/") > 1 or path.suffix == ".gguf"
    if settings.access.urls and (settings.tokenizer != model or not path.exists()):
        return  # a name that the server has, whatever it looks like
    if looks_local and not path.exists():
        raise InputError(
            f"--model {model}: there is no such directory or file; give a path that exists or a model id"
        )
    if path.is_dir() and not (path / "config.json").exists() and not list(path.glob("*.gguf")):
        raise InputError(
            f"--model {model}: neither config.json nor a .gguf file is in it; give a model's directory"
        )


def asks_hub(settings: Settings) -> bool:
    """May the hub be asked about the model? What an attached server calls it may mean nothing there."""
    return settings.starts or settings.tokenizer == settings.model


def check_runs(runs: list[RunConfig], context: int | None) -> None:
    """Raises InputError where none of them can be measured; warns of each that cannot."""
    whys = [_impossible(run, context) for run in runs]
    if whys and all(whys):
        raise InputError(str(whys[0]))
    for why in dict.fromkeys(filter(None, whys)):
        print(f"warning: {why}; the rest is measured", file=sys.stderr)


def _impossible(run: RunConfig, context: int | None) -> str | None:
    try:
        check_lengths(run, context)
        if isinstance(run.requests, Dataset):  # the tokenizer says later which entries exceed the context
            datasets.contents_for(run, run.requests)
    except InputError as error:
        return str(error)
    return None


def check_lengths(run: RunConfig, context: int | None) -> None:
    """The mean prompt and the mean generation must fit the context; draws beyond it are cut by the workload."""
    requests = run.requests
    if isinstance(requests, Dataset) or not context:
        return
    prompt, answer = requests.mean_prompt_length, requests.mean_max_new_tokens
    if prompt + answer > context:
        raise InputError(
            f"prompts of {prompt} and generations of {answer} tokens exceed "
            f"the {context} tokens of the model's context; ask for at most {context} together"
        )


def remarks(plan: list[ServerPlan], context: int | None) -> Iterator[str]:
    """What is not quite as asked for: lengths that are cut, parts of a dataset that ask nothing."""
    for server, runs in ((server_plan.server, server_plan.strategy.runs) for server_plan in plan):
        if not context and BACKENDS[server.backend].launch and not BACKENDS[server.backend].lists_models:
            yield f"the context of {server.model} is not known; only --max_prompt_length keeps prompts within it"
        for run in runs:
            if not isinstance(run.requests, Dataset):
                yield from cut_lengths(run.requests, context)
            elif left_out := datasets.read(run.requests).remark:
                yield f"--dataset {run.requests.dataset}: left out {left_out}"


def unlike(plan: list[ServerPlan], earlier: Mapping[Path, list[Log]]) -> Iterator[str]:
    """Points of the same servers that were measured with other --engine_args, of the logs in each folder."""
    for server, folder in ((each.server, each.settings.folder) for each in plan if _pending(each)):
        alike = [log.server for log in earlier[folder] if _but_for_args(log.server) == _but_for_args(server)]
        theirs = {each.engine_args for each in alike}
        if theirs and server.engine_args not in theirs and not server.variant:
            others, own = (" ".join(words) or "none" for words in (min(theirs), server.engine_args))
            yield f"points in {folder}/ have --engine_args {others}, these have {own}: they become another curve"


def few_questions(plan: list[ServerPlan]) -> Iterator[str]:
    """That --check will ask too little, as far as the plan is known."""
    for runs in (each.strategy.runs for each in plan if each.settings.common.check):
        most, needed = sum(int(checks.SHARE * run.num_requests) for run in runs), answers.needed(answers.WANTED)
        if most < needed:
            yield (
                f"--check asks at most {most} questions a server, {checks.SHARE:.0%} of the requests; to see a "
                f"drop of {answers.WANTED:.0%} takes {needed}: more --num_requests or --runs"
            )


def _pending(plan: ServerPlan) -> bool:
    return any(point.pending for point in plan.points)


def _but_for_args(server: ServerConfig) -> ServerConfig:
    return replace(server, engine_args=(), engine_env=(), variant="", urls=(), gpus=())


def older(plan: list[ServerPlan]) -> Iterator[str]:
    """Logs of a version that did not write all that makes a point, so that it is not known what they are of."""
    pending = [point for server_plan in plan for point in server_plan.points if point.pending]
    old = [point for point in pending if point.path.with_name(log_name(point.server, point.run)).exists()]
    if old:
        which = "1 point has a log" if len(old) == 1 else f"{len(old)} points have logs"
        yield f"{which} of an older version; these are kept, and the points are measured again"


def cut_lengths(requests: Synthetic | Scenario, context: int | None) -> Iterator[str]:
    """Means that are missed by more than OFF, since lengths are cut to what is allowed."""
    prompts, answers = requests.lengths
    most = min(requests.max_prompt_length, context - answers.mean if context else requests.max_prompt_length)
    for what, lengths, bound in (
        ("prompts", prompts, most),
        ("generations", answers, MAX_TIMES_MEAN * answers.mean),
    ):
        achieved = mean_within(lengths, bound)
        if abs(achieved / lengths.mean - 1) > OFF:
            yield (
                f"{what} of {lengths.mean} tokens average {achieved:.0f}, because they are cut to 1 .. {bound}; "
                "use a smaller spread or a higher maximum"
            )


@cache  # a plan has few lengths and many points
def mean_within(lengths: Lengths, most: int) -> float:
    """What is left of a mean where lengths are cut to 1 .. most."""
    return float(np.mean(lengths.draw(DRAWS, most, np.random.default_rng(0))))
