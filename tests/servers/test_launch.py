"""The commands that engines are started with: what is in them, and what keeps them from being started."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import psutil
import pytest

from servebench.campaign import detached
from servebench.errors import InputError
from servebench.plan import arguments
from servebench.plan.sweep import make_plan
from servebench.servers.access import headers_of
from servebench.servers.launch import answers, launch_of


@pytest.fixture(autouse=True)
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines as their recipes leave them, as far as a command shows it, and a model for each."""
    for name in ("vllm", "sglang", "fastgen", "llamacpp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".installed").write_text(f"{name} 1.0")
    (tmp_path / "m.gguf").touch()
    (tmp_path / "tokenizer.json").touch()
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def launched(backend: str, *words: object, replica: int = 0) -> tuple[list[str], dict[str, str]]:
    plan, *_ = make_plan(*arguments.parse(["--backend", backend, *map(str, words)]))
    started = launch_of(plan.server, plan.access, 8000, replica)
    return list(started.command), started.env


def after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


# llama.cpp's slots share one context.

EXACT = ["--prompt_length_var", 0, "--max_new_tokens_var", 0, "--mean_max_new_tokens", 100]


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        ([*EXACT, "--mean_prompt_length", 1000, "--num_clients", 4, 16], 16 * 1100),
        ([*EXACT, "--mean_prompt_length", 1000, 2000, "--num_clients", 10], 10 * 2100),
        ([*EXACT, "--mean_prompt_length", 1000, "--num_clients", 64], 32 * 1100),
        ([*EXACT, "--mean_prompt_length", 1000, "--request_rate", 1], 32 * 1100),
        (["--scenario", "U(100,900)/(50,100)", "--num_clients", 20], 20 * 1000),
        (["--scenario", "N(3000,900)/(100,20)", "--num_clients", 20], 20 * (4000 + 200)),
        (["--mean_prompt_length", 64, "--mean_max_new_tokens", 32, "--num_clients", 4], 8192),
    ],
)  # fmt: skip
def test_the_context_of_llamacpp_follows_from_the_plan(engines: Path, words: list[object], tokens: int) -> None:
    command, _ = launched("llamacpp", "--model", engines / "m.gguf", *words)
    assert after(command, "--ctx-size") == str(tokens)


def test_clients_of_each_replica_make_room_too(engines: Path) -> None:
    model = ["llamacpp", "--model", engines / "m.gguf", "--num_replicas", 2, "--scenario", "D(1000,1000)"]
    of_each, _ = launched(*model, "--clients_per_replica", 4)
    of_all, _ = launched(*model, "--num_clients", 8)
    assert after(of_each, "--ctx-size") == after(of_all, "--ctx-size") == str(8 * 2000)


def test_a_context_that_the_user_gives_stands(engines: Path) -> None:
    command, _ = launched("llamacpp", "--model", engines / "m.gguf", "--engine_args", "--ctx-size 512")
    assert command.count("--ctx-size") == 1 and after(command, "--ctx-size") == "512"


def test_the_tokenizer_of_a_gguf_lies_beside_it_or_is_its_own(engines: Path) -> None:
    words = ["--backend", "llamacpp", "--model", str(engines / "m.gguf")]
    assert arguments.parse(words)[0].tokenizer == str(engines)
    (engines / "tokenizer.json").unlink()
    assert arguments.parse(words)[0].tokenizer == str(engines / "m.gguf")


# GPUs.


@pytest.mark.parametrize("backend", ["vllm", "sglang", "fastgen"])
@pytest.mark.parametrize(("visible", "shows"), [("0,1", "2"), ("3,3,5,5", "2"), ("", "0")])
def test_replicas_for_which_no_gpu_is_visible_are_refused(
    monkeypatch: pytest.MonkeyPatch, backend: str, visible: str, shows: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(InputError, match=rf"needs 4 GPUs, and \$CUDA_VISIBLE_DEVICES shows {shows}"):
        launched(backend, "--tp_size", 2, "--num_replicas", 2)


def test_every_replica_gets_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    sizes = ["--tp_size", 2, "--num_replicas", 2]
    assert [launched("vllm", *sizes, replica=n)[1]["CUDA_VISIBLE_DEVICES"] for n in (0, 1)] == ["4,5", "6,7"]
    assert [
        launched("vllm", *sizes, "--gpus", 0, 1, 2, 3, replica=n)[1]["CUDA_VISIBLE_DEVICES"] for n in (0, 1)
    ] == ["0,1", "2,3"]


# How much an engine batches, and its key.


@pytest.mark.parametrize(("backend", "option"), [("vllm", "--max-num-seqs"), ("sglang", "--max-running-requests")])
def test_engines_keep_their_own_batch_unless_asked(backend: str, option: str) -> None:
    assert option not in launched(backend)[0]
    assert after(launched(backend, "--max_ragged_batch_size", 64)[0], option) == "64"
    assert after(launched("fastgen")[0], "--max-ragged-batch-size") == "768"


def test_the_key_of_vllm_is_in_its_environment_and_in_no_log() -> None:
    words = ["--engine_args", "--enforce-eager --api-key sesame"]
    command, env = launched("vllm", *words)
    assert "sesame" not in " ".join(command) and env["VLLM_API_KEY"] == "sesame" and "--enforce-eager" in command
    plan, *_ = make_plan(*arguments.parse(["--backend", "vllm", *words]))
    assert plan.server.engine_args == ("--enforce-eager", "--api-key", "***")


def test_the_key_of_the_engine_opens_it_whatever_the_shell_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-service")
    plan, *_ = make_plan(*arguments.parse(["--backend", "vllm", "--engine_args", "--api-key sesame"]))
    assert headers_of(plan.server, plan.access)["Authorization"] == "Bearer sesame"


# Ready, and again.


@pytest.mark.parametrize(("path", "there"), [("/health", True), ("/v1/models", True), ("/other", False)])
def test_a_server_is_there_when_it_is_healthy_or_lists_models(path: str, there: bool) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert answers(f"http://127.0.0.1:{server.server_port}") is there
        server.shutdown()


def test_a_server_that_was_started_with_a_key_is_not_started_again_without(tmp_path: Path) -> None:
    words = ["--backend", "vllm", "--engine_args", "--api-key '***'"]
    me = psutil.Process()
    known = detached.DetachedServer("vllm", "m", 8000, me.pid, me.create_time(), "log", words)
    (tmp_path / "servers.json").write_bytes(msgspec.json.encode([known]))
    with pytest.raises(InputError, match="was started with a key"):
        detached.run("restart", ["--out_json_dir", str(tmp_path)])


def test_a_detached_server_that_is_stopped_leaves_no_key_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text("args: --api-key sesame\n")
    process = psutil.Popen(["sleep", "60"], start_new_session=True)
    known = detached.DetachedServer("vllm", "m", 8000, process.pid, process.create_time(), str(log), [])
    (tmp_path / "servers.json").write_bytes(msgspec.json.encode([known]))
    detached.run("stop", ["--out_json_dir", str(tmp_path)])
    assert process.wait(5) and log.read_text() == "args: --api-key ******\n"
