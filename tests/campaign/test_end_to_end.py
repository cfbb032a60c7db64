"""The driver on real engines: sweeps, resume, interrupts, death of the server.

Engines and models come from run_tests.sh; without them these tests fail and say what to run.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, ours
from real_engines import LLAMACPP, SMOLLM2, VLLM, engines, logs, measured_so_far, wait_for, workers

from servebench.analysis import samples
from servebench.servers.ports import first_free_port

Benchmark = Callable[..., tuple[int, str, str]]
Driver = Callable[..., "subprocess.Popen[str]"]

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path):  # type: ignore[no-untyped-def]
    """No process of ours, whatever the test did: no driver, no load process, no server."""
    yield
    assert not ours(tmp_path)


def test_a_sweep_on_llamacpp(benchmark: Benchmark, results: Path) -> None:
    code, out, err = benchmark(*LLAMACPP, "--num_clients", 1, 3, "--num_requests", 6)
    assert code == 0, err
    measured = logs(results)
    assert sorted(measured) == [1, 3]
    for log in measured.values():
        assert len(samples.succeeded(log)) == 6
        assert all(r.prompt_tokens > 0 and r.generated_tokens == r.max_new_tokens for r in samples.succeeded(log))
        assert log.quality.unstamped_share == 0
    assert not list(results.glob("*/*.parts")), "part files of a point that ended"
    assert "llamacpp_server.py" in measured[1].server_facts.commands[0]
    assert "2 points measured, 0 failed" in out


def test_prompts_are_as_long_as_the_server_counts_them(benchmark: Benchmark, results: Path) -> None:
    """Without deviation every prompt has exactly the mean length, by the server's own count."""
    length = ["--prompt_length_var", 0, "--num_clients", 2, "--num_requests", 8]
    assert benchmark(*LLAMACPP, *length)[0] == 0
    assert {r.prompt_tokens for r in samples.succeeded(logs(results)[2])} == {24}


def test_a_sweep_on_vllm(benchmark: Benchmark, results: Path) -> None:
    code, _, err = benchmark(*VLLM, "--num_clients", 1, 4, "--num_requests", 12)
    assert code == 0, err
    measured = logs(results)
    assert sorted(measured) == [1, 4]
    for log in measured.values():
        done = samples.succeeded(log)
        assert len(done) == 12
        assert all(r.token_source == "usage in every event" for r in done)
        assert all(r.generated_tokens == r.max_new_tokens == sum(r.event_tokens) for r in done)
        assert not any(r.cached_tokens for r in done)
    assert measured[1].server_facts.engine.startswith("vllm ")


def test_a_running_server_can_be_attached_to(benchmark: Benchmark, driver: Driver, results: Path) -> None:
    port = first_free_port(1)
    served = driver(*LLAMACPP, "--num_clients", 1, "--num_requests", 1000, "--port", port)
    wait_for(lambda: _healthy(port))
    common = ["--model", SMOLLM2, "--mean_prompt_length", 24, "--mean_max_new_tokens", 8, "--num_clients", 2]
    url = f"http://127.0.0.1:{port}/v1"
    code, _, err = benchmark("--backend", "openai", "--openai_api_url", url, *common, "--num_requests", 4)
    assert code == 0, err
    assert served.poll() is None, "the server that we only attached to must live on"
    assert len(samples.succeeded(logs(results)[2])) == 4


def _healthy(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_measured_and_a_rerun_adds_the_rest(
    benchmark: Benchmark, driver: Driver, results: Path, number: signal.Signals
) -> None:
    sweep = [*LLAMACPP, "--num_clients", 1, 2, "--num_requests", 12]
    process = driver(*sweep)
    wait_for(lambda: len(logs(results)) == 1)
    time.sleep(0.5)
    process.send_signal(number)
    process.wait(30)
    assert process.returncode == 128 + number
    assert not ours(results)
    assert sorted(logs(results)) == [1]
    before = next(results.glob("*/*clients1-*.json")).stat().st_mtime_ns
    code, out, err = benchmark(*sweep)
    assert code == 0, err
    assert sorted(logs(results)) == [1, 2]
    assert next(results.glob("*/*clients1-*.json")).stat().st_mtime_ns == before
    assert re.search(r"^llama.cpp TP .* 1 +0 +1 +\d+$", out, re.MULTILINE), out  # 1 done, 1 to run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_example_ends_all_of_its_steps(tmp_path: Path, number: signal.Signals) -> None:
    """A signal to the script, not to the group: bash alone would wait for its child."""
    work = ["--out_json_dir", str(tmp_path / "results"), "--num_requests", "500"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # bash cannot hear a signal that was ignored when it started, as SIGINT is where tests run in the background.
    heard = partial(signal.signal, number, signal.SIG_DFL)
    script = subprocess.Popen([ROOT / "run_example.sh", *work], preexec_fn=heard, **quiet)
    try:
        wait_for(lambda: bool(workers(tmp_path)))
    finally:
        script.send_signal(number)
        ended = script.wait(30)
    assert ended == 128 + number
    assert not ours(tmp_path)


def test_death_of_vllm_midway_fails_the_point_and_the_sweep_goes_on(driver: Driver, results: Path) -> None:
    process = driver(*VLLM, "--num_clients", 2, 1, "--num_requests", 60)
    wait_for(lambda: measured_so_far(results) > 4)
    engines(results)[0].kill()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    measured = logs(results)
    assert measured[2].status == "failed"
    assert "killed by SIGKILL" in (measured[2].failure or "")
    assert measured[2].server_facts.log_tail
    assert samples.measured(measured[2]), "what was measured before the death is kept"
    assert measured[1].status == "ok"
    assert "1 point measured, 1 failed" in out


def test_death_of_the_engine_ends_the_sweep_when_asked(driver: Driver, results: Path) -> None:
    process = driver(*LLAMACPP, "--num_clients", 2, 1, "--num_requests", 500, "--on_error", "stop")
    wait_for(lambda: bool(workers(results)))
    time.sleep(1)
    engines(results)[0].kill()
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert [log.status for log in logs(results).values()] == ["failed"]


def test_an_engine_that_does_not_start_shows_its_last_words(benchmark: Benchmark, results: Path) -> None:
    code, out, _ = benchmark(*LLAMACPP, "--num_clients", 1, 2, "--engine_args", "--no_such_flag")
    assert code == 1
    assert "did not start" in out and "unrecognized arguments: --no_such_flag" in out
    assert {log.status for log in logs(results).values()} == {"failed"}
