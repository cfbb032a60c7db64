"""--check on real engines: what is asked is answered alone and under load, and a healthy engine raises no alarm.

DeepSpeed-MII is a test of its own: its scheduler breaks where greedy and sampled requests of a batch are unlike.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from real_engines import LLAMACPP, SMOLLM2, logs, nothing_is_left  # noqa: F401  a fixture

from servebench.analysis import answers
from servebench.log.schema import Log

pytestmark = pytest.mark.engine
Benchmark = Callable[..., tuple[int, str, str]]
VLLM = ["--backend", "vllm", "--model", SMOLLM2, "--engine_args", "--enforce-eager"]
VLLM += ["--mean_prompt_length", 24, "--mean_max_new_tokens", 8]
FASTGEN = ["--backend", "fastgen", "--model", SMOLLM2, "--mean_prompt_length", 16, "--mean_max_new_tokens", 4]
FASTGEN += ["--max_prompt_length", 100]


def checked(benchmark: Benchmark, results: Path, *arguments: object) -> Log:
    code, out, err = benchmark(*arguments, "--num_clients", 4, "--check", "basic")
    assert code == 0, out + err
    return logs(results)[4]


@pytest.mark.parametrize("engine", [VLLM, LLAMACPP], ids=["vllm", "llamacpp"])
def test_questions_are_answered_alone_and_under_load(
    benchmark: Benchmark, results: Path, engine: list[object]
) -> None:
    log = checked(benchmark, results, *engine, "--num_requests", 480)
    found = answers.checked([log])
    assert found and found.n >= 5 and not any(each.error for each in (*log.checks, *log.checks_alone))
    assert sum(found.before) >= 2  # of a model of 0.1 billion parameters, which knows half of them
    assert not found.worse() and answers.broken(log) is None
    pairs = answers.agreement(answers.alone_and_under_load([log]))
    assert pairs and pairs.share > 0.5


def test_mii_goes_on_beside_its_questions(benchmark: Benchmark, results: Path) -> None:
    log = checked(benchmark, results, *FASTGEN, "--num_requests", 120)
    assert log.checks and not any(each.error for each in (*log.checks, *log.checks_alone))
