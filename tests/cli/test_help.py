"""-h is short and fits a terminal; --help_all has everything; importing little keeps both fast."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT
from warm_python import python

from servebench.cli.parser import HELP_LINES, shortened
from servebench.commands import COMMANDS
from servebench.plan.options import declared

RUN = ROOT / "run_benchmark.py"


def said(monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    ended = python(*words)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_the_short_help_fits_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = said(monkeypatch, RUN, "-h")
    lines = shown.splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 80
    assert lines[0] == "usage: run_benchmark.py [--backend ENGINE] [options]"
    assert lines[-1] == f"--help_all shows all {len(declared()) + 1} options."
    assert shown.count("\n  python run_benchmark.py ") == 3
    assert {name for name in names_in(shown)} == {each.name for each in declared() if each.option.common}


def names_in(shown: str) -> list[str]:
    return [line.split()[0].removeprefix("--") for line in shown.splitlines() if line.startswith("  --")]


@pytest.mark.parametrize("spelled", ["--help_all", "--help-all"])
def test_the_whole_help_has_every_option(monkeypatch: pytest.MonkeyPatch, spelled: str) -> None:
    shown = said(monkeypatch, RUN, spelled)
    assert {each.name for each in declared()} <= set(names_in(shown))
    assert shown.count("\n  python run_benchmark.py ") >= 12
    assert max(map(len, shown.splitlines())) <= 84


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_begins_with_one_line_of_usage(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    usage, empty, *_ = said(monkeypatch, "-m", "servebench", command, "-h").splitlines()
    assert usage.startswith(f"usage: servebench {command}") and usage.endswith(" [options]") and not empty


def test_the_commands_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = said(monkeypatch, "-m", "servebench", "-h")
    assert all(f"\n  {command} " in shown for command in COMMANDS)


def test_a_long_description_is_cut_between_paragraphs() -> None:
    paragraphs = [f"    {name}\n" * 4 + f"    {name}" for name in "abc"]
    assert shortened("\n\n".join(paragraphs)) == "\n\n".join(paragraphs[:2])
    assert shortened("word\n" * (HELP_LINES + 5)).count("word") == HELP_LINES + 5, "the first is always whole"


def test_a_description_is_as_wide_as_the_terminal_and_its_examples_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    prose, example = shortened("many words " * 12 + "\n\n    ./an/example --that is much longer than 40").split(
        "\n\n"
    )
    assert max(map(len, prose.splitlines())) <= 40 and prose.count("words") == 12
    assert example == "    ./an/example --that is much longer than 40"


def test_the_command_line_alone_imports_no_figures() -> None:
    code = "import sys, servebench.__main__, servebench.cli.commandline; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"matplotlib", "numpy", "tokenizers", "huggingface_hub"} & set(loaded)
