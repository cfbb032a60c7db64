"""Are the answers any good? lm-evaluation-harness, run against the servers of a benchmark.

    ./servebench evaluate --tasks gsm8k,arc_easy --backend vllm sglang --model NAME --limit 500

The other options are those of run_benchmark.py: each server is started with the command that is measured, but as
one replica, since the others are copies of it; loads mean nothing here. Scores go beside the logs. What was
evaluated before with the same settings is not evaluated again without --overwrite_results.
"""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from servebench.campaign import lm_eval
from servebench.campaign.loop import tokenizer_at_hand
from servebench.campaign.measure import Bench, now
from servebench.cli import commandline, keys, live
from servebench.cli.signals import ends_on_signals
from servebench.errors import InputError, PointFailed
from servebench.log import evaluation, store
from servebench.log.evaluation import Evaluation
from servebench.log.identity import fingerprint
from servebench.log.schema import server_label
from servebench.plan import arguments
from servebench.plan.preflight import check_model
from servebench.plan.settings import Settings
from servebench.plan.sweep import ServerPlan, make_plan
from servebench.servers.access import headers_of
from servebench.servers.launch_checks import check_launch
from servebench.servers.server import running_server
from servebench.show import scores, terminal
from servebench.show.layouts import server_name
from servebench.telemetry.manifest import begun


@dataclass(frozen=True)
class Job:
    """The evaluation of one server. `planned`: its log before anything is known."""

    plan: ServerPlan
    planned: Evaluation
    path: Path

    @property
    def known(self) -> Evaluation | None:
        """What came of it before, if it succeeded."""
        found = evaluation.load(self.path)
        return found if found and found.status == "ok" else None

    @property
    def pending(self) -> bool:
        return self.plan.settings.execution.overwrite_results or not self.known


def main() -> int:
    parser = commandline.Parser(description=__doc__)
    add, count, few = parser.add_argument, commandline.COUNT, commandline.Number(int, 0)
    add("--tasks", required=True, nargs="+", metavar="NAME", help="tasks of lm-eval, or groups of them")
    add("--include_path", type=Path, metavar="DIR", help="folder with tasks of your own, as YAML files")
    add("--limit", type=count, metavar="N", help="only the first N samples of each task [all]")
    add("--num_fewshot", type=few, metavar="N", help="examples before each question [the task's own]")
    add("--num_concurrent", type=count, default=8, metavar="N", help="requests at once [8]")
    add("--apply_chat_template", action="store_true", help="ask as in a chat, as --api chat always does")
    keys.hide_own_keys()
    own, rest = parser.parse_known_args()
    own.tasks = ",".join(name for word in own.tasks for name in word.split(",") if name)
    if own.include_path and not own.include_path.is_dir():
        raise InputError(f"--include_path {own.include_path}: there is no such folder; give that of your tasks")
    with ends_on_signals():
        return run(arguments.parse(rest), own)


def run(asked: Sequence[Settings], own: Namespace) -> int:
    """Evaluate what is pending, and show all scores. Returns the exit status."""
    jobs = list({job.path: job for settings in asked for job in jobs_of(settings, own)}.values())
    for job in jobs:
        print("to evaluate:" if job.pending else "evaluated before:", server_name(job.plan.server), flush=True)
    if asked[0].execution.dry_run:
        return 0
    check([job for job in jobs if job.pending], own)
    with ExitStack() as locks:
        for folder in dict.fromkeys(settings.folder for settings in asked):
            locks.enter_context(store.sole_writer(folder))
        found = [evaluated(job, own) if job.pending else job.known for job in jobs]
    good = [each for each in found if each and each.status == "ok"]
    print(scores.table(good), end="\n" * bool(good))
    return int(len(good) < len(jobs))


def jobs_of(settings: Settings, own: Namespace) -> Iterator[Job]:
    """One for each server; those that differ in their copies alone have the same path."""
    api, folder = settings.common.api, own.include_path
    local = b"".join(file.read_bytes() for file in sorted(folder.rglob("*.[yp]*"))) if folder else b""
    asked = {"api": api, "limit": own.limit, "num_fewshot": own.num_fewshot, "lm_eval": lm_eval.version()}
    asked |= {"apply_chat_template": own.apply_chat_template or api == "chat"}
    asked |= {"local_tasks": sha256(local).hexdigest()[:12] if local else ""}
    for plan in make_plan(settings):
        identity = evaluation.server_identity(plan.server, plan.points[0].identity)
        server = structs.replace(plan.server, num_replicas=1, router=False)
        access = replace(plan.access, requests_at_once=own.num_concurrent, request_tokens=lm_eval.ROOM)
        mark = fingerprint({"server": identity, "asked": asked, "tasks": sorted(own.tasks.split(","))})
        path = settings.folder / "evaluations" / f"{server_label(server)}-{mark[:6]}.json"
        planned = Evaluation(asked=asked, identity=identity, server=server, num_concurrent=own.num_concurrent)
        yield Job(replace(plan, server=server, access=access), planned, path)


def check(jobs: Sequence[Job], own: Namespace) -> None:
    """What would stop one of them does so before any starts. Raises InputError."""
    for job in jobs:
        settings, access, server = job.plan.settings, job.plan.access, job.plan.server
        if settings.common.api not in ("completions", "chat"):
            raise InputError(f"--backend {settings.backend} has no OpenAI API, which lm-eval needs; leave it out")
        others = headers_of(server, access).keys() - {"User-Agent", "Authorization"}
        if others or access.extra_body or any(keys.hide_in_url(url) != url for url in access.urls):
            raise InputError("lm-eval sends --openai_api_key, but no other header, field or key; leave those out")
        check_model(settings)
        tokenizer_at_hand(settings, server)
        if settings.starts:
            check_launch(server, access)
    if jobs:
        lm_eval.check_tasks(own.tasks, ["--include_path", str(own.include_path)] if own.include_path else [])


def evaluated(job: Job, own: Namespace) -> Evaluation:
    """Score a server, and store what came of it; a failure never replaces scores."""
    log = structs.replace(job.planned, started_at=now())
    try:
        log = structs.replace(log, status="ok", **scored(job, own))
    except PointFailed as failed:
        log = structs.replace(log, failure=str(failed))
        live.write(f"{server_name(log.server)}: FAILED: {failed}\n{getattr(failed, 'log_tail', '')}".rstrip())
    if log.status == "ok" or not job.known:
        store.write_whole(job.path, msgspec.json.format(msgspec.json.encode(log), indent=2))
    return log


def scored(job: Job, own: Namespace) -> dict[str, Any]:
    """Start the server, or attach to it, and have it answer. Raises PointFailed."""
    settings, config, asked = job.plan.settings, job.plan.server, job.planned.asked
    words = ["--tasks", own.tasks, *(["--apply_chat_template"] if asked["apply_chat_template"] else [])]
    given = {name: getattr(own, name) for name in ("limit", "num_fewshot", "include_path")}
    words += [f"--{name}={value}" for name, value in given.items() if value is not None]
    log_file = settings.folder / f"{server_label(config)}-lm_eval.log"
    with running_server(config, job.plan.access, settings.folder) as server:
        live.write(terminal.ready(server, with_batch=False))
        tokenizer: Any = tokenizer_at_hand(settings, config)  # or why there is none
        bench = Bench(begun(server, None), settings, tokenizer, None)
        command, results = lm_eval.scored(bench, asked["api"], own.num_concurrent, words, log_file)
        if not (tasks := lm_eval.tasks_of(results, own.tasks.split(","))):
            raise PointFailed(f"lm-eval gives no scores of {own.tasks}")
        return {"tasks": tasks, "command": shlex.join(command), "server_facts": bench.facts}
