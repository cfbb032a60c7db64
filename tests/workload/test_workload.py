"""Requests: exact lengths, fresh texts, the same for a seed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import msgspec
import numpy as np
import pytest
from conftest import in_hub_cache, run_config
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from servebench.errors import InputError
from servebench.log.config import ServerConfig, Synthetic
from servebench.log.lengths import parse_scenario
from servebench.plan.preflight import cut_lengths, remarks
from servebench.workload import build, build_workload, load_tokenizer, model_files, prompt_cache
from servebench.workload.model_files import model_context
from servebench.workload.texts import exact_texts, plain_words


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
        run = run_config(**({"mean_prompt_length": 20, "num_clients": 2, "num_requests": 5} | changes))  # type: ignore[arg-type]
        return build_workload(run, tokenizer, None).sha256

    assert sha() == sha()
    assert len({sha(), sha(seed=1), sha(repetition=1), sha(num_clients=3), sha(mean_max_new_tokens=9)}) == 5


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that even few tokens are worth a place in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(prompt_cache, "MIN_PROMPT_TOKENS", 100)
    return tmp_path / "servebench"


def test_requests_are_made_once_and_read_from_then_on(
    cache: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, run = load_tokenizer(str(tokenizer_dir)), run_config(mean_prompt_length=20, num_requests=10)
    made = build_workload(run, tokenizer, None)
    (file,) = cache.iterdir()
    monkeypatch.setattr(build, "requests_of_lengths", None)
    assert build_workload(run, tokenizer, None) == made
    with pytest.raises(TypeError):  # another seed, other requests
        build_workload(msgspec.structs.replace(run, seed=1), tokenizer, None)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(TypeError):  # what cannot be read is made anew
        build_workload(run, tokenizer, None)


def test_the_oldest_requests_make_room(cache: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, run = load_tokenizer(str(tokenizer_dir)), run_config(mean_prompt_length=20, num_requests=10)
    for seed in range(3):
        build_workload(msgspec.structs.replace(run, seed=seed), tokenizer, None)
        for file in cache.iterdir():
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 10))
    first, second, third = sorted(cache.iterdir(), key=lambda file: file.stat().st_mtime)
    monkeypatch.setattr(prompt_cache, "MAX_BYTES", int(2.5 * third.stat().st_size))
    build_workload(msgspec.structs.replace(run, seed=3), tokenizer, None)
    assert not first.exists() and not second.exists() and third.exists() and len(list(cache.iterdir())) == 2


def test_few_requests_leave_nothing_on_disk(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build_workload(run_config(), load_tokenizer(str(tokenizer_dir)), None)
    assert not list(tmp_path.iterdir())


def test_lengths_follow_mean_and_deviation(tokenizer_dir: Path) -> None:
    run = run_config(mean_prompt_length=100, mean_max_new_tokens=50, max_prompt_length=400, num_requests=2000)
    requests = build_workload(run, load_tokenizer(str(tokenizer_dir)), None).measured
    for values, mean in (([r.prompt_tokens for r in requests], 100), ([r.max_new_tokens for r in requests], 50)):
        assert np.mean(values) == pytest.approx(mean, rel=0.03)
        assert np.std(values) == pytest.approx(0.3 * mean, rel=0.08)


def test_no_request_exceeds_the_context(tokenizer_dir: Path) -> None:
    run = run_config(mean_prompt_length=100, mean_max_new_tokens=20, num_requests=300)
    requests = build_workload(run, load_tokenizer(str(tokenizer_dir)), 128).measured
    assert max(r.prompt_tokens + r.max_new_tokens for r in requests) == 128


def test_filler_requests_are_not_measured_ones(tokenizer_dir: Path) -> None:
    run = run_config(mean_prompt_length=20, num_clients=4, num_requests=10, warmup=2)
    workload = build_workload(run, load_tokenizer(str(tokenizer_dir)), None)
    assert len(workload.measured) == 10 and len(workload.filler) >= 4 * 3
    assert not {r.prompt for r in workload.measured} & {r.prompt for r in workload.filler}


@pytest.mark.parametrize("name", ["/no/such/place", "./nowhere", "a/b/c"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(InputError, match=f"--tokenizer {name}: there is no such directory or file"):
        load_tokenizer(name)


def test_a_gguf_with_nothing_beside_it_names_the_folder_it_was_made_of(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    with pytest.raises(InputError, match="is beside it; give --tokenizer, the folder of the model it was made"):
        load_tokenizer(str(tmp_path / "m.gguf"))


def test_transformers_makes_a_tokenizer_of_other_files_where_it_is_installed(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    transformers = ModuleType("transformers")
    transformers.AutoTokenizer = SimpleNamespace(  # type: ignore[attr-defined]
        from_pretrained=lambda name: SimpleNamespace(backend_tokenizer=backend)
    )
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    assert load_tokenizer(str(tmp_path)) is backend


def test_truncation_and_padding_of_a_tokenizer_are_switched_off(tokenizer_dir: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    long, short = "babe gugolu " * 50, "babe"
    right = [len(tokenizer.encode(text).ids) for text in (long, short)]
    tokenizer.enable_truncation(32)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(str(tmp_path))
    assert [len(e.ids) for e in loaded.encode_batch([long, short])] == right


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024}, 1024),
        ({"seq_length": 4096, "model_max_length": 8192}, 4096),
        ({"max_sequence_length": 512}, 512),
        ({"text_config": {"max_position_embeddings": 131072}}, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        ({"model_type": "falcon"}, 2048),  # Falcon 40B's says nothing; its code has this
        ({"model_type": "mamba"}, None),
        ([], None),
    ],
)
def test_the_context_of_a_model_is_in_its_config(tmp_path: Path, config: object, context: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_context(str(tmp_path), from_hub=False) == context


@pytest.mark.parametrize(("prompt", "refused"), [(20, False), (60, True)])
def test_the_context_and_the_tokenizer_of_a_hub_id_come_from_the_hubs_cache(
    benchmark: Callable[..., tuple[int, str, str]],
    reference: Callable[..., str],
    tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prompt: int,
    refused: bool,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    tokenizer = (tokenizer_dir / "tokenizer.json").read_text()
    in_hub_cache(tmp_path / "hub", "org/model", tokenizer=tokenizer, config='{"max_position_embeddings": 64}')
    attached = ("--backend", "openai", "--openai_api_url", f"{reference()}/v1", "--model", "org/model")
    words = ("--mean_prompt_length", prompt, "--mean_max_new_tokens", 8)
    load = ("--num_clients", 1, "--num_requests", 2, "--warmup", 0, "--num_workers", 1)
    status, _, err = benchmark(*attached, *words, *load)
    assert (status == 2) == ("exceed the 64 tokens of the model's context" in err) == refused, err


@pytest.mark.usefixtures("hub_out_of_reach")
def test_a_hub_that_cannot_be_reached_is_named_and_asked_once() -> None:
    assert model_context("org/none", from_hub=True) is None
    (why,) = model_files.unreachable
    with pytest.raises(InputError, match="the Hugging Face hub cannot be reached"):
        load_tokenizer("org/none")
    assert model_files.unreachable == [why]


@pytest.mark.parametrize("option", ["--dataset", "--out_json_dir", "--model"])
def test_a_path_in_a_home_that_is_not_there_is_refused(
    benchmark: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pwd\ndef nobody(*_):\n    raise KeyError('no such user')\npwd.getpwuid = nobody\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(build.__file__).parents[2])]))
    monkeypatch.delenv("HOME", raising=False)
    attached = ("--backend", "openai", "--openai_api_url", "http://127.0.0.1:9/v1")
    status, _, err = benchmark(*attached, option, "~/there")
    assert status == 2 and f"{option} ~/there: this user has no home directory; give the whole path" in err
    assert "Traceback" not in err


def test_many_requests_are_made_without_a_home(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it is without one
    monkeypatch.setattr(prompt_cache, "MIN_PROMPT_TOKENS", 100)
    monkeypatch.chdir(tmp_path)
    run = run_config(mean_prompt_length=20, num_requests=10)
    assert len(build_workload(run, load_tokenizer(str(tokenizer_dir)), None).measured) == 10
    assert not list(tmp_path.iterdir())


def test_means_that_cutting_takes_away_are_said() -> None:
    # N(1900, 570) cut at 2000: 1900 - 570 x (0.3929 - 0.1754 x 0.4304) = 1719
    falcon = Synthetic(mean_prompt_length=1900, prompt_length_var=0.3, max_prompt_length=2000)
    (line,) = cut_lengths(falcon, None)
    assert line.startswith(("prompts of 1900 tokens average 1718", "prompts of 1900 tokens average 1719"))
    llama = Synthetic(mean_prompt_length=2600, max_prompt_length=4000)  # 0.4 % less
    assert not list(cut_lengths(llama, 4096))
    assert not list(cut_lengths(msgspec.structs.replace(falcon, length_distribution="fixed"), None))
    (line,) = cut_lengths(msgspec.structs.replace(llama, max_new_tokens_var=1.0), None)
    assert line.startswith("generations of 60 tokens average 65")  # none is shorter than 1: + 0.083 x 60


def test_a_context_that_is_all_taken_still_holds_prompt_and_answer(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_dir))
    tokenizer.add_special_tokens(["<s>"])
    begin = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    run = run_config(mean_prompt_length=5, mean_max_new_tokens=25, max_new_tokens_var=1.0, num_requests=300)
    requests = build_workload(run, tokenizer, 30).measured
    assert max(r.prompt_tokens + r.max_new_tokens for r in requests) == 30
    assert min(r.prompt_tokens for r in requests) == 2


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
    run = run_config(mean_prompt_length=60, prompt_length_var=0, num_requests=40, shared_prefix=(30, 3))
    tokenizer = load_tokenizer(str(tokenizer_dir))
    workload = build_workload(run, tokenizer, None)
    tokens = [tokenizer.encode(r.prompt).ids for r in [*workload.measured, *workload.filler]]
    assert {len(ids) for ids in tokens} == {60}
    assert len({tuple(ids[:30]) for ids in tokens}) == 3, "those of the warm-up too"
    assert len({tuple(ids[30:40]) for ids in tokens}) == len(tokens)


@pytest.mark.parametrize(
    ("scenario", "prompts", "answers"),
    [("D(100,32)", (100, 100), (32, 32)), ("U(50,100)/(20, 25)", (50, 100), (20, 25))],
)
def test_a_scenario_sets_the_lengths(
    tokenizer_dir: Path, scenario: str, prompts: tuple[int, int], answers: tuple[int, int]
) -> None:
    run = run_config(scenario=scenario, num_requests=600)
    requests = build_workload(run, load_tokenizer(str(tokenizer_dir)), None).measured
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
    with pytest.raises(ValueError, match="--scenario"):
        parse_scenario(wrong)


def test_a_uniform_distribution_has_the_same_mean_and_deviation() -> None:
    requests = Synthetic(mean_prompt_length=1000, prompt_length_var=0.2, length_distribution="uniform")
    drawn = requests.lengths[0].draw(4000, 4000, np.random.default_rng(0))
    assert (np.mean(drawn), np.std(drawn)) == (pytest.approx(1000, rel=0.01), pytest.approx(200, rel=0.03))
    assert drawn.min() >= 1000 - 347 and drawn.max() <= 1000 + 347  # sqrt(3) * 200 = 346.4


def test_probes_are_short_and_all_alike(tokenizer_dir: Path) -> None:
    run = run_config(mean_prompt_length=200, num_requests=3, probe_rate=1.0)
    workload = build_workload(run, load_tokenizer(str(tokenizer_dir)), None)
    assert {(r.prompt_tokens, r.max_new_tokens) for r in workload.probes} == {(16, 8)}


def test_a_context_that_nobody_knows_is_said_once() -> None:
    def of(backend: str, context: int | None) -> list[str]:
        server = ServerConfig(backend=backend, model="org/none")
        plan = SimpleNamespace(server=server, strategy=SimpleNamespace(runs=[]))
        return list(remarks([plan], context))  # type: ignore[list-item]

    (line,) = of("fastgen", None)
    assert line.startswith("the context of org/none is not known")
    assert not of("fastgen", 4096)
    assert not of("vllm", None)  # it says so itself
