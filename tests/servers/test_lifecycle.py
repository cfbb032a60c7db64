"""What servers do to a benchmark and benchmarks to servers: a fault ends with nothing left, and one clear word."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ours
from real_engines import LLAMACPP, VLLM, engines, logs, nothing_is_left, wait_for, workers

from servebench.analysis import samples
from servebench.servers.ports import first_free_port

Benchmark = Callable[..., tuple[int, str, str]]
Driver = Callable[..., "subprocess.Popen[str]"]
pytestmark = pytest.mark.engine

_ = nothing_is_left  # a fixture for every test here


def test_a_server_that_hangs_while_loading_is_given_up(benchmark: Benchmark, results: Path) -> None:
    code, out, _ = benchmark(*LLAMACPP, "--num_clients", 1, 2, "--server_timeout", 0.2)
    assert code == 1
    assert "not ready after 0.2 s (--server_timeout)" in out
    assert {log.status for log in logs(results).values()} == {"failed"}


def test_a_crash_while_loading_shows_why(benchmark: Benchmark, results: Path) -> None:
    args = ["--engine_args", "--load-format dummy --enforce-eager --max-model-len 99999999"]
    code, out, _ = benchmark(*VLLM, *args, "--num_clients", 1)
    assert code == 1
    assert "the server ended with status 1" in out and "max_model_len" in out


def test_too_little_memory_is_named_with_what_to_try(
    benchmark: Benchmark, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason stands far above the end of vLLM's log: its processes report each other's failures."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "9000")
    code, out, _ = benchmark(*VLLM, "--num_clients", 1)
    assert code == 1
    assert "requested memory for kv (9000.0 GiB)" in out and "no room for the KV cache" in out


def test_a_server_that_refuses_to_die_is_killed(driver: Driver, results: Path) -> None:
    """Stopped (SIGSTOP), it does not hear SIGTERM."""
    process = driver(*LLAMACPP, "--num_clients", 1, "--num_requests", 1000)
    wait_for(lambda: bool(workers(results)))
    (server,) = engines(results)
    server.suspend()
    process.send_signal(signal.SIGINT)
    assert process.wait(40) == 130


@pytest.mark.parametrize("after_s", [0.5, 8], ids=["starting", "loading"])
def test_an_interrupt_before_the_server_is_ready_leaves_nothing(
    driver: Driver, results: Path, after_s: float
) -> None:
    process = driver(*VLLM, "--num_clients", 1)
    wait_for(lambda: bool(list(results.glob("vllm/*.log"))))
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not logs(results), "nothing was measured"


@pytest.mark.parametrize("command", [LLAMACPP, VLLM], ids=["llamacpp", "vllm"])
def test_everything_ends_when_the_benchmark_is_killed(
    driver: Driver, results: Path, command: list[object]
) -> None:
    process = driver(*command, "--num_clients", 2, "--num_requests", 1000)
    wait_for(lambda: bool(workers(results)))
    time.sleep(1)
    process.kill()
    wait_for(lambda: not ours(results), patience_s=20)


def measured_by(results: Path) -> set[int]:
    """The replicas that have answered measured requests of the point that runs."""
    lines = [line for part in results.glob("*/*.parts/part-*.jsonl") for line in part.read_text().splitlines()]
    return {int('"server":1' in line) for line in lines if '"measured"' in line}


def test_the_death_of_one_replica_of_two_fails_the_point(driver: Driver, results: Path) -> None:
    process = driver(*LLAMACPP, "--num_replicas", 2, "--num_clients", 2, "--num_requests", 1000)
    wait_for(lambda: measured_by(results) == {0, 1})
    engines(results)[0].kill()
    process.communicate(timeout=60)
    assert process.returncode == 1
    (log,) = logs(results).values()
    assert log.status == "failed" and "killed by SIGKILL" in (log.failure or "")
    assert {r.server for r in samples.measured(log)} == {0, 1}


def test_a_replica_each_is_asked(benchmark: Benchmark, results: Path) -> None:
    code, _, err = benchmark(*LLAMACPP, "--num_replicas", 2, "--num_clients", 4, "--num_requests", 12)
    assert code == 0, err
    asked = [r.server for r in samples.succeeded(logs(results)[4])]
    assert min(asked.count(0), asked.count(1)) > 0


def test_a_router_stands_before_the_replicas(benchmark: Benchmark, results: Path) -> None:
    load = ["--num_replicas", 2, "--router", "--num_clients", 4, "--num_requests", 12]
    code, out, err = benchmark(*VLLM, *load)
    assert code == 0, out + err
    log = logs(results)[4]
    assert len(samples.succeeded(log)) == 12 and len(log.server_facts.urls) == 1
    assert ["vllm-router" in command for command in log.server_facts.commands] == [False, False, True]
    asked = [Path(file).read_text().count("POST /v1/completions") for file in log.server_facts.log_files[:2]]
    assert min(asked) > 0, "each replica was asked"


def test_two_benchmarks_at_once_do_not_meet(driver: Driver, results: Path, tmp_path: Path) -> None:
    load = ["--num_clients", 1, "--num_requests", 6]
    first = driver(*LLAMACPP, *load)
    second = driver(*LLAMACPP, *load, "--out_json_dir", tmp_path / "results" / "other")
    assert [p.communicate(timeout=200) and p.returncode for p in (first, second)] == [0, 0]


def test_a_stale_server_on_the_port_is_not_measured(
    benchmark: Benchmark, reference: Callable[..., str], results: Path
) -> None:
    port = reference().rpartition(":")[2]
    code, _, err = benchmark(*LLAMACPP, "--num_clients", 1, "--port", port)
    assert code == 2 and f"--port {port} is taken" in err


def detached(results: Path, *words: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "servebench", "server", *map(str, words), "--out_json_dir", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_server_can_outlive_benchmarks(benchmark: Benchmark, results: Path) -> None:
    port = first_free_port(1)
    assert detached(results, "start", *LLAMACPP, "--port", port)[0] == 0
    try:
        assert detached(results, "start", *LLAMACPP, "--port", port)[0] == 2, "the port is taken"
        load = ["--client_only", "--port", port, "--num_clients", 1, "--num_requests", 2]
        assert benchmark(*LLAMACPP, *load)[0] == 0
        before = engines(results)[0].pid
        assert f" {before} " in detached(results, "status")[1]
        assert detached(results, "restart", "--port", port)[0] == 0
        assert engines(results)[0].pid != before
    finally:
        assert detached(results, "stop")[0] == 0
    assert "no server runs" in detached(results, "status")[1]
    assert detached(results, "stop")[0] == 2
