"""The open loop and probes against the reference server: when requests leave, what a queue does to them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import errors, make_result

from servebench.analysis import latency, samples, throughput
from servebench.analysis.quality import growing, outstanding
from servebench.log import schema, store
from servebench.log.config import Trace
from servebench.log.result import Result
from servebench.log.schema import Log
from servebench.show import advice, terminal

Benchmark = Callable[..., tuple[int, str, str]]
SAMPLES = Path(__file__).parents[1] / "data/datasets"
ONE_TOKEN = ["--mean_max_new_tokens", 1, "--max_new_tokens_var", 0]
MOST_FAIL = ["--max_failed_share", "100%"]


@pytest.fixture
def load(
    benchmark: Benchmark, reference: Callable[..., str], tokenizer_dir: Path, results: Path
) -> Callable[..., Log]:
    """Start as many reference servers with these options, put a load on them, give its log."""

    def run(server: str, *arguments: object, servers: int = 1) -> Log:
        urls = [reference(*server.split()) for _ in range(servers)]
        where = ["--backend", "openai", "--openai_api_url", *urls, "--model", "m", "--tokenizer", tokenizer_dir]
        lengths = ["--mean_max_new_tokens", 5, *(() if "--dataset" in arguments else ("--mean_prompt_length", 16))]
        code, out, err = benchmark(*where, *lengths, *arguments)
        assert code == 0, out + err
        (path,) = (results / "openai").glob("*.json")
        return store.load(path)

    return run


def late_s(r: Result) -> float:
    return latency.schedule_wait_s(r)


def test_requests_leave_on_schedule_whether_or_not_the_last_ones_ended(load: Callable[..., Log]) -> None:
    log = load("--ttft 0.3 --gap 0", "--request_rate", 50, "--arrival", "constant", "--num_requests", 40)
    done = samples.succeeded(log)
    assert len(done) == 40 and [r.id for r in sorted(done, key=lambda r: r.id)] == list(range(40))
    scheduled = np.sort([r.scheduled_ns for r in done])
    assert np.diff(scheduled) == pytest.approx(0.02e9, abs=2)
    assert log.window_ns == pytest.approx((scheduled[0], scheduled[-1] + 20_000_000), abs=2), "40 gaps"
    assert log.quality.achieved_concurrency > 10  # 50/s x 0.3 s
    assert all(late_s(r) >= 0 for r in done)


def test_arrivals_go_on_before_and_behind_the_measured_ones(load: Callable[..., Log]) -> None:
    log = load("--ttft 0.2 --gap 0", "--request_rate", 100, "--num_requests", 30, "--warmup", 10)
    by_phase = {
        phase: [r.scheduled_ns or 0 for r in log.results if r.phase == phase]
        for phase in ("warmup", "measured", "cooldown")
    }
    assert len(by_phase["warmup"]) >= 10 and len(by_phase["measured"]) == 30
    assert max(by_phase["warmup"]) <= min(by_phase["measured"])
    assert min(by_phase["cooldown"]) >= max(by_phase["measured"])
    assert len({r.id for r in log.results}) == len(log.results)


def test_waiting_for_a_place_is_latency_from_schedule(load: Callable[..., Log]) -> None:
    """One place of 0.1 s, a request each 0.05 s: the k-th waits k x 0.05 s, then 0.1 s for its answer."""
    what = ["--request_rate", 20, "--arrival", "constant", "--max_concurrency", 1, "--warmup", 0, *ONE_TOKEN]
    log = load("--ttft 0.1 --gap 0", *what, "--num_requests", 12)
    done = sorted(samples.succeeded(log), key=lambda r: r.id)
    assert len(done) == 12
    for k, r in enumerate(done):
        place_free_ns = latency.end_ns(done[k - 1]) if k else r.scheduled_ns or 0
        assert 0.05 * k <= late_s(r) < (place_free_ns - (r.scheduled_ns or 0)) / 1e9 + 0.1
        assert latency.e2e_s(r) < 0.2
    assert [line.split(":")[0] for line in terminal.beside(log)] == ["from schedule"]


def test_a_server_below_the_offered_rate_is_marked_overloaded(load: Callable[..., Log]) -> None:
    """Capacity 100/s, offered 150/s: after k requests (k / 100 - k / 150) s of work wait, for the 240-th 0.8 s."""
    what = ["--request_rate", 150, "--arrival", "constant", "--num_requests", 240, "--warmup", 0, *ONE_TOKEN]
    log = load("--ttft 0.01 --gap 0 --slots 1", *what, "--max_concurrency", 16)
    last = max(samples.succeeded(log), key=lambda r: r.id)
    assert 0.7 < late_s(last) + latency.e2e_s(last) < 2
    assert latency.e2e_s(last) < 0.5, "latency from send is that of 16 requests, 0.16 s"
    assert log.quality.overloaded
    assert any("overloaded" in warning for warning in advice.of_point(log))


def test_a_server_that_keeps_up_is_not_overloaded(load: Callable[..., Log]) -> None:
    what = ["--request_rate", 50, "--num_requests", 200, *ONE_TOKEN]
    assert not load("--ttft 0.01 --gap 0 --slots 2", *what).quality.overloaded


def test_replicas_share_the_requests(load: Callable[..., Log]) -> None:
    log = load("--ttft 0.05 --gap 0", "--request_rate", 100, "--num_requests", 60, servers=2)
    assert [sum(r.server == s for r in samples.succeeded(log)) for s in (0, 1)] == pytest.approx([30, 30], abs=6)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_request_goes_to_a_free_replica_whoever_sends_it(load: Callable[..., Log], workers: int) -> None:
    """12/s at 4 servers of one place and 150 ms: each has a request in 333 ms, so none waits."""
    what = ["--request_rate", 12, "--arrival", "constant", "--num_requests", 24, *ONE_TOKEN]
    log = load("--ttft 0.15 --gap 0 --slots 1", *what, "--num_workers", workers, servers=4)
    done = sorted(samples.succeeded(log), key=lambda r: r.id)
    assert np.median([latency.ttft_from_schedule_s(r) for r in done]) == pytest.approx(0.15, abs=0.02)
    assert [sum(r.server == s for r in done) for s in range(4)] == pytest.approx([6] * 4, abs=2)


def places_left(log: Log, places: int) -> tuple[int, float]:
    """(most requests in flight, the share of all waits in which fewer than `places` were)."""
    changes = [(r.sent_ns, 1) for r in log.results] + [(latency.end_ns(r), -1) for r in log.results]
    times, steps = zip(*sorted(changes), strict=True)
    in_flight = np.cumsum(steps)
    idle = [(a, b) for a, b, n in zip(times, times[1:], in_flight, strict=False) if n < places]
    waits = [(r.scheduled_ns or 0, r.sent_ns) for r in log.results if r.phase != "cooldown"]
    left = sum(max(0, min(b, sent) - max(a, due)) for a, b in idle for due, sent in waits)
    return int(max(in_flight)), left / sum(sent - due for due, sent in waits)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_limit_is_one_for_all_load_processes(load: Callable[..., Log], workers: int) -> None:
    """Answers of 20 to 200 ms keep three of four places busy: who waits does so since all four are taken."""
    what = ["--request_rate", 28, "--num_requests", 70, "--max_concurrency", 4, "--seed", 1]
    what += ["--mean_max_new_tokens", 11, "--max_new_tokens_var", 0.5, "--length_distribution", "uniform"]
    log = load("--ttft 0.01 --gap 0.01", *what, "--num_workers", workers)
    assert len(samples.succeeded(log)) == 70 and len(log.quality.worker_cpu_share) == workers
    most, left = places_left(log, 4)
    assert most == 4
    assert max(late_s(r) for r in log.results) > 0.05, "nobody had to wait"
    assert left < 0.2  # with a limit a process, a quarter
    order = sorted((r for r in log.results), key=lambda r: r.scheduled_ns or 0)
    assert np.all(np.diff([r.sent_ns for r in order]) > -0.05e9), "first come, first served"


def test_the_window_opens_when_the_first_requests_have_ended(load: Callable[..., Log]) -> None:
    """Answers of 1 s, 20/s, a warm-up of 0.25 s: counted from then on, 15 requests of 40 would be missing."""
    what = ["--request_rate", 20, "--arrival", "constant", "--num_requests", 40, "--warmup", 5, *ONE_TOKEN]
    log = load("--ttft 1 --gap 0", *what, "--num_workers", 2)
    first = sorted(r.scheduled_ns or 0 for r in log.results)[0]
    assert log.window_ns and log.window_ns[0] - first >= 1.2e9
    assert throughput.request_throughput(log) == pytest.approx(20, rel=0.03)
    measured = np.sort([r.scheduled_ns for r in samples.measured(log)])
    every = np.sort([r.scheduled_ns for r in log.results])
    assert np.diff(measured) == pytest.approx(0.05e9, abs=2) and np.diff(every) == pytest.approx(0.05e9, abs=2)


def test_a_server_that_keeps_up_shows_the_offered_rate(load: Callable[..., Log]) -> None:
    """Random arrivals: as many requests end in the window as come round in it, whatever the seed."""
    what = ["--request_rate", 40, "--num_requests", 100, "--warmup", 10, "--seed", 3, *ONE_TOKEN]
    log = load("--ttft 1 --gap 0", *what)
    assert throughput.request_throughput(log) == pytest.approx(40, rel=0.03)
    assert throughput.littles_law_ratio(log) == pytest.approx(1, abs=0.05)


def test_the_offered_rate_is_shown_also_where_an_answer_takes_longer_than_the_window(
    load: Callable[..., Log],
) -> None:
    what = ["--request_rate", 20, "--num_requests", 12, "--seed", 3, "--num_workers", 2, *ONE_TOKEN]
    log = load("--ttft 1.5 --gap 0", *what)
    assert throughput.window_s(log) == pytest.approx(0.6)
    assert throughput.request_throughput(log) == pytest.approx(20, abs=1 / 0.6)  # one more or less at the edges
    measured = np.sort([r.scheduled_ns for r in samples.measured(log)])
    before = np.sort([r.scheduled_ns for r in log.results if r.phase == "warmup"])[-24:]
    assert before == pytest.approx(np.concatenate([measured - 1.2e9, measured - 0.6e9]), abs=10), (
        "two turns before"
    )


def test_no_warm_up_of_long_answers_is_warned_of(load: Callable[..., Log]) -> None:
    log = load("--ttft 1 --gap 0", "--request_rate", 20, "--num_requests", 40, "--warmup", 0, *ONE_TOKEN)
    assert any(words.startswith("--warmup 0:") for words in advice.of_point(log))
    more = msgspec.structs.replace(log, run=msgspec.structs.replace(log.run, warmup=1))
    assert not any("--warmup 0" in words for words in advice.of_point(more))


def test_a_warm_up_request_that_hangs_is_not_waited_for(load: Callable[..., Log]) -> None:
    what = ["--request_rate", 20, "--arrival", "constant", "--num_requests", 11, "--warmup", 20]
    log = load("--ttft 0.02 --gap 0 --fault stall --fault_every 16", *what, "--request_timeout", 4, *MOST_FAIL)
    assert log.window_ns and log.window_ns[0] - min(r.sent_ns for r in log.results) < 3e9


def test_failures_do_not_hold_the_schedule_up(load: Callable[..., Log]) -> None:
    log = load(
        "--ttft 0.01 --fault status --fault_every 3", "--request_rate", 100, "--num_requests", 60, *MOST_FAIL
    )
    assert len(samples.measured(log)) == 60
    assert len(errors(log)) == pytest.approx(20, abs=3)
    assert "-rate100.json" in schema.log_name(log.server, log.run)


def test_a_trace_is_sent_at_its_own_times(load: Callable[..., Log]) -> None:
    what = ["--dataset", SAMPLES / "azure.csv", "--trace_speed", 4, "--num_requests", 3, "--warmup", 0]
    log = load("--ttft 0.01 --gap 0", *what)
    times = np.sort([r.scheduled_ns for r in samples.measured(log)])
    assert np.diff(times) / 1e9 == pytest.approx([0.075, 0.3], abs=1e-5)  # 0.3 s and 1.2 s, four times as fast
    assert log.run.requests.dataset_sha256 and log.run.load == Trace(trace_speed=4)


def test_probes_are_short_and_stay_apart(load: Callable[..., Log]) -> None:
    log = load("--ttft 0.02 --gap 0.001", "--num_clients", 2, "--num_requests", 40, "--probe_rate", 50)
    assert len(log.probes) >= 10 and {r.phase for r in log.probes} == {"probe"}
    assert all(r.generated_tokens == 8 for r in log.probes if not r.error and r.finish_reason != "cancelled")
    assert len(samples.measured(log)) == 40 and {r.phase for r in log.results} <= {
        "warmup",
        "measured",
        "cooldown",
    }
    assert any(line.startswith("probes: TTFT") for line in terminal.beside(log))


def test_turns_of_a_conversation_are_sent_by_one_client_after_its_think_time(load: Callable[..., Log]) -> None:
    what = ["--dataset", SAMPLES / "sharegpt.json", "--multi_turn", "--think_time", 0.3, "--num_requests", 6]
    log = load("--ttft 0.01 --gap 0", *what, "--num_clients", 3, "--api", "chat", "--warmup", 0)
    assert len(samples.succeeded(log)) == 6
    pauses = []
    for client in range(3):
        turns = sorted((r for r in samples.succeeded(log) if r.client == client), key=lambda r: r.sent_ns)
        pauses += [b.sent_ns - (a.sent_ns + a.event_ns[-1]) for a, b in itertools.pairwise(turns)]
    assert len(pauses) == 3, "conversations of three, one and two requests, one a client"
    assert min(pauses) >= 0.3e9


def test_a_client_without_a_conversation_pauses_as_those_with_one_do(
    load: Callable[..., Log], tmp_path: Path
) -> None:
    """One conversation takes a second; two clients have none left soon, and would send 80 requests/s each."""
    turns = [[("human", "babe"), ("gpt", "gugo")] * n for n in (6, 1, 1)]
    entries = [{"conversations": [{"from": who, "value": text} for who, text in said]} for said in turns]
    (tmp_path / "chats.json").write_text(json.dumps(entries))
    what = ["--dataset", tmp_path / "chats.json", "--multi_turn", "--think_time", 0.2, "--num_requests", 8]
    log = load("--ttft 0.01 --gap 0", *what, "--num_clients", 3, "--warmup", 0)
    assert len(samples.succeeded(log)) == 8
    assert 2 <= sum(r.phase == "cooldown" for r in log.results) < 60


def test_requests_in_flight_are_those_that_should_have_left_and_have_not_ended() -> None:
    """Scheduled at 0, 1, 2, 3 s; the first ends at 1.5 s, the second fails at 2.5 s, the others never end."""
    results = [
        make_result(0, 0.5, [1.0], scheduled_ns=0),
        make_result(1, 2.5, [], scheduled_ns=1_000_000_000, error="x"),
        *(make_result(i, i, [], scheduled_ns=i * 1_000_000_000, finish_reason="cancelled") for i in (2, 3)),
    ]
    seen = outstanding(results, (0, 6_300_000_000))  # looks 0.1 s apart
    assert [seen[i] for i in (1, 11, 16, 21, 26, 31)] == [1, 2, 1, 2, 1, 2]


def test_a_server_that_hangs_is_overloaded() -> None:
    """20/s, and none ends before its timeout of 8 s."""
    results = [
        make_result(i, i / 20, [], scheduled_ns=i * 50_000_000, error="no end", ended_ns=8_000_000_000)
        for i in range(200)
    ]
    assert growing(outstanding(results, (0, 8_000_000_000)), 160)


@pytest.mark.parametrize(
    ("in_flight", "arrivals", "verdict"),
    [
        (np.arange(64), 200, True),  # a third stays behind
        (np.arange(64) / 8, 2000, False),  # 8 of 2,000: chance
        (np.full(64, 30), 200, False),
        (np.concatenate([np.arange(32), np.full(32, 32)]), 200, False),  # non_empty, then steady
        (np.arange(64)[::-1], 200, False),
    ],
)
def test_overload_is_growth_that_does_not_end(in_flight: np.ndarray, arrivals: int, verdict: bool) -> None:
    assert growing(in_flight, arrivals) is verdict
