"""Arrival times: drawn from the seed alone, with the statistics that were asked for, the same for all workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import run_config

from servebench.load.sharding import Target, Workers, deal
from servebench.log.config import RunConfig
from servebench.workload import Request, Workload
from servebench.workload.arrivals import draw_schedule, trace_schedule


def run_at(rate: float = 1000.0, **changes: object) -> RunConfig:
    fields = {"request_rate": rate, "num_requests": 50_000, "warmup": 100} | changes
    return run_config(**fields)  # type: ignore[arg-type]


def dispersion(times_s: np.ndarray, window_s: float) -> float:
    """Variance over mean of the arrivals in windows: 1 for a Poisson stream."""
    counts = np.histogram(times_s, bins=np.arange(times_s[0], times_s[-1], window_s))[0]
    return float(counts.var() / counts.mean())


def variation(times_s: np.ndarray) -> float:
    """Standard deviation over mean of the gaps."""
    gaps = np.diff(times_s)
    return float(gaps.std() / gaps.mean())


def test_poisson_arrivals_have_the_dispersion_of_poisson() -> None:
    times = draw_schedule(run_at()).times_s  # 100,100 arrivals, 5,000 windows: one deviation is 0.02
    assert dispersion(times, 0.02) == pytest.approx(1.0, abs=0.05)
    assert len(times) / times[-1] == pytest.approx(1000, rel=0.02)


def test_constant_arrivals_do_not_vary() -> None:
    assert variation(draw_schedule(run_at(arrival="constant")).times_s) < 1e-6


@pytest.mark.parametrize("shape", [0.25, 4.0])
def test_gamma_arrivals_vary_as_their_shape_says(shape: float) -> None:
    times = draw_schedule(run_at(arrival="gamma", burstiness=shape)).times_s
    assert variation(times) == pytest.approx(shape**-0.5, rel=0.03)  # of a gamma distribution
    assert len(times) / times[-1] == pytest.approx(1000, rel=0.03)


def test_a_ramp_grows_from_one_rate_to_the_other() -> None:
    """From 10/s to 30/s over 1,000 requests: 50 s, and after 25 s at 20/s 375 of them have come."""
    run = run_at(30.0, ramp_from=10.0, arrival="constant", num_requests=1000, warmup=20)
    schedule = draw_schedule(run)
    first, last = schedule.window_s
    assert (first, last - first) == (pytest.approx(2.0), pytest.approx(50, rel=0.01))
    counted = schedule.times_s[20:1020] - first
    assert np.searchsorted(counted, 25.0) == pytest.approx(375, abs=2)
    gaps = np.diff(schedule.times_s)
    assert (gaps[5], gaps[-5]) == (pytest.approx(1 / 10), pytest.approx(1 / 30))


def test_the_seed_decides_and_the_rate_only_scales() -> None:
    slow, fast = draw_schedule(run_at(10.0)).times_s, draw_schedule(run_at(20.0)).times_s
    assert np.allclose(slow, 2 * fast)
    assert not np.allclose(slow, draw_schedule(run_at(10.0, seed=1)).times_s)
    assert not np.allclose(slow, draw_schedule(run_at(10.0, repetition=1)).times_s)


def test_a_trace_keeps_its_times_but_for_the_speed() -> None:
    run = run_config(trace_speed=2.0, num_requests=3, warmup=1)
    schedule = trace_schedule(np.array([100.0, 101.0, 105.0, 106.0]), run)
    assert schedule.times_s[:4].tolist() == [0.0, 0.5, 2.5, 3.0]
    assert schedule.window_s == (0.5, 4.0)
    assert np.diff(schedule.times_s[3:]) == pytest.approx(1.0)  # 4 arrivals in 3 s: a mean gap of 1 s goes on


def test_a_warm_up_that_must_last_longer_goes_on_at_its_rate() -> None:
    """Gaps as before, of the rate that a ramp begins with; measured requests begin where one of them would."""
    schedule = draw_schedule(run_at(30.0, ramp_from=10.0, arrival="gamma", burstiness=0.5, num_requests=90))
    assert schedule.gap_filler_s[0] == schedule.times_s[100]
    assert schedule.gap_filler_span_s == pytest.approx(10.0)  # 100 at 10/s
    assert schedule.opening_ns(0) == (0, round(schedule.gap_filler_s[0] * 1e9))
    number, at_ns = schedule.opening_ns(
        round((schedule.gap_filler_s[7] + 2 * schedule.gap_filler_span_s) * 1e9) - 5
    )
    assert number == 207 and at_ns / 1e9 == pytest.approx(schedule.gap_filler_s[7] + 20)


@pytest.mark.parametrize(("arrival", "burstiness"), [("poisson", 1.0), ("constant", 1.0), ("gamma", 0.3)])
def test_measured_requests_come_at_the_rate_that_was_asked_for(arrival: str, burstiness: float) -> None:
    schedule = draw_schedule(run_at(5.0, arrival=arrival, burstiness=burstiness, num_requests=150))
    assert schedule.times_s[250] - schedule.times_s[100] == pytest.approx(30)
    assert schedule.period_s == pytest.approx(30)


def test_the_last_gaps_of_the_measured_requests_lead_the_window_in() -> None:
    """Half of 30 s: the arrivals of the second half of the period, and the one before it."""
    schedule = draw_schedule(run_at(5.0, num_requests=150))
    number, lead_ns = schedule.lead_in(15_000_000_000)
    measured_s = schedule.times_s[100:250] - schedule.times_s[100]
    assert number == 1 + np.sum(measured_s > 15)
    assert 30 - lead_ns / 1e9 == pytest.approx(measured_s[-number])
    assert schedule.lead_in(0) == (0, 0)
    assert schedule.lead_in(75_000_000_000) == (300 + number, 60_000_000_000 + lead_ns), "longer than two periods"
    assert draw_schedule(run_at(5.0, num_requests=150, ramp_from=1.0)).lead_in(10**12) == (0, 0)


@pytest.mark.parametrize("requests", [2, 10, 100])
@pytest.mark.parametrize("burstiness", [0.001, 0.1, 1.0])
def test_bursts_among_the_measured_requests_do_not_stretch_the_warm_up(burstiness: float, requests: int) -> None:
    """Its mean gap is 1 s, with a deviation of 1 s / sqrt(burstiness): over 300 seeds 99 % of it."""
    spans = []
    for seed in range(300):
        run = run_at(1.0, arrival="gamma", burstiness=burstiness, num_requests=requests, warmup=1, seed=seed)
        times_s = draw_schedule(run).times_s
        assert times_s[1 + requests] - times_s[1] == pytest.approx(requests)
        spans.append(times_s[1])
    assert np.mean(spans) < 1 + 3 / (300 * burstiness) ** 0.5


def test_a_ramp_begins_with_the_measured_requests() -> None:
    """From 1/s to 3/s, 60 requests take 2 x 60 / 4 s; a half of that time brings 1 x 15 + 15 x 15 / 30 = 22.5."""
    schedule = draw_schedule(run_at(3.0, ramp_from=1.0, arrival="poisson", num_requests=60))
    assert schedule.window_s[1] - schedule.window_s[0] == pytest.approx(30)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_all_workers_together_send_the_same_stream(workers: int, tmp_path: Path) -> None:
    run = run_at(num_requests=50, warmup=7, max_concurrency=6)
    schedule = draw_schedule(run)
    ask = [Request(str(i), 1, 1) for i in range(50)]
    target = Target(["http://127.0.0.1:1"], {}, lambda request: {"prompt": request.prompt}, lambda: None)
    tasks = deal(run, Workload(ask, ask[:10], schedule), target, Workers(workers, tmp_path))
    paces = [task.pace for task in tasks if task.pace]
    assert len(paces) == workers
    opens_s = schedule.times_s[7]
    for name, times_s in {
        "warmup": schedule.times_s[:7],
        "gap_filler": schedule.gap_filler_s,
        "measured": schedule.times_s[7:57] - opens_s,
        "cooldown": schedule.times_s[57:] - opens_s,
    }.items():
        parts = [getattr(pace, name) for pace in paces]
        numbered = sorted((p.first + i * p.step, t) for p in parts for i, t in enumerate(p.at_ns))
        assert numbered == [(i, round(t * 1e9)) for i, t in enumerate(times_s.tolist())]
    assert {pace.max_in_flight for pace in paces} == {6}
    when = {
        job.id: t
        for task, pace in zip(tasks, paces, strict=True)
        for job, t in zip(task.measured, pace.measured.at_ns, strict=True)
    }
    assert [when[i] for i in range(50)] == sorted(when.values()), "request i leaves at the i-th measured time"
