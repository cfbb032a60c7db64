"""An engine that is installed on this machine, by a recipe of ours or by others, and which version it is."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, SubprocessError, check_output

from servebench.errors import InputError

ANSWER_S = 30.0  # that another Python has to say what it has
FIRST_FOUND = """import sys, importlib.metadata as m
print(next((f"{name} {found.version}" for name in sys.argv[1:] for found in m.distributions(name=name)), ""))"""


@dataclass(frozen=True)
class Installed:
    """What starts an engine, its own program or its Python, and its "package version"."""

    program: Path
    version: str
    active: bool = False  # of the active environment

    @property
    def on_cpu(self) -> bool:  # a build for CPUs says so: `vllm 0.32.0+cpu`
        return "cpu" in self.version


def in_active(program: str, packages: tuple[str, ...]) -> Installed | None:
    """The engine of the active environment, of the programs on PATH, or of the Python that runs us."""
    for place in filter(None, (os.environ.get("VIRTUAL_ENV"), shutil.which(program), sys.executable)):
        with suppress(InputError):
            return replace(installed_at(place, program, packages), active=True)
    return None


def installed_at(path: str, program: str, packages: tuple[str, ...]) -> Installed:
    """The engine of an environment, named by its folder or by a program in it. Raises InputError."""
    named = Path(path, "bin", program) if os.path.isdir(path) else Path(path)
    if named.name.startswith("python") and program != "python":
        named = named.with_name(program)
    if not (named.is_file() and os.access(named, os.X_OK)):
        fault = "cannot be run" if named.exists() else "does not exist"
        raise InputError(f"--engine_path: {named} {fault}; give an environment's folder or the engine's program")
    python = _python_of(named)
    mark = python.parent.parent / ".installed"  # a recipe's
    version = mark.read_text().strip() if mark.is_file() else ""
    known = version.partition(" ")[0] in packages
    return Installed(python if program == "python" else named, version if known else _version(python, packages))


def _python_of(program: Path) -> Path:
    """The Python that runs a program: itself, the one that its first line names, or the one beside it."""
    if program.name.startswith("python"):
        return program
    with program.open("rb") as text:
        first = Path(text.readline(1000).removeprefix(b"#!").strip().decode(errors="replace"))
    return first if first.name.startswith("python") else program.resolve().with_name("python")


@cache
def _version(python: Path, packages: tuple[str, ...]) -> str:
    """Of the first of these packages that this Python has, by its own words."""
    command = [str(python), "-c", FIRST_FOUND, *packages]
    try:
        said = check_output(command, stdin=DEVNULL, stderr=DEVNULL, errors="replace", timeout=ANSWER_S)
    except (OSError, SubprocessError) as error:
        why = str(error).rpartition("]' ")[2]  # without the command
        raise InputError(f"--engine_path: {python} does not say what it has ({why}); give another") from error
    if not (version := said.rstrip("\n").rpartition("\n")[2]):
        raise InputError(f"--engine_path: {python} has no {' or '.join(packages)}; give one that has it")
    return version
