"""The examples of CONTRIBUTING.md, each applied to a copy of the tree and tried; and the map of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PACKAGE = ROOT / "src/servebench"


def example(title: str, folder: Path) -> Path:
    """A copy of the tree to which the example under this title is applied."""
    copied = ("src", "docs", "engines", "run_benchmark.py", "README.md", "pyproject.toml")
    for name in copied:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)  # type: ignore[operator]
    (diff,) = re.findall(
        r"^```diff\n(.*?)^```", TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0], re.M | re.S
    )
    applied = subprocess.run(["git", "apply"], cwd=folder, input=diff, capture_output=True, text=True)
    assert applied.returncode == 0, f"{applied.stderr}make the example anew: edit, git diff -U1, paste"
    for check in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *check, "-q", folder], check=True)
    return folder


def run(folder: Path, *words: object) -> str:
    """What a program of that tree prints."""
    command, environment = [sys.executable, *map(str, words)], os.environ | {"PYTHONPATH": str(folder / "src")}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_an_engine(tmp_path: Path) -> None:
    tree = example("Add an engine", tmp_path)
    assert re.search(r"--backend \{[^}]*lmdeploy", run(tree, "run_benchmark.py", "--help"))
    assert re.search(
        r"^lmdeploy .* 44 ", run(tree, "run_benchmark.py", "--backend", "lmdeploy", "--dry_run"), re.M
    )
    assert os.access(tree / "engines/lmdeploy.sh", os.X_OK)


BODY = """
from servebench.log.config import RunConfig
from servebench.servers.backends import BACKENDS
for run in (RunConfig(top_k=5), RunConfig()):
    print(BACKENDS["vllm"].body(run, "m", "words", 8).get("top_k"))
"""


def test_an_option(tmp_path: Path) -> None:
    tree = example("Add an option", tmp_path)
    assert "--top_k N" in run(tree, "run_benchmark.py", "--help_all")
    assert run(tree, "run_benchmark.py", "--backend", "vllm", "--top_k", 5, "--dry_run")
    assert run(tree, "-c", BODY) == "5\nNone\n"


def test_a_metric(tmp_path: Path, logs: Path) -> None:
    tree = example("Add a metric", tmp_path)
    run(tree, "-m", "servebench", "spreadsheet", logs)
    head, row, *_ = (logs / "summary.csv").read_text().splitlines()
    assert dict(zip(head.split(","), row.split(","), strict=True))["prompt_token_throughput_per_s"]
    assert run(tree, "-m", "servebench.analysis.metrics") == (tree / "docs/metrics.md").read_text()


def test_a_figure(tmp_path: Path, logs: Path) -> None:
    tree = example("Add a figure", tmp_path)
    files = run(tree, "src/plot_concurrency.py", "--log_dir", logs, "--out_dir", tmp_path / "plots").splitlines()
    assert len(files) == 3 and all(Path(file).stat().st_size > 10_000 for file in files)


def test_the_map_has_every_file_and_no_other() -> None:
    """docs/architecture.md: a new file gets its sentence, a file that goes takes its own along."""
    text = (ROOT / "docs/architecture.md").read_text()
    mapped = set()
    for section in text.split("\n### ")[1:]:
        package = section.partition(":")[0]
        cells = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
        mapped |= {f"{package}/{name}" for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    files = {str(path.relative_to(PACKAGE)) for path in PACKAGE.glob("*/**/*.py")}
    needed = {file for file in files if not file.endswith("__init__.py")}
    assert needed <= mapped <= files, (sorted(needed - mapped), sorted(mapped - files))
