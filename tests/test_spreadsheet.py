"""summary.csv: every point a row, raw numbers, derived from logs alone."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_log, make_result

from servebench import records


def write(folder: Path) -> tuple[int, str, list[dict[str, str]]]:
    command = [sys.executable, "-m", "servebench.spreadsheet", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    with (folder / "summary.csv").open() as file:
        return done.returncode, done.stdout + done.stderr, list(csv.DictReader(file))


def test_a_point_is_a_row(tmp_path: Path) -> None:
    results = [make_result(i, float(i), [0.5, 0.6, 0.8]) for i in range(4)]
    results.append(make_result(4, 4.0, [], error="reset", retries=2))
    for clients in (2, 1):
        log = make_log(results, (0.0, 5.0), num_clients=clients)
        records.save(log, tmp_path / "vllm" / records.log_name(log.server, log.run))
    code, said, rows = write(tmp_path)
    assert code == 0 and "2 points" in said
    assert [row["num_clients"] for row in rows] == ["1", "2"]
    first = rows[0]
    assert (first["requests"], first["failed"], first["retries"]) == ("5", "1", "2")
    assert float(first["ttft_mean_s"]) == pytest.approx(0.5)
    assert float(first["itl_p50_s"]) == pytest.approx(0.15)
    assert float(first["request_throughput_per_s"]) == pytest.approx(4 / 5)
    assert first["log"].startswith("vllm/meta-llama_Llama-2-7b-hf-tp1")


def test_what_is_no_log_is_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "m-clients1.json").write_text("{}")
    code, said, rows = write(tmp_path)
    assert code == 1 and rows == [] and "left out" in said and "m-clients1.json" in said
