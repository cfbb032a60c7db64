"""What servers say of themselves, whatever they answer; what their files are; machines that compare refuses."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import in_hub_cache
from nvml import Stub
from real_engines import LLAMACPP, TINY, VLLM, logs
from warm_python import python

from servebench.log import store
from servebench.log.config import ServerConfig
from servebench.log.schema import Log
from servebench.plan import arguments, sweep
from servebench.plan.sweep import make_plan
from servebench.telemetry import engine_says, manifest, weights
from servebench.workload import model_files

Page = bytes | Callable[[BaseHTTPRequestHandler], None]
METRICS = b"""# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="0",\
gpu_memory_utilization="0.9",num_gpu_blocks="1000",note="a \\"b\\", c",sliding_window="None"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1100"} 1.0
vllm:num_requests_running{engine="0"} 0.0
"""
INFO = {
    "vllm_config": {
        "model_config": {
            "dtype": "torch.bfloat16",
            "max_model_len": 4096,
            "quantization": None,
            "hf_token": "s3cret",
        },
        "cache_config": {"block_size": 16},
        "scheduler_config": {"max_num_seqs": 128, "policy": "fcfs"},
        "attention_config": {"backend": "FLASHINFER"},
        "speculative_config": {"method": "eagle", "num_speculative_tokens": 3, "model": "m" * 300},
    },
    "vllm_env": {"VLLM_BUILD_COMMIT": "abc123"},
}
SGLANG = {
    "version": "0.5.3",
    "api_key": "s3cret",
    "attention_backend": "fa3",
    "chunked_prefill_size": 8192,
    "max_total_num_tokens": 20480,
    "dp_size": 2,
    "internal_states": [{"effective_max_running_requests_per_dp": 128}],
}
PROPS = {
    "total_slots": 32,
    "model_ftype": "Q4_1",
    "build_info": "b6500-1a2b3c",
    "default_generation_settings": {"n_ctx": 8192, "params": {"speculative.types": "none"}},
}


@pytest.fixture
def serving() -> Iterator[Callable[[dict[str, Page]], str]]:
    """A server with these pages; 404 elsewhere."""
    running = []

    def start(pages: dict[str, Page]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = pages.get(self.path)
                if callable(page):
                    return page(self)
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Length", str(len(page or b"")))
                self.end_headers()
                self.wfile.write(page or b"")

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def asked(*urls: str, commands: tuple[str, ...] = ()) -> list[engine_says.Said]:
    return engine_says.asked(urls, {}, commands)


# What engines say.


def test_vllm_says_its_version_and_its_cache(serving: Callable[..., str]) -> None:
    (said,) = asked(serving({"/version": json({"version": "0.11.2"}), "/metrics": METRICS}))
    assert said.name == "vLLM 0.11.2" and said.kv_cache_tokens == 16 * (1000 + 1100)
    assert said.configuration == {
        "cache_dtype": "auto",
        "block_size": 16,
        "gpu_memory_utilization": 0.9,
        "enable_prefix_caching": True,
        "num_gpu_blocks": 1000,
    }


def test_vllm_counts_the_tokens_of_its_cache_itself_where_it_can(serving: Callable[..., str]) -> None:
    page = METRICS.replace(b'engine="', b'kv_cache_size_tokens="500",engine="')
    assert asked(serving({"/metrics": page}))[0].kv_cache_tokens == 1000


def test_the_developers_page_of_vllm_says_the_rest_but_no_key(serving: Callable[..., str]) -> None:
    url = serving({"/server_info?config_format=json": json(INFO), "/version": json({"version": "0.11"})})
    (said,) = asked(url)
    assert said.name == "vLLM 0.11" and said.configuration == {
        "dtype": "torch.bfloat16",
        "max_model_len": 4096,
        "block_size": 16,
        "max_num_seqs": 128,
        "attention_config.backend": "FLASHINFER",
        "speculative_config.method": "eagle",
        "num_speculative_tokens": 3,
        "VLLM_BUILD_COMMIT": "abc123",
    }


@pytest.mark.parametrize(
    "line",
    [
        "INFO [cuda.py:405] Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN'].",
        "INFO [cuda.py:368] Using AttentionBackendEnum.FLASH_ATTN backend.",
    ],
)
def test_vllms_log_says_which_attention_it_chose(tmp_path: Path, line: str) -> None:
    log = tmp_path / "log"
    log.write_text(f"Using 'MARLIN' NvFp4 MoE backend\n{line}\n")
    assert engine_says.attention_backend(log) == {"attention_config.backend": "FLASH_ATTN"}
    log.write_text("Using TRITON backend for MoE")
    assert engine_says.attention_backend(log) == engine_says.attention_backend(tmp_path / "none") == {}


@pytest.mark.parametrize("path", ["/get_server_info", "/server_info?config_format=json"])
def test_sglang_says_it_all_at_once(serving: Callable[..., str], path: str) -> None:
    (said,) = asked(serving({path: json(SGLANG)}))
    assert said.name == "SGLang 0.5.3" and said.kv_cache_tokens == 40960
    assert said.configuration["effective_max_running_requests_per_dp"] == 128
    assert said.configuration["attention_backend"] == "fa3" and "s3cret" not in str(said)


def test_llamacpp_has_the_context_that_it_was_started_with(serving: Callable[..., str]) -> None:
    url = serving({"/props": json(PROPS)})
    (ours,) = asked(url, commands=("python llamacpp_server.py --ctx-size 16384",))
    assert ours.name == "llama.cpp b6500-1a2b3c" and ours.kv_cache_tokens == 16384
    assert ours.configuration == {
        "default_generation_settings.n_ctx": 8192,
        "total_slots": 32,
        "model_ftype": "Q4_1",
        "speculative.types": "none",
    }
    assert asked(url)[0].kv_cache_tokens is None, "slots may share it or not"
    assert asked(serving({"/props": json(PROPS | {"total_slots": 1})}))[0].kv_cache_tokens == 8192


def test_the_log_stays_small() -> None:
    of_all = {name: "x" * 1000 for name in engine_says.SETTINGS.split()}
    assert len(str(engine_says.understood({"/server_info": json(of_all | SGLANG)}).configuration)) < 1000


def hang(_: BaseHTTPRequestHandler) -> None:
    time.sleep(4)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):  # nobody reads it to its end
        for _ in range(50):
            handler.wfile.write(b'{"a": [' + b" " * (1 << 20))


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-not-http\r\n\r\n")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "page",
    [
        *(b"", b"<html>not found</html>", b"[1, 2]", b'{"version": {"a": [1]}}', b"\xff\xfe\0", b"[" * 100_000),
        *(hang, endless, drip, no_http),
    ],
    ids=lambda page: getattr(page, "__name__", repr(page)[:20]),
)
def test_any_answer_is_survived(serving: Callable[..., str], page: Page) -> None:
    (said,) = asked(serving(dict.fromkeys(engine_says.PATHS, page)))
    assert said.kv_cache_tokens is None and not said.configuration


def test_odd_types_are_survived() -> None:
    for of_one in ({"default_generation_settings": 3}, {"build_info": None}, {"total_slots": "x"}):
        assert engine_says.understood({"/props": json(PROPS | of_one)}).engine == "llamacpp"
    for of_one in ({"internal_states": 3}, {"internal_states": [None]}, {"max_total_num_tokens": "many"}):
        assert engine_says.understood({"/server_info": json(SGLANG | of_one)}).engine == "sglang"
    odd = {"model_config": 3, "cache_config": {"block_size": "x"}, "scheduler_config": None}
    assert engine_says.understood({"/server_info": json({"vllm_config": odd})}).engine == "vllm"


def test_replicas_are_asked_side_by_side(serving: Callable[..., str]) -> None:
    together = threading.Barrier(6, timeout=60)

    def slow(handler: BaseHTTPRequestHandler) -> None:
        together.wait()  # answers none before all were asked
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(json(PROPS))

    urls = [serving({"/props": slow}) for _ in range(6)]
    assert [said.engine for said in asked(*urls)] == ["llamacpp"] * 6


# Where a server runs, and its files.


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://user:key@localhost:8000", True),
        ("http://[::1]:1", True),
        ("https://api.example.com/v1", False),
        ("http://192.0.2.77:8000", False),
    ],
)
def test_which_servers_are_on_this_host(url: str, here: bool) -> None:
    assert manifest.is_here(url) == here


def test_the_weights_are_in_memory_or_not(tmp_path: Path) -> None:
    file, size = tmp_path / "model.safetensors", 40 << 20
    file.write_bytes(os.urandom(size))
    with file.open("rb") as data:
        os.fsync(data.fileno())
        config = ServerConfig(backend="vllm", model=str(tmp_path))
        assert weights.cached_share(config) == 1
        os.posix_fadvise(data.fileno(), size // 2, 0, os.POSIX_FADV_DONTNEED)
        if weights.cached_share(config) == 1:
            pytest.skip("this file system keeps files in memory")
        assert weights.cached_share(config) == pytest.approx(0.5, abs=0.05)
    assert weights.cached_share(msgspec.structs.replace(config, urls=("http://h",))) is None
    assert weights.cached_share(ServerConfig(backend="vllm", model=str(tmp_path / "none"))) is None
    (tmp_path / "empty.gguf").touch()
    assert weights.cached_share(ServerConfig(backend="llamacpp", model=str(tmp_path / "empty.gguf"))) is None


def test_an_engine_loads_its_own_kind_of_files(tmp_path: Path) -> None:
    for name in ("a.gguf", "pytorch_model.bin", "model-1.safetensors"):
        (tmp_path / name).touch()
    names = [
        [file.name for file in weights.weight_files(ServerConfig(backend=backend, model=str(tmp_path)))]
        for backend in ("llamacpp", "vllm")
    ]
    assert names == [["a.gguf"], ["model-1.safetensors"]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache that has org/m at the commit c0ffee, and at its branch `next` beef."""
    in_hub_cache(tmp_path / "hub", "org/m", "c0ffee", config="{}", tokenizer="tokens")
    in_hub_cache(tmp_path / "hub", "org/m", "beef", "next", config="{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    manifest.tokenizer_hash.cache_clear()
    return tmp_path / "hub"


def test_the_commit_of_a_model_of_the_hub(hub: Path) -> None:
    config = ServerConfig(backend="vllm", model="org/m")
    assert manifest.model_revision(config) == "c0ffee"
    newer = msgspec.structs.replace(config, engine_args=("--revision", "next"))
    assert manifest.model_revision(newer) == "beef"
    assert manifest.model_revision(msgspec.structs.replace(config, model="org/other")) == ""
    assert model_files.snapshot(str(hub), ()) is None
    assert manifest.tokenizer_hash("org/m") == hashlib.sha256(b"tokens").hexdigest()[:16]


def test_the_commit_is_part_of_what_a_plan_measures(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def revision(*words: str) -> object:
        asked = ["--model", "org/m", "--tokenizer", "org/m", "--num_clients", "1", "--dry_run", *words]
        (plan,) = make_plan(*arguments.parse(asked))
        return plan.environment.get("model_revision")

    monkeypatch.setattr("servebench.plan.sweep._version_at", lambda url, headers: "")
    sweep._revision.cache_clear()
    assert revision("--backend", "vllm") == "c0ffee"
    (hub / "models--org--m/refs/main").write_text("beef")  # the engine has loaded a newer one
    assert revision("--backend", "vllm") == "c0ffee", "the plan of this process stays what it is"
    assert revision("--backend", "openai", "--openai_api_url", "http://127.0.0.1:9") is None, "it may have another"
    sweep._revision.cache_clear()


def test_files_here_have_a_hash(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("tokens")
    (tmp_path / "m.gguf").touch()
    assert len(manifest.model_revision(ServerConfig(backend="vllm", model=str(tmp_path)))) == 12
    hashes = {manifest.tokenizer_hash(str(tmp_path / name)) for name in ("", "m.gguf", "tokenizer.json")}
    assert hashes == {hashlib.sha256(b"tokens").hexdigest()[:16]}
    assert manifest.tokenizer_hash(str(tmp_path / "nothing")) == ""


# Two machines, through the command line.


def test_two_gpus_are_two_points_that_are_not_compared(
    nvml: Callable[..., Stub],
    benchmark: Callable[..., tuple[int, str, str]],
    stand_in: list[object],
    results: Path,
    tmp_path: Path,
) -> None:
    def measured(name: str, *more: object) -> dict[Path, bytes]:
        nvml(name=name, own=f"file {tmp_path / 'pid'}", processes="4242:1000:train")
        code, out, err = benchmark(*stand_in, "--num_clients", 1, *more)
        assert code == 0, out + err
        return {path: path.read_bytes() for path in results.glob("vllm/*.json")}

    first = measured("Fake A100")
    both = measured("Fake H100")
    assert len(both) == 2 and first.items() < both.items(), "measured again, the first log untouched"
    assert measured("Fake A100") == both, "nothing is measured twice"
    by_gpu = {log.machine.gpus[0].name: log for path in both if (log := store.load(path)).machine}
    assert by_gpu.keys() == {"Fake A100", "Fake H100"}
    assert all(log.server_facts.gpus == [0] for log in by_gpu.values())
    assert all(log.server_facts.other_processes == ["4242 train"] for log in by_gpu.values())
    for side, name in (("a", "Fake A100"), ("b", "Fake H100")):
        store.save(by_gpu[name], tmp_path / side / "vllm" / by_gpu[name].file_name)
    refused = python("-m", "servebench", "compare", tmp_path / "a", tmp_path / "b")
    assert refused.returncode == 2 and refused.stderr.strip() == (
        "servebench compare: error: A was measured on Fake A100, B on Fake H100; "
        "unlike machines are not compared; to do so all the same: --across machines"
    )
    all_the_same = python("-m", "servebench", "compare", tmp_path / "a", tmp_path / "b", "--across", "machines")
    said = " ".join(all_the_same.stdout.split())
    assert all_the_same.returncode == 0 and "on Fake A100" in said and "on Fake H100" in said


def test_of_a_server_that_runs_here_already_the_machine_is_known(
    benchmark: Callable[..., tuple[int, str, str]],
    reference: Callable[..., str],
    results: Path,
    tokenizer_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "ours, not its")
    words = ["--openai_api_url", reference(), "--model", "reference", "--tokenizer", tokenizer_dir]
    words += ["--mean_prompt_length", 20, "--mean_max_new_tokens", 4, "--num_clients", 1, "--num_requests", 4]
    code, _, err = benchmark("--backend", "openai", *words)
    assert code == 0, err
    log = logs(results)[1]
    assert log.machine and log.machine.cores == os.cpu_count()
    facts = log.server_facts
    assert facts.tokenizer_hash and facts.model_revision == "" and facts.variables == {} and facts.gpus == []


# Real engines.


@pytest.mark.engine
def test_llamacpp_tells(benchmark: Callable[..., tuple[int, str, str]], results: Path) -> None:
    words = [*LLAMACPP, "--num_replicas", 2, "--num_clients", 2, "--num_requests", 4]
    assert benchmark(*words)[0] == 0
    facts = logs(results)[2].server_facts
    assert facts.version.startswith("llama.cpp b") and facts.kv_cache_tokens == 2 * 8192
    assert facts.configuration["total_slots"] == 32 and facts.configuration["model_ftype"] == "Q4_1"
    assert 0 <= (facts.weights_cached_share or 0) <= 1 and len(facts.model_revision) == 12 and facts.gpus == []


@pytest.mark.engine
def test_vllm_tells(benchmark: Callable[..., tuple[int, str, str]], results: Path) -> None:
    assert benchmark(*VLLM, "--num_clients", 1, "--num_requests", 4)[0] == 0
    log = logs(results)[1]
    facts, settings = log.server_facts, log.server_facts.configuration
    assert facts.version.startswith("vLLM 0.") and facts.weights_cached_share is None, TINY
    assert facts.kv_cache_tokens == settings["num_gpu_blocks"] * settings["block_size"]
    assert (
        settings["enforce_eager"] is True and settings["load_format"] == "dummy" and settings["max_num_seqs"] > 1
    )
    assert len(msgspec.json.encode(settings)) < 1000
    assert isinstance(log, Log) and log.machine and log.machine.cores == os.cpu_count()
