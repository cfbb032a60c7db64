"""ServeBench: benchmark LLM servers, with every token stamped by the kernel where it arrives."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parents[2]
# What pyproject.toml requires, by the names of their modules.
MODULES = ["fastjsonschema", "h2", "httptools", "huggingface_hub", "matplotlib", "msgspec", "numpy", "pynvml"]
MODULES += ["google.protobuf", "psutil", "yaml", "tabulate", "tokenizers"]


def refuse(why: str, remedy: str) -> None:
    """End in one line: this is not the Python that the client was installed for."""
    ours = ROOT / ".venv/bin/python"
    use = f"use {ours}" if ours.exists() else "run scripts/setup_client.sh and use .venv/bin/python"
    print(f"error: {why} ({sys.executable}); {use}, or {remedy}", file=sys.stderr)
    raise SystemExit(2)


def refuse_lacking(modules: list[str]) -> None:
    more = f" and {len(modules) - 1} more of the client's modules" if modules[1:] else ""
    refuse(f"this Python lacks {modules[0]}{more}", f"install them: {sys.executable} -m pip install -e {ROOT}")


def there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


if sys.version_info < (3, 10):  # noqa: UP036  pip would refuse it, but nobody has asked pip
    refuse("Python 3.10 or newer is needed, and this is {}.{}".format(*sys.version_info), "a newer one")
if lacking := [module for module in MODULES if not there(module)]:
    refuse_lacking(lacking)
