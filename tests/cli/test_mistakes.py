"""What people mistype: each is answered by one line, which names the fault and what to type instead."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from warm_python import python

RUN, PLOT = [ROOT / "run_benchmark.py"], [ROOT / "src/plot_th_lat.py"]
SERVEBENCH = ["-m", "servebench"]
HINT = "(-h lists the common options, --help_all all)"
MISTAKES: list[tuple[list[object], str, str]] = [
    (RUN, "--num_client 4", f"unknown option --num_client: did you mean --num_clients? {HINT}"),
    (RUN, "--num-client 4", f"unknown option --num-client: did you mean --num_clients? {HINT}"),
    (RUN, "--batch-size 4", "unknown option --batch-size: did you mean --max_ragged_batch_size?"),
    (RUN, "--openai-api-kee sk-hidden", "unknown option --openai-api-kee: did you mean --openai_api_key"),
    (RUN, "--qqqq", f"unknown option --qqqq {HINT}"),
    (RUN, "-k sk-hidden", f"unknown option -k {HINT}"),
    (RUN, "-ksk-hidden", f"unknown option -k {HINT}"),
    (
        RUN,
        "--openai-api-key --sk-hidden",
        "--openai_api_key: no value; if it begins with a dash, write --openai_api_key=",
    ),
    (RUN, "stray", "not understood: stray"),
    (
        RUN,
        "--backend vlm",
        "--backend: 'vlm' is not one of fastgen, vllm, sglang, llamacpp, command, openai, aml: did you mean v",
    ),
    (RUN, "--arrival poison", "'poison' is not one of constant, gamma, poisson: did you mean poisson?"),
    (RUN, "--num_clients", "--num_clients: its value is missing"),
    (RUN, "--num_clients 1,x", "--num_clients: 'x' is not a whole number of at least 1"),
    (RUN, "--num_clients 8 --request_rate 2", "--num_clients and --request_rate exclude each other; leave one"),
    (RUN, "--tp_size 0", "--tp_size: '0' is not a whole number of at least 1"),
    (RUN, "--gpus 0..x", "--gpus: '0..x' is not a whole number of at least 0"),
    (RUN, "--target_ci 5", "--target_ci: '5' is not a share; write 5% or 0.05"),
    (RUN, "--target_ci five", "--target_ci: 'five' is not a share; write for example 5% or 0.05"),
    (
        RUN,
        "--backend openai --openai-api-url http://127.0.0.1:1 --model ./nowhere",
        "nothing answers at http://127.0.0.1:1",  # which may know a model of this name
    ),
    (RUN, "--backend vllm", "vllm is not installed in"),
    (RUN, "--backend vllm", "install it: ./engines/vllm.sh"),
    (RUN, "--backend vllm --find_max 'ttft_p99<2'", "write ttft_p99<2s or ttft_p99<2ms"),
    (RUN, "--backend vllm --find_max 'ttft99<2s'", "did you mean ttft_p99?"),
    (SERVEBENCH, "gate --limit 'ttft_p99<2s' results", "unknown option --limit: did you mean --limits?"),
    (SERVEBENCH, "gate results --limits 'ttft_p99<2'", "write ttft_p99<2s or ttft_p99<2ms"),
    (RUN, "--config nowhere.yaml", "--config nowhere.yaml: [Errno 2] No such file or directory"),
    (SERVEBENCH, "sumary", "unknown command 'sumary': did you mean summary? (servebench -h lists the commands)"),
    (SERVEBENCH, "", "a command is missing (servebench -h lists the commands)"),
    (
        SERVEBENCH,
        "summary --sla fastgen-4 nowhere/",
        "nowhere/ is not a folder; give one that run_benchmark.py wrote to",
    ),
    (SERVEBENCH, "summary --sal fastgen-4", "unknown option --sal: did you mean --sla? (-h lists all options)"),
    (SERVEBENCH, "compare", "error: missing: "),
    (SERVEBENCH, "compare results --num_clients sk-hidden", "unknown option --num_clients (-h lists all options)"),
    (
        SERVEBENCH,
        "compare results copy --metric ttft",
        "--metric ttft is ambiguous; give one of ttft_mean_s, ttft_p50_s",
    ),
    (SERVEBENCH, "compare results results --filter tp=2", "there is no field tp: did you mean tp_size?"),
    (SERVEBENCH, "compare results results --filter tp_size", "'tp_size' is not FIELD=VALUE, such as tp_size=2"),
    (SERVEBENCH, "report results --output nowhere/page.html", "--output: nowhere is not a folder; make it first"),
    (SERVEBENCH, "summary nowhere", "servebench summary: error: nowhere is not a folder"),
    (SERVEBENCH, "server strat", "'strat' is not one of start, stop, restart, status: did you mean start"),
    (SERVEBENCH, "server start --num_client 4", "unknown option --num_client: did you mean --num_clients?"),
    (SERVEBENCH, "calibrate --num-client 4", "unknown option --num-client: did you mean --num_clients?"),
    (SERVEBENCH, "run --dry-rum", "unknown option --dry-rum: did you mean --dry_run?"),
    (PLOT, "--log-dirs results", "unknown option --log-dirs: did you mean --log_dir"),
    (PLOT, "--log-dir nowhere", "nowhere is not a folder; give one that run_benchmark.py wrote to"),
    (PLOT, "--format pgn", "'pgn' is not one of png, svg, pdf: did you mean png?"),
]


@pytest.fixture(autouse=True)
def _folders(logs: Path, tmp_path: Path) -> None:
    """results/ and a copy of a part of it."""
    shutil.copytree(logs / "vllm", tmp_path / "copy")


@pytest.mark.parametrize(("program", "words", "said"), MISTAKES, ids=[words for _, words, _ in MISTAKES])
def test_a_mistake_is_answered_in_one_line(
    program: list[object], words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path / "none"))
    ended = python(*program, *shlex.split(words), cwd=tmp_path)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 2 and len(lines) == 1, ended.stderr
    assert said in lines[0] and "error: " in lines[0]
    assert len(lines[0]) < 250 and "hidden" not in lines[0]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (RUN, "--num-clients 1,2,4 --dry-run --backend vllm"),
        (RUN, "--tp-size 1 2 --gpus 0-7 --dry_run --backend vllm,sglang"),
        (SERVEBENCH, "run --dry-run --backend vllm"),
        (SERVEBENCH, "summary --sla fastgen-4 results/vllm"),
        (SERVEBENCH, "gate --filter tp_size=1 results/vllm --limits 'error_rate<1%'"),
        (SERVEBENCH, "compare --metric ttft_p99_s results/vllm copy"),
        (SERVEBENCH, "compare --filter tp_size=1 results/vllm copy"),
        (PLOT, "--log-dir results --out-dir figures --filter tp-size=1 --max-figures 1"),
    ],
)
def test_what_looks_like_one_works(program: list[object], words: str, tmp_path: Path) -> None:
    ended = python(*program, *shlex.split(words), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
