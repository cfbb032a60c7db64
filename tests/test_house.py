"""The shape of the house: imports point down the list of the design, and the client stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "src/servebench"
# From the command line down to the log; a module imports only from its own floor and from floors below it.
FLOORS = [
    ["measure", "calibrate", "standing", "paired", "report"],
    ["report_html"],
    ["report_table"],
    ["summary", "spreadsheet", "compare", "preflight"],
    ["search", "learning"],
    ["advice", "columns"],
    ["server", "sweep"],
    ["prefix_cache"],
    ["identity"],
    ["launch"],
    ["arguments"],
    ["options"],
    ["load_options"],
    ["backends"],
    ["reference_server"],
    ["load.fleet"],
    ["load"],
    ["figures"],
    ["curves", "labels", "theme"],
    ["selection"],
    ["workload", "quality", "signals", "sessions", "commandline", "defaults", "reference_answers"],
    ["limits"],
    ["sla", "steady", "stopping", "trust"],
    ["metrics", "stats", "gathering", "store"],
    ["legacy", "records", "keys"],
]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def floor_of(name: str) -> int:
    known = {entry: i for i, floor in enumerate(FLOORS) for entry in floor}
    return known[name] if name in known else known[name.split(".")[0]]


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, as names within the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "servebench":
            found |= {alias.name for alias in node.names if not alias.name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("servebench."):
            found.add(str(node.module).removeprefix("servebench."))
    return found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    above = {name for name in imported(path) if floor_of(name) < floor_of(name_of(path))}
    assert not above


@pytest.mark.parametrize("script", sorted((ROOT / "src").glob("plot_*.py")), ids=lambda path: path.stem)
def test_plots_see_logs_only(script: Path) -> None:
    drawing, data = {"figures", "curves", "selection", "commandline"}, {"metrics", "sla", "stats", "records"}
    assert {name.split(".")[0] for name in imported(script)} <= drawing | data


def test_the_client_imports_no_engine_and_no_torch() -> None:
    code = "import sys, servebench.measure, servebench.figures; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "transformers", "vllm", "mii", "deepspeed", "xllamacpp"} & set(loaded)


def test_a_load_process_imports_little() -> None:
    code = "import sys, servebench.load.worker; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "matplotlib", "tokenizers", "psutil"} & set(loaded)
