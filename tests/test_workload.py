"""Requests: exact lengths, fresh texts, the same for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servebench.records import InputError, RunConfig
from servebench.workload import build_workload, load_tokenizer
from servebench.workload.tokens import exact_texts


@pytest.mark.parametrize("n", [1, 2, 3, 10, 257, 2000])
def test_texts_are_exactly_as_long_as_asked(tokenizer_dir: Path, n: int) -> None:
    tokenizer = load_tokenizer(str(tokenizer_dir))
    texts = exact_texts(tokenizer, [n] * 20, np.random.default_rng(0))
    assert {len(tokenizer.encode(text).ids) for text in texts} == {n}


def test_no_two_texts_begin_alike(tokenizer_dir: Path) -> None:
    texts = exact_texts(load_tokenizer(str(tokenizer_dir)), [50] * 300, np.random.default_rng(0))
    assert len({tuple(text.split()[:3]) for text in texts}) == 300


def test_the_seed_and_the_point_decide(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_dir))

    def sha(**changes: int) -> str:
        run = RunConfig(**({"mean_prompt_length": 20, "num_clients": 2, "num_requests": 5} | changes))  # type: ignore[arg-type]
        return build_workload(run, tokenizer, None).sha256

    assert sha() == sha()
    assert len({sha(), sha(seed=1), sha(repetition=1), sha(num_clients=3), sha(mean_max_new_tokens=9)}) == 5


def test_lengths_follow_mean_and_deviation(tokenizer_dir: Path) -> None:
    run = RunConfig(mean_prompt_length=100, mean_max_new_tokens=50, max_prompt_length=400, num_requests=2000)
    requests = build_workload(run, load_tokenizer(str(tokenizer_dir)), None).counted
    for values, mean in (([r.prompt_tokens for r in requests], 100), ([r.max_new_tokens for r in requests], 50)):
        assert np.mean(values) == pytest.approx(mean, rel=0.03)
        assert np.std(values) == pytest.approx(0.3 * mean, rel=0.08)


def test_no_request_exceeds_the_context(tokenizer_dir: Path) -> None:
    run = RunConfig(mean_prompt_length=100, mean_max_new_tokens=20, num_requests=300)
    requests = build_workload(run, load_tokenizer(str(tokenizer_dir)), 128).counted
    assert max(r.prompt_tokens + r.max_new_tokens for r in requests) == 128


def test_spare_requests_are_not_counted_ones(tokenizer_dir: Path) -> None:
    run = RunConfig(mean_prompt_length=20, num_clients=4, num_requests=10, warmup=2)
    workload = build_workload(run, load_tokenizer(str(tokenizer_dir)), None)
    assert len(workload.counted) == 10 and len(workload.spare) >= 4 * 3
    assert not {r.prompt for r in workload.counted} & {r.prompt for r in workload.spare}


def test_a_directory_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_tokenizer(str(tmp_path))
