"""Two benchmarks in turn: run by run, both with the same prompts, so that slow changes favour neither.

    ./servebench paired "--backend vllm" "--backend llamacpp" --runs 6 --model NAME --num_clients 1 8

The two quoted parts say what differs; other options of run_benchmark.py go to both. Both are one plan: run 1 of A
and B, run 2 of B and A, run 3 of A and B, ... A server that ends one turn and begins the next is not started
again. The end shows what servebench compare --paired would. A verdict needs six runs or more. What was measured
before is not measured again, so an interrupted comparison continues where it stopped.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import groupby

from servebench.campaign import loop
from servebench.cli import commandline, keys
from servebench.cli.signals import ends_on_signals
from servebench.errors import InputError
from servebench.log.schema import Log
from servebench.plan import arguments
from servebench.plan.settings import Settings
from servebench.plan.strategies import Grid
from servebench.plan.sweep import ServerPlan, logs_of, make_plan
from servebench.show import compare, matching


def in_turn(plan: list[ServerPlan]) -> list[ServerPlan]:
    """The servers forwards in run 1, backwards in run 2, ..., so that a drift of the machine favours none.

    Where one turn ends and the next begins with a server, both of its runs are measured at once.
    """
    last = max(run.repetition for server in plan for run in server.strategy.runs)
    turns = [(server, run) for run in range(last + 1) for server in (plan[::-1] if run % 2 else plan)]
    at_once = [list(same) for _, same in groupby(turns, key=lambda turn: id(turn[0]))]
    return [_only(same[0][0], {run for _, run in same}) for same in at_once]


def _only(plan: ServerPlan, repetitions: set[int]) -> ServerPlan:
    return replace(plan, strategy=Grid([run for run in plan.strategy.runs if run.repetition in repetitions]))


def logs_of_side(side: list[Settings]) -> list[Log]:
    points = (point for settings in side for plan in make_plan(settings) for point in plan.points)
    return logs_of(points, side[0].execution.gpu_hour_price)


def main() -> int:
    parser = commandline.Parser(description=__doc__)
    parser.add_argument("a", type=commandline.words_in_quotes, metavar='"OPTIONS OF A"')
    parser.add_argument("b", type=commandline.words_in_quotes, metavar='"OPTIONS OF B"')
    parser.add_argument("--runs", type=commandline.COUNT, default=6, metavar="N", help="runs of each [6]")
    matching.add_across(parser)
    keys.hide_own_keys()
    if len(sys.argv) > 2 and not {"-h", "--help", "--help_all", "--runs", "--across"} & set(sys.argv[1:3]):
        sys.argv[1:3] = [f" {part}" for part in sys.argv[1:3]]  # else `--tp_size=2` would be an option, not A
    args, common = parser.parse_known_args()
    seed = [] if "--seed" in " ".join([*args.a, *args.b, *common]) else ["--seed", "0"]  # both are asked the same
    a, b = (arguments.parse([*common, *seed, *own, "--runs", str(args.runs)]) for own in (args.a, args.b))
    if a == b:
        raise InputError("A and B are the same; say in the quoted parts what differs")
    with ends_on_signals():
        status = loop.run([*a, *b], in_turn)
    if not status and not a[0].execution.dry_run:
        logs = logs_of_side(a), logs_of_side(b)
        print(compare.text(compare.compared(*logs, ("A", "B"), paired=True, across=args.across)))
    return status
