#!/usr/bin/env python3
"""Open loop against the reference server: do requests leave when they should, and is the limit found where it is?

    .venv/bin/python benchmarks/arrivals.py

First a table of arrivals as the server's kernel stamped them: index of dispersion (1 for Poisson; windows of 20
requests), coefficient of variation of the gaps (0 for constant), and how late the requests left. Then the search
for the highest rate of a server whose capacity is 100 requests/s. Everything runs on this machine, the server too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tabulate import tabulate

from servebench.analysis.latency import schedule_wait_s
from servebench.load.fleet import run_load
from servebench.load.sharding import Target
from servebench.log.config import Rate, RunConfig
from servebench.reference.calibrate import GAP_S, completion_body, reference_server
from servebench.workload import Request, Workload
from servebench.workload.arrivals import draw_schedule

ROOT = Path(__file__).parents[1]
SECONDS = 20
CASES = [
    ("poisson", 1000.0, 1),
    ("poisson", 1000.0, 2),
    ("poisson", 1000.0, 4),
    ("constant", 200.0, 1),
    ("constant", 1000.0, 1),
    ("poisson", 2000.0, 1),
    ("poisson", 2000.0, 2),
]


def main() -> None:
    header = ["arrival", "rate (1/s)", "workers", "requests", "dispersion", "CV of gaps", "late p50 (ms)"]
    header += ["late p99 (ms)", "within 1 ms", "client"]
    print(tabulate([row(*case) for case in CASES], header, floatfmt=".3f"))
    search()


def row(arrival: str, rate: float, workers: int) -> list[object]:
    requests = round(rate * SECONDS)
    run = RunConfig(load=Rate(request_rate=rate, arrival=arrival), num_requests=requests, warmup=round(rate))  # type: ignore[arg-type]
    ask = [Request("word " * 8, 8, 1)]
    workload = Workload(ask * requests, ask * 256, draw_schedule(run))
    with (
        tempfile.TemporaryDirectory() as folder,
        reference_server(Path(folder), GAP_S, "--ttft", "0.002") as (url, records),
    ):
        target = Target([f"{url}/v1/completions"], {}, completion_body, lambda: None)
        outcome = run_load(run, workload, target, Path(folder) / "parts", workers)
        arrived = (
            np.sort([r.arrived_ns for r in records() if int(r.request_id.rpartition("-")[2]) < requests]) / 1e9
        )
    counted = [r for r in outcome.results if r.phase == "measured"]
    late = np.array([schedule_wait_s(r) for r in counted])
    counts = np.histogram(arrived, bins=np.arange(arrived[0], arrived[-1], 20 / rate))[0]
    gaps = np.diff(arrived)
    numbers = [counts.var() / counts.mean(), gaps.std() / gaps.mean(), *np.percentile(late, [50, 99]) * 1e3]
    return [
        arrival,
        rate,
        workers,
        len(counted),
        *numbers,
        f"{np.mean(late < 1e-3):.1%}",
        outcome.quality.verdict[:40],
    ]


def search() -> None:
    """Twice, as a user types it: 5 places of 50 ms are 100 requests/s."""
    models = Path(os.environ.get("SERVEBENCH_MODELS", ROOT / ".models"))
    for again in range(2):
        with (
            tempfile.TemporaryDirectory() as folder,
            reference_server(Path(folder), GAP_S, "--slots", "5") as (url, _),
        ):
            words = ["--backend", "openai", "--openai_api_url", url, "--model", "m", "--scenario", "D(16,1)"]
            words += ["--tokenizer", str(models / "SmolLM2-135M-Instruct"), "--seed", str(again)]
            words += ["--request_rate", "10", "--num_requests", "600"]
            words += ["--arrival", "constant", "--find_max", "e2e_p90<200ms", "--out_json_dir", folder]
            command = [sys.executable, str(ROOT / "run_benchmark.py"), *words]
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            print(said.stdout.splitlines()[-1], f"({len(list(Path(folder).glob('openai/*.json')))} points)")


if __name__ == "__main__":
    main()
