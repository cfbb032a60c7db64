#!/usr/bin/env python3
"""Large requests, prompts of 100,000 tokens and answers of 32,000 events: does the load process stay as small?

    .venv/bin/python benchmarks/large.py

The same load is run for twice as many requests each time; memory that grows with them would show. Prints a table.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import psutil
from tabulate import tabulate

from servebench.load.fleet import Outcome, run_load
from servebench.load.sharding import Target
from servebench.log.config import Clients, RunConfig, Synthetic
from servebench.reference.calibrate import completion_body, reference_server
from servebench.workload import Request, Workload

CLIENTS, PROMPT, EVENTS, GAP_S = 4, 100_000, 32_000, 0.0001


def main() -> None:
    rows = [row(requests) for requests in (4, 8, 16, 32)]
    header = ["requests", "failed", "prompt (MB each)", "events", "load process (MB, most)", "client"]
    print(tabulate(rows, header, floatfmt=".0f"))


def row(requests: int) -> list[object]:
    """One load; prompts are all the same text, so that what is held is the client's own."""
    ask = Request("word " * PROMPT, PROMPT, EVENTS)
    workload = Workload([ask] * requests, [ask] * CLIENTS)
    load, lengths = (
        Clients(num_clients=CLIENTS),
        Synthetic(mean_prompt_length=PROMPT, max_prompt_length=PROMPT, mean_max_new_tokens=EVENTS),
    )
    run = RunConfig(load=load, requests=lengths, num_requests=requests, warmup=0)
    with tempfile.TemporaryDirectory() as folder, reference_server(Path(folder), GAP_S) as (url, _):
        target = Target([f"{url}/v1/completions"], {}, completion_body, lambda: None)
        most: list[float] = []
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(done, most))
        watcher.start()
        outcome = run_load(run, workload, target, Path(folder) / "parts", workers=1)
        done.set()
        watcher.join()
    return [requests, failed(outcome), len(ask.prompt) / 1e6, events(outcome), max(most), outcome.quality.verdict]


def watch(done: threading.Event, most: list[float]) -> None:
    """Resident memory of the load process, MB, ten times a second."""
    while not done.wait(0.1):
        for child in psutil.Process().children():
            if "servebench.load.worker" in child.cmdline():
                most.append(child.memory_info().rss / 1e6)


def failed(outcome: Outcome) -> int:
    return sum(r.error is not None for r in outcome.results if r.phase == "measured")


def events(outcome: Outcome) -> int:
    return sum(len(r.event_ns) for r in outcome.results if r.phase == "measured")


if __name__ == "__main__":
    main()
