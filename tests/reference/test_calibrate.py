"""Calibration and the quality record: the client held against a server whose times are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_result
from warm_python import python

from servebench.analysis.quality import Evidence, judge
from servebench.load.fleet import Outcome
from servebench.log.schema import Quality, Result
from servebench.reference import calibrate
from servebench.reference.answers import RequestRecord


def evidence(**changes: object) -> Evidence:
    usual = {"lag_ns": np.full(1000, 50_000), "send_late_ns": np.full(20, 100_000), "late_ids": np.arange(20)}
    usual |= {
        "unstamped_reads": 0,
        "worker_cpu_s": [0.5],
        "worker_cpu_share": [0.05],
        "host_cpu_share": 0.5,
        "clock_step_s": 1e-6,
    }
    return Evidence(**(usual | changes))  # type: ignore[arg-type]


def judged(results: list[Result], **changes: object) -> Quality:
    return judge(results, (0, 10_000_000_000), 2, evidence(**changes))


CLEAN = [make_result(i, i % 5, [0.5, 0.6, 0.7, 0.8], connect_ns=1000) for i in range(10)]
# Every second event may have come up to 50 ms earlier than its stamp.
MERGED = [make_result(i, i % 5, [0.5, 0.6, 0.7, 0.8], merged=[(1, 550_000_000)]) for i in range(10)]


def test_a_prompt_client_is_trusted() -> None:
    quality = judged(CLEAN)
    assert quality.verdict == "ok"
    assert quality.lag_p50_s == pytest.approx(50e-6)
    assert quality.cpu_per_event_s == pytest.approx(0.5 / 40), "of what was read, however many reads it took"
    assert quality.achieved_concurrency == pytest.approx(10 * 0.8 / 10)


@pytest.mark.parametrize(
    ("results", "changes", "reason"),
    [
        (CLEAN, {"clock_step_s": 0.001}, "clock stepped"),
        (CLEAN, {"unstamped_reads": 500}, "without kernel stamps"),
        (CLEAN, {"send_late_ns": np.full(20, 100_000_000)}, "late with its requests, throughput 11.1% lower"),
        (MERGED, {"lag_ns": np.full(1000, 20_000_000)}, "too late to tell tokens apart"),
    ],
)
def test_a_client_that_limits_says_so_and_what_to_do(
    results: list[Result], changes: dict[str, object], reason: str
) -> None:
    verdict = judged(results, **changes).verdict
    assert verdict.startswith("client-limited: ") and reason in verdict


def arriving(late_ms: list[int]) -> list[Result]:
    """An open loop, TTFT 0.5 s: each request left so late."""
    return [
        make_result(i, 0.05 * i + late / 1e3, [0.5, 0.6], scheduled_ns=50_000_000 * i)
        for i, late in enumerate(late_ms)
    ]


@pytest.mark.parametrize(
    ("late_ms", "cpu", "said"),
    [
        ([5] * 100, 0.02, "ok"),  # TTFT 1 % longer
        ([0] * 90 + [9] * 10, 0.02, "ok"),  # p99 1.8 % longer
        ([0] * 90 + [100] * 10, 0.02, "TTFT p99 from schedule 20.0% longer; at 2% CPU it was kept from its core"),
        ([20] * 100, 0.6, "TTFT mean from schedule 4.0% longer; more --num_workers or a free core"),
    ],
)
def test_late_sends_matter_by_what_they_changed(late_ms: list[int], cpu: float, said: str) -> None:
    late = {"send_late_ns": np.array(late_ms) * 1_000_000, "late_ids": np.arange(100)}
    assert said in judged(arriving(late_ms), **late, worker_cpu_share=[cpu]).verdict


def test_waiting_for_a_place_is_no_lateness_of_the_client() -> None:
    late = {"send_late_ns": np.zeros(100, dtype=int), "late_ids": np.arange(100)}
    assert judged(arriving([400] * 100), **late).verdict == "ok"


def test_merged_events_matter_when_they_can_move_a_figure() -> None:
    late = {"lag_ns": np.full(1000, 5_000_000)}
    times = [0.5 + 0.01 * i for i in range(100)]
    harmless = [make_result(i, i % 5, times, merged=[(50, 999_000_000)]) for i in range(10)]  # 1 ms of doubt
    first_ones = [make_result(i, i % 5, [0.5, *times], merged=[(0, 480_000_000)]) for i in range(10)]
    assert judged(harmless, **late).verdict == "ok"
    assert "too late to tell tokens apart" in judged(first_ones, **late).verdict


def test_events_that_the_server_merged_are_not_the_clients_fault() -> None:
    quality = judged(MERGED)
    assert quality.verdict == "ok" and quality.merged_share == pytest.approx(0.25)


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
