"""The race of --decide as a user runs it, on reference servers that are started and stopped for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from conftest import ours
from warm_python import python

from servebench.log import store

SERVE = f"{sys.executable} -m servebench reference-server --port {{port}} --ttft 0.01 --gap 0.001"
ASKED = ("--backend", "command", "--label", "ref", "--serve", SERVE, "--engine_grid", "--slots 1 2 6")
REQUESTS = ("--model", "reference", "--mean_prompt_length", 8, "--mean_max_new_tokens", 20, "--seed", 0)
RACE = ("--decide", "ttft_p90<60ms")
Benchmark = Callable[..., tuple[int, str, str]]


def words(tokenizer_dir: Path) -> tuple[object, ...]:
    return (*ASKED, *REQUESTS, "--tokenizer", tokenizer_dir, *RACE)


def clients(results: Path, slots: int) -> set[float]:
    """The loads that a server was measured at."""
    logs = [log for _, log in store.load_folder(results) if log.server.variant == f"slots {slots}"]
    return {log.run.load.size for log in logs}


def test_the_best_is_found_with_few_points_and_its_command_is_said(
    benchmark: Benchmark, tokenizer_dir: Path, results: Path
) -> None:
    status, out, _ = benchmark(*words(tokenizer_dir))
    assert status == 0 and not ours(results)
    assert "round 1: ref TP 1 x 1, slots 6 leads with" in out and "2 servers out" in out
    answer = next(line for line in out.splitlines() if "serves" in line)
    assert answer.startswith("ref TP 1 x 1, slots 6 serves") and "within ttft_p90<60ms, at" in answer
    assert "--slots 6" in next(line for line in out.splitlines() if line.startswith("To serve it:"))
    assert len(clients(results, 6)) > len(clients(results, 1)), "the gap is halved for the winner alone"
    assert "round 2" in out and "report" in out.splitlines()[-1], "a gate would fail at the loads beyond"


def test_what_is_killed_goes_on_where_it_was(
    driver: Callable[..., subprocess.Popen[str]], benchmark: Benchmark, tokenizer_dir: Path, results: Path
) -> None:
    begun = driver(*words(tokenizer_dir))
    deadline = time.monotonic() + 60
    while len(list(results.glob("ref/*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    begun.send_signal(signal.SIGKILL)
    begun.wait(10)
    before = {path: path.read_bytes() for path in results.glob("ref/*.json")}
    status, out, _ = benchmark(*words(tokenizer_dir))
    assert status == 0 and "slots 6 serves" in out
    assert {path: path.read_bytes() for path in before} == before, "nothing is measured again"
    assert len(list(results.glob("ref/*.json"))) > len(before) >= 4
    status, out, _ = benchmark(*words(tokenizer_dir))
    assert status == 0 and "ready after" not in out and "slots 6 serves" in out, "no server is started for nothing"


def test_a_budget_ends_it_with_the_best_answer_so_far(
    benchmark: Benchmark, tokenizer_dir: Path, results: Path
) -> None:
    status, out, _ = benchmark(*words(tokenizer_dir), "--budget", "0.1s")
    assert status == 0 and "the time is over (--budget), with 3 servers in the race; not measured: " in out
    assert len(list(results.glob("ref/*.json"))) <= 1
    status, out, _ = benchmark(*words(tokenizer_dir), "--budget", "2h")
    assert status == 0 and "slots 6 serves" in out and "time is over" not in out


def test_a_server_that_ends_under_load_stops_a_race_with_the_reason(
    benchmark: Benchmark, tokenizer_dir: Path, results: Path
) -> None:
    broken = (*words(tokenizer_dir)[:4], "--serve", SERVE.replace("reference-server", "no-such-server"))
    status, out, _ = benchmark(*broken, *REQUESTS, "--tokenizer", tokenizer_dir, *RACE, "--on_error", "stop")
    assert status == 1 and "stopped after a failed point (--on_error stop), with 1 server in the race" in out
    assert "(--budget)" not in out


def test_a_sweep_with_an_sla_ends_with_the_same_answer(benchmark: Benchmark, tokenizer_dir: Path) -> None:
    sweep = (*ASKED, *REQUESTS, "--tokenizer", tokenizer_dir, "--num_clients", 1, 4, 16, "--sla", RACE[1])
    status, out, _ = benchmark(*sweep)
    assert status == 0 and "Most requests/s" not in out
    answer = out[out.index("ref TP 1 x 1, slots 6 serves") :]
    folder = out.split("logs are in ")[1].split("/\n")[0]
    ended = python("-m", "servebench", "decide", folder, "--sla", RACE[1])
    assert answer.startswith(ended.stdout.rstrip("\n")), "decide says of the folder what the sweep said"


def test_bad_input_is_refused_before_anything_starts(benchmark: Benchmark, results: Path) -> None:
    for typed, fault in (
        (("--decide", "ttft<2s"), "write ttft_p99<2s"),
        (("--sla", "ttft<2s"), "write ttft_p99<2s"),
        (("--decide", "ttft_p99<2s", "--runs", 3), "exclude each other"),
        (("--budget", "2h"), "--budget goes with --decide"),
        (("--decide", "ttft_p99<2s", "--budget", "2 hours"), "write for example 2h, 30min or 90s"),
        (("--decide", "ttft_p99<2s", "--trace_speed", 1), "a search tries clients or rates"),
    ):
        status, _, err = benchmark("--backend", "vllm", *typed)
        assert status == 2 and fault in err and not results.exists(), typed
