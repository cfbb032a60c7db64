"""The scripts that install and start engines, as far as they can be tried without installing one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

SCRIPTS = sorted([*ROOT.glob("*.sh"), *ROOT.glob("scripts/*.sh"), *ROOT.glob("engines/*.sh")])
BASH = str(shutil.which("bash"))

KILLED_SERVER = """
import os, signal, subprocess, sys
from process_group import start_guard
os.setsid()
start_guard(sys.argv[1])
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def without_gpu(tmp_path: Path) -> dict[str, str]:
    """An environment in which no driver is found, and nothing is installed."""
    (tmp_path / "bin").mkdir()
    for tool in ("cat", "dirname"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return {"PATH": str(tmp_path / "bin"), "SERVEBENCH_ENGINES": str(tmp_path / "engines")}


def run(script: str, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [BASH, str(ROOT / script), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_bash(script: Path) -> None:
    checked = subprocess.run([BASH, "-n", script], capture_output=True, text=True)
    assert checked.stderr == ""


@pytest.mark.parametrize("engine", ["vllm", "fastgen", "sglang"])
def test_a_gpu_engine_is_refused_without_a_gpu(engine: str, without_gpu: dict[str, str]) -> None:
    ended = run(f"engines/{engine}.sh", env=without_gpu)
    assert ended.returncode == 1
    assert "nvidia-smi" in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert not Path(without_gpu["SERVEBENCH_ENGINES"]).exists()


def test_what_a_killed_server_started_is_ended(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    server = subprocess.run(
        [sys.executable, "-c", KILLED_SERVER, str(scratch)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "engines")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.returncode == -9
    end = time.monotonic() + 20
    while scratch.exists():  # removed last
        assert time.monotonic() < end, "nothing cleaned up"
        time.sleep(0.05)
    child = int(server.stdout)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_port_that_another_server_would_share_is_taken() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as gRPC's servers do
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        asked = f"import ports\nwith ports.hold(range({port}, {port + 1})): print('held')"
        ended = subprocess.run([sys.executable, "-c", asked], cwd=ROOT / "engines", capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"port {port} is taken")
