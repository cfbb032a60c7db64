"""The search for a load: it ends at a known capacity, in few points, by interval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from conftest import make_log, make_result

from servebench import arguments, search, summary, sweep
from servebench.limits import Limit, decide, parse_limits, requests_needed
from servebench.records import InputError, Log, RunConfig, ServerConfig
from servebench.stats import wilson_interval

Ask = Callable[[RunConfig], list[float]]  # latencies that a server would have, s


def capacity(most: float) -> Ask:
    """0.1 s up to this load, 10 s beyond it."""
    return lambda run: [0.1 if (run.request_rate or run.num_clients) <= most else 10.0] * run.num_requests


@pytest.fixture
def searched(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Search on a server that is a function: (points measured, what was found)."""

    def run(server: Ask, *words: str) -> tuple[list[sweep.Point], str]:
        base = ["--backend", "openai", "--openai_api_url", "http://127.0.0.1:1/v1", "--model", "m"]
        settings = arguments.parse([*base, "--out_json_dir", str(tmp_path), *words])
        plan = sweep.make_plan(settings)
        measured = []
        for config, points in plan:
            for point in search.points_to_measure(settings, config, points):
                measured.append(point)
                sweep.save(point, log_of(point.run, config, point.fingerprint, server(point.run)))
        (found,) = search.conclusions(plan, settings)
        return measured, found

    return run


def log_of(run: RunConfig, server: ServerConfig, fingerprint: str, latencies_s: list[float]) -> Log:
    results = [make_result(i, i / 100, [t]) for i, t in enumerate(latencies_s)]
    log = make_log(results, (0.0, len(results) / 100))
    return msgspec.structs.replace(log, run=run, server=server, fingerprint=fingerprint)


@pytest.mark.parametrize("most", [3.3, 37.0, 940.0])
def test_the_highest_rate_is_found_within_five_percent_in_few_points(searched, most: float) -> None:  # type: ignore[no-untyped-def]
    points, found = searched(capacity(most), "--request_rate", "10", "--find_max", "e2e_p90<1s")
    best = float(found.split(": ")[1].split()[0])
    assert 0.95 * most <= best <= most
    assert len({p.run.request_rate for p in points}) <= 14  # a grid of 5 % from 1/s to 1000/s has 142


@pytest.mark.parametrize("most", [1, 7, 100])
def test_the_most_clients_are_found_exactly_or_within_five_percent(searched, most: int) -> None:  # type: ignore[no-untyped-def]
    _, found = searched(capacity(most), "--num_clients", "4", "--find_max", "e2e_p90<1s")
    best = int(found.split(": ")[1].split()[0])
    assert (best == most) if most < 25 else (0.95 * most <= best <= most)


def test_no_load_is_tried_beyond_those_that_were_given(searched) -> None:  # type: ignore[no-untyped-def]
    points, found = searched(capacity(1e9), "--num_clients", "4", "20", "--find_max", "e2e_p90<1s")
    assert [p.run.num_clients for p in points] == [4, 8, 16, 20]
    assert "20 clients meets e2e_p90<1s, and no more was tried" in found


def test_a_server_that_meets_no_limit_is_said_to(searched) -> None:  # type: ignore[no-untyped-def]
    points, found = searched(capacity(0), "--num_clients", "8", "--find_max", "e2e_p90<1s")
    assert "no load meets e2e_p90<1s, not even 1 clients" in found
    assert len(points) == 8, "8, 4, 2 and 1 clients, each twice: one bad run is not believed"


def test_the_plan_of_a_search_is_where_it_begins() -> None:
    words = ["--backend", "vllm", "--dry_run", "--num_clients", "8", "4", "16", "--find_max", "e2e_p90<1s"]
    settings = arguments.parse(words)
    ((_, points),) = plan = sweep.make_plan(settings)
    assert {point.run.num_clients for point in points} == {4}
    assert "the first point of each search" in summary.plan_table(plan, settings)


def test_a_search_measures_nothing_twice(searched) -> None:  # type: ignore[no-untyped-def]
    words = ["--request_rate", "10", "--find_max", "e2e_p90<1s"]
    first, found = searched(capacity(37.0), *words)
    again, found_again = searched(capacity(37.0), *words)
    assert first and not again and found == found_again


def test_one_stalled_run_does_not_decide(searched) -> None:  # type: ignore[no-untyped-def]
    def stalls_once(run: RunConfig) -> list[float]:
        stalled = run.num_clients == 16 and run.repetition == 0
        return [10.0 if stalled or run.num_clients > 100 else 0.1] * run.num_requests

    _, found = searched(stalls_once, "--num_clients", "4", "--find_max", "e2e_p90<1s")
    assert 95 <= int(found.split(": ")[1].split()[0]) <= 100


def test_the_peak_is_found_from_both_sides(searched) -> None:  # type: ignore[no-untyped-def]
    """Requests/s that meet the SLA: 100 of 100 in a second, less the share that is slow, which is least at 24."""

    def server(run: RunConfig) -> list[float]:
        slow = abs(run.num_clients - 24) * run.num_requests // 100
        return [0.1] * (run.num_requests - slow) + [1e3] * slow

    _, found = searched(server, "--num_clients", "2", "--find_peak", "--num_requests", "200")
    assert "at 24 clients" in found


def test_limits_are_read() -> None:
    assert parse_limits("ttft_p99<2s, tpot_p90<=100ms") == (Limit("ttft", 0.99, 2.0), Limit("tpot", 0.9, 0.1))
    assert requests_needed(parse_limits("ttft_p99<2s")) == 381  # 1.96^2 x 0.99 / 0.01 = 380.3
    for wrong in ("ttft<2s", "ttft_p99<2", "speed_p99<1s", "ttft_p100<1s", ""):
        with pytest.raises(InputError, match="--find_max"):
            parse_limits(wrong)


def test_wilsons_interval_is_that_of_the_book() -> None:
    """Share 0.9 of 10, z 1.96, z^2 0.38415 a request: middle (0.9 + 0.19207) / 1.38415 = 0.78898, half 0.19286."""
    assert wilson_interval(9, 10) == (pytest.approx(0.5958, abs=1e-3), pytest.approx(0.9821, abs=1e-3))
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_share_near_its_limit_needs_another_run() -> None:
    limit = (Limit("e2e", 0.9, 1.0),)

    def run(good: int, n: int = 100) -> Log:
        return log_of(RunConfig(), ServerConfig(backend="b", model="m"), "", [0.1] * good + [2.0] * (n - good))

    assert decide([run(100)], limit) is True
    assert decide([run(91)], limit) is None
    assert decide([run(70)], limit) is None and decide([run(70), run(75)], limit) is False
    assert decide([run(91), run(92), run(89)], limit) is True
    assert decide([run(91), run(88), run(89)], limit) is False


def test_latency_from_schedule_counts() -> None:
    waited = make_result(0, 5.0, [0.1], scheduled_ns=0)
    assert not Limit("e2e", 0.9, 1.0).met_by(waited)
    assert Limit("e2e", 0.9, 1.0).met_by(make_result(0, 5.0, [0.1]))
