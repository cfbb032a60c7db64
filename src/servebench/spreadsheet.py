"""All logs of a folder as a table for spreadsheets: `python -m servebench.spreadsheet results/`.

It writes summary.csv there: a row a point, failed ones too; units in the names; empty where a log says nothing.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from servebench import metrics, records
from servebench.records import Log, LogError, Result

LATENCIES: dict[str, Callable[[Result], float | None]] = {
    "ttft": metrics.ttft_s,
    "tpot": metrics.tpot_s,
    "e2e_latency": metrics.e2e_s,
}
RATES = {
    "request_throughput_per_s": metrics.request_throughput,
    "output_token_throughput_per_s": metrics.output_token_throughput,
    "total_token_throughput_per_s": metrics.total_token_throughput,
    "blog_throughput_per_s": metrics.blog_throughput,
    "tflops_per_gpu": metrics.tflops_per_gpu,
}
POINT = re.compile(r"-(clients|rate|trace)\d").search  # in the name of a point's log
PERCENTILES = (50, 90, 95, 99)
Cell = str | int | float | None


def row(log: Log) -> dict[str, Cell]:
    """A point by column name."""
    server, run, counted = log.server, log.run, metrics.measured(log)
    cells: dict[str, Cell] = {
        "backend": server.backend,
        "model": server.model,
        "tp_size": server.tp_size,
        "num_replicas": server.num_replicas,
        "max_ragged_batch_size": server.max_ragged_batch_size,
        "mean_prompt_length": run.mean_prompt_length,
        "mean_max_new_tokens": run.mean_max_new_tokens,
        "num_clients": None if run.open_loop else run.num_clients,
        "request_rate_per_s": run.request_rate,
        "status": log.status,
        "requests": len(counted),
        "failed": len(counted) - len(metrics.succeeded(log)),
        "retries": sum(r.retries for r in counted),
    }
    for name, rate in RATES.items():
        cells[name] = rate(log)
    for name, of_request in LATENCIES.items():
        cells |= _spread(name, metrics.each(log, of_request))
    cells |= _spread("itl", metrics.pooled_itl_s(log))
    cells |= _spread("schedule_wait", metrics.each(log, metrics.schedule_wait_s)) if run.open_loop else {}
    return cells | {
        "client": log.quality.verdict,
        "overloaded": int(log.quality.overloaded),
        "engine": log.server_facts.engine,
        "started_at": log.started_at,
    }


def _spread(name: str, values: np.ndarray) -> dict[str, Cell]:
    """Mean and percentiles of a latency (s)."""
    percentiles = {f"{name}_p{q}_s": metrics.percentile(values, q) for q in PERCENTILES}
    return {f"{name}_mean_s": metrics.mean(values), **percentiles}


def write(folder: Path) -> tuple[Path, int]:
    """Write FOLDER/summary.csv from the logs in the folders of its backends. Returns (the file, its points)."""
    rows = []
    for path in sorted(p for p in folder.glob("*/*-*.json") if POINT(p.name)):
        try:
            rows.append(row(records.load(path)) | {"log": str(path.relative_to(folder))})
        except LogError as error:
            print(f"left out: {error}", file=sys.stderr)
    file = folder / "summary.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, dict.fromkeys(name for row in rows for name in row) or ["backend"])
        writer.writeheader()
        writer.writerows(rows)
    return file, len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results"), help="folder of logs [results]")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.exit(2, f"spreadsheet: error: {folder} is not a folder; give one that run_benchmark.py wrote to\n")
    file, points = write(folder)
    print(f"{file}: {points} points")
    return 0 if points else 1


if __name__ == "__main__":
    raise SystemExit(main())
