"""Requests: exact lengths, fresh texts, the same for a seed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from servebench.records import InputError, RunConfig
from servebench.workload import build, build_workload, kept, load_tokenizer
from servebench.workload.lengths import lengths_of, parse_scenario
from servebench.workload.tokens import exact_texts, plain_words


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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that even few tokens are worth a place in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "WORTH", 100)
    return tmp_path / "servebench"


def test_requests_are_made_once_and_read_from_then_on(
    cache: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, run = load_tokenizer(str(tokenizer_dir)), RunConfig(mean_prompt_length=20, num_requests=10)
    made = build_workload(run, tokenizer, None)
    (file,) = cache.iterdir()
    monkeypatch.setattr(build, "made_up", None)
    assert build_workload(run, tokenizer, None) == made
    with pytest.raises(TypeError):  # another seed, other requests
        build_workload(msgspec.structs.replace(run, seed=1), tokenizer, None)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(TypeError):  # what cannot be read is made anew
        build_workload(run, tokenizer, None)


def test_the_oldest_requests_make_room(cache: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, run = load_tokenizer(str(tokenizer_dir)), RunConfig(mean_prompt_length=20, num_requests=10)
    for seed in range(3):
        build_workload(msgspec.structs.replace(run, seed=seed), tokenizer, None)
        for file in cache.iterdir():
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 10))
    first, second, third = sorted(cache.iterdir(), key=lambda file: file.stat().st_mtime)
    monkeypatch.setattr(kept, "MOST_BYTES", int(2.5 * third.stat().st_size))
    build_workload(msgspec.structs.replace(run, seed=3), tokenizer, None)
    assert not first.exists() and not second.exists() and third.exists() and len(list(cache.iterdir())) == 2


def test_few_requests_leave_nothing_on_disk(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build_workload(RunConfig(), load_tokenizer(str(tokenizer_dir)), None)
    assert not list(tmp_path.iterdir())


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


@pytest.mark.parametrize("n", [1, 2, 9, 10, 300])
def test_prose_is_exactly_as_long_as_asked(tokenizer_dir: Path, n: int) -> None:
    tokenizer = load_tokenizer(str(tokenizer_dir))
    texts = exact_texts(tokenizer, [n] * 20, np.random.default_rng(0), prose=True)
    assert {len(tokenizer.encode(text).ids) for text in texts} == {n}
    assert len(set(texts)) > 15


def test_long_prose_is_made_of_sentences(tokenizer_dir: Path) -> None:
    (text,) = exact_texts(load_tokenizer(str(tokenizer_dir)), [2000], np.random.default_rng(0), prose=True)
    assert text.count(". ") > 5


def test_a_tokenizer_whose_tokens_span_words_is_encoded_in_full(tmp_path: Path) -> None:
    """Words that merge with their neighbours: lengths do not follow from words, yet texts come out exact."""
    syllables = [a + b for a in "bcdfglmnprst" for b in "aeiou"]
    words = [a + b + c for a in syllables for b in syllables[:9] for c in syllables[:2]]
    merging = [f"{a}▁{b}" for a in words[:40] for b in words[:40]]
    vocabulary = {t: i for i, t in enumerate(["<unk>", *(f"▁{w}" for w in words), *words, *merging, "▁"])}
    tokenizer = Tokenizer(models.Unigram([(t, -1.0 if "▁" in t[1:] else -2.0) for t in vocabulary], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    assert not plain_words(tokenizer).additive
    texts = exact_texts(tokenizer, [50] * 40, np.random.default_rng(0))
    assert {len(tokenizer.encode(text).ids) for text in texts} == {50}


def test_tokens_that_the_tokenizer_adds_count(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_dir))
    tokenizer.add_special_tokens(["<s>"])
    begin = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    texts = exact_texts(tokenizer, [2, 5, 100], np.random.default_rng(0))
    assert [len(tokenizer.encode(text).ids) for text in texts] == [2, 5, 100]


def test_prompts_of_a_group_begin_with_the_same_tokens_and_no_others_do(tokenizer_dir: Path) -> None:
    run = RunConfig(mean_prompt_length=60, prompt_length_var=0, num_requests=40, shared_prefix=(30, 3))
    tokenizer = load_tokenizer(str(tokenizer_dir))
    requests = build_workload(run, tokenizer, None).counted
    tokens = [tokenizer.encode(r.prompt).ids for r in requests]
    assert {len(ids) for ids in tokens} == {60}
    assert len({tuple(ids[:30]) for ids in tokens}) == 3
    assert len({tuple(ids[30:40]) for ids in tokens}) == 40


@pytest.mark.parametrize(
    ("scenario", "prompts", "answers"),
    [("D(100,32)", (100, 100), (32, 32)), ("U(50,100)/(20, 25)", (50, 100), (20, 25))],
)
def test_a_scenario_sets_the_lengths(
    tokenizer_dir: Path, scenario: str, prompts: tuple[int, int], answers: tuple[int, int]
) -> None:
    run = RunConfig(scenario=scenario, num_requests=600)
    requests = build_workload(run, load_tokenizer(str(tokenizer_dir)), None).counted
    for values, ends in (
        ([r.prompt_tokens for r in requests], prompts),
        ([r.max_new_tokens for r in requests], answers),
    ):
        assert (min(values), max(values)) == ends


def test_a_normal_scenario_has_its_mean_and_deviation() -> None:
    prompt, answer = parse_scenario("N(480,48)/(300,30)")
    drawn = prompt.draw(4000, 4000, np.random.default_rng(0))
    assert (prompt.mean, answer.mean) == (480, 300)
    assert (np.mean(drawn), np.std(drawn)) == (pytest.approx(480, rel=0.01), pytest.approx(48, rel=0.05))


@pytest.mark.parametrize("wrong", ["D(100)", "N(1,2)", "U(9,1)/(1,2)", "D(0,5)", "X(1,2)", "D(1,2)/(3,4)"])
def test_what_is_no_scenario_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="--scenario"):
        parse_scenario(wrong)


def test_a_uniform_distribution_has_the_same_mean_and_deviation() -> None:
    run = RunConfig(mean_prompt_length=1000, prompt_length_var=0.2, length_distribution="uniform")
    drawn = lengths_of(run)[0].draw(4000, 4000, np.random.default_rng(0))
    assert (np.mean(drawn), np.std(drawn)) == (pytest.approx(1000, rel=0.01), pytest.approx(200, rel=0.03))
    assert drawn.min() >= 1000 - 347 and drawn.max() <= 1000 + 347  # sqrt(3) * 200 = 346.4


def test_probes_are_short_and_all_alike(tokenizer_dir: Path) -> None:
    run = RunConfig(mean_prompt_length=200, num_requests=3, probe_rate=1.0)
    workload = build_workload(run, load_tokenizer(str(tokenizer_dir)), None)
    assert {(r.prompt_tokens, r.max_new_tokens) for r in workload.probes} == {(16, 8)}
