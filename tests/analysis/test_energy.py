"""Energy over a window, against the integral of known powers."""

from __future__ import annotations

import numpy as np
import pytest
from nvml import joules, watts

from servebench.analysis.energy import Energy, energy

SHAPES = ["constant 300", "steps 100 400 2", "ramp 100 400 60", "sawtooth 100 400 2.93"]
S = 1_000_000_000
T0 = 1_700_000_000 * S
FIRST_J = 5_000_000.0
WINDOW = (T0 + 10 * S, T0 + 40 * S)
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def sampled(power: str = "constant 300", first_j: float = FIRST_J, length_s: int = 60, seed: int = 0) -> Arrays:
    """Ten samples a second, up to 20 ms early or late, of a counter that steps every 10 ms, and of the power."""
    jitter = np.random.default_rng(seed).uniform(-0.02, 0.02, 10 * length_s)
    at = np.arange(10 * length_s) / 10 + 0.02 + jitter
    counter = np.array([first_j + joules(power, np.floor(100 * t) / 100) for t in at])
    return T0 + (at * S).astype(np.int64), counter, np.array([watts(power, t) for t in at])


def truth(power: str, window: tuple[int, int]) -> float:
    start, end = ((at - T0) / S for at in window)
    return joules(power, end) - joules(power, start)


def between(at: np.ndarray, start_s: float, end_s: float) -> np.ndarray:
    return (at > T0 + start_s * S) & (at < T0 + end_s * S)


@pytest.mark.parametrize("power", SHAPES)
def test_windows_with_edges_anywhere(power: str) -> None:
    rng = np.random.default_rng(1)
    samples = sampled(power)
    for _ in range(200):
        start = int(rng.integers(T0 + S, T0 + 45 * S))
        end = int(rng.integers(start + 12 * S, T0 + 59 * S))
        found = energy(*samples, (start, end))
        assert found.verdict == "ok"
        assert found.joules == found.counter_j == pytest.approx(truth(power, (start, end)), rel=0.01)


@pytest.mark.parametrize("power", SHAPES)
def test_without_a_counter_the_readings_count(power: str) -> None:
    at, counter, read = sampled(power)
    found = energy(at, np.full_like(counter, np.nan), read, WINDOW)
    assert (found.counter_j, found.verdict) == (None, "ok: by power readings")
    assert found.joules == found.readings_j == pytest.approx(truth(power, WINDOW), rel=0.01)


def test_by_hand() -> None:
    at = np.array([0, 1, 2, 3, 4]) * S // 4
    found = energy(at, np.array([0.0, 10, 30, 60, 100]), np.array([40.0, 40, 120, 120, 200]), (S // 8, 7 * S // 8))
    # Readings: 0.125 s of 40 W, 0.25 s of 80, 0.25 of 120, 0.125 of 140, which is 17.5 J of the last 40 J.
    assert found == Energy(60 + 17.5 - 5, 5 + 20 + 30 + 17.5, "ok")


@pytest.mark.parametrize("first_j", [FIRST_J, 1000.0, 4_000_000.0])
def test_a_counter_that_is_reset(first_j: float) -> None:
    at, counter, read = sampled(first_j=first_j)
    later = between(at, 20, 99)
    counter[later] -= counter[later][0]
    found = energy(at, counter, read, WINDOW)
    assert found.verdict == "invalid: the energy counter went back" and found.joules is None
    assert energy(at, counter, read, (T0 + 25 * S, T0 + 40 * S)).joules == pytest.approx(4500, rel=0.01)


@pytest.mark.parametrize("power", SHAPES)
def test_a_counter_that_is_seldom_asked(power: str) -> None:
    """Every 4 s, and soon after each edge; the power readings, each the mean of 0.1 s before it, say the rest."""
    rng = np.random.default_rng(2)
    at, counter, _ = sampled(power)
    read = np.array([(joules(power, t) - joules(power, t - 0.1)) / 0.1 for t in (at - T0) / S])
    for _ in range(200):
        start = int(rng.integers(T0 + S, T0 + 40 * S))
        end = int(rng.integers(start + 12 * S, T0 + 55 * S))
        asked = np.arange(len(at)) % 40 == 0
        asked[[np.searchsorted(at, edge + 0.2 * S) for edge in (start, end)]] = True
        found = energy(at, np.where(asked, counter, np.nan), read, (start, end))
        assert found.verdict == "ok"
        assert found.joules == pytest.approx(truth(power, (start, end)), rel=0.01)


@pytest.mark.parametrize("start_s", [9.7, 39.5])
def test_a_gap_at_an_edge(start_s: float) -> None:
    at, counter, read = sampled()
    gap = between(at, start_s, start_s + 0.8)
    counter[gap] = read[gap] = np.nan
    assert energy(at, counter, read, WINDOW).verdict == "invalid: no samples around an edge of the window"
    assert energy(at, np.full_like(counter, np.nan), read, WINDOW).verdict.startswith(
        "invalid: no power readings for"
    )


@pytest.mark.parametrize("window", [(T0 - S, T0 + 5 * S), (T0 + 50 * S, T0 + 61 * S), (T0 + 99 * S, T0 + 100 * S)])
def test_samples_that_do_not_go_around_the_window(window: tuple[int, int]) -> None:
    found = energy(*sampled(), window)
    assert found.verdict.startswith("invalid: no samples") and found[:2] == (None, None)


def test_a_gap_inside() -> None:
    at, counter, read = sampled("steps 100 400 2")
    gap = between(at, 20, 27)
    counter[gap] = read[gap] = np.nan
    found = energy(at, counter, read, WINDOW)
    assert found.verdict.startswith("ok: not checked, no power readings for 7.")
    assert found.joules == pytest.approx(truth("steps 100 400 2", WINDOW), rel=0.01)
    assert energy(at, np.full_like(counter, np.nan), read, WINDOW).joules is None


@pytest.mark.parametrize("scale", [2, 0.5, 0])
def test_a_counter_that_lies(scale: float) -> None:
    at, counter, read = sampled()
    found = energy(at, counter * scale, read, WINDOW)
    assert found.verdict == f"invalid: the energy counter says {9000 * scale:.0f} J, the power readings 9000 J"
    assert found.joules is None


def test_nothing_at_all() -> None:
    nothing = np.array([])
    assert energy(nothing.astype(np.int64), nothing, nothing, WINDOW) == Energy(None, None, "unknown")
    at, counter, read = sampled()
    assert energy(at, counter * np.nan, read * np.nan, WINDOW) == Energy(None, None, "unknown")
