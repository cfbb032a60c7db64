"""Intervals, effective samples and steadiness, against numbers worked out by hand and series of a known kind."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_log, make_result

from servebench.analysis import stationarity, stats
from servebench.log.schema import Log

RNG = np.random.default_rng(0)


def test_an_interval_is_students() -> None:
    # Mean 2, deviation 1, t(2) = 4.303: 4.303 / sqrt(3) = 2.484
    found = stats.t_interval([1.0, 2.0, 3.0])
    assert found == pytest.approx((2.0, -0.4844, 4.4844, 3), abs=1e-3)


def test_of_one_run_no_interval_is_known() -> None:
    only = stats.t_interval([3.0])
    assert only and only.mean == 3 and np.isnan(only.low)
    assert stats.t_interval([]) is None


def test_batches_are_successive_and_of_one_size() -> None:
    assert stats.batches(np.arange(41.0)) == pytest.approx([0.5 + 2 * i for i in range(20)])
    assert stats.batches(np.arange(60.0), np.median) == pytest.approx([1 + 3 * i for i in range(20)])
    assert not len(stats.batches(np.arange(19.0)))


def test_effective_samples_by_hand() -> None:
    # 20 batches of 5 like 0 0 0 0 0, 1 1 1 1 1: values vary as their batch means do, so each batch counts as one.
    # Variances 25/99 of 100 values and 5/19 of 20 means: 25/99 / (5/19) * 20 = 19.19
    values = np.repeat(np.arange(20) % 2, 5).astype(float)
    assert stats.effective_samples(values) == pytest.approx(19.19, abs=0.01)


def test_independent_values_count_each_and_too_few_do_too() -> None:
    found = [stats.effective_samples(RNG.normal(size=1000)) for _ in range(100)]
    assert np.median(found) > 800 and max(found) <= 1000
    assert stats.effective_samples(np.ones(50)) == 50


def test_a_correlated_series_counts_for_less() -> None:
    noise = RNG.normal(size=(100, 5000))
    series = np.zeros_like(noise)
    for i in range(1, 5000):  # autoregressive with 0.9: n * (1 - 0.9) / (1 + 0.9) = 263 effective samples
        series[:, i] = 0.9 * series[:, i - 1] + noise[:, i]
    assert np.median([stats.effective_samples(x) for x in series]) == pytest.approx(263, rel=0.2)


def test_mser_cuts_the_warm_up() -> None:
    series = np.concatenate([np.full(200, 5.0), np.zeros(800)]) + RNG.normal(size=1000) * 0.1
    assert stats.settled_at(series) == pytest.approx(0.2, abs=0.01)
    assert stats.settled_at(np.arange(1000.0)) > 0.5, "what rises to its end never settled"
    assert stats.settled_at(np.ones(1000)) == 0


def test_a_trend_is_seen_if_it_matters() -> None:
    noise = RNG.normal(size=(200, 1000))
    assert np.mean([stats.drifts(10 + x) for x in noise]) < 0.05
    assert stats.drifts(10 + noise[0] + np.linspace(0, 2, 1000))
    assert not stats.drifts(1000 + noise[0] + np.linspace(0, 2, 1000)), "0.2 % of the mean does not matter"


def queue(ttft_s: np.ndarray) -> Log:
    """A request a second with this TTFT and two more tokens."""
    results = [make_result(i, float(i), [t, t + 0.1, t + 0.2]) for i, t in enumerate(ttft_s)]
    return make_log(results, (5.0, float(len(ttft_s))))


def test_a_steady_point_is_steady() -> None:
    assert stationarity.why_not_stationary(queue(0.5 + 0.1 * RNG.random(400))) is None


def test_a_growing_queue_is_not_stationary() -> None:
    assert "requests in flight" in str(stationarity.why_not_stationary(queue(np.linspace(0.5, 200, 400))))


def test_a_queue_that_does_not_forget_is_not_stationary() -> None:
    wander = 0.4 + np.repeat(np.sin(np.arange(10) * 2.5), 40) * 0.1 + RNG.random(400) * 0.01
    assert "carry the information of" in str(stationarity.why_not_stationary(queue(wander)))


def test_few_requests_cannot_tell() -> None:
    assert stationarity.why_not_stationary(queue(np.linspace(0.5, 20, 40))) is None


def test_a_point_is_not_stationary_if_most_of_its_runs_are_not() -> None:
    good, bad = queue(0.5 + 0.1 * RNG.random(400)), queue(np.linspace(0.5, 200, 400))
    assert not stationarity.stationary([bad, bad, good])
    assert stationarity.stationary([bad, good, good])


def test_in_flight_and_tokens_by_hand() -> None:
    # Window 0..100 s, bins of 0.5 s. The first is in flight until 10.4, the second from 10.0 to 20.2.
    log = make_log([make_result(0, 0.0, [0.25, 10.4]), make_result(1, 10.0, [0.5, 10.2])], (0.0, 100.0))
    flying, tokens = stationarity.over_time(log).values()
    assert [flying[i] for i in (0, 19, 20, 21, 40, 41)] == pytest.approx([1, 1, 1.8, 1, 0.4, 0])
    assert {i: tokens[i] for i in tokens.nonzero()[0]} == pytest.approx({0: 2, 20: 2, 21: 2, 40: 2})
    assert stationarity.ends_per_bin(log).nonzero()[0].tolist() == [20, 40]
