"""DeepSpeed-MII as a user runs it: real launcher, balancer, gRPC, scheduler and streaming; only the CUDA engine of
its model is replaced (engines/mii_cpu). Sweeps, faults, and what is left afterwards: nothing.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import errors, ours
from real_engines import SMOLLM2, TINY, nothing_is_left, wait_for, workers

from servebench.analysis import samples
from servebench.log import store
from servebench.log.schema import Log

Benchmark = Callable[..., tuple[int, str, str]]
Driver = Callable[..., "subprocess.Popen[str]"]
pytestmark = pytest.mark.engine
_ = nothing_is_left  # a fixture for every test here

SIM = ["--backend", "fastgen", "--model", TINY, "--engine_args", "--cpu-engine sim"]
LENGTHS = ["--mean_prompt_length", 40, "--mean_max_new_tokens", 12]
MII = "mii.launch.multi_gpu_server"


def logs(folder: Path) -> list[Log]:
    return [store.load(path) for path in sorted(folder.glob("*/*.json"))]


def mii_processes(word: str) -> list[psutil.Process]:
    """MII's processes with this word in their command lines, launchers left out."""
    found = [p for p in psutil.process_iter(["cmdline"]) if MII in (p.info["cmdline"] or [])]
    return [p for p in found if word in p.info["cmdline"] and "-c" not in p.info["cmdline"]]


def test_a_sweep_over_replicas(benchmark: Benchmark, results: Path) -> None:
    code, out, err = benchmark(*SIM, *LENGTHS, "--num_replicas", 1, 2, "--num_clients", 1, 4, "--num_requests", 12)
    assert code == 0, out + err
    measured = logs(results)
    assert sorted((log.server.num_replicas, log.run.load.num_clients) for log in measured) == [
        (1, 1),
        (1, 4),
        (2, 1),
        (2, 4),
    ]
    for log in measured:
        done = samples.succeeded(log)
        assert len(done) == 12
        assert all(r.generated_tokens == r.max_new_tokens == sum(r.event_tokens) for r in done)
        assert {r.finish_reason for r in done} == {"length"}
        assert log.quality.unstamped_share == 0
        assert "mii_server.py" in log.server_facts.commands[0] and len(log.server_facts.urls) == 1


def test_two_ranks_and_whole_answers(benchmark: Benchmark, results: Path) -> None:
    load = ["--tp_size", 2, "--num_clients", 2, "--num_requests", 6, "--no_stream"]
    code, out, err = benchmark(*SIM, *LENGTHS, *load)
    assert code == 0, out + err
    (log,) = logs(results)
    assert log.server.tp_size == 2
    assert all(len(r.event_ns) == 1 and r.generated_tokens == r.max_new_tokens for r in samples.succeeded(log))
    assert len(samples.succeeded(log)) == 6


def test_prompts_are_as_long_as_mii_counts_them_and_text_is_real(benchmark: Benchmark, results: Path) -> None:
    load = ["--mean_prompt_length", 24, "--prompt_length_var", 0, "--mean_max_new_tokens", 6, "--temperature", 0]
    code, out, err = benchmark(
        "--backend", "fastgen", "--model", SMOLLM2, *load, "--num_clients", 1, "--num_requests", 3
    )
    assert code == 0, out + err
    assert {r.prompt_tokens for r in samples.succeeded(logs(results)[0])} == {24}


@pytest.mark.parametrize("after_s", [1, 9, 0], ids=["starting", "loading", "measuring"])
def test_an_interrupt_leaves_nothing(driver: Driver, results: Path, after_s: float) -> None:
    process = driver(*SIM, *LENGTHS, "--num_clients", 2, "--num_requests", 2000)
    wait_for(lambda: bool(list(results.glob("fastgen/*.log"))))
    if after_s:
        time.sleep(after_s)
    else:
        wait_for(lambda: bool(workers(results)))
    process.send_signal(signal.SIGINT)
    assert process.wait(40) == 130
    assert not ours(results) and not mii_processes(str(TINY))


def test_the_death_of_a_replica_is_named(driver: Driver, results: Path) -> None:
    process = driver(*SIM, *LENGTHS, "--num_replicas", 2, "--num_clients", 2, "--num_requests", 2000)
    wait_for(lambda: bool(workers(results)))
    time.sleep(2)
    mii_processes("--server-port")[-1].kill()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    (log,) = logs(results)
    assert log.status == "failed" and samples.succeeded(log), "what was measured before is kept"
    assert "replica" in log.server_facts.log_tail and "ended while it served" in out


def test_everything_ends_when_the_benchmark_is_killed(driver: Driver, results: Path) -> None:
    process = driver(*SIM, *LENGTHS, "--num_clients", 2, "--num_requests", 2000)
    wait_for(lambda: bool(workers(results)))
    process.kill()
    wait_for(lambda: not ours(results) and not mii_processes("--load-balancer"), patience_s=30)


def test_a_request_that_mii_never_answers_ends_at_its_deadline(benchmark: Benchmark, results: Path) -> None:
    """A prompt of more than --max-length is refused by the replica, and the balancer's stream just hangs."""
    args = ["--engine_args", "--cpu-engine sim --max-length 30", "--request_timeout", 3, "--warmup", 0]
    load = ["--num_clients", 1, "--num_requests", 2, "--prompt_length_var", 0]
    code, out, err = benchmark(*SIM, *LENGTHS, *load, *args)
    assert code == 1, out + err
    (log,) = logs(results)
    assert len(errors(log)) == 2 and all("--request_timeout" in error for error in errors(log))


def test_a_model_that_is_none_ends_with_a_word(benchmark: Benchmark, results: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    where = ["--backend", "fastgen", "--model", tmp_path, "--tokenizer", TINY]
    code, out, _ = benchmark(*where, *LENGTHS, "--num_clients", 1, "--num_requests", 2)
    assert code == 1
    assert "the server did not start" in out and "--model" in out
