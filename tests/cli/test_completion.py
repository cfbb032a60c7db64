"""Completion: a script that bash takes, and what it offers at the TAB key."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from warm_python import python

ASK = 'source {script}; COMP_WORDS=({words}) COMP_CWORD={at}; _servebench; echo "${{COMPREPLY[@]}}"'


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = python("-m", "servebench", "completion", "bash")
    assert (made.returncode, made.stderr) == (0, "")
    path = tmp_path_factory.mktemp("completion") / "script"
    path.write_text(made.stdout)
    return path


def bash(code: str) -> str:
    ended = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("./servebench su", "summary"),
        ("servebench c", "compare calibrate completion"),
        ("./servebench summary --s", "--sla"),
        ("./servebench run --num_c", "--num_clients"),
        ("./servebench run --num-c", "--num_clients"),
        ("./servebench run --backend vllm sg", "sglang"),
        ("./servebench paired A B --num_cl", "--num_clients"),
        ("./servebench evaluate --tas", "--tasks"),
        ("./servebench evaluate --backend vllm sg", "sglang"),
        ("./servebench server st", "start stop status"),
        ("./servebench server start --backend l", "llamacpp"),
        ("./run_benchmark.py --on-error c", "continue"),
        ("python run_benchmark.py --dry", "--dry_run"),
        ("python ./run_benchmark.py --backend = v", "vllm"),
        ("python other.py --dry", ""),
        ("./servebench summary res", ""),
        ("./servebench nothing --s", ""),
    ],
)
def test_what_is_offered(script: Path, typed: str, offered: str) -> None:
    words = typed.split()
    code = ASK.format(script=shlex.quote(str(script)), words=shlex.join(words), at=len(words) - 1)
    assert bash(code) == offered


def test_commands_are_offered_where_nothing_is_typed(script: Path) -> None:
    said = bash(ASK.format(script=shlex.quote(str(script)), words="./servebench ''", at=1)).split()
    assert {"summary", "compare", "run", "completion"} <= set(said)


def test_it_is_registered_for_the_programs(script: Path) -> None:
    said = bash(f"source {shlex.quote(str(script))}; complete -p servebench run_benchmark.py python")
    assert said.count("-F _servebench") == 3


def test_zsh_loads_what_bash_has() -> None:
    made = python("-m", "servebench", "completion", "zsh")
    assert "bashcompinit" in made.stdout and made.returncode == 0
