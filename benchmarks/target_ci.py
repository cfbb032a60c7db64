#!/usr/bin/env python3
"""How many requests does `--target_ci` save over a sweep of 11 client counts, at the same interval width?

    .venv/bin/python benchmarks/target_ci.py                                      on the reference server
    .venv/bin/python benchmarks/target_ci.py --backend llamacpp --model .models/SmolLM2-135M-Instruct

Further options go to run_benchmark.py. Every point is measured --max_runs times. From these logs: the runs after
which --target_ci stops each point, against the one number of runs that gives every point an interval as narrow.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path

from tabulate import tabulate

from servebench.analysis import samples, target_ci
from servebench.log import store
from servebench.log.schema import Log
from servebench.reference.calibrate import reference_server

ROOT = Path(__file__).parents[1]
GAP_S = 0.002
TOKENIZER = ROOT / ".models/SmolLM2-135M-Instruct"
LOAD = ["--mean_prompt_length", "64", "--mean_max_new_tokens", "60", "--on_error", "stop"]


def measure(folder: Path, runs: int, options: list[str]) -> None:
    command = [sys.executable, ROOT / "run_benchmark.py", "--out_json_dir", folder, "--runs", runs, *LOAD]
    subprocess.run([str(word) for word in [*command, *options]], check=True)


def measure_reference(folder: Path, runs: int, tokenizer: Path) -> None:
    with reference_server(folder, GAP_S) as (url, _):
        where = ["--backend", "openai", "--openai_api_url", url, "--model", "reference"]
        measure(folder, runs, [*where, "--tokenizer", str(tokenizer)])


def points(folder: Path) -> list[list[Log]]:
    """The runs of each point, by clients."""
    logs = [store.load(path) for path in folder.glob("*/*-clients*.json")]
    logs.sort(key=lambda log: (log.run.load.size, log.run.repetition))
    return [list(runs) for _, runs in groupby(logs, lambda log: log.run.load.size)]


def runs_needed(runs: list[Log], target: float, least: int) -> int:
    """Runs after which --target_ci stops."""
    stops = (n for n in range(1, len(runs) + 1) if target_ci.why_stop(runs[:n], target, least, len(runs)))
    return next(stops, len(runs))


def width(runs: list[Log]) -> float:
    """The wider of the two relative intervals."""
    return max(target_ci.relative_widths(runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target_ci", type=float, default=0.05)
    parser.add_argument("--min_runs", type=int, default=3)
    parser.add_argument("--max_runs", type=int, default=12)
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="for the reference server")
    args, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        if options:
            measure(Path(folder), args.max_runs, options)
        else:
            measure_reference(Path(folder), args.max_runs, args.tokenizer)
        show(points(Path(folder)), args)


def show(measured: list[list[Log]], args: argparse.Namespace) -> None:
    needed = [runs_needed(runs, args.target_ci, args.min_runs) for runs in measured]
    enough = [
        n
        for n in range(args.min_runs, args.max_runs + 1)
        if all(width(runs[:n]) <= args.target_ci for runs in measured)
    ]
    fixed = enough[0] if enough else args.max_runs
    requests = [len(samples.measured(runs[0])) for runs in measured]
    rows = [
        [
            runs[0].run.load.size,
            n,
            f"{width(runs[:n]):.1%}",
            f"{width(runs[:fixed]):.1%}",
            n * each,
            fixed * each,
        ]
        for runs, n, each in zip(measured, needed, requests, strict=True)
    ]
    header = ["clients", "runs", "known to", f"with {fixed} runs", "requests", f"with {fixed} runs"]
    print(tabulate(rows, header))
    stopping_early = sum(n * each for n, each in zip(needed, requests, strict=True))
    all_alike = fixed * sum(requests)
    missed = "" if enough else f" (too few: not every point is known to {args.target_ci:.0%})"
    print(f"--target_ci {args.target_ci:.0%}: {stopping_early} requests, {stopping_early / all_alike:.0%} of the "
          f"{all_alike} with {fixed} runs everywhere{missed}")  # fmt: skip


if __name__ == "__main__":
    main()
