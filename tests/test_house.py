"""The plan of the house: packages import downwards, plots see logs alone, and the client stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "src/servebench"
# A package imports only from those after it.
ORDER = ["campaign", "show", "reference", "figures", "plan", "telemetry", "servers"]
ORDER += ["load", "workload", "analysis", "log", "cli", "errors"]

# Above the figures, but made from logs alone: which server is the best, in the same words as the commands.
ALSO_OF_LOGS = {f"show.{name}" for name in ("candidates", "decide", "layouts", "tables")}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imports(path: Path) -> list[str]:
    """The modules of ours that a file imports, lazily or for its types too: `log.schema`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "servebench":
            base = str(node.module).partition(".")[2]
            files = [".".join(filter(None, (base, alias.name))) for alias in node.names]
            found += [name if is_module(name) else base for name in files]
    return [name for name in found if name]


def is_module(name: str) -> bool:
    place = PACKAGE.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_packages_import_downwards(path: Path) -> None:
    own = ORDER.index(name_of(path).split(".")[0])
    assert not [name for name in imports(path) if ORDER.index(name.split(".")[0]) < own]


def test_no_modules_import_each_other() -> None:
    known = {name_of(path): set(imports(path)) for path in modules()}
    while free := [name for name, needs in known.items() if not needs & known.keys() - {name}]:
        known = {name: needs for name, needs in known.items() if name not in free}
    assert not known, "these are in a cycle, or above one"


@pytest.mark.parametrize("script", sorted((ROOT / "src").glob("plot_*.py")), ids=lambda path: path.stem)
def test_plots_see_logs_only(script: Path) -> None:
    others = {name for name in imports(script) if name not in ALSO_OF_LOGS}
    assert {name.split(".")[0] for name in others} <= {"figures", "analysis", "log", "cli", "errors"}


def loaded_by(modules: str) -> set[str]:
    code = f"import sys, {modules}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_client_imports_no_engine_and_no_torch() -> None:
    loaded = loaded_by("servebench.campaign.measure, servebench.figures.page")
    assert not {"torch", "transformers", "vllm", "mii", "deepspeed", "xllamacpp"} & loaded


def test_a_load_process_imports_little() -> None:
    assert not {"numpy", "matplotlib", "tokenizers", "psutil"} & loaded_by("servebench.load.worker")
