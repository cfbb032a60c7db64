"""What tests share: a small tokenizer, a reference server, the driver as a user runs it, and logs made by hand."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import trustme
from msgspec.structs import replace
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from warm_python import python

from servebench.log import schema, store
from servebench.log.config import RunConfig, ServerConfig, run_of
from servebench.log.result import Result
from servebench.log.schema import Log, Quality, ServerFacts
from servebench.log.telemetry import Gpu, GpuUse, Machine, Telemetry

pytest_plugins = ["nvml", "stand_in"]  # tests/telemetry/nvml.py
ROOT = Path(__file__).parents[1]
ENGINES = Path(os.environ.get("SERVEBENCH_ENGINES", ROOT / ".engines"))
os.environ.pop("COLUMNS", None)  # tables are as wide as in a pipe, whatever the terminal is
MODELS = Path(os.environ.get("SERVEBENCH_MODELS", ROOT / ".models"))

A100 = Machine(gpus=[Gpu(index=i, name="NVIDIA A100-SXM4-80GB") for i in range(2)])

LONGEST = ("test_open_loop.py", "test_workload_engine.py", "test_lifecycle.py", "test_fastgen.py")
LONGEST += ("test_decide_end_to_end.py", "test_report.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process ends with one alone; engines last: they take every core."""
    items.sort(key=lambda item: (item.get_closest_marker("engine") is not None, item.path.name not in LONGEST))


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed goes to a pipe, whose width nobody tells; pytest-xdist tells its own."""
    monkeypatch.delenv("COLUMNS", raising=False)


def in_hub_cache(folder: Path, model: str, commit: str = "0123abcd", branch: str = "main", **files: str) -> Path:
    """Where a model's files are as the hub's library keeps them; of those given each becomes NAME.json."""
    repository = folder / f"models--{model.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / branch).write_text(commit)
    for name, text in files.items():
        (snapshot / f"{name}.json").write_text(text)
    return snapshot


@pytest.fixture
def hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the hub's cache, where the hub itself cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("servebench.workload.model_files.unreachable", [])
    return tmp_path


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer trained on made-up words, as a directory."""
    rng = random.Random(0)
    syllables = [a + b for a in "bcdfglmnprst" for b in "aeiou"]
    text = [" ".join("".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(50)) for _ in range(400)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False)
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def reference() -> Iterator[Callable[..., str]]:
    """Start a reference server with these options; gives its URL."""
    running = []

    def start(*options: str) -> str:
        command = [sys.executable, "-m", "servebench", "reference-server", "--port", "0", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout
        return process.stdout.readline().strip()

    yield start
    for process in running:
        process.terminate()
        process.wait(10)
        assert process.stdout
        process.stdout.close()


class TlsFront:
    """Takes TLS connections on a port of its own and passes their bytes on to a plain server."""

    def __init__(self, context: ssl.SSLContext, behind: tuple[str, int]) -> None:
        self.context, self.behind = context, behind
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with (
            suppress(OSError),
            self.context.wrap_socket(raw, server_side=True) as outer,
            socket.create_connection(self.behind) as inner,
        ):
            threading.Thread(target=self._pass_on, args=(outer, inner), daemon=True).start()
            self._pass_on(inner, outer)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for side in (source, sink):  # wakes the thread that reads the other way
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def https(
    reference: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Start a reference server with these options behind TLS, whose authority is made known; gives its URL."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    fronts = []

    def start(*options: str) -> str:
        plain = urlsplit(reference(*options))
        fronts.append(TlsFront(context, (str(plain.hostname), int(plain.port or 0))))
        return f"https://localhost:{fronts[-1].port}"

    yield start
    for front in fronts:
        front.listener.close()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start run_benchmark.py with these arguments, results in tmp_path/results; ends it if a test did not.

    Tests run side by side, so that every one of them has a busy machine: without telemetry nobody says so.
    """
    running = []

    def start(*arguments: object, telemetry: bool = False) -> subprocess.Popen[str]:
        command = [sys.executable, ROOT / "run_benchmark.py", "--out_json_dir", tmp_path / "results", *arguments]
        command += [] if telemetry else ["--no_telemetry"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([str(word) for word in command], text=True, cwd=ROOT, **pipes)  # type: ignore[call-overload]
        running.append(process)
        return process  # type: ignore[no-any-return]

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture
def benchmark(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Run run_benchmark.py to its end, likewise: (exit status, stdout, stderr)."""

    def run(*arguments: object, telemetry: bool = False) -> tuple[int, str, str]:
        command = [ROOT / "run_benchmark.py", "--out_json_dir", tmp_path / "results", *arguments]
        command += [] if telemetry else ["--no_telemetry"]
        ended = python(*command, cwd=ROOT)
        return ended.returncode, ended.stdout, ended.stderr

    return run


def readlink(path: str) -> str:
    """Where a link leads; "" when it is gone."""
    with suppress(OSError):
        return os.readlink(path)
    return ""


def ours(folder: Path) -> list[str]:
    """Living processes that name this folder or write to a file in it: what a benchmark may have left behind."""
    lines = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        # An engine's children rename themselves, but they all write to its log.
        line += " > " + readlink(f"/proc/{process.pid}/fd/1")
        if str(folder) in line and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            lines.append(line)
    return lines


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def errors(log: Log) -> list[str]:
    """What requests that count failed with."""
    return [r.error for r in log.results if r.phase == "measured" and r.error]


def make_result(number: int, sent_s: float, events_s: list[float], **changes: object) -> Result:
    """A request sent at sent_s whose one-token events came events_s after it."""
    tokens = [1] * len(events_s)
    fields = {"phase": "measured", "client": 0, "prompt_tokens": 100, "max_new_tokens": len(tokens)} | changes
    fields = {"event_tokens": tokens, "generated_tokens": len(tokens), "token_source": "usage"} | fields
    return Result(
        id=number, sent_ns=round(sent_s * 1e9), event_ns=[round(t * 1e9) for t in events_s], status=200, **fields
    )  # type: ignore[arg-type]


def run_config(**fields: object) -> RunConfig:
    """A run by the names of its options, of the kinds that they belong to."""
    return run_of(fields)


def make_log(results: list[Result], window_s: tuple[float, float] | None, **changes: object) -> Log:
    """A log of one point; changes go to the server's or the run's configuration, or to the quality."""
    names = {kind: kind.__struct_fields__ for kind in (ServerConfig, Quality)}
    of = {kind: {k: v for k, v in changes.items() if k in fields} for kind, fields in names.items()}
    server = {"backend": "vllm", "model": "meta-llama/Llama-2-7b-hf"} | of[ServerConfig]
    asked = {k: v for k, v in changes.items() if k not in of[ServerConfig] | of[Quality]}
    return Log(
        status="ok",
        started_at="2026-11-24T00:00:00+00:00",
        fingerprint="f",
        server=ServerConfig(**server),
        run=run_config(**({"num_requests": max(1, len(results))} | asked)),
        server_facts=ServerFacts(urls=["http://127.0.0.1:1"]),
        client={},
        window_ns=(round(window_s[0] * 1e9), round(window_s[1] * 1e9)) if window_s else None,
        quality=Quality(**({"verdict": "ok"} | of[Quality])),
        results=results,
    )


def point(backend: str, clients: int, latency_s: float, **changes: object) -> Log:
    """Requests of this latency, four tokens each, back to back from every client over 10 s."""
    results = [
        make_result(i, client * 0.01 + i * latency_s, [latency_s * f for f in (0.25, 0.5, 0.75, 1.0)])
        for client in range(clients)
        for i in range(int(10 / latency_s))
    ]
    return make_log(results, (0.0, 10.0), backend=backend, num_clients=clients, **changes)


@pytest.fixture
def logs(results: Path) -> Path:
    """Two backends, clients 1 2 4, tp 1 and 2, replicas 1 and 2, all on A100s, in a results folder."""
    for backend, base in (("vllm", 1.0), ("fastgen", 0.5)):
        for clients in (4, 1, 2):
            for sizes in ({}, {"tp_size": 2}, {"num_replicas": 2}):
                log = replace(point(backend, clients, base * (1 + clients / 4), **sizes), machine=A100)
                store.save(log, results / backend / schema.log_name(log.server, log.run))
    return results


def on_gpus(log: Log, *power_w: float, energy: str = "ok", **facts: object) -> Log:
    """The log of a server on GPUs that draw so much all through the window; facts go to those of the server."""
    length_s = (log.window_ns[1] - log.window_ns[0]) / 1e9 if log.window_ns else 0.0
    gpus = [
        GpuUse(index=i, power_w=watts, energy_j=watts * length_s, energy=energy, idle_share=0.1 * i)
        for i, watts in enumerate(power_w)
    ]
    of_server = replace(log.server_facts, **({"gpus": list(range(len(power_w)))} | facts))
    return replace(log, telemetry=Telemetry(gpus=gpus), server_facts=of_server)
