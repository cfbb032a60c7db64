"""Tables that fit, and the form of their numbers."""

from __future__ import annotations

import pytest

from servebench.show import tables
from servebench.show.tables import Column

COLUMNS = [Column("load"), Column("TTFT p50\nms"), Column("spare", drop=1), Column("note", left=True, cut=True)]
ROWS = ["vLLM TP 1 x 1", ["8", "13.9", "a spare cell", "first " + "word " * 20 + "last"], ["16", "480", "", ""]]


@pytest.mark.parametrize("limit", [160, 80, 40])
def test_no_line_is_longer_than_the_limit(limit: int) -> None:
    text = tables.table(COLUMNS, ROWS, limit)
    assert max(map(len, text.splitlines())) <= limit
    assert tables.fits(COLUMNS, ROWS, limit) == (limit == 160)
    assert "first" in text and "last" in text, "words lose their middle"
    assert ("spare" in text) == (limit == 160), "this column goes first"


def test_a_head_has_as_many_lines_as_it_needs() -> None:
    lines = tables.table(COLUMNS, ROWS, 160).splitlines()
    assert lines[0].split() == ["TTFT", "p50"] and lines[1].split() == ["load", "ms", "spare", "note"]
    assert lines[3] == "vLLM TP 1 x 1"


def test_columns_without_a_cell_are_left_out() -> None:
    assert "failed" not in tables.table([Column("load"), Column("failed")], [["8", ""], ["16", ""]])


def test_latencies_are_in_ms_up_to_ten_seconds() -> None:
    assert tables.significant(999.7) == "1000", "not 1.00e+03"
    assert [tables.ms(s) for s in (0.0139, 0.48, 9.99, 12.34, None)] == ["13.9", "480", "9990", "12.3 s", "-"]
    assert [tables.latency(s) for s in (0.48, 12.34, None)] == ["480 ms", "12.3 s", "-"]


def test_durations_are_in_the_unit_that_one_would_say() -> None:
    assert [tables.duration(s) for s in (34, 720, 12_000)] == ["34 s", "12 min", "3 h 20 min"]


def test_sentences_are_wrapped_to_the_terminal_and_stay_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "word " * 40
    monkeypatch.delenv("COLUMNS", raising=False)
    assert tables.wrapped(sentence) == sentence
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, tables.wrapped(sentence).splitlines())) <= 60


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tables.paint("failed", "red") == "failed"
    monkeypatch.setattr(tables, "on_terminal", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    red = tables.paint("failed", "red")
    assert red != "failed" and tables.table([Column("a"), Column("b")], [[red, "1"]]).endswith(f"{red}  1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert tables.paint("failed", "red") == "failed"
