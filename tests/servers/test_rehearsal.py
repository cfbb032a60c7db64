"""--show_request: what is shown is what is started and sent."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from test_endpoints import Fake, serve  # noqa: F401  # a fixture

from servebench.log import store
from servebench.servers.ports import first_free_port

Benchmark = Callable[..., tuple[int, str, str]]
FAKE_ENGINE = """#!{python}
import json, sys, threading
sys.path[:0] = {paths}
from test_endpoints import Fake
def odd(call):
    with open({file!r}, "a") as file:
        print(json.dumps([call.path, call.body]), file=file)
Fake(odd, models=["model"], port=int(sys.argv[sys.argv.index("--port") + 1]))
threading.Event().wait()
"""


def shown_in(out: str) -> list[tuple[str, dict[str, str], dict[str, Any]]]:
    """(URL, headers, body) of each request that was shown."""
    found = re.findall(r"^POST (\S+)\n((?:[^{].*\n)*)(\{\n(?:.*\n)*?\})$", out, re.M)
    return [(url, dict(re.findall(r"(.+?): (.*)", head)), json.loads(body)) for url, head, body in found]


def same(shown: dict[str, Any], sent: dict[str, Any]) -> None:
    """But for the salt, and for the middle of long texts; the fields come in the same order."""
    assert [*shown] == [*sent]
    for name, value in shown.items():
        first, cut, last = str(value).partition(" ... ")
        other = str(sent[name])
        assert name == "cache_salt" or value == sent[name] or (cut and len(first + last) > 150), name
        assert name == "cache_salt" or (other.startswith(first) and other.endswith(last)), name


LOAD = ["--num_clients", 1, "--num_requests", 2, "--warmup", 0, "--seed", 5, "--mean_max_new_tokens", 9]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--api", "chat", "--mean_prompt_length", 9],
        ["--extra_body", '{"top_k": 3, "top_p": null, "stop": ["é"]}', "--temperature", 0, "--respect_eos"],
        ["--no_stream", "--shared_prefix", "20:1", "--extra_headers", "X-A: b"],
    ],
    ids=lambda words: "".join(map(str, words[:1])),
)
def test_a_running_server_is_asked_what_was_shown(
    words: list[object],
    serve: Callable[..., Fake],  # noqa: F811
    benchmark: Benchmark,
    tokenizer_dir: Path,
) -> None:
    fake = serve()
    target = ["--backend", "openai", "--openai_api_url", fake.url, "--model", "m", "--tokenizer", tokenizer_dir]
    command = [*target, *LOAD, "--mean_prompt_length", 90, "--openai_api_key", "SECRET-KEY", *words]
    code, out, err = benchmark(*command, "--show_request")
    assert code == 0 and not fake.posts, err
    ((url, headers, body),) = shown_in(out)
    assert "SECRET" not in out + err and headers.pop("Authorization") == "***"
    benchmark(*command)
    sent = next(call for call in fake.posts if call.all("x-request-id"))
    assert url == fake.url + sent.path
    assert headers.items() <= ({name: value for name, value in sent.headers} | {"X-A": "***"}).items()
    same(body, sent.body)


def test_a_server_is_started_and_asked_as_was_shown(
    stand_in: list[object], benchmark: Benchmark, tmp_path: Path
) -> None:
    program, file = tmp_path / "engines/vllm/bin/vllm", tmp_path / "calls"
    paths = [str(ROOT / "tests/servers"), str(ROOT / "tests"), str(ROOT / "src")]
    program.write_text(FAKE_ENGINE.format(python=sys.executable, paths=paths, file=str(file)))
    command = [*stand_in, *LOAD, "--port", first_free_port(1), "--engine_args", "--api-key SECRET-KEY --x 'a b'"]
    code, out, err = benchmark(*command, "--show_request")
    assert code == 0 and not file.exists() and "SECRET" not in out + err, err
    ((url, headers, body),) = shown_in(out)
    code, _, err = benchmark(*command)
    assert code == 0, err
    log = store.load(*(tmp_path / "results/vllm").glob("*.json"))
    assert f"is started by: {log.server_facts.commands[0]}\n" in out
    assert headers["Authorization"] == "***" and "VLLM_API_KEY=***" in out
    path, sent = next(call for call in map(json.loads, file.read_text().splitlines()) if "prompt" in call[1])
    assert url == log.server_facts.urls[0] + path
    same(body, sent)


def test_what_is_not_at_hand_is_said_and_the_rest_is_shown(
    benchmark: Benchmark, tmp_path: Path, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code, out, err = benchmark("--backend", "vllm", "sglang", "fastgen", "--tp_size", 1, "--show_request")
    assert code == 0, err
    assert "cannot be started: vllm is not installed" in out
    assert "not known yet: the tokenizer meta-llama/Llama-2-7b-hf is not on this machine" in out
    assert [body["prompt"] for _, _, body in shown_in(out)] == ["PROMPT"] * 3
    assert "note: do_sample differs: vLLM: not sent, SGLang: not sent, DeepSpeed-FastGen: True\n" in out
    assert "note: what requests do not say, engines decide: vLLM: the model's generation_config.json; " in out
