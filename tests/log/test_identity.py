"""What a point's identity counts, and what it does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import run_config

from servebench.log import identity
from servebench.log.config import RunConfig, ServerConfig, fields_of

SERVER = ServerConfig(backend="vllm", model="org/m")
RUN = run_config(num_clients=8)


@pytest.fixture(autouse=True)
def fresh() -> None:
    identity.content_of.cache_clear()


def around(**changes: Any) -> dict[str, Any]:
    asked = {"engine": "vllm 0.11", "launched": True, "tokenizer": "org/m", "headers": ()} | changes
    return identity.environment_of(**asked)


def mark(server: ServerConfig = SERVER, run: RunConfig = RUN, **changes: Any) -> str:
    return identity.fingerprint(identity.identity_of(server, run, around(**changes)))


def with_(config: Any, **changes: Any) -> Any:
    if isinstance(config, RunConfig):
        return run_config(**(fields_of(config) | changes))
    return msgspec.structs.replace(config, **changes)


@pytest.mark.parametrize(
    "change",
    [
        {"repetition": 3},  # the name has it
        {"request_timeout": 5.0},
        {"dataset": "/elsewhere/chats.json"},
    ],
)
def test_what_measures_the_same_does_not_count(change: dict[str, Any]) -> None:
    run = with_(RUN, dataset="chats.json", dataset_sha256="abc")
    assert mark(run=run) == mark(run=with_(run, **change))


def test_defaults_are_left_out_so_that_a_new_option_voids_nothing() -> None:
    assert identity.identity_of(SERVER, RUN, {}) == {
        "measures": identity.MEASUREMENT_VERSION,
        "server": {"backend": "vllm", "model": "org/m"},
        "run": {"num_clients": 8},
        "environment": {},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"num_clients": 9},
        {"temperature": 0.0},
        {"extra_body": {"top_k": 1}},
        {"dataset": "d", "dataset_sha256": "b"},
    ],
)
def test_the_load_counts(change: dict[str, Any]) -> None:
    assert mark() != mark(run=with_(RUN, **change))


@pytest.mark.parametrize(
    "change", [{"engine_args": ("--x",)}, {"tp_size": 2}, {"model": "other/m"}, {"gpus": (1,)}]
)
def test_the_server_counts(change: dict[str, Any]) -> None:
    assert mark() != mark(with_(SERVER, **change))


def test_engine_and_tokenizer_count() -> None:
    assert len({mark(), mark(engine="vllm 0.12"), mark(tokenizer="org/other")}) == 3


def test_a_url_in_other_words_is_the_same() -> None:
    urls = ("http://host/v1", "http://host/v1/", "http://host", "http://host/v1/completions")
    assert len({mark(with_(SERVER, urls=(url,))) for url in urls}) == 1
    for other in ("http://host2/v1", "http://host/v2", "http://host/v1?api-version=2"):
        assert mark(with_(SERVER, urls=(other,))) != mark(with_(SERVER, urls=urls[:1]))
    assert mark(with_(SERVER, urls=("http://host:1/",)), with_(RUN, api="mii"))


def test_a_model_here_is_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model/weights.safetensors"
    weights.write_bytes(b"a" * 100)
    monkeypatch.chdir(tmp_path)
    ways = ("model", "./model", "./model/", str(tmp_path / "model"))
    assert len({mark(with_(SERVER, model=way), tokenizer=way) for way in ways}) == 1
    before = mark(with_(SERVER, model="model"))
    os.utime(weights, (1, 1))
    identity.content_of.cache_clear()
    assert mark(with_(SERVER, model="model")) == before, "a copy is the same model"
    weights.write_bytes(b"a" * 99 + b"b")
    identity.content_of.cache_clear()
    assert mark(with_(SERVER, model="model")) != before


def test_of_a_large_file_the_ends_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "WHOLE", 10)
    monkeypatch.setattr(identity, "SAMPLE", 4)
    names = []
    for content in (b"head" + b"." * 20 + b"tail", b"head" + b"," * 20 + b"tail", b"head" + b"." * 20 + b"tale"):
        (tmp_path / "m.gguf").write_bytes(content)
        identity.content_of.cache_clear()
        names.append(identity.content_of(str(tmp_path / "m.gguf")))
    assert names[0] == names[1] != names[2]


def test_variables_that_engines_read_count_for_servers_that_we_start(monkeypatch: pytest.MonkeyPatch) -> None:
    before, attached = mark(), mark(launched=False)
    for name in ("VLLM_API_KEY", "VLLM_CACHE_ROOT", "VLLM_LOGGING_LEVEL", "HOME_OF_NOBODY"):
        monkeypatch.setenv(name, "secret")
    assert mark() == before and "secret" not in str(around())
    for name in ("VLLM_ATTENTION_BACKEND", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SGLANG_X", "LLAMA_ARG_N"):
        known = mark()
        monkeypatch.setenv(name, "7")
        assert mark() != known
    assert mark(launched=False) == attached


def test_headers_count_and_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    blue, green = (mark(headers=[("X-Route", route)]) for route in ("blue", "green"))
    assert blue != green != mark()
    assert mark(headers=[("x-route", "blue")]) == blue
    for name in ("Authorization", "api-key", "X-Auth-Token", "Cookie"):
        assert mark(headers=[(name, "s3cret")]) == mark(headers=[(name, "another")])
        assert "s3cret" not in str(around(headers=[(name, "s3cret"), ("X", "s3cret")]))


def test_the_host_counts_but_not_the_name_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(name: str) -> str:
        monkeypatch.setattr("platform.node", lambda: name)
        return mark()

    assert named("a100-box") != named("h100-box")
    assert named("0123456789ab") == named("ba9876543210")


def test_the_names_of_gpus_count() -> None:
    assert len({mark(gpus=names) for names in ([], ["NVIDIA A100"], ["NVIDIA A100"] * 2)}) == 3
    assert mark(launched=False, gpus=["NVIDIA A100"]) == mark(launched=False)


def test_the_commit_of_a_model_counts_where_it_is_known() -> None:
    assert len({mark(), mark(model_revision="1a2b"), mark(model_revision="3c4d")}) == 3
    assert "model_revision" not in around() and mark(launched=False, model_revision="1a2b") == mark(launched=False)
