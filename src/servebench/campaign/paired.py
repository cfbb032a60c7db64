"""Two benchmarks in turn: run by run, each with the prompts of the other, so that nothing slow can favour one.

    python -m servebench paired "--backend vllm" "--backend llamacpp" --runs 6 --model NAME --num_clients 1 8

The two quoted parts say what differs; further options of run_benchmark.py go to both. Runs alternate A B, B A,
A B ... (a server is started for each), then servebench compare --paired shows the ratios. Six runs are the fewest
for a verdict. What was measured before is not measured again, so an interrupted comparison goes on where it ended.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from servebench.cli import commandline, keys
from servebench.cli.signals import ends_on_signals
from servebench.errors import InputError
from servebench.plan import arguments
from servebench.servers.process_group import end_with_parent

DRIVER = Path(__file__).parents[3] / "run_benchmark.py"


def measure(a: list[str], b: list[str], runs: int) -> int:
    """The driver measures what is missing, so `--runs 3` after `--runs 2` is the third run. Returns its status."""
    for run in range(1, runs + 1):
        for own in (a, b) if run % 2 else (b, a):
            command, more = keys.split_secrets([sys.executable, str(DRIVER)], [*own, "--runs", str(run)])
            if status := driven(command, os.environ | more):
                return status
    return 0


def driven(command: list[str], env: dict[str, str]) -> int:
    """The exit status of the driver, which does not outlive us."""
    process = subprocess.Popen(command, env=env, preexec_fn=end_with_parent)
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()


def results_of(words: list[str]) -> Path:
    """Where the logs of these options go. Raises InputError or SystemExit for what cannot work."""
    settings = arguments.parse(words)
    if settings.execution.dry_run:
        raise InputError("runs in turn have no plan of their own; give --dry_run to run_benchmark.py")
    return settings.folder


def main() -> int:
    parser = commandline.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("a", type=commandline.words_in_quotes, metavar='"OPTIONS OF A"')
    parser.add_argument("b", type=commandline.words_in_quotes, metavar='"OPTIONS OF B"')
    parser.add_argument("--runs", type=commandline.COUNT, default=6, metavar="N", help="of each [6]")
    keys.hide_own_keys()
    args, common = parser.parse_known_args()
    seed = [] if "--seed" in " ".join([*args.a, *args.b, *common]) else ["--seed", "0"]  # both are asked the same
    a, b = ([*common, *seed, *own] for own in (args.a, args.b))
    folders = [results_of(a), results_of(b)]
    if folders[0] == folders[1]:
        raise InputError(f"both would write to {folders[0]}; give one of them another --out_json_dir")
    with ends_on_signals():
        status = measure(a, b, args.runs)
    command = [sys.executable, "-m", "servebench", "compare", "--paired", *map(str, folders)]
    return status or subprocess.run(command).returncode
