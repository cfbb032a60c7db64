"""Which server to run: the sentence, the ranks, what is left out, and the exit status."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from math import exp
from pathlib import Path

import pytest
from conftest import make_log, make_result, on_gpus
from msgspec.structs import replace
from warm_python import python

from servebench.analysis import capacity
from servebench.log import schema, store
from servebench.log.identity import fingerprint
from servebench.log.schema import Log, Quality
from servebench.log.telemetry import Gpu, Machine
from servebench.show import decide
from servebench.show.candidates import Decision, Question

SLA = "ttft_p90<500ms"


Numbers = dict[int, float]  # by clients


def server(backend: str, rates: Numbers, ttft_s: Numbers, spread: float = 0.0, **changes: object) -> list[Log]:
    """Logs of a server with these requests/s and TTFTs, which are all alike but for the spread."""
    return [point(backend, clients, rates[clients], ttft_s[clients], spread, **changes) for clients in rates]


def point(backend: str, clients: int, rate: float, ttft_s: float, spread: float = 0.0, **changes: object) -> Log:
    """Some 80 requests from so many clients, too few to ask whether they had settled."""
    latency_s, each = clients / rate, max(2, 80 // clients // 2 * 2)
    results = []
    for client in range(clients):
        for i in range(each):
            factor = 1 + spread * ((i + client) * 7 % 13 / 6 - 1)
            first = ttft_s * factor
            last = max(latency_s * (1 - spread if i % 2 else 1 + spread), first + 0.001)
            results.append(make_result(client * each + i, i * latency_s + client * 0.0001, [first, last]))
    window_s = (0.0, each * max(latency_s, ttft_s + 0.001) + clients * 0.0001)
    return make_log(results, window_s, backend=backend, num_clients=clients, **changes)


FAST = server("vllm", {1: 2, 4: 8, 8: 10, 16: 10}, {1: 0.1, 4: 0.2, 8: 0.4, 16: 1.2}, 0.05)
SLOW = server("llamacpp", {1: 2, 4: 6, 8: 6, 16: 6}, {1: 0.1, 4: 0.3, 8: 1.0, 16: 2.0}, 0.05)


def decided(logs: list[Log], sla: str = SLA, **asked: object) -> Decision:
    (found,) = decide.of_logs(logs, Question(decide.read_limits(sla), **asked))  # type: ignore[arg-type]
    return found


def written(folder: Path, logs: list[Log]) -> Path:
    for number, log in enumerate(logs):
        mark = fingerprint({"of": [log.server.backend, str(log.run), number // 1000]})
        marked = replace(log, fingerprint=mark, identity={"run": str(log.run), "server": str(log.server)})
        store.save(marked, folder / log.server.backend / schema.log_name(log.server, log.run, mark))
    return folder


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return python("-m", "servebench", "decide", folder, *words)


def test_the_best_server_and_by_how_much() -> None:
    found = decided(FAST + SLOW)
    text = decide.sentence(found)
    assert re.match(r"vLLM TP 1 x 1 serves 10\.0 \(\d\.\d+ to 1\d\.\d\) requests/s within", text)
    assert "requests/s within ttft_p90<500ms on 1 GPU, at" in text
    assert "times the requests/s a GPU of llama.cpp TP 1 x 1." in text
    assert found.beaten == [False, True] and not found.rivals
    best, other = found.candidates
    assert (best.capacity.below, best.capacity.above) == (8, 16)
    assert 8 <= best.capacity.size < 16 and 4 <= other.capacity.size < 8
    assert decide.interval(found.ratio(other))[0] > 1.4, "10 against 6 requests/s"


def test_between_two_loads_the_limit_is_crossed_by_the_stated_rule() -> None:
    logs = server("vllm", {4: 4, 16: 8}, {4: 0.25, 16: 1.0})
    found = decided(logs).candidates[0].capacity
    # 0.5 s lies half way between the logs of 0.25 and 1 s; they rise the later the steeper
    way = 0.5 ** exp(capacity.CURVE[0])
    assert found.size == int(4 * (16 / 4) ** way) == 9
    # mean E2E latency is 1 s and 2 s: in a straight line 1.42 s, and 9 / 8 s if it were full from where it rises
    assert found.rate == pytest.approx(9 / (1.417 + 0.25 * (9 / 8 - 1.417)), rel=0.01)


def test_a_server_that_more_load_slows_down_is_best_at_a_lower_one() -> None:
    found = decided(server("vllm", {4: 8, 8: 5, 16: 4}, {4: 0.1, 8: 0.2, 16: 2.0})).candidates[0].capacity
    assert (found.size, found.below, found.above) == (4, 8, 16) and found.rate == pytest.approx(8, rel=0.01)


def test_a_server_that_keeps_the_limits_at_every_load_serves_at_least_so_much() -> None:
    growing = server("vllm", {1: 2, 4: 8}, {1: 0.1, 4: 0.2})
    found = decided(growing + SLOW)
    assert found.best and found.best.capacity.at_least
    assert "vLLM TP 1 x 1 serves at least 8.00 (" in decide.sentence(found) and "or more)" in decide.sentence(
        found
    )
    assert any("No load above 4 clients was measured" in words for words in decide.doubts(found))
    flat = server("vllm", {4: 8, 8: 8}, {4: 0.1, 8: 0.2})
    assert not decided(flat).candidates[0].capacity.at_least, "more load gave it nothing more"


def test_one_that_may_serve_more_is_never_behind() -> None:
    open_ended = server("sglang", {1: 2, 4: 8}, {1: 0.1, 4: 0.2})
    found = decided(FAST + open_ended)
    assert [each.name for each in found.rivals] == ["SGLang TP 1 x 1"]
    assert "Not distinguishable from it: SGLang TP 1 x 1." in decide.sentence(found)
    assert "≈ 0.8" in decide.table(found) and "or more" in decide.table(found)


def test_equal_servers_are_not_distinguishable() -> None:
    twin = server("sglang", {1: 2, 4: 8, 8: 9.9, 16: 10}, {1: 0.1, 4: 0.2, 8: 0.41, 16: 1.2}, 0.1)
    assert decided(FAST + twin).rivals


def test_limits_that_nobody_keeps() -> None:
    found = decided(FAST + SLOW, "ttft_p90<1ms, e2e_p90<10s")
    assert found.best is None and not found.rivals
    text = decide.text(found)
    assert "No server keeps ttft_p90<1ms, e2e_p90<10s at any load that was measured; nearest: " in text
    assert "with ttft_p90 1" in text and "ms at 1 client" in text and "no load keeps the limits" in text


def test_a_lowest_load_that_is_too_much_leaves_lower_ones_open() -> None:
    high = server("sglang", {8: 20, 16: 20}, {8: 0.6, 16: 2.0})
    found = decided(FAST + high)
    assert found.candidates[1].capacity.rate == 0 and not found.beaten[1], "at 4 clients it might serve more"


def test_a_single_server_and_all_failed() -> None:
    assert "; no other server was measured." in decide.sentence(decided(FAST))
    failed = [replace(log, status="failed", failure="gone", results=[]) for log in SLOW]
    found = decided(FAST + failed)
    assert found.left_out == {"llama.cpp TP 1 x 1": "no point counts: 4 failed"}
    assert "; 1 other cannot be judged." in decide.sentence(found)
    nothing = decided(failed)
    assert decide.sentence(nothing) == "No server can be judged: no point of the folder counts."


def test_points_that_do_not_count_are_left_out_and_said() -> None:
    limited = [replace(log, quality=Quality(verdict="client-limited: late")) for log in FAST[2:]]
    found = decided(FAST[:2] + limited + SLOW)
    assert found.candidates[0].left_out == {"client-limited": 2}
    assert any("2 points left out: 2 client-limited (a quieter machine" in words for words in decide.doubts(found))
    assert found.candidates[0].capacity.at_least, "what it does above 4 clients is not known"


def test_an_overloaded_or_failing_load_exceeds_the_limits() -> None:
    over = replace(FAST[3], quality=Quality(verdict="ok", overloaded=True))
    found = decided([*FAST[:3], over]).candidates[0].capacity
    assert (found.below, found.above) == (8, 16)
    found = decided([*FAST[:2], failing(FAST[2], 10), FAST[3]]).candidates[0].capacity
    assert (found.below, found.above) == (4, 8)


def test_a_load_at_which_the_server_ended_exceeds_the_limits() -> None:
    died = [
        replace(log, status="failed", failure="the server ended with status 3", results=[]) for log in FAST[2:]
    ]
    found = decided([*FAST[:2], *died]).candidates[0].capacity
    assert (found.below, found.above, found.at_least) == (4, 8, False)
    notes = list(decide.doubts(decided([*FAST[:2], *died])))
    assert "At 8 clients: the server ended with status 3." in notes
    unstarted = [replace(log, failure="the server did not start: no memory") for log in died]
    assert decided([*FAST[:2], *unstarted]).candidates[0].capacity.at_least, "that says nothing of the load"


def failing(log: Log, every: int) -> Log:
    gone = {"error": "x", "event_ns": [], "event_tokens": []}
    return replace(log, results=[replace(r, **gone) if r.id % every == 0 else r for r in log.results])  # type: ignore[arg-type]


def test_how_many_requests_may_fail_the_limit_says() -> None:
    logs = [*FAST[:2], failing(FAST[2], 20), FAST[3]]  # 1 of 20 at 8 clients
    assert decided(logs).candidates[0].capacity.above == 8
    assert decided(logs, f"{SLA}, error_rate<10%").candidates[0].capacity.above == 16
    assert decided(logs, f"{SLA}, error_rate<2%").candidates[0].capacity.above == 8


def test_where_no_request_failed_a_limit_of_the_error_rate_changes_nothing() -> None:
    plain, with_rate = decided(FAST + SLOW), decided(FAST + SLOW, f"{SLA}, error_rate<1%")
    assert with_rate.beaten == plain.beaten == [False, True]
    assert decide.interval(with_rate.candidates[0].capacity.rates)[0] > 9


def test_requests_that_fail_at_the_lowest_load_are_the_reason() -> None:
    text = decide.sentence(decided([failing(log, 10) for log in FAST]))
    assert "nearest: vLLM TP 1 x 1: 8 of 80 requests failed at 1 client." in text


def test_a_target_that_no_server_reaches() -> None:
    found = decided(FAST + SLOW, objective="latency", target_rate=300.0)
    text = decide.sentence(found)
    assert text.startswith(
        "No server alone serves 300 requests/s within ttft_p90<500ms; most: vLLM TP 1 x 1, 10.0"
    )
    assert decide.table(found).count("does not serve the target") == 2
    one = decided(FAST + SLOW, objective="latency", target_rate=8.0)
    assert "; no other server serves 8 requests/s at a load that was measured." in decide.sentence(one)


def test_a_copy_of_a_log_is_no_second_run(tmp_path: Path) -> None:
    folder = written(tmp_path / "once", FAST)
    shutil.copytree(folder / "vllm", folder / "vllm backup")
    twice = json.loads(run(folder, "--sla", SLA, "--json").stdout)
    assert twice == json.loads(run(written(tmp_path / "again", FAST), "--sla", SLA, "--json").stdout)
    assert any("were measured once" in words for words in twice[0]["notes"])


def test_unlike_work_and_unlike_machines_are_left_out_with_the_reason() -> None:
    other = server("sglang", {1: 9, 4: 90}, {1: 0.1, 4: 0.1}, shared_prefix=(64, 1))
    found = decided(FAST + SLOW + other)
    assert "SGLang" not in decide.sentence(found).split(";")[0]
    assert "asked something else: shared_prefix" in found.left_out["SGLang TP 1 x 1"]
    machines = [Machine(cpu="big", cores=64), Machine(cpu="small", cores=2)]
    apart = [[replace(log, machine=m) for log in logs] for logs, m in zip((FAST, SLOW), machines, strict=True)]
    assert decided(apart[0] + apart[1]).left_out == {
        "llama.cpp TP 1 x 1": "measured on small, 2 cores, not big, 64 cores"
    }


def on_two_gpus(logs: list[Log], price: float | None = None) -> list[Log]:
    """As measured on two GPUs of 300 W."""
    machine = Machine(gpus=[Gpu(index=i, name="A100") for i in range(2)])
    return [replace(on_gpus(log, 300.0, 300.0), machine=machine, gpu_hour_price=price) for log in logs]


def on_gpus_of_both() -> tuple[list[Log], list[Log]]:
    """8 to 10 requests/s of two GPUs, 6 of one."""
    two = server("vllm", {4: 8, 8: 10}, {4: 0.1, 8: 0.51}, tp_size=2)
    one = server("vllm", {4: 6, 8: 6}, {4: 0.1, 8: 1.3})
    return on_two_gpus(two, 3.6), [replace(on_gpus(log, 300.0), gpu_hour_price=3.6) for log in one]


def test_per_gpu_cost_and_energy_are_those_of_the_load_that_keeps_the_limits() -> None:
    two = on_two_gpus(server("vllm", {4: 8, 8: 10}, {4: 0.1, 8: 0.5001}, tp_size=2), 3.6)
    one = [
        replace(on_gpus(log, 300.0), gpu_hour_price=3.6) for log in server("vllm", {4: 6, 8: 6}, {4: 0.1, 8: 1.3})
    ]
    found = decided(two + one, target_rate=20.0)
    assert found.per_gpu and found.candidates[0].gpus == 1, "6 requests/s of one GPU are more than 10 of two"
    other = found.candidates[1]
    tokens_per_s = 2 * other.capacity.rate
    assert other.dollars is not None
    assert other.dollars[0] == pytest.approx(2 * 3.6 / 3600 / tokens_per_s * 1e6, rel=0.05)
    assert other.energy_j == pytest.approx(600 / tokens_per_s, rel=0.05)
    assert "on 1 GPU, at" in decide.sentence(
        found
    ) and "20 requests/s take 4 such servers, 4 GPUs." in decide.sentence(found)
    row = decide.document(found)["candidates"][1]
    assert row["gpus_for_target"]["value"] == 6 and row["dollars_per_million_output_tokens"]["value"]


def test_objectives(tmp_path: Path) -> None:
    two = on_two_gpus(server("vllm", {4: 8, 8: 10}, {4: 0.1, 8: 0.6}, tp_size=2), 3.6)
    one = [
        replace(on_gpus(log, 300.0), gpu_hour_price=3.6) for log in server("vllm", {4: 6, 8: 6}, {4: 0.1, 8: 1.3})
    ]
    assert decided(two + one, objective="latency").candidates[0].gpus == 2, "4 clients / 8 per s"
    assert "mean E2E latency 500 (" in decide.sentence(decided(two + one, objective="latency"))
    assert decided(two + one, objective="cost").candidates[0].gpus == 1
    assert decided(two + one, objective="gpus", target_rate=5.0).candidates[0].gpus == 1
    found = decided(two + one, objective="latency", target_rate=7.0)
    assert not found.candidates[1].meets, "one GPU does not serve 7 requests/s"


def test_the_winner_at_other_limits() -> None:
    steep = server("llamacpp", {8: 9, 12: 9.1, 13: 14}, {8: 0.1, 12: 0.49, 13: 0.61}, 0.01)
    notes = list(decide.doubts(decided(FAST + steep)))
    assert any(
        words.startswith("With latency limits 25% looser llama.cpp TP 1 x 1 is the best") for words in notes
    )


def test_the_command_says_it_and_scripts_get_json_and_a_status(tmp_path: Path) -> None:
    folder = written(tmp_path, FAST + SLOW)
    ended = run(folder, "--sla", SLA)
    assert ended.returncode == 0 and ended.stdout.startswith("vLLM TP 1 x 1 serves 10.0 (")
    (found,) = json.loads(run(folder, "--sla", SLA, "--json").stdout)
    assert (
        found["best"] == "vLLM TP 1 x 1"
        and [each["name"] for each in found["candidates"]][1] == "llama.cpp TP 1 x 1"
    )
    assert (
        found["candidates"][0]["requests_per_s"]["low"] < 10.0 < found["candidates"][0]["requests_per_s"]["high"]
    )
    assert run(folder, "--sla", "ttft_p90<1ms").returncode == 1
    assert run(folder, "--sla", SLA, "--filter", "backend=vllm").returncode == 0


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--sla", "ttft<2s"], "write ttft_p99<2s"),
        (["--sla", "throughput>5"], "did you mean request_throughput?"),
        (["--sla", SLA, "--objective", "gpus"], "give it: --target_rate 20"),
        (["--sla", SLA, "--objective", "cost"], "no price is known; give --gpu_hour_price"),
        (["--sla", SLA, "--target_rate", "0"], "'0' is not a number of at least"),
        ([], "--sla"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, words: list[str], fault: str) -> None:
    ended = run(written(tmp_path, FAST), *words)
    assert ended.returncode == 2 and fault in ended.stderr and "Traceback" not in ended.stderr


def test_several_studies_are_decided_one_by_one(tmp_path: Path) -> None:
    other = [
        replace(log, run=replace(log.run, requests=replace(log.run.requests, mean_prompt_length=64)))
        for log in SLOW
    ]
    found = decide.of_logs(FAST + other, Question(decide.read_limits(SLA)))
    text = decide.said(found)
    assert len(found) == 2 and "prompt 64" in text and text.count("no other server was measured") == 2


def test_the_same_logs_give_the_same_answer() -> None:
    assert decide.text(decided(FAST + SLOW)) == decide.text(decided(FAST + SLOW))
