#!/usr/bin/env python3
"""What does telemetry see of the GPUs of this machine, and what does it cost?

    .venv/bin/python benchmarks/telemetry_cost.py
    .venv/bin/python benchmarks/telemetry_cost.py --results WITH --without WITHOUT      (scripts/gpu_check.sh)

First the GPUs as the driver describes them, how long each call to it takes, asked as the sampler asks, and what
the sampler takes of a core; without a GPU it reads the host alone. With --results instead what was seen of each
point: power, energy by the counter and by the power readings, what was wrong; with --without too, how the same
points were without telemetry.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from tabulate import tabulate

from servebench.analysis import metrics, trust
from servebench.log import store
from servebench.log.schema import Log
from servebench.log.telemetry import GpuUse
from servebench.show.points import load_words
from servebench.telemetry import gpus, nvidia
from servebench.telemetry.sampler import EVERY_S, SLOWLY, Sample, Task

Times = dict[str, list[float]]
COMPARED = ("request_throughput_per_s", "ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "tpot_p99_s")


def timed(times: Times, name: str, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    try:
        return work()
    finally:
        times.setdefault(name, []).append(time.perf_counter() - start)


def calls(indices: list[int], seconds: float) -> Times:
    """The times of all that is asked of the driver, by name: in whole, and NVML's functions one by one."""
    times: Times = {}
    ask = nvidia._ask
    nvidia._ask = lambda functions, *words: timed(times, functions.split()[0], partial(ask, functions, *words))
    reader = gpus.Reader(indices)
    times.clear()
    begin = time.monotonic()
    for n in range(round(seconds / EVERY_S)):
        for index in indices:
            slowly = n % SLOWLY == 0
            timed(times, "a slow reading" if slowly else "a reading", partial(reader.read, index, slowly))
            if slowly:
                timed(times, "the processes", partial(reader.processes, index))
                timed(times, "the energy counter", partial(reader.energy_counter_j, index))
        time.sleep(max(0.0, begin + (n + 1) * EVERY_S - time.monotonic()))
    nvidia._ask = ask
    return times


def sampler(indices: list[int], seconds: float) -> list[str]:
    """What it takes of a core, and how regular its samples are."""
    command = [sys.executable, "-m", "servebench.telemetry.sampler"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples"
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            task = Task(file=str(file), client=os.getpid(), server=None, gpus=indices)
            assert process.stdin
            process.stdin.write(msgspec.json.encode(task) + b"\n")
            process.stdin.flush()
            time.sleep(1.5)  # it starts, and takes its first samples
            before = _cpu_s(process.pid)
            time.sleep(seconds)
            took = (_cpu_s(process.pid) - before) / seconds
        samples = [msgspec.json.decode(line, type=Sample) for line in file.read_bytes().splitlines()]
    said = [f"the sampler takes {took:.2%} of a core"]
    for source in dict.fromkeys(sample.source for sample in samples):
        gaps_ms = np.diff([sample.at_ns for sample in samples if sample.source == source]) / 1e6
        if len(gaps_ms):
            usual, most = np.median(gaps_ms), np.max(gaps_ms)
            said.append(f"{source}: {len(gaps_ms) + 1} samples, {usual:.1f} ms apart, at most {most:.1f} ms")
    return said + [f"remark: {word}" for each in samples if each.source == "remark" for word in each.values]


def _cpu_s(pid: int) -> float:
    return sum(psutil.Process(pid).cpu_times()[:2])


def row(name: str, seconds: list[float]) -> list[object]:
    took = np.array(seconds) * 1e3
    return [name, len(took), took.mean(), *np.percentile(took, [50, 99]), took.max()]


def cost(seconds: float) -> None:
    driver, cuda, machine = gpus.manifest()
    print(f"driver {driver}, CUDA {cuda}" if machine else "no GPU here")
    for gpu in machine:
        print(msgspec.json.format(msgspec.json.encode(gpu), indent=2).decode())
    indices = [gpu.index for gpu in machine]
    if indices:
        rows = [row(name, each) for name, each in calls(indices, seconds).items()]
        header = ["asked", "times", "mean (ms)", "p50 (ms)", "p99 (ms)", "most (ms)"]
        print(tabulate(rows, header, floatfmt=".3f"))
    print(*sampler(indices, seconds), sep="\n")


def seen(folder: Path) -> None:
    """A line for each point, run and GPU; then what sources said of themselves."""
    rows, remarks = [], []
    logs = [log for _, log in store.load_folder(folder)]
    for log in sorted(logs, key=lambda log: (log.run.load.size, log.run.repetition)):
        found, use = metrics.values(log), log.telemetry.gpus if log.telemetry else []
        remarks += log.telemetry.remarks if log.telemetry else ["a point without telemetry"]
        tokens = [found["tokens_per_joule"], found["energy_per_output_token_j"]]
        rows += [[*of_run(log), *gpu_row(gpu), *tokens, ", ".join(trust.marks([log]))] for gpu in use]
    header = ["load", "run", "GPU", "W", "counter (J)", "readings (J)", "apart", "energy", "SM", "idle", "MHz"]
    header += ["°C", "throttled", "shared", "tokens/J", "J/token", "marks"]
    print(tabulate(rows, header, floatfmt=".4g") if rows else "no GPU was sampled")
    for remark in dict.fromkeys(remarks):
        print(f"remark: {remark}")


def of_run(log: Log) -> tuple[str, int]:
    return load_words(log.run), log.run.repetition + 1


def gpu_row(gpu: GpuUse) -> list[object]:
    energies = (gpu.energy_j, gpu.power_readings_j)
    apart = f"{energies[1] / energies[0] - 1:+.2%}" if all(energies) else ""  # type: ignore[operator]
    throttled = ", ".join(f"{why} {share:.0%}" for why, share in gpu.throttled.items())
    use = [gpu.sm_share, gpu.idle_share, gpu.sm_clock_mhz, gpu.temperature_c]
    return [gpu.index, gpu.power_w, *energies, apart, gpu.energy, *use, throttled, gpu.shared_share]


def beside(with_it: Path, without: Path) -> None:
    """Both measured in turn with the same requests: what is with telemetry / what is without."""
    first, second = (
        {of_run(log): metrics.values(log) for _, log in store.load_folder(side)} for side in (with_it, without)
    )
    rows: list[list[Any]] = [
        [*run, *(_ratio(found[name], second[run][name]) for name in COMPARED)]
        for run, found in first.items()
        if run in second
    ]
    if rows:
        ratios = np.array([row[2:] for row in rows], dtype=float)
        rows.append(["all", "mean", *np.exp(np.mean(np.log(ratios), axis=0))])
        print(tabulate(rows, ["with / without", "run", *COMPARED], floatfmt=".4f"))


def _ratio(a: float | None, b: float | None) -> float:
    return a / b if a and b else np.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="for driver and sampler, each")
    parser.add_argument("--results", type=Path, help="a folder of logs: what was seen of their points")
    parser.add_argument("--without", type=Path, help="and one of the same points without telemetry")
    args = parser.parse_args()
    if args.results:
        seen(args.results)
        if args.without:
            beside(args.results, args.without)
    else:
        cost(args.seconds)


if __name__ == "__main__":
    main()
