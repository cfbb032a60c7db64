"""What tests on real engines share: models, command lines, who runs, and that nobody is left."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import MODELS, ours, readlink

from servebench.log import store
from servebench.log.schema import Log

SMOLLM2 = MODELS / "SmolLM2-135M-Instruct"
TINY = MODELS / "tiny-llama"
# Two engines at a time share the cores: their threads must not spin while they wait for each other.
os.environ["OMP_WAIT_POLICY"] = "passive"
LLAMACPP = ["--backend", "llamacpp", "--model", SMOLLM2, "--engine_args=--threads 1"]
LLAMACPP += ["--mean_prompt_length", 24, "--mean_max_new_tokens", 8]
VLLM = ["--backend", "vllm", "--model", TINY, "--engine_args", "--load-format dummy --enforce-eager"]
VLLM += ["--mean_prompt_length", 64, "--mean_max_new_tokens", 16]


def logs(folder: Path) -> dict[int, Log]:
    """By number of clients."""
    found = [store.load(path) for path in folder.glob("*/*.json")]
    return {log.run.load.num_clients: log for log in found}


def wait_for(condition: Callable[[], bool], patience_s: float = 120) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def measured_so_far(results: Path) -> int:
    """Requests of the point that runs that its first load process has measured."""
    return sum(part.read_text().count('"measured"') for part in results.glob("*/*.parts/part-0.jsonl"))


def workers(folder: Path) -> list[str]:
    return [line for line in ours(folder) if "servebench.load.worker" in line]


def engines(results: Path) -> list[psutil.Process]:
    """The leading process of every session that writes to a log in these results: an engine's API process."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == process.pid and str(results) in readlink(f"/proc/{process.pid}/fd/1"):
                found.append(process)
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(results: Path):  # type: ignore[no-untyped-def]
    """No process, and nobody who listens on a port that a log names."""
    yield
    assert not ours(results)
    if not results.exists():
        return
    urls = [url for log in logs(results).values() for url in log.server_facts.urls]
    for port in (int(url.rpartition(":")[2]) for url in urls):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
