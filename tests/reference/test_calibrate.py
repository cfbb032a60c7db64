"""Calibration: the client held against a server whose times are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_result
from warm_python import python

from servebench.load.fleet import Outcome
from servebench.log.schema import Quality
from servebench.reference import calibrate
from servebench.reference.behaviour import RequestRecord


def test_errors_are_measured_minus_true() -> None:
    results = [make_result(i, 0.0, [0.051, 0.061, 0.073]) for i in range(3)]
    events_ns = [1000 + ms * 1_000_000 for ms in (50, 60, 70)]
    truth = {i: RequestRecord(f"p-{i}", 1000, 3, 0, events_ns, [1, 1, 1], 0) for i in range(3)}
    row = calibrate.compare(1, 0.01, Outcome(results, (0, 1_000_000_000), Quality(verdict="ok"), None), truth)
    assert row.error_s("ttft_mean_s") == pytest.approx(0.001)
    assert row.error_s("itl_p99_s") == pytest.approx(0.012 - 0.010, abs=1e-4)
    assert row.error == pytest.approx(0.2, abs=0.01)
    assert row.events_per_s == pytest.approx(9)
    assert "no load here" in calibrate.conclusion([row])


def test_calibrate_as_a_user_types_it(tmp_path: Path) -> None:
    words = ["--num_clients", "4", "8", "--num_requests", "8", "--out_json_dir", str(tmp_path / "results")]
    ended = python("-m", "servebench", "calibrate", *words)
    assert ended.returncode == 0, ended.stderr
    rows = json.loads((tmp_path / "results/calibration/calibration.json").read_text())
    assert [row["num_clients"] for row in rows] == [4, 8]
    assert all(row["failed"] == 0 and row["measured"]["ttft_mean_s"] >= 0.05 for row in rows)
    assert "us CPU/event" in ended.stdout
    assert (tmp_path / "results/calibration/calibration.png").stat().st_size > 10_000
