"""The shell scripts at the top, and Pythons that the client was not installed for, without installing anything."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from warm_python import python

import servebench
from servebench.plan import defaults

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PYTHON_OF_OURS = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
PYPROJECT_SHA256 = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
FROM_HUB = "[setup] meta-llama/Llama-2-7b-hf: "


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the scripts, with the sources of this one, where nothing is installed."""
    for name in ("run_all.sh", "run_example.sh", "run_benchmark.py", "pyproject.toml"):
        shutil.copy2(ROOT / name, tmp_path / name)
    for name in ("scripts", "engines"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "src").symlink_to(ROOT / "src")
    return tmp_path


@pytest.fixture
def client(checkout: Path) -> None:
    """The client is installed in .venv."""
    program(checkout / ".venv/bin/python", PYTHON_OF_OURS)
    (checkout / ".venv/.installed").write_text(f"dev {PYPROJECT_SHA256}\n")


@pytest.fixture
def run(checkout: Path) -> Run:
    """Run a command of the checkout; programs in fakes/ come before those of the system."""

    def start(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SERVEBENCH_")}
        kept |= {"PATH": f"{checkout / 'fakes'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
        where = {"cwd": checkout, "env": kept | environment}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, **where)  # type: ignore[call-overload,no-any-return]

    return start


def gpu(checkout: Path, answer: str) -> None:
    program(checkout / "fakes/nvidia-smi", f"#!/bin/sh\n{answer}\n")


def commands(said: str) -> list[str]:
    """What a plan would run, without the interpreter."""
    lines = [line.removeprefix(".venv/bin/python ") for line in said.splitlines()]
    return [line for line in lines if line.startswith(("run_benchmark.py", "src/", "-m ", "engines/", "scripts/"))]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "fakes" not in path.parts)


# run_all.sh


@pytest.mark.usefixtures("client")
def test_run_all_plans_every_figure_of_the_blogs(run: Run, checkout: Path) -> None:
    program(checkout / ".venv/bin/python", "#!/bin/sh\n")  # a warm one plans below, all 20 in two seconds
    before = files(checkout)
    ended = run("./run_all.sh", "--dry_run", LC_ALL="C")
    assert (ended.returncode, ended.stderr) == (0, "[setup] client: installed in .venv\n")
    assert files(checkout) == before
    planned = [command for command in commands(ended.stdout) if command.startswith("run_benchmark.py")]
    assert all("--num_requests 512 " in command for command in planned)
    plans = [command + "\n" + python(*shlex.split(command), cwd=checkout).stdout for command in planned]
    found = {row for plan in plans for row in rows_of(plan)}
    for engine in ("fastgen", "vllm"):
        for row in WANTED:
            assert (engine, *row) in found
    drawn = ended.stdout.partition("and then would draw:\n")[2]
    scripts = [command.split()[0] for command in commands(drawn)]
    assert scripts == [f"src/plot_{name}.py" for name in FIGURES.split()] + ["-m"]


FIGURES = "th_lat effective_throughput latency_percentile repl_scale tp_sizes"
CLIENTS = " ".join(map(str, defaults.NUM_CLIENTS))
LLAMA, FALCON = ("1200 2600", "60 128", CLIENTS), ("1200 1900", "60 128", CLIENTS)
WANTED = [  # model, tp, replicas, prompts, generations, clients
    ("meta-llama/Llama-2-70b-hf", "4", "1", *LLAMA),
    ("meta-llama/Llama-2-13b-hf", "1", "1", *LLAMA),
    ("meta-llama/Llama-2-7b-hf", "1", "1", *LLAMA),
    ("meta-llama/Llama-2-70b-hf", "4", "1", "2600", "60", "16"),
    ("meta-llama/Llama-2-70b-hf", "4", "2", "2600", "60", "32"),
    ("meta-llama/Llama-2-13b-hf", "1", "8", "2600", "60", "128"),
    ("mistralai/Mixtral-8x7B-v0.1", "4", "1", *LLAMA),
    ("mistralai/Mixtral-8x7B-v0.1", "4", "1", "500", "150 500 1024", CLIENTS),
    ("microsoft/phi-2", "1", "1", *FALCON),
    ("tiiuae/falcon-40B", "2", "1", *FALCON),
    ("tiiuae/falcon-180B", "8", "1", *FALCON),
]


def rows_of(plan: str) -> list[tuple[str, ...]]:
    """A plan's table as engine, model, tp, replicas, prompts, generations, loads."""
    model = re.findall(r"--model (\S+)", plan)[0]
    engines = {"vLLM": "vllm", "DeepSpeed-FastGen": "fastgen"}
    found: list[tuple[str, ...]] = []
    for line in plan.splitlines():
        if shared := re.match(r"\S+, prompt ([\d ]+), generation ([\d ]+)(?:, load ([\d ]+) clients)?$", line):
            prompts, generations, loads = shared.groups()
        if row := re.match(r"(\S+) TP (\d+) x (\d+)  +(?:([\d ]+) clients)?", line):
            found.append((engines[row[1]], model, row[2], row[3], prompts, generations, loads or row[4]))
    return found


@pytest.mark.usefixtures("client")
def test_run_all_names_what_failed_and_goes_on(run: Run, checkout: Path) -> None:
    program(checkout / "engines/fastgen.sh", "#!/bin/sh\nexit 3\n")
    program(checkout / "engines/vllm.sh", "#!/bin/sh\necho installed\n")
    program(checkout / ".venv/bin/python", '#!/bin/sh\ncase "$*" in *phi-2*|*plot_cdf*) exit 1 ;; esac\n')
    ended = run("./run_all.sh", "--out_json_dir", "elsewhere")
    assert ended.returncode == 1
    failed = [line for line in ended.stderr.splitlines() if line.startswith("failed: ")]
    assert failed[0] == "failed: engines/fastgen.sh" and len(failed) == 2
    assert "--model microsoft/phi-2 --num_requests 512 --out_json_dir elsewhere" in failed[1]
    assert not [line for line in commands(ended.stdout) if "fastgen" in line]


# run_example.sh


@pytest.mark.parametrize("answer", ["echo 49140; echo 49140", "echo '[N/A]'", "true"])
def test_the_example_on_a_gpu_is_the_specs_figure(run: Run, checkout: Path, answer: str) -> None:
    gpu(checkout, answer)
    before = files(checkout)
    ended = run("./run_example.sh", "--dry_run", LC_ALL="C")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert files(checkout) == before
    model = "--model meta-llama/Llama-2-7b-hf --mean_prompt_length 2600 --mean_max_new_tokens 60 --dry_run"
    figures = "--backend vllm fastgen --log_dir results --model_name meta-llama/Llama-2-7b-hf"
    assert commands(ended.stdout) == [
        "scripts/setup_client.sh",
        "engines/llama_7b.sh",
        "engines/vllm.sh",
        f"run_benchmark.py --backend vllm {model}",
        "engines/fastgen.sh",
        f"run_benchmark.py --backend fastgen {model}",
        f"src/plot_th_lat.py {figures}",
        f"src/plot_effective_throughput.py {figures}",
        "-m servebench report results",
        "-m servebench summary results",
    ]


@pytest.mark.parametrize("answer", ["exit 9", "echo 6144"], ids=["no driver", "small"])
def test_the_example_on_a_laptop_is_a_small_model(run: Run, checkout: Path, answer: str) -> None:
    gpu(checkout, answer)
    plan = commands(run("./run_example.sh", "--dry_run").stdout)
    assert [line for line in plan if line.startswith("engines/")] == [
        "engines/smollm2.sh",
        "engines/llamacpp.sh",
        "engines/vllm-cpu.sh",
    ]
    assert sum("--model .models/SmolLM2-135M-Instruct" in line for line in plan) == 2


@pytest.mark.usefixtures("client")
def test_the_examples_plan_is_the_drivers_where_the_client_is(run: Run, checkout: Path) -> None:
    gpu(checkout, "echo 49140")
    ended = run("./run_example.sh", "--dry_run", "--num_clients", "3")
    assert rows_of(ended.stdout) == [
        (engine, "meta-llama/Llama-2-7b-hf", "1", "1", "2600", "60", "3") for engine in ("vllm", "fastgen")
    ]


@pytest.mark.parametrize("given", [("--out_json_dir", "elsewhere"), ("--out_json_dir=elsewhere",)])
def test_figures_are_drawn_from_where_the_logs_go(run: Run, checkout: Path, given: tuple[str, ...]) -> None:
    gpu(checkout, "exit 9")
    plan = commands(run("./run_example.sh", "--dry_run", *given).stdout)
    assert ["--log_dir elsewhere " in line for line in plan if line.startswith("src/")] == [True, True]


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("given", ["meta-llama/Llama-2-7b-hf", ".models/Llama-2-7b-random"])
def test_the_example_measures_the_llama_that_the_recipe_names(run: Run, checkout: Path, given: str) -> None:
    gpu(checkout, "echo 49140")
    program(checkout / "engines/llama_7b.sh", f"#!/bin/sh\necho {given}\n")
    for engine in ("vllm", "fastgen"):
        program(checkout / f"engines/{engine}.sh", "#!/bin/sh\n")
    program(checkout / ".venv/bin/python", "#!/bin/sh\necho $*\n")
    ended = run("./run_example.sh")
    assert ended.returncode == 0, ended.stderr
    measured = [line for line in ended.stdout.splitlines() if line.startswith("run_benchmark.py")]
    assert [f"--model {given} " in line for line in measured] == [True, True]


@pytest.mark.parametrize(
    ("hub", "named", "said"),
    [
        ("true", "meta-llama/Llama-2-7b-hf", "in the hub's cache"),
        ("exit 1", ".models/Llama-2-7b-random", "random weights"),
    ],
    ids=["given", "gated"],
)
def test_the_7b_is_the_trained_one_where_the_hub_gives_it(
    run: Run, checkout: Path, hub: str, named: str, said: str
) -> None:
    program(checkout / ".venv/bin/python", f"#!/bin/sh\n{hub}\n")
    program(checkout / ".models/Llama-2-7b-random/tokenizer.json", "made before")
    ended = run("engines/llama_7b.sh")
    assert (ended.returncode, ended.stdout) == (0, f"{named}\n")
    assert said in ended.stderr and FROM_HUB in ended.stderr


# gpu_check.sh


def test_the_gpu_check_measures_with_and_without_telemetry_in_turn(run: Run, checkout: Path) -> None:
    program(checkout / ".venv/bin/python", "#!/bin/sh\n[ $1 != run_benchmark.py ] || echo ran $*\n")
    words = ("--model", "m", "--num_clients", "4", "--runs", "3", "--out_json_dir", "there")
    ended = run("scripts/gpu_check.sh", *words)
    assert ended.returncode == 0, ended.stderr
    ran = [line.partition("--num_clients 4 ")[2] for line in ended.stdout.splitlines() if line.startswith("ran ")]
    with_it = [f"--runs {n} --out_json_dir there/with" for n in (1, 2, 3)]
    without = [f"--runs {n} --out_json_dir there/without --no_telemetry" for n in (1, 2, 3)]
    assert ran == [with_it[0], without[0], without[1], with_it[1], with_it[2], without[2]]


# setup_client.sh


def test_a_venv_of_somebody_else_is_left_alone(run: Run, checkout: Path) -> None:
    program(checkout / ".venv/bin/python", "#!/bin/sh\nexit 1\n")
    before = files(checkout)
    ended = run("scripts/setup_client.sh")
    assert ended.returncode == 1
    assert (
        ended.stderr.startswith("[setup] error: .venv is not from this script") and ended.stderr.count("\n") == 1
    )
    assert files(checkout) == before


def test_a_venv_of_somebody_else_is_used_if_all_is_in_it(run: Run, checkout: Path) -> None:
    program(checkout / ".venv/bin/python", PYTHON_OF_OURS)
    ended = run("scripts/setup_client.sh")
    assert (ended.returncode, ended.stderr) == (0, "[setup] client: using your own .venv\n")


def test_a_venv_that_was_left_half_made_is_made_again(run: Run, checkout: Path) -> None:
    program(checkout / "fakes/python3", '#!/bin/sh\n[ "$1" = -c ] && exit\nmkdir -p .venv/half && exit 1\n')
    for _ in range(2):
        ended = run("scripts/setup_client.sh")
        assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, "[setup] error: making .venv failed")
    assert (checkout / ".venv/half").exists() and (checkout / ".venv/.installed").read_text() == ""


# A Python that lacks the client's packages: one line, status 2.


def bare(*arguments: object, packages: str = "") -> subprocess.CompletedProcess[str]:
    """This Python without what is installed in it, but for the packages of a folder."""
    command = [sys.executable, "-S", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": packages}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


SCRIPTS = [ROOT / "run_benchmark.py", *sorted((ROOT / "src").glob("plot_*.py"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_python_without_the_packages_is_named_in_one_line(script: Path) -> None:
    ended = bare(script, "--help")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.match(r"error: this Python lacks \w+ and \d+ more of the client's modules \(", ended.stderr)
    assert sys.executable in ended.stderr and ".venv/bin/python" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_the_packages_alone_are_not_enough() -> None:
    ended = bare(ROOT / "run_benchmark.py", "--help", packages=sysconfig.get_path("purelib"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: this Python lacks servebench (") and ended.stderr.count("\n") == 1


def test_an_old_python_is_named_in_one_line() -> None:
    older = (
        f"import sys; sys.version_info = (3, 8, 18); sys.path.insert(0, {str(ROOT / 'src')!r}); import servebench"
    )
    ended = bare("-c", older)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: Python 3.10 or newer is needed, and this is 3.8")
    assert ended.stderr.count("\n") == 1


def required() -> list[str]:
    listed = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("\n]\n")[0]
    return re.findall(r'^ +"([\w-]+)>=', listed, flags=re.MULTILINE)


def test_every_required_package_is_looked_for() -> None:
    modules = {"huggingface-hub": "huggingface_hub", "protobuf": "google.protobuf", "pyyaml": "yaml"}
    modules |= {"nvidia-ml-py": "pynvml"}
    assert [modules.get(name, name) for name in required()] == servebench.MODULES


def test_requirements_say_why_each_package_is_there() -> None:
    lines = re.findall(r"^([\w-]+) +# \w+", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    assert lines == required()
