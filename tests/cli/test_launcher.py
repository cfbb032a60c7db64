"""./servebench: the client of .venv from any folder, or one line where nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """A copy in a folder where nothing is installed."""
    return Path(shutil.copy2(ROOT / "servebench", tmp_path / "servebench"))


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=30)


def install(launcher: Path) -> None:
    program = launcher.parent / ".venv/bin/servebench"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s|" "$PWD" "$@"\nexit 7\n')
    program.chmod(0o755)


def test_it_is_executable() -> None:
    assert os.access(ROOT / "servebench", os.X_OK)


def test_without_an_installation_it_says_how_in_one_line(launcher: Path) -> None:
    ended = run(launcher, "-h", cwd=launcher.parent)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "scripts/setup_client.sh first (a minute), then try again" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("linked", [False, True])
def test_it_hands_words_and_status_on_from_any_folder(launcher: Path, tmp_path: Path, linked: bool) -> None:
    install(launcher)
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    if linked:
        (elsewhere / "bench").symlink_to(launcher)
    ended = run(elsewhere / "bench" if linked else launcher, "summary", "two words", cwd=elsewhere)
    assert (ended.returncode, ended.stdout) == (7, f"{elsewhere}|summary|two words|")
