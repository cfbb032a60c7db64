"""Two benchmarks in turn: run by run, each with the prompts of the other, so that nothing slow can favour one.

    ./servebench paired "--backend vllm" "--backend llamacpp" --runs 6 --model NAME --num_clients 1 8

The two quoted parts say what differs; further options of run_benchmark.py go to both. Both are one plan: run 1 of
A and B, run 2 of B and A, run 3 of A and B, ... A server that ends one turn and begins the next is not started
again. Then servebench compare --paired shows the ratios. Six runs are the fewest for a verdict. What was measured
before is not measured again, so an interrupted comparison goes on where it ended.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import groupby

from servebench.campaign import loop
from servebench.cli import commandline, keys
from servebench.cli.signals import ends_on_signals
from servebench.errors import InputError
from servebench.plan import arguments
from servebench.plan.strategies import Grid
from servebench.plan.sweep import ServerPlan


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


def main() -> int:
    parser = commandline.Parser(description=__doc__)
    parser.add_argument("a", type=commandline.words_in_quotes, metavar='"OPTIONS OF A"')
    parser.add_argument("b", type=commandline.words_in_quotes, metavar='"OPTIONS OF B"')
    parser.add_argument("--runs", type=commandline.COUNT, default=6, metavar="N", help="of each [6]")
    keys.hide_own_keys()
    args, common = parser.parse_known_args()
    seed = [] if "--seed" in " ".join([*args.a, *args.b, *common]) else ["--seed", "0"]  # both are asked the same
    sides = [arguments.parse([*common, *seed, *own, "--runs", str(args.runs)]) for own in (args.a, args.b)]
    folders = [settings.folder for side in sides for settings in side]
    if len(set(folders)) < len(folders) or len(folders) > len(sides):
        raise InputError("A and B are one engine each, and write to two folders; give one another --out_json_dir")
    with ends_on_signals():
        status = loop.run([settings for side in sides for settings in side], in_turn)
    if status or sides[0][0].execution.dry_run:
        return status
    command = [sys.executable, "-m", "servebench", "compare", "--paired", *map(str, folders)]
    return subprocess.run(command).returncode
