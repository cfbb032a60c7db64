"""The loop: for each server, while its strategy names a next run: measure, store, show. Then its verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict, replace
from tokenizers import Tokenizer

from servebench.campaign import rehearsal
from servebench.campaign.measure import Bench, drain_backlog, load_tokenizer_once, measure_point, not_measured
from servebench.campaign.race import in_rounds
from servebench.cli import live
from servebench.errors import InputError, ServerFailed
from servebench.log import store
from servebench.log.config import ServerConfig
from servebench.log.schema import Log
from servebench.plan.options import Decide, Execution
from servebench.plan.preflight import asks_hub, check_loads, few_questions, notices, preflight, unlike
from servebench.plan.settings import Settings
from servebench.plan.strategies import History, Verdict
from servebench.plan.sweep import Point, ServerPlan, make_plan
from servebench.servers.backends import BACKENDS
from servebench.servers.discover import discovered, noted
from servebench.servers.server import Server, running_server
from servebench.servers.tokenize import server_tokenizer
from servebench.show import plan_table, tables, terminal, verdict
from servebench.show.progress import SweepProgress
from servebench.telemetry import host
from servebench.telemetry.manifest import begun
from servebench.telemetry.recorder import recorder
from servebench.telemetry.weights import cached_share
from servebench.workload.model_files import NoTokenizer, model_context

Ordered = Callable[[list[ServerPlan]], Iterable[ServerPlan]]


@dataclass
class Campaign:
    """The progress of a plan."""

    execution: Execution
    progress: SweepProgress
    points: dict[Path, Point] = field(default_factory=dict)  # by the path of their logs
    failed: list[Log] = field(default_factory=list)
    warned: set[str] = field(default_factory=set)  # what was said of a point, so that it is not said of each
    server_reached: bool = False
    stopped: bool = False  # is the rest of the plan left out?
    ends_s: float = inf  # when the time is over that there was for it (monotonic)

    def over(self) -> str:
        """Why nothing more is to be measured; "" if there is."""
        if self.stopped:
            return "stopped after a failed point (--on_error stop)"
        return "the time is over (--budget)" if time.monotonic() > self.ends_s else ""


def run(asked: Sequence[Settings], in_turn: Ordered | None = None) -> int:
    """Measure what is pending of the plan, and show all of its logs. Returns the exit status.

    `asked` has the settings of each engine. Who compares their servers says in which order these are measured,
    and then what came of it.
    """
    execution, others = asked[0].execution, host.Watch()
    if execution.dry_run:
        plans = show_plan(asked, check_loads)
        lacking = (notices(settings, plan) for settings, plan in zip(asked, plans, strict=True))
        remark(dict.fromkeys(chain(*lacking, others.remarks())))
        if execution.show_request:
            print(*rehearsal.lines(list(chain(*plans))), sep="\n")
        return 0
    with ExitStack() as locks:
        for folder in dict.fromkeys(settings.folder for settings in asked):
            locks.enter_context(store.sole_writer(folder))
        for settings in asked:  # before the plan: a point depends on the commit of the model that its config has
            model_context(settings.model, asks_hub(settings))
        plan = list(chain(*show_plan(asked, preflight)))
        campaign, strategy = Campaign(execution, SweepProgress(plan)), asked[0].strategy
        if isinstance(strategy, Decide) and strategy.budget is not None:
            campaign.ends_s = time.monotonic() + strategy.budget
        remark(others.remarks() if campaign.progress.todo else ())
        try:
            found = [(each, measure_on(each, campaign)) for each in ordered(plan, campaign, in_turn)]
        finally:
            live.clear()
        folder = execution.out_json_dir
        searches = [verdict.search_result(each) for _, of_server in found for each in of_server]
        points, price = campaign.points.values(), execution.gpu_hour_price
        within = execution.sla or (strategy.decide if isinstance(strategy, Decide) else "")
        print(plan_table.closing(points, campaign.failed, folder, searches, not in_turn, price, within))
        for server_plan, of_server in found:
            show_and_store(server_plan, of_server)
        if not in_turn:
            streamed = any(settings.common.stream for settings in asked)
            print(verdict.next_steps(folder, (each.server for each in plan), streamed, searches, within))
    return int(bool(campaign.failed))


def show_plan(
    asked: Sequence[Settings], check: Callable[[Settings, list[ServerPlan]], object]
) -> list[list[ServerPlan]]:
    """The servers of each engine, checked."""
    plans = [make_plan(settings) for settings in asked]
    plan = list(chain(*plans))
    earlier = {folder: store.heads(folder) for folder in dict.fromkeys(settings.folder for settings in asked)}
    print(plan_table.table(plan, list(chain(*earlier.values()))))
    remark(dict.fromkeys(filter(None, (settings.fit for settings in asked))))
    for settings, own in zip(asked, plans, strict=True):
        check(settings, own)
    remark(dict.fromkeys([*unlike(plan, earlier), *few_questions(plan)]))
    return plans


def ordered(plan: list[ServerPlan], campaign: Campaign, in_turn: Ordered | None) -> Iterable[ServerPlan]:
    """The servers in the order in which they are measured; of a race each is named when its turn comes."""
    if isinstance(plan[0].settings.strategy, Decide):
        return in_rounds(plan, live.write, campaign.over)
    return in_turn(plan) if in_turn else plan


def remark(lines: Iterable[str]) -> None:
    for line in lines:
        print(tables.wrapped(f"note: {line}"), flush=True)


def measure_on(plan: ServerPlan, campaign: Campaign) -> list[Verdict]:
    """Every run that the strategy asks for, on one server. Returns what it found."""
    history = plan.history
    campaign.points |= {point.path: point for point in plan.points}
    while point := next_pending(plan, history, campaign):  # start no server for nothing
        try:
            at_hand = tokenizer_at_hand(plan.settings, plan.server)
            campaign.progress.starting(plan.server)
            cached = cached_share(plan.server)
            with running_server(plan.server, plan.access, plan.settings.folder) as running:
                server, tokenizer = counted(begun(running, cached), at_hand)
                server = discovered(server, point.run, tokenizer)
                live.write(terminal.ready(server, with_batch=several_batches(plan)))
                with recorder(server, plan.settings.folder, campaign.execution.telemetry) as beside:
                    bench = Bench(server, plan.settings, tokenizer, beside)
                    measure_while_alive(plan, history, campaign, point, bench)
        except ServerFailed as failure:  # it does not start, so none of its points can be measured
            fail_the_rest(plan, history, campaign, f"the server did not start: {failure}", failure.log_tail)
        except InputError as gone:
            if not campaign.server_reached:
                raise
            fail_the_rest(plan, history, campaign, str(gone))
    return plan.strategy.verdicts(plan.server, history)


def tokenizer_at_hand(settings: Settings, server: ServerConfig) -> Tokenizer | InputError:
    """The tokenizer, or why there is none where the server may count. Raises InputError where it cannot."""
    try:
        return load_tokenizer_once(settings.tokenizer, settings.tokenizer_option)
    except InputError as lacking:
        may = BACKENDS[server.backend].lists_models and settings.tokenizer == settings.model
        if may and (isinstance(lacking, NoTokenizer) or not settings.starts):  # else the engine has no model
            return lacking
        raise


def counted(server: Server, at_hand: Tokenizer | InputError) -> tuple[Server, Tokenizer]:
    """The server, and what counts its tokens. Raises the error that is at hand if the server does not count."""
    if not isinstance(at_hand, InputError):
        return server, at_hand
    try:
        tokenizer: Any = server_tokenizer(server)
    except InputError:
        raise at_hand from None
    return noted(server, "tokens are counted by the server's /tokenize; no tokenizer is here"), tokenizer


def next_pending(plan: ServerPlan, history: History, campaign: Campaign) -> Point | None:
    """The next point whose log is not there yet. Logs that are there already become part of the history."""
    while not campaign.over() and (run := plan.strategy.next(history)):
        point = plan.point(run)
        campaign.points[point.path] = point
        if point.pending:
            return point
        history.add(run, store.load(point.path, plan.strategy.reads_requests))
    return None


def measure_while_alive(
    plan: ServerPlan, history: History, campaign: Campaign, first: Point, bench: Bench
) -> None:
    """One point after the other, until there is none left or the server is gone."""
    point: Point | None = first
    before: Log | None = None
    while point and bench.server.alive():
        if before and before.quality.overloaded:
            drain_backlog(bench, before.run, point)
        campaign.server_reached = True
        campaign.progress.begin(point)
        before = measure_point(point, bench, campaign.progress.watch)
        record(plan, history, campaign, point, before)
        if before.status != "ok" and not bench.server.processes:
            return  # and ask whether it is still there
        point = next_pending(plan, history, campaign)


def fail_the_rest(plan: ServerPlan, history: History, campaign: Campaign, why: str, log_tail: str = "") -> None:
    while point := next_pending(plan, history, campaign):
        record(plan, history, campaign, point, not_measured(point, why, log_tail))


def record(plan: ServerPlan, history: History, campaign: Campaign, point: Point, log: Log) -> None:
    """Store a log before anything else can fail, then show it."""
    strategy = plan.strategy
    history.add(point.run, log if strategy.reads_requests else replace(log, results=[], probes=[]))
    after = replace(point.run, repetition=point.run.repetition + 1)
    log = replace(log, stopped=strategy.enough(after, history))
    try:
        written = store.put(log, point.path)
    except OSError as error:
        why = f"its log cannot be written ({error.strerror}); earlier logs are kept"
        campaign.failed.append(replace(log, status="failed", failure=why))
        campaign.stopped = True
        return
    known = log.failure in {other.failure for other in campaign.failed}
    campaign.progress.end(point, log)
    live.write(terminal.line(log, len(plan.settings.requests) > 1, known, campaign.warned))
    if log.status != "ok":
        campaign.failed.append(log)
        campaign.stopped = campaign.execution.on_error == "stop"
        if not written:
            live.write("  the log of this point that was measured before is kept")


def several_batches(plan: ServerPlan) -> bool:
    return len({server.max_ragged_batch_size for server in plan.settings.servers}) > 1


def show_and_store(plan: ServerPlan, found: list[Verdict]) -> None:
    """Say what each search found, then save it beside its logs: the disk may be full."""
    for each in found:
        words = verdict.words(each, with_batch=several_batches(plan))
        print(tables.wrapped(words))
        answer = msgspec.json.encode({"searched": each.searched, "words": words} | asdict(each))
        store.write_whole(plan.verdict_path(each), msgspec.json.format(answer, indent=2))
