"""Of an engine's log the words that say why it did not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from servebench.servers.engine_log import own_words

USAGE = "usage: vllm serve [model_tag] [options]\n"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("x: error: unrecognized arguments: --no-such", "x: error: unrecognized arguments: --no-such"),
        (USAGE + "vllm serve: error: argument --n: invalid int value: 'a'\n", "vllm serve: error: argument --n"),
        ("error: unexpected argument '--no-such' found\n\nFor more, try '--help'.", "error: unexpected argument"),
        ("loading\nValueError: too long\nRuntimeError: see root cause above", "ValueError: too long"),
        ("INFO: 0 errors: none\nready", ""),
        ("", ""),
        ("prog: error: unrecognized arguments: --api-key sk-very-secret", "prog: error: unrecognized arguments"),
    ],
)
def test_the_refusal_else_the_first_exception(tmp_path: Path, log: str, words: str) -> None:
    (tmp_path / "log").write_text(log)
    found = own_words(tmp_path / "log")
    assert found.startswith(words) and bool(found) == bool(words)
    assert "sk-very-secret" not in found and len(found) <= 200
