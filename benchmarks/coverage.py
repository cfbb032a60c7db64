#!/usr/bin/env python3
"""Do the 95 % intervals cover the truth as often as they claim? A simulation of a continuous-batching server.

    .venv/bin/python benchmarks/coverage.py --campaigns 400 --requests 1000 5000

Requests arrive at random (Poisson), since only an open loop can overload a server: closed loops are always stable.
A campaign is five runs of so many requests after a warm-up, at a share of the server's capacity. Its t-intervals
are held against the truth, which long runs tell. Prints a table, then the same for `--target_ci`.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from servebench.analysis import stationarity, stats, target_ci

ITERATION_S, SEQUENCE_S, PROMPT_TOKEN_S = 0.02, 0.0005, 0.00015  # what one pass of the model takes: base, each
SLOTS = 32  # most sequences in a batch
PROMPT, GENERATED, SPREAD = 512, 60, 0.3
WARM_UP = 200  # requests
RUNS = 5
TOGETHER = 250  # runs simulated side by side
LOADS = (0.5, 0.8, 0.95)


class Simulated(NamedTuple):
    """Runs side by side: when requests arrived, had their first token, ended; s. Shapes (runs, requests)."""

    arrived: np.ndarray
    first: np.ndarray
    ended: np.ndarray


def serve(rng: np.random.Generator, arrived: np.ndarray) -> Simulated:
    """First come, first served; each pass admits one request and gives every sequence of the batch a token."""
    runs, requests = arrived.shape
    prompts = np.clip(np.rint(rng.normal(PROMPT, SPREAD * PROMPT, (runs, requests + 1))), 1, None)
    tokens = np.clip(np.rint(rng.normal(GENERATED, SPREAD * GENERATED, (runs, requests + 1))), 1, None).astype(int)
    due = np.concatenate([arrived, np.full((runs, 1), np.inf)], axis=1)
    longest, every = int(tokens.max()) + 1, np.arange(runs)
    now, following, batch = np.zeros(runs), np.zeros(runs, int), np.zeros(runs, int)
    leaving = np.zeros((longest, runs), int)  # sequences that end with a pass, by its number modulo `longest`
    first, last_pass, clock = np.zeros((runs, requests)), np.zeros((runs, requests), int), list[np.ndarray]()
    while (following < requests).any() or batch.any():
        arrival = due[every, following]
        now = np.where((batch == 0) & np.isfinite(arrival), np.maximum(now, arrival), now)
        admit = (arrival <= now) & (batch < SLOTS)
        batch = batch + admit
        prefill = admit * PROMPT_TOKEN_S * prompts[every, following]
        now = now + (batch > 0) * (ITERATION_S + SEQUENCE_S * batch) + prefill
        run, request = every[admit], following[admit]
        first[run, request] = now[admit]
        last_pass[run, request] = len(clock) + tokens[run, request] - 1
        leaving[last_pass[run, request] % longest, run] += 1
        batch = batch - leaving[len(clock) % longest]
        leaving[len(clock) % longest] = 0
        following = following + admit
        clock.append(now)
    return Simulated(arrived, first, np.array(clock)[last_pass, every[:, None]])


def capacity_per_s(rng: np.random.Generator) -> float:
    """Requests/s when all are there from the start, without the first and last."""
    ended = np.sort(serve(rng, np.zeros((8, 4000))).ended, axis=1)
    return float(np.mean(2500 / (ended[:, 3000] - ended[:, 500])))


class Runs(NamedTuple):
    """Values of many runs of the same load, by name; why a run is not stationary, or None."""

    values: dict[str, np.ndarray]
    doubts: np.ndarray


def simulate(rng: np.random.Generator, rate_per_s: float, runs: int, requests: int) -> Runs:
    parts = []
    for at in range(0, runs, TOGETHER):
        gaps = rng.exponential(1 / rate_per_s, (min(TOGETHER, runs - at), WARM_UP + requests))
        parts += [evaluate(*run) for run in zip(*serve(rng, np.cumsum(gaps, axis=1)), strict=True)]
    names = parts[0][0]
    return Runs({name: np.array([values[name] for values, _ in parts]) for name in names},
                np.array([doubt is not None for _, doubt in parts]))  # fmt: skip


def evaluate(arrived: np.ndarray, first: np.ndarray, ended: np.ndarray) -> tuple[dict[str, float], str | None]:
    """Of one run, as the tool does it: the window lies between the end of the warm-up and the last arrival."""
    counted = slice(WARM_UP, None)
    start, end = arrived[WARM_UP - 1], arrived[-1]
    ttft = (first - arrived)[counted]
    values = {
        "throughput": np.sum((start < ended) & (ended <= end)) / (end - start),
        "mean TTFT": ttft.mean(),
        "median TTFT": np.median(ttft),
        "p99 TTFT": np.percentile(ttft, 99),
        "mean E2E": (ended - arrived)[counted].mean(),
    }
    in_flight = stationarity.in_flight(arrived, ended, np.linspace(start, end, stationarity.BINS + 1))
    return {name: float(value) for name, value in values.items()}, stationarity.why_series_are_not(
        {"in flight": in_flight}, ttft
    )


def truth(rng: np.random.Generator, rate_per_s: float) -> dict[str, float]:
    """From 250 long runs."""
    gaps = rng.exponential(1 / rate_per_s, (TOGETHER, 20 * WARM_UP + 20_000))
    arrived, first, ended = (times[:, 20 * WARM_UP :] for times in serve(rng, np.cumsum(gaps, axis=1)))
    ttft = first - arrived
    p50, p99 = np.percentile(ttft, [50, 99])
    known = {"throughput": rate_per_s, "mean TTFT": ttft.mean(), "median TTFT": p50, "p99 TTFT": p99}
    return known | {"mean E2E": float((ended - arrived).mean())}


def coverage(found: np.ndarray, true: float) -> float:
    """Share of the campaigns, RUNS values each, whose interval holds the truth."""
    intervals = [stats.t_interval(campaign) for campaign in found.reshape(-1, RUNS).tolist()]
    return float(np.mean([i is not None and i.low <= true <= i.high for i in intervals]))


def stopped(
    found: Runs, true: dict[str, float], campaigns: int, target: float, least: int, most: int
) -> list[float]:
    """With --target_ci: mean runs a campaign, coverage of throughput and of mean E2E latency when it stops."""
    names, rows = ("throughput", "mean E2E"), []
    for i in range(campaigns):
        of_campaign = {name: found.values[name][i * most : (i + 1) * most].tolist() for name in names}
        for n in range(least, most + 1):
            intervals = [stats.t_interval(of_campaign[name][:n]) for name in names]
            if all(target_ci.relative_width(i) <= target for i in intervals):
                break
        rows.append([n, *(i.low <= true[name] <= i.high for i, name in zip(intervals, names, strict=True) if i)])
    return [float(column) for column in np.mean(rows, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=400)
    parser.add_argument("--requests", type=int, nargs="+", default=[1000, 5000], help="counted ones a run")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    capacity = capacity_per_s(rng)
    print(f"capacity {capacity:.2f} requests/s; {args.campaigns} campaigns of {RUNS} runs a row\n")
    true = {load: truth(rng, load * capacity) for load in LOADS}
    rows = []
    for requests in args.requests:
        for load in LOADS:
            found = simulate(rng, load * capacity, args.campaigns * RUNS, requests)
            covered = [coverage(values, true[load][name]) for name, values in found.values.items()]
            doubted = found.doubts.reshape(-1, RUNS).sum(axis=1) * 2 > RUNS
            rows.append([requests, f"{load:.0%}", *(f"{share:.1%}" for share in covered), f"{doubted.mean():.1%}"])
    print(tabulate(rows, ["requests/run", "load", *found.values, "not stationary"], stralign="right"))
    found, target, least, most = simulate(rng, 0.5 * capacity, args.campaigns * 10, 1000), 0.05, 3, 10
    runs, *covered = stopped(found, true[0.5], args.campaigns, target, least, most)
    print(f"\n--target_ci {target:.0%}, {least} to {most} runs of 1000 requests at 50% load: {runs:.1f} runs, "
          f"throughput {covered[0]:.1%}, mean E2E latency {covered[1]:.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
