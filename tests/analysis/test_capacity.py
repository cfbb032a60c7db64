"""What a server can serve within limits: numbers worked out by hand, known distributions, ties."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
from conftest import make_log, make_result

from servebench.analysis import capacity
from servebench.analysis.capacity import Capacity, Chance, Noises
from servebench.analysis.sla import goals
from servebench.log.schema import Log
from servebench.show import layouts
from servebench.show.candidates import Decision, Question, decided, with_limits

LIMITS = goals("ttft_p90<1s")


def run_of(
    clients: int, ttft_s: float | np.ndarray, e2e_s: float = 2.0, failed: int = 0, **changes: object
) -> Log:
    """Clients that never pause, each answered after e2e_s; the first requests fail."""
    count = 4 * clients + 32
    ttfts_s = np.broadcast_to(ttft_s, count)
    results = [
        make_result(i, i // clients * e2e_s, [float(ttfts_s[i]), e2e_s], error="500" if i < failed else None)
        for i in range(count)
    ]
    load = {} if "request_rate" in changes else {"num_clients": clients}
    return make_log(results, (0.0, count / clients * e2e_s), **load, **changes)


def found_of(*runs: Log, limits: str = "ttft_p90<1s") -> Capacity:
    """Of a server, whose runs are of one load each."""
    wanted = goals(limits)
    loads = capacity.loads_of([[run] for run in runs], wanted, Noises())
    assert loads
    return capacity.capacity(loads)


def spread(rng: np.random.Generator, clients: int, median_s: float) -> np.ndarray:
    return np.asarray(median_s * rng.lognormal(0, 0.2, 4 * clients + 32))


def decision_of(limits: str = "ttft_p90<1s", **rates: tuple[float, int]) -> Decision:
    """Servers by (requests/s of a client, TP size), three runs each of 4, 8 and 16 clients."""
    rng = np.random.default_rng(0)
    runs = [
        run_of(
            *(clients, spread(rng, clients, 0.02 * clients**1.5), 1 / rate * rng.lognormal(0, 0.01)),
            engine_args=("--name", name),
            tp_size=tp_size,
            repetition=repetition,
        )
        for name, (rate, tp_size) in rates.items()
        for clients in (4, 8, 16)
        for repetition in range(3)
    ]
    return decided(layouts.studies(runs)[0], Question(goals(limits)))


# The estimate.


def test_requests_per_s_of_clients_are_clients_over_latency() -> None:
    found = found_of(run_of(4, 0.5), run_of(8, 0.9), run_of(16, 3.0))
    assert found.loads.rates[:, 0] == pytest.approx([2, 4, 8])


def test_the_capacity_lies_between_the_loads_and_is_a_whole_number_of_clients() -> None:
    # 8 clients: 0.8 of the limit, 16: 2.5 times; the share of the way is bent by exp(-0.35)
    way = (log(1 / 0.8) / log(2.5 / 0.8)) ** exp(-0.35)
    assert 8 * 2**way == pytest.approx(9.97, abs=0.01)
    found = found_of(run_of(4, 0.5), run_of(8, 0.8), run_of(16, 2.5))
    assert (found.below, found.size, found.above) == (8, 9, 16)
    assert found.rate == pytest.approx(4.5)  # an answer takes 2 s at 8 and at 16 clients


def test_a_full_server_is_taken_to_be_full_before_the_next_load() -> None:
    # 8 clients: 4 requests/s; 16: 4 requests/s. In between it is 4 anyhow.
    found = found_of(run_of(8, 0.8, 2.0), run_of(16, 2.5, 4.0))
    assert found.rate == pytest.approx(4.0)


def test_percentiles_only_rise_with_load() -> None:
    values = np.array([[0.0], [2.0], [1.0], [3.0]])
    assert capacity._rising(values, np.ones(4))[:, 0] == pytest.approx([0, 1.5, 1.5, 3])
    assert capacity._rising(values, np.array([1.0, 3, 1, 1]))[:, 0] == pytest.approx([0, 1.75, 1.75, 3])
    falling = np.array([[3.0], [2.0], [1.0]])
    assert capacity._rising(falling, np.ones(3))[:, 0] == pytest.approx([2, 2, 2])


def test_one_slow_load_below_a_better_known_one_is_chance() -> None:
    found = found_of(run_of(1, 1.05), run_of(16, 0.5), run_of(32, 2.0))
    assert found.below == 16


def test_who_keeps_the_limits_everywhere_reaches_at_least_that_much() -> None:
    found = found_of(run_of(4, 0.1), run_of(8, 0.2))
    low, high = capacity.interval(found.rates)
    assert found.at_least and found.above is None and found.size == 8
    assert low <= 4.0 <= high and found.unbounded


def test_who_gains_nothing_from_more_load_has_its_capacity_there() -> None:
    found = found_of(run_of(8, 0.1, 2.0), run_of(16, 0.2, 4.0))
    assert not found.at_least and np.isfinite(found.rates).all() and found.rate == pytest.approx(4.0)


def test_who_keeps_no_limit_serves_nothing() -> None:
    found = found_of(run_of(1, 3.0), run_of(4, 5.0))
    assert (found.size, found.rate, found.below, found.above) == (0, 0, None, 1)
    assert capacity.interval(found.rates) == (0, 0)
    fewer = found_of(run_of(4, 3.0), run_of(8, 5.0))  # 1 to 3 clients may be served
    low, high = capacity.interval(fewer.rates)
    assert fewer.rate == 0 and 0 < low < high < 2.1


def test_failed_requests_exceed_the_limits() -> None:
    assert found_of(run_of(8, 0.5), run_of(16, 0.5, failed=2)).above == 16
    assert found_of(run_of(8, 0.5), run_of(32, 0.5, failed=1)).above is None  # 1 of 160


def test_an_overload_exceeds_the_limits() -> None:
    rates = [run_of(8, 0.5, request_rate=rate, overloaded=rate > 5) for rate in (2.0, 4.0, 8.0)]
    found = found_of(*rates)
    assert (found.below, found.above) == (4, 8) and 4 < found.rate < 8


def test_an_open_loop_serves_what_was_offered() -> None:
    found = found_of(*(run_of(8, 0.2 * rate, request_rate=rate) for rate in (2.0, 4.0, 8.0)))
    assert found.loads.rates[:, 0] == pytest.approx([2, 4, 8])
    assert found.rate == pytest.approx(found.size)


def test_a_limit_of_the_error_rate() -> None:
    found = found_of(run_of(8, 0.5), run_of(32, 0.5, failed=1), limits="error_rate<0.5%")
    assert found.above == 32
    assert found_of(run_of(8, 0.5), run_of(32, 0.5, failed=1), limits="error_rate<0.9%").above is None


def test_every_limit_has_to_be_kept() -> None:
    runs = [run_of(4, 0.5, 2.0), run_of(8, 0.8, 2.5), run_of(16, 2.5, 4.5)]  # TPOT 1.5, 1.7 and 2 s
    tpots_s = (1.4, 1.6, 1.9, 2.5)
    below = [found_of(*runs, limits=f"ttft_p90<1s,tpot_p90<{tpot_s}s").below for tpot_s in tpots_s]
    assert below == [None, 4, 8, 8]


# How well it is known.


@pytest.mark.parametrize(("name", "share"), [("ttft_p50<1s", 0.5), ("ttft_p90<1s", 0.9), ("ttft_p99<1s", 0.99)])
def test_draws_of_a_percentile_hold_the_true_one(name: str, share: float) -> None:
    """48 requests of exponential times, 300 times. Of a p99 that most of them do not reach."""
    rng, true, held = np.random.default_rng(1), log(-log(1 - share)), []
    for seed in range(300):
        run = run_of(4, rng.exponential(size=48), 100.0)
        drawn = capacity._percentiles([run], goals(name)[0], Chance(np.random.default_rng(seed), 400))
        low, high = capacity.interval(drawn)
        held.append(low <= true <= high)
    assert 0.91 < np.mean(held) < 0.99


def test_more_runs_know_a_percentile_better() -> None:
    rng, chance = np.random.default_rng(2), Chance(np.random.default_rng(0), 1000)
    runs = [run_of(8, spread(rng, 8, 0.5)) for _ in range(16)]
    widths = [capacity._percentiles(some, LIMITS[0], chance)[1:].std() for some in (runs[:1], runs[:4], runs)]
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]


def test_what_runs_differ_is_taken_from_all_points_together() -> None:
    rng = np.random.default_rng(3)
    points = [
        [run_of(8, 0.5, 2.0 * rng.lognormal(0, 0.1), repetition=number) for number in range(2)] for _ in range(60)
    ]
    noise = capacity.noises_of(points, LIMITS).rate
    assert noise.degrees == 63 and 0.08 < noise.variance**0.5 < 0.12
    alone = capacity.noises_of([runs[:1] for runs in points], LIMITS).rate
    assert (alone.degrees, alone.variance**0.5) == (3, pytest.approx(0.02))


def test_the_same_logs_always_give_the_same_answer() -> None:
    rates = [found_of(run_of(4, 0.5), run_of(8, 0.8), run_of(16, 2.5)).rates for _ in range(2)]
    assert (rates[0] == rates[1]).all()


# Servers.


def test_equal_servers_are_not_distinguishable() -> None:
    found = decision_of(one=(0.5, 1), other=(0.5, 1))
    assert len(found.rivals) == 1
    low, high = capacity.interval(found.ratio(found.rivals[0]))
    assert low < 1 < high


def test_a_server_far_ahead_is() -> None:
    found = decision_of(slow=(0.5, 1), fast=(1.0, 1))
    assert found.best and found.best.name.endswith("fast") and not found.rivals
    assert capacity.interval(found.ratio(found.candidates[1]))[0] > 1.2


def test_rivals_leave_out_the_best_one() -> None:
    """With a margin nobody is ahead of himself."""
    found = decision_of(one=(0.5, 1), other=(0.5, 1), slow=(0.2, 1))
    raced = decided(found.study, replace(found.question, looks=4, margin=1.05))
    assert [each.name for each in raced.rivals] in ([], [found.candidates[1].name])
    assert raced.best and raced.best.name == found.candidates[0].name


def test_servers_are_ranked_by_what_a_gpu_serves() -> None:
    found = decision_of(one=(0.5, 1), two=(0.75, 2))
    assert found.best and found.best.name.endswith("one") and found.per_gpu
    assert found.candidates[1].capacity.rate > found.candidates[0].capacity.rate


def test_looser_limits_allow_more() -> None:
    found = decision_of(one=(0.5, 1), other=(0.4, 1))
    rates = [with_limits(found, times).candidates[0].capacity.rate for times in (0.5, 1.0, 1.5)]
    assert rates[0] < rates[1] < rates[2]
