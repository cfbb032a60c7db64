"""The quality record: what the client says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_result

from servebench.analysis.quality import Evidence, judge
from servebench.log.result import Result
from servebench.log.schema import Quality


def evidence(**changes: object) -> Evidence:
    usual = {"lag_ns": np.full(1000, 50_000), "send_late_ns": np.full(20, 100_000), "late_ids": np.arange(20)}
    usual |= {
        "unstamped_reads": 0,
        "worker_cpu_s": [0.5],
        "worker_cpu_share": [0.05],
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
