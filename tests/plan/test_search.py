"""The search for a load: it ends at a known capacity, in few points, by interval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from conftest import make_log, make_result, run_config

from servebench.analysis import sla
from servebench.analysis.limits import Limit
from servebench.analysis.sla import decide, goals, requests_needed
from servebench.analysis.stats import wilson_interval
from servebench.campaign import loop
from servebench.errors import InputError
from servebench.log import store
from servebench.log.config import RunConfig, ServerConfig
from servebench.log.result import Result
from servebench.log.schema import Log
from servebench.plan import arguments, sweep
from servebench.plan.strategies import History, Verdict
from servebench.show import plan_table, verdict

Ask = Callable[[RunConfig], list[float]]  # latencies that a server would have, s
Spoil = Callable[[Log], Log]  # what becomes of a log


def capacity(most: float) -> Ask:
    """0.1 s up to this load, 10 s beyond it."""
    return lambda run: [0.1 if run.load.size <= most else 10.0] * run.num_requests


@pytest.fixture
def searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Search on a server that is a function: (points measured, what was found in each search, in one text)."""

    def run(server: Ask, *words: str, spoil: Spoil = lambda log: log) -> tuple[list[sweep.Point], str]:
        base = ["--backend", "openai", "--openai_api_url", "http://127.0.0.1:1/v1", "--model", "m"]
        (plan,) = sweep.make_plan(*arguments.parse([*base, "--out_json_dir", str(tmp_path), *words]))
        measured, verdicts = searched_on(plan, server, spoil)
        loop.show_and_store(plan, verdicts)
        return measured, capsys.readouterr().out.rstrip("\n")

    return run


def searched_on(plan: sweep.ServerPlan, server: Ask, spoil: Spoil) -> tuple[list[sweep.Point], list[Verdict]]:
    """Every point that the strategy asks for and that has no log yet, and what it found."""
    history, measured = History(), []
    while asked := plan.strategy.next(history):
        point = plan.point(asked)
        if point.pending:
            measured.append(point)
            assert len(measured) < 100, "it looks for ever"
            log = log_of(asked, plan.server, point.fingerprint, server(asked))
            store.put(spoil(msgspec.structs.replace(log, identity=point.identity)), point.path)
        history.add(asked, store.load(point.path))
    return measured, plan.strategy.verdicts(plan.server, history)


def log_of(run: RunConfig, server: ServerConfig, fingerprint: str, latencies_s: list[float]) -> Log:
    results = [make_result(i, i / 100, [t]) for i, t in enumerate(latencies_s)]
    log = make_log(results, (0.0, len(results) / 100))
    return msgspec.structs.replace(log, run=run, server=server, fingerprint=fingerprint)


@pytest.mark.parametrize("most", [3.3, 37.0, 940.0])
def test_the_highest_rate_is_found_within_five_percent_in_few_points(searched, most: float) -> None:  # type: ignore[no-untyped-def]
    points, found = searched(
        capacity(most), "--request_rate", "10", "--find_max", "e2e_p90<1s", "--num_requests", "100"
    )
    best = float(found.split(": ")[1].split()[0])
    assert 0.95 * most <= best <= most
    assert len({p.run.load.size for p in points}) <= 14  # a grid of 5 % from 1/s to 1000/s has 142


@pytest.mark.parametrize("most", [1, 7, 100])
def test_the_most_clients_are_found_exactly_or_within_five_percent(searched, most: int) -> None:  # type: ignore[no-untyped-def]
    _, found = searched(capacity(most), "--num_clients", "4", "--find_max", "e2e_p90<1s")
    best = int(found.split(": ")[1].split()[0])
    assert (best == most) if most < 25 else (0.95 * most <= best <= most)


def test_no_load_is_tried_beyond_those_that_were_given(searched) -> None:  # type: ignore[no-untyped-def]
    points, found = searched(capacity(1e9), "--num_clients", "4", "20", "--find_max", "e2e_p90<1s")
    assert [p.run.load.size for p in points] == [4, 8, 16, 20]
    assert "20 clients meet e2e_p90<1s (e2e_p90 100 ms), and no more was tried" in found


def test_a_server_that_meets_no_limit_is_said_to(searched) -> None:  # type: ignore[no-untyped-def]
    points, found = searched(capacity(0), "--num_clients", "8", "--find_max", "e2e_p90<1s")
    assert "no load meets e2e_p90<1s, not even 1 client (e2e_p90 10.0 s over 2 runs)" in found
    assert len(points) == 8, "8, 4, 2 and 1 clients, each twice: one bad run is not believed"


@pytest.mark.parametrize("search", [["--find_max", "e2e_p90<0.01s"], ["--find_peak"]])
def test_a_rate_that_leaves_the_server_idle_is_not_lowered(searched, search: list[str]) -> None:  # type: ignore[no-untyped-def]
    """A request alone takes 0.1 s: at 0.75/s the server has one for 7.5 % of the time."""

    def spoil(log: Log) -> Log:
        gap_s, late = 1 / log.run.load.size, {"prompt_tokens": 1}  # which FastGen has 2 ms for
        results = [make_result(i, i * gap_s, [0.1], **late) for i in range(log.run.num_requests)]
        return msgspec.structs.replace(log, results=results, window_ns=(0, round(len(results) * gap_s * 1e9)))

    points, found = searched(capacity(0), "--request_rate", "3", *search, spoil=spoil)
    assert {p.run.load.size for p in points} == {3.0, 1.5, 0.75}
    assert "not even 0.75 requests/s" in found


def test_the_plan_of_a_search_is_where_it_begins() -> None:
    words = ["--backend", "vllm", "--dry_run", "--num_clients", "8", "4", "16", "--find_max", "e2e_p90<1s"]
    plan = sweep.make_plan(*arguments.parse(words))
    assert {run.load.size for run in plan[0].strategy.runs} == {4}
    assert "the first point of each search" in plan_table.table(plan)


def test_a_search_measures_nothing_twice(searched) -> None:  # type: ignore[no-untyped-def]
    words = ["--request_rate", "10", "--find_max", "e2e_p90<1s"]
    first, found = searched(capacity(37.0), *words)
    again, found_again = searched(capacity(37.0), *words)
    assert first and not again and found == found_again


def test_a_stall_in_one_run_does_not_decide(searched) -> None:  # type: ignore[no-untyped-def]
    """A quarter of one run, so 8 % of the three: what was seen in all of them together is within the limit."""

    def stalls_once(run: RunConfig) -> list[float]:
        stalled = run.num_requests // 4 if run.load.num_clients == 16 and run.repetition == 0 else 0
        rest = 10.0 if run.load.num_clients > 100 else 0.1
        return [10.0] * stalled + [rest] * (run.num_requests - stalled)

    _, found = searched(stalls_once, "--num_clients", "4", "--find_max", "e2e_p90<1s")
    assert 95 <= int(found.split(": ")[1].split()[0]) <= 100


def test_the_peak_is_found_from_both_sides(searched) -> None:  # type: ignore[no-untyped-def]
    """Requests/s that meet the SLA: 100 of 100 in a second, less the share that is slow, which is least at 24."""

    def server(run: RunConfig) -> list[float]:
        slow = abs(run.load.num_clients - 24) * run.num_requests // 100
        return [0.1] * (run.num_requests - slow) + [1e3] * slow

    _, found = searched(server, "--num_clients", "2", "--find_peak", "--num_requests", "200")
    assert "at 24 clients" in found


def limit_of(text: str) -> Limit:
    (found,) = goals(text)
    return found


def test_requests_that_a_limit_takes() -> None:
    assert requests_needed(goals("ttft_p99<2s")) == 381  # 1.96^2 x 0.99 / 0.01 = 380.3
    assert requests_needed(goals("ttft_p90<2s, error_rate<1%")) == 381


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("ttft<2s", "write ttft_p99<2s"),
        ("ttft_p99<2", "write ttft_p99<2s or ttft_p99<2ms"),
        ("ttft_mean<2s", "write ttft_p99<2s"),
        ("ttft_p99>2s", "write ttft_p99<2s"),
        ("ttft_p99<+5%", "write for example ttft_p99<2s"),
        ("request_throughput>5", "write for example ttft_p99<2s"),
        ("error_rate>1%", "write for example error_rate<1%"),
        ("error_rate<=0%", "write for example error_rate<1%"),
        ("speed_p99<1s", "no metric speed_p99"),
        ("ttft_p100<1s", "not a percentile"),
        ("", "it is empty"),
    ],
)
def test_what_a_search_cannot_judge_is_refused(wrong: str, words: str) -> None:
    with pytest.raises(InputError, match=r"^--find_max") as refused:
        goals(wrong)
    assert words in str(refused.value)


def test_failures_count_for_a_limit_of_the_error_rate() -> None:
    def run(failed: int) -> Log:
        results = [make_result(i, i, [0.1], **({"error": "HTTP 500"} if i < failed else {})) for i in range(400)]
        return make_log(results, (0.0, 400.0))

    assert sla.seen([run(2)], limit_of("error_rate<1%")) == 2 / 400
    assert decide([run(0)], goals("error_rate<1%")) is True
    assert decide([run(4)], goals("error_rate<1%")) is None, "1 % of 400, and that is not below 1 %"
    assert decide([run(20), run(20)], goals("error_rate<1%")) is False


def test_the_answer_is_found_again_however_its_limits_are_spaced(tmp_path: Path) -> None:
    def path(limits: str) -> Path:
        words = ["--backend", "vllm", "--dry_run", "--num_clients", "1", "--model", "m", "--find_max", limits]
        (plan,) = sweep.make_plan(*arguments.parse([*words, "--out_json_dir", str(tmp_path)]))
        (found,) = searched_on(plan, capacity(4), lambda log: log)[1]
        assert found.searched == "ttft_p99<2s,e2e_p99<100ms"
        return plan.verdict_path(found)

    assert path("ttft_p99<2s,e2e_p99<100ms") == path("ttft_p99 < 2.0s, e2e_latency_p99 < 100 ms")


def test_wilsons_interval_is_that_of_the_book() -> None:
    """Share 0.9 of 10, z 1.96, z^2 0.38415 a request: middle (0.9 + 0.19207) / 1.38415 = 0.78898, half 0.19286."""
    assert wilson_interval(9, 10) == (pytest.approx(0.5958, abs=1e-3), pytest.approx(0.9821, abs=1e-3))
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_share_near_its_limit_needs_another_run() -> None:
    limit = goals("e2e_p90<1s")

    def run(good: int, n: int = 100) -> Log:
        return log_of(run_config(), ServerConfig(backend="b", model="m"), "", [0.1] * good + [2.0] * (n - good))

    assert decide([run(100)], limit) is True
    assert decide([run(91)], limit) is None
    assert decide([run(70)], limit) is None and decide([run(70), run(75)], limit) is False
    assert decide([run(91), run(92), run(89)], limit) is True
    assert decide([run(91), run(88), run(89)], limit) is False
    assert decide([run(86), run(91), run(91)], limit) is False, "two of three, but 89.3 % of the requests"


def test_the_verdict_and_the_percentile_that_is_shown_say_the_same() -> None:
    """By requests of all runs together: 0.9 of 300 are the 270 fastest."""
    limit = limit_of("e2e_p90<0.6s")
    for slow in range(24, 37):
        runs = [
            log_of(run_config(), ServerConfig(backend="b", model="m"), "", [0.5] * (100 - n) + [0.7] * n)
            for n in (slow, slow // 2, 20)
        ]
        seen = sla.seen(runs, limit)
        assert seen is not None and decide(runs, [limit]) is (seen < 0.6)


def times(limit: str, *results: Result) -> list[float]:
    return sla.of_requests([make_log(list(results), (0.0, 9.0))], limit_of(limit)).tolist()


def test_latency_from_schedule_counts() -> None:
    assert times("e2e_p90<1s", make_result(0, 5.0, [0.1], scheduled_ns=0)) == [pytest.approx(5.1)]
    assert times("e2e_p90<1s", make_result(0, 5.0, [0.1])) == [pytest.approx(0.1)]
    assert times("tpot_p90<1s", make_result(0, 5.0, [0.1, 0.3], scheduled_ns=0)) == [pytest.approx(0.2)]


def test_what_is_not_known_never_meets_a_limit() -> None:
    whole = make_result(0, 0.0, [0.1], event_tokens=[9], generated_tokens=9)
    failed = make_result(0, 0.0, [0.1], error="HTTP 500", max_new_tokens=9)
    assert times("tpot_p90<1s", whole) == [float("inf")], "nine tokens in one event"
    assert times("itl_p90<1s", whole) == [float("inf")]
    assert times("e2e_p90<1s", failed) == [float("inf")]
    assert times("itl_p90<1s", failed) == [float("inf")] * 8, "the gaps that it should have had"
    assert times("tpot_p90<1s", make_result(0, 0.0, [0.1])) == [], "one token has no gap at all"


def test_answers_of_one_token_decide_nothing_about_tpot() -> None:
    ones = log_of(run_config(), ServerConfig(backend="b", model="m"), "", [0.1] * 50)
    assert decide([ones], goals("tpot_p90<1s")) is None
    assert decide([ones] * 3, goals("tpot_p90<1s")) == "no answer has such a time"


def broken_from(most: int, **changes: object) -> Spoil:
    """Logs of more clients than these are marked so: their status, or their client's verdict."""

    def spoil(log: Log) -> Log:
        if log.run.load.num_clients <= most:
            return log
        quality = msgspec.structs.replace(log.quality, **{k: v for k, v in changes.items() if k == "verdict"})
        return msgspec.structs.replace(
            log, quality=quality, **{k: v for k, v in changes.items() if k != "verdict"}
        )

    return spoil


@pytest.mark.parametrize(
    ("changes", "runs", "why"),
    [
        ({"verdict": "client-limited: late"}, 3, "the client was the limit"),
        ({"status": "failed", "failure": "only 3 of 48 requests came back"}, 1, "only 3 of 48 requests came back"),
    ],
)
def test_a_search_does_not_blame_the_server_for_the_client(
    searched: Callable[..., tuple[list[sweep.Point], str]], changes: dict[str, object], runs: int, why: str
) -> None:
    words = ["--num_clients", "4", "--find_max", "e2e_p90<1s"]
    points, found = searched(capacity(1000), *words, spoil=broken_from(100, **changes))
    assert [p.run.load.size for p in points] == [4, 8, 16, 32, 64, *[128] * runs]
    assert "64 clients meet " in found and f"at 128 clients nothing is known ({why}), nor above" in found
    assert "does not" not in found


def test_one_run_whose_client_was_late_does_not_end_a_search(searched) -> None:  # type: ignore[no-untyped-def]
    def spoil(log: Log) -> Log:
        return broken_from(15, verdict="client-limited: late")(log) if not log.run.repetition else log

    _, found = searched(capacity(40), "--num_clients", "4", "--find_max", "e2e_p90<1s", spoil=spoil)
    assert found.split(": ")[1].startswith(("39 clients", "40 clients"))


def test_a_peak_of_nothing_is_looked_for_below_and_then_said(searched) -> None:  # type: ignore[no-untyped-def]
    points, found = searched(capacity(0), "--num_clients", "4", "--find_peak", "--num_requests", "20")
    assert [p.run.load.size for p in points] == [4, 2, 1]
    assert "no load has requests that meet FastGen's SLAs at 4 tokens/s, not even 1 client" in found


def test_a_peak_below_the_first_load_is_found(searched) -> None:  # type: ignore[no-untyped-def]
    """A server that answers in time up to 5 clients, and more requests/s the more there are."""

    def server(run: RunConfig) -> list[float]:
        slow = 0 if run.load.num_clients <= 5 else run.num_requests
        late = run.num_requests * (5 - min(5, run.load.num_clients)) // 10
        return [1e3] * max(slow, late) + [0.1] * (run.num_requests - max(slow, late))

    _, found = searched(server, "--num_clients", "32", "--find_peak", "--num_requests", "200")
    assert "at 5 clients" in found


def test_each_server_has_a_conclusion_of_its_own(tmp_path: Path) -> None:
    """A batch of 8 takes 64 clients, one of 4 only 8: a mixture would say that 64 meets and 9 does not."""
    words = "--backend vllm --dry_run --max_ragged_batch_size 4 8 --num_clients 1 --find_max e2e_p90<1s"
    words += " --mean_prompt_length 9 --mean_max_new_tokens 9"
    plan = sweep.make_plan(*arguments.parse([*words.split(), "--out_json_dir", str(tmp_path)]))
    verdicts = [
        searched_on(server_plan, capacity(most), lambda log: log)[1][0]
        for server_plan, most in zip(plan, (8, 64), strict=True)
    ]
    small, large = (verdict.words(found, with_batch=True) for found in verdicts)
    assert "x 1, batch 4" in small and "8 clients meet " in small and "9 do not" in small
    assert "x 1, batch 8" in large and verdicts[1].best and 62 <= verdicts[1].best <= 64
    paths = [server_plan.verdict_path(found) for server_plan, found in zip(plan, verdicts, strict=True)]
    assert paths[0] != paths[1]


def test_the_answer_is_kept_beside_the_logs(searched, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, found = searched(capacity(7), "--num_clients", "4", "--find_max", "e2e_p90<1s")
    (file,) = (tmp_path / "openai").glob("searches/*.json")
    kept = msgspec.json.decode(file.read_bytes())
    assert (kept["words"], kept["best"], kept["searched"]) == (found, 7.0, "e2e_p90<1s")
    assert [(each["load"], each["says"]) for each in kept["loads"]] == [
        (4.0, "meets"),
        (6.0, "meets"),
        (7.0, "meets"),
        (8.0, "does not meet"),
    ]
    assert all((tmp_path / "openai" / name).exists() for each in kept["loads"] for name in each["logs"])
    file.rename(file.with_name("of-clients4.json"))  # whatever a dataset is called, it is no log
    for folder in (tmp_path, tmp_path / "openai"):
        assert len(list(store.load_folder(folder))) == sum(each["runs"] for each in kept["loads"])


def test_an_answer_that_cannot_be_kept_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--backend vllm --dry_run --num_clients 1 --find_max e2e_p90<1s --model m"
    (plan,) = sweep.make_plan(*arguments.parse([*words.split(), "--out_json_dir", str(tmp_path)]))
    (found,) = searched_on(plan, capacity(4), lambda log: log)[1]
    (tmp_path / "vllm/searches").touch()
    with pytest.raises(OSError):
        loop.show_and_store(plan, [found])
    assert "4 clients meet " in capsys.readouterr().out


def test_a_load_that_is_too_much_for_the_server_is_said_to_overload_it(searched) -> None:  # type: ignore[no-untyped-def]
    """Its latencies were within the limit, which alone would be a riddle."""

    def spoil(log: Log) -> Log:
        quality = msgspec.structs.replace(log.quality, overloaded=log.run.load.size > 20)
        return msgspec.structs.replace(log, quality=quality)

    _, found = searched(capacity(1e9), "--request_rate", "10", "--find_max", "e2e_p90<1s", spoil=spoil)
    assert "20 requests/s meet e2e_p90<1s (e2e_p90 100 ms); " in found and found.endswith("do not (overloaded)")
