"""Results against limits: what an interval tells, what nobody can tell, and the exit status that CI sees."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import make_log, make_result
from warm_python import python

from servebench.analysis import stats
from servebench.errors import InputError
from servebench.log import schema, store
from servebench.log.schema import Log
from servebench.log.telemetry import Machine
from servebench.show import gate
from servebench.show.gate import Finding

SAME = {"workload_sha256": "same"}


def log_of(latencies_s: list[float], failed: int = 0, **changes: object) -> Log:
    """Requests one after another, each with its first token at half of its latency; the last ones failed."""
    sent = np.cumsum([0.0, *latencies_s])
    results = [make_result(i, sent[i], [s / 2, s]) for i, s in enumerate(latencies_s)]
    for i in range(len(results) - failed, len(results)):
        results[i] = make_result(i, sent[i], [], error="HTTP 500", max_new_tokens=2)
    return msgspec.structs.replace(make_log(results, (0.0, float(sent[-1])), **changes), client=SAME)


def steady(mean_s: float, n: int = 400, repetition: int = 0, failed: int = 0, **changes: object) -> Log:
    """Independent latencies, up to 10 % around the mean."""
    rng = np.random.default_rng(repetition)
    return log_of((mean_s * rng.uniform(0.9, 1.1, n)).tolist(), failed, repetition=repetition, **changes)


def found(text: str, *runs: Log) -> Finding:
    (limit,) = gate.read_limits(text)
    return gate.judge(limit, "here", list(runs))


# The intervals.


def test_a_quantiles_interval_is_wilsons_turned_round() -> None:
    """90 % of 100: half = 1.96 sqrt(0.09 / 100) = 0.0588, ranks 84.12 and 95.88, so the 85th and the 96th."""
    values = np.arange(1.0, 101.0)
    assert stats.quantile_interval(values, 0.9, 100) == (85, 96)
    for limit in values:
        below = int((values < limit).sum())
        low, high = stats.wilson_interval(below, 100)
        assert (limit > 96) == (low >= 0.9), "beyond the interval: so many are below it that Wilson's is above 0.9"
        assert (limit <= 85) == (high < 0.9)
    assert stats.quantile_interval(values, 0.99, 100)[1] == float("inf"), "99.2 + 1.95 is more than there are"
    assert stats.quantile_interval(np.array([]), 0.5, 1) == (-float("inf"), float("inf"))


def test_values_are_independent_unless_their_batches_tell_otherwise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=4000)
    assert stats.independent(noise) == 4000
    slow = np.repeat(rng.normal(size=40), 100)  # 40 values, each a hundred times
    assert 20 < stats.independent(slow) < 80
    share = np.mean([stats.independent(rng.normal(size=400)) < 400 for _ in range(400)])
    assert 0.02 < share < 0.1, "5 % by chance"


def test_no_failure_of_36_requests_is_at_most_ten_percent() -> None:
    """Wilson: z^2 / (n + z^2) = 3.8415 / 39.8415 = 9.64 %; below 1 % takes z^2 0.99 / 0.01 = 380.3 requests."""
    told = found("error_rate<1%", steady(1.0, 36))
    assert (told.says, told.value, told.low) == ("cannot tell", 0.0, 0.0)
    assert told.high == pytest.approx(0.0964, abs=1e-4)
    assert told.why == "0 of 36 requests failed; about 390 would tell"
    assert found("error_rate<10%", steady(1.0, 36)).says == "pass"
    assert found("error_rate<1%", steady(1.0, 390)).says == "pass"
    assert found("error_rate<1%", *(steady(1.0, 130, i) for i in range(3))).says == "pass", "of all runs together"
    assert found("error_rate<1%", steady(1.0, 100, failed=10)).says == "FAIL"  # 5.5 % to 17.4 %


@pytest.mark.parametrize(
    ("limit", "n", "says"),
    [
        ("ttft_p99<0.6s", 400, "pass"),  # TTFT is 0.45 to 0.55 s
        ("ttft_p99<0.6s", 300, "cannot tell"),  # 381 requests are the fewest
        ("ttft_p99<0.5s", 300, "FAIL"),
        ("ttft_p50<0.5s", 300, "cannot tell"),  # the very median
        ("ttft_p50<0.52s", 300, "pass"),
        ("ttft_p50>0.48s", 300, "pass"),
        ("ttft_p50>0.52s", 300, "FAIL"),
        ("interactivity_p10>1.5", 400, "pass"),  # 1 / 0.55 = 1.8 tokens/s and more
        ("interactivity_p10>2", 400, "FAIL"),
    ],
)
def test_an_interval_decides_about_a_percentile(limit: str, n: int, says: str) -> None:
    assert found(limit, steady(1.0, n)).says == says


def test_runs_are_judged_together() -> None:
    assert found("ttft_p99<0.6s", *(steady(1.0, 150, i) for i in range(3))).says == "pass"
    told = found("ttft_p99<0.6s", *(steady(1.0, 100, i) for i in range(3)))
    assert told.says == "cannot tell" and told.why == "300 requests; about 390 would tell"


def test_correlated_requests_count_as_fewer() -> None:
    """Long waves: 1,000 requests know the median as well as some dozen."""
    waves = 1 + 0.3 * np.sin(np.arange(1000) / 60)
    values = (waves * np.random.default_rng(0).uniform(0.9, 1.1, 1000)).tolist()
    shuffled = np.random.default_rng(1).permutation(values).tolist()
    correlated, independent = found("ttft_p50<0.58s", log_of(values)), found("ttft_p50<0.58s", log_of(shuffled))
    assert (correlated.says, independent.says) == ("cannot tell", "pass")
    assert correlated.high - correlated.low > 2 * (independent.high - independent.low)


def test_the_interval_holds_for_a_queue_whose_percentiles_are_known() -> None:
    """M/M/1 at half load: times in the system are exponential with mean 1, but correlated."""
    rng = np.random.default_rng(0)

    def times(n: int = 1000, before: int = 1000) -> np.ndarray:
        served = rng.exponential(0.5, n + before)
        ahead = np.cumsum(np.append(0.0, served[:-1] - rng.exponential(1.0, n + before - 1)))
        waited = ahead - np.minimum.accumulate(ahead)
        return (waited + served)[before:]

    runs = [times() for _ in range(200)]
    for share in (0.5, 0.9, 0.99):
        truth = -np.log(1 - share)
        held = {}
        for name, worth in (("as many as they are", len), ("as they are worth", stats.independent)):
            ends = [stats.quantile_interval(values, share, worth(values)) for values in runs]
            held[name] = np.mean([low <= truth <= high for low, high in ends])
        assert held["as many as they are"] < 0.85 and held["as they are worth"] > 0.9, (share, held)


def test_in_an_open_loop_latency_counts_from_the_schedule() -> None:
    def late(log: Log) -> Log:
        results = [msgspec.structs.replace(r, scheduled_ns=r.sent_ns - 10**9) for r in log.results]
        return msgspec.structs.replace(log, results=results)

    run = late(steady(1.0, 400, request_rate=1.0))
    told = found("ttft_p50<1s", run)
    assert told.says == "FAIL" and told.value == pytest.approx(1.5, rel=0.05)
    assert found("tpot_p50<0.6s", run).says == "pass", "the time between tokens waits for nobody"


def test_failed_requests_meet_no_limit() -> None:
    told = found("ttft_p99<9s", steady(1.0, 400, failed=20))
    assert told.says == "FAIL" and told.value == float("inf")
    assert found("ttft_p50<9s", steady(1.0, 400, failed=20)).says == "pass"
    assert found("ttft_p1>0.1s", steady(1.0, 400, failed=20)).says == "FAIL", "whichever way a limit points"


def test_means_and_rates_come_from_runs_or_from_batches() -> None:
    three = [steady(s, 40, i) for i, s in enumerate((1.0, 1.02, 0.98))]
    rates = [1 / np.mean([r.event_ns[-1] / 1e9 for r in log.results]) for log in three]
    half = 4.303 * np.std(rates, ddof=1) / 3**0.5
    told = found("request_throughput>0.5", *three)
    assert told.says == "pass" and told.value == pytest.approx(np.mean(rates))
    assert (told.low, told.high) == (pytest.approx(np.mean(rates) - half), pytest.approx(np.mean(rates) + half))
    assert found("request_throughput>2", *three).says == "FAIL"
    assert found("request_throughput>1", *three).says == "cannot tell"
    one = found("e2e_mean<1.1s", steady(1.0, 400))
    assert one.says == "pass" and one.low < (one.value or 0) < one.high
    assert one.high - one.low == pytest.approx(2 * 1.96 * 0.2 / 12**0.5 / 20, rel=0.3), "uniform, a width of 0.2"
    few = found("e2e_mean<1.1s", steady(1.0, 40))
    assert (few.says, few.why) == ("cannot tell", "one run gives no interval for it; use --runs 5")


def test_no_sample_tells_of_every_request() -> None:
    with pytest.raises(InputError, match="write for example ttft_p99<600ms"):
        gate.read_limits("ttft<600ms")


# What is not the server's own, or not known.


@pytest.mark.parametrize(
    ("changes", "limit", "says", "why"),
    [
        ({"verdict": "client-limited: late"}, "ttft_p50<9s", "cannot tell", "the client was the limit"),
        ({"verdict": "client-limited: late"}, "ttft_p50<0.1s", "cannot tell", "the client was the limit"),
        ({"overloaded": True, "request_rate": 1.0}, "ttft_p50<9s", "FAIL", "overloaded"),
        ({"overloaded": True, "request_rate": 1.0}, "ttft_p50>0.1s", "cannot tell", "overloaded"),
        ({"overloaded": True, "request_rate": 1.0}, "request_throughput>0.5", "pass", ""),
        ({"stream": False}, "ttft_p50<9s", "pass", ""),
        ({}, "ttft_from_schedule_p50<9s", "cannot tell", "no request has such a value"),
    ],
)
def test_what_is_in_doubt_does_not_pass(changes: dict[str, object], limit: str, says: str, why: str) -> None:
    told = found(limit, steady(1.0, 400, **changes))
    assert told.says == says and why in told.why


def test_one_run_in_doubt_is_left_out() -> None:
    late = steady(9.0, 400, verdict="client-limited: late")
    assert found("ttft_p99<0.6s", steady(1.0, 400), late).says == "pass"
    told = found("ttft_p99<0.6s", steady(1.0, 100), late)
    assert told.why == "100 requests; about 390 would tell; 1 of 2 runs left out: the client was the limit"


def test_a_point_that_failed_fails_every_limit() -> None:
    failed = msgspec.structs.replace(steady(1.0, 9), status="failed", failure="it ended", results=[])
    told = found("ttft_p99<9s", steady(1.0, 400), failed)
    assert (told.says, told.why) == ("FAIL", "the point failed: it ended")


def test_answers_that_came_whole_tell_no_ttft() -> None:
    results = [make_result(i, i, [1.0], streamed=False) for i in range(30)]
    whole = make_log(results, (0.0, 30.0), stream=False)
    assert "came whole" in found("ttft_p50<9s", whole).why
    assert found("e2e_p50<9s", whole).says == "pass"


def test_a_point_that_has_not_settled_can_fail_but_not_pass() -> None:
    growing = log_of([1.0 + i / 100 for i in range(400)])  # TTFT from 0.5 to 2.5 s
    told = found("ttft_p99<9s", growing)
    assert told.says == "cannot tell" and told.why.startswith("not settled: ")
    assert found("ttft_p99<1s", growing).says == "FAIL"


# The command.


def saved(folder: Path, *logs: Log) -> str:
    for log in logs:
        store.save(log, folder / schema.log_name(log.server, log.run))
    return str(folder)


@pytest.fixture
def results(tmp_path: Path) -> str:
    """One client with TTFT of 0.45 to 0.55 s, two with twice as much."""
    return saved(tmp_path / "results", steady(1.0), steady(2.0, num_clients=2))


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["ttft_p99<2s, error_rate<1%"], 0, "passes: 2 limits at 2 points"),
        (["ttft_p99<0.7s, error_rate<1%"], 1, "fails: 1 of 2 limits"),
        (["error_rate<0.5%"], 0, "cannot tell: 1 of 1 limit (exit status 0; 1 with --strict); more requests"),
        (["error_rate<0.5%", "--strict"], 1, "which --strict counts as a failure"),
        (["ttft_p99<0.7s, error_rate<0.5%"], 1, "fails: 1 of 2 limits, and 1 cannot be judged"),
        (["ttft_p99<0.7s", "--filter", "num_clients=1"], 0, "passes: 1 limit at 1 point"),
        (["ttft_p99<2"], 2, "the limit needs a unit"),
        (["error_rate>1%"], 2, "write for example error_rate<1%"),
        (["ttft_p99<+5%"], 2, "name the results to compare with: --baseline FOLDER"),
        (["ttft_p99<2s", "--filter", "num_clients=9"], 2, "pass --filter; correct it"),
    ],
)
def test_the_exit_status_is_usable_in_ci(results: str, words: list[str], status: int, said: str) -> None:
    done = python("-m", "servebench", "gate", results, "--limits", *words)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert done.stderr.count("\n") == (status == 2)


def test_each_limit_has_a_line_and_each_point_that_does_not_pass(results: str) -> None:
    done = python("-m", "servebench", "gate", results, "--limits", "ttft_p99<0.7s, error_rate<1%")
    first, point, second, _ = done.stdout.splitlines()
    assert first.startswith("FAIL        ttft_p99<0.7s at 1 of 2 points, worst at 2 clients: 109")  # 1.1 s at most
    assert point.startswith("    FAIL        2 clients: 109") and " ms (" in point
    assert second == "pass        error_rate<1% at 2 points, worst at 1 client: 0.00% (0.00% to 0.95%)"


def test_a_failed_point_fails_on_the_command_line_and_an_empty_folder_is_bad_input(
    results: str, tmp_path: Path
) -> None:
    failed = steady(1.0, 4, num_clients=4)
    saved(Path(results), msgspec.structs.replace(failed, status="failed", failure="out of memory", results=[]))
    done = python("-m", "servebench", "gate", results, "--limits", "ttft_p99<9s")
    assert done.returncode == 1 and "4 clients: the point failed: out of memory" in done.stdout
    (tmp_path / "empty").mkdir()
    done = python("-m", "servebench", "gate", tmp_path / "empty", "--limits", "ttft_p99<9s")
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_all_of_it_is_there_as_json(results: str) -> None:
    done = python("-m", "servebench", "gate", results, "--limits", "ttft_p99<0.7s, error_rate<0.5%", "--json")
    told = json.loads(done.stdout)
    assert [(each["limit"], each["says"]) for each in told["limits"]] == [
        ("ttft_p99<0.7s", "FAIL"),
        ("error_rate<0.5%", "cannot tell"),
    ]
    points = told["limits"][0]["points"]
    assert [(point["point"], point["says"]) for point in points] == [("1 client", "pass"), ("2 clients", "FAIL")]
    assert points[0]["low"] < points[0]["value"] <= points[0]["high"] < 0.7


@pytest.mark.parametrize(
    ("limits", "status", "said"),
    [
        ("ttft_p99<+30%", 0, "passes"),
        ("ttft_p99<+5%", 1, "FAIL        ttft_p99<+5% at 2 points"),  # 1.25 times as long, with little spread
        ("request_throughput>-30%", 0, "passes"),
        ("request_throughput>-5%, error_rate<+5%", 1, "fails: 1 of 2 limits"),
        ("ttft_p99<+25%", 0, "cannot tell"),
        ("ttft_p99.5<+30%", 0, "passes"),  # a percentile that no column has
    ],
)
def test_changes_are_ratios_to_the_baseline(tmp_path: Path, limits: str, status: int, said: str) -> None:
    for side, speed in (("before", 1.0), ("after", 1.25)):
        logs = [steady(speed * n, 50, i, num_clients=n) for n in (1, 2) for i in range(3)]
        saved(tmp_path / side, *logs)
    command = ["-m", "servebench", "gate", tmp_path / "after", "--baseline", tmp_path / "before"]
    done = python(*command, "--limits", limits)
    assert done.returncode == status and said in done.stdout, done.stdout + done.stderr


def test_a_baseline_of_another_machine_is_refused(tmp_path: Path) -> None:
    for side, cpu in (("before", "EPYC"), ("after", "Xeon")):
        machine = Machine(cpu=cpu)
        saved(tmp_path / side, *(msgspec.structs.replace(steady(1.0, 50, i), machine=machine) for i in range(3)))
    command = ["-m", "servebench", "gate", tmp_path / "after", "--baseline", tmp_path / "before"]
    command += ["--limits", "ttft_p50<+20%"]
    done = python(*command)
    assert done.returncode == 2 and "A was measured on EPYC, B on Xeon; unlike machines" in done.stderr
    assert python(*command, "--across", "machines").returncode == 0


def test_a_point_that_the_baseline_does_not_have_cannot_be_told(tmp_path: Path) -> None:
    before = saved(tmp_path / "before", *(steady(1.0, 50, i) for i in range(3)))
    logs = [steady(1.0, 50, i, backend="sglang", num_clients=n) for n in (1, 2) for i in range(3)]
    after = saved(tmp_path / "after", *logs)
    done = python("-m", "servebench", "gate", after, "--baseline", before, "--limits", "ttft_p99<+20%")
    assert done.returncode == 0 and "2 clients: the baseline has no such point" in done.stdout, done.stderr
    single = saved(tmp_path / "single", steady(1.0, 50))
    done = python(
        "-m", "servebench", "gate", single, "--baseline", before, "--limits", "ttft_p99<+20%", "--strict"
    )
    assert done.returncode == 1 and "cannot tell" in done.stdout, "one run has no interval of a p99"


def test_marks_are_for_terminals_and_words_for_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [gate.sign(says).strip() for says in gate.SIGNS] == ["pass", "FAIL", "cannot tell"]
    monkeypatch.setattr(gate.tables, "on_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert [gate.sign(says) for says in gate.SIGNS] == ["✓", "✗", "?"]
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    assert all("\x1b[" in gate.sign(says) for says in gate.SIGNS)
