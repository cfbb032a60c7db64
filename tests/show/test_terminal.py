"""The table of results and what a colleague would say about them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import make_log, make_result
from warm_python import python

from servebench.analysis import sla
from servebench.log import schema, store
from servebench.log.schema import Log
from servebench.show import advice, terminal


def point(latency_s: float = 1.0, requests: int = 120, **changes: object) -> Log:
    """Requests of one client back to back; tokens at a quarter, half, three quarters and the end."""
    results = [
        make_result(i, i * latency_s, [latency_s * f for f in (0.25, 0.5, 0.75, 1)]) for i in range(requests)
    ]
    return make_log(results, (0.0, latency_s * requests), **({"num_clients": 1} | changes))


def cells(text: str, row: int = 0) -> list[str]:
    """Of a row of the table, as shown."""
    lines = text.splitlines()
    ruler = next(i for i, line in enumerate(lines) if line.startswith("---"))
    return re.split(r" {2,}", lines[ruler + 1 + row].strip())


def test_what_all_points_share_stands_above_the_table() -> None:
    text = terminal.table([point(num_clients=1), point(num_clients=2)])
    assert text.splitlines()[0].startswith("backend vllm, model meta-llama/Llama-2-7b-hf, tp 1")
    assert cells(text, 0)[0] == "1" and cells(text, 1)[0] == "2"


def test_both_throughputs_are_in_the_table() -> None:
    # 1 request/s completed; 4 clients / 1 s mean latency (as the blog has it)
    assert cells(terminal.table([point(num_clients=4, requests=60)]))[2:4] == ["1.00", "4.00"]


def test_runs_become_a_mean_with_its_interval() -> None:
    # Rates 1, 1.25 and 1.5: mean 1.25, 4.303 * 0.25 / sqrt(3) = 0.62
    runs = [point(1 / rate, repetition=i) for i, rate in enumerate((1.0, 1.25, 1.5))]
    assert cells(terminal.table(runs))[1:3] == ["3", "1.25 ±0.62"]


def test_a_single_run_has_the_interval_of_its_batches() -> None:
    # 20 batches of 6 requests, medians 1.95 and 2.05 s in turn: deviation 0.0513, times 2.093 / sqrt(20).
    latencies = np.concatenate([2.05 - 0.1 * (i % 2) + np.array([-5, 3, -1, 1, -3, 5]) / 10 for i in range(20)])
    sent = np.cumsum([0.0, *latencies])
    log = make_log([make_result(i, sent[i], [t / 2, t]) for i, t in enumerate(latencies)], (0.0, sent[-1]))
    text = terminal.table([log])
    assert "2.00 (±0.024)" in text and "1.00 (±0.012)" in text  # E2E, TTFT
    assert "(±) from the batches of a single run" in text
    assert "(±" not in terminal.table([point(requests=99)])


def test_runs_that_are_not_stationary_get_no_interval() -> None:
    growing = [make_result(i, float(i), [0.5 + i, 1.0 + i]) for i in range(200)]
    runs = [make_log(growing, (0.0, 200.0), num_clients=1, repetition=i) for i in range(3)]
    text = terminal.table(runs)
    assert cells(text)[2].endswith("?") and "±" not in text and "not stationary" in text
    assert any("not stationary (" in words and "--num_requests" in words for words in advice.of_point(runs[0]))


def test_a_percentile_that_too_few_samples_carry_is_marked() -> None:
    text = terminal.table([point(requests=63)])
    assert "~ fewer effective samples" in text and text.count("~ ") == 4  # p90 of three latencies, and the note
    assert "~" not in terminal.table([point(requests=64)])


def test_slas_are_columns() -> None:
    # TTFT 0.25 s and TPOT 0.25 s at 1 request/s
    text = terminal.table([point()], [sla.parse("ttft<0.3s"), sla.parse("fastgen-5"), sla.parse("tpot<0.2s")])
    assert "ttft<0.3s (req/s)" in text
    assert cells(text)[11:14] == ["1.00", "0.00", "0.00"]


def test_kinds_of_requests_with_the_same_means_are_told_apart() -> None:
    text = terminal.table([point(), point(scenario="D(2600,60)"), point(dataset="chats.json")])
    rows = [cells(text, row) for row in range(3)]
    assert [row[0] for row in rows] == ["2600", "D(2600,60)", "chats"], "one has lengths, the others a name"


def test_an_overloaded_point_is_marked() -> None:
    text = terminal.table([point(request_rate=1.0, overloaded=True)])
    assert cells(text)[-1] == "ok, overloaded" and "grew all through" in text
    assert "overloaded" not in terminal.table([point(request_rate=1.0)])


def test_doubts_are_marked() -> None:
    at_once = make_log([make_result(i, i, [0.5] * 4) for i in range(20)], (0.0, 20.0), num_clients=1)
    text = terminal.table([at_once])
    assert cells(text)[-1] == "ok, buffered" and "buffered: an answer's tokens came all at once" in text
    assert "(buffered)" in terminal.line(at_once)
    several = [point(repetition=i, verdict=v) for i, v in enumerate(("ok", "client-limited: late", "ok"))]
    assert cells(terminal.table(several))[-1] == "1 of 3 runs client-limited"


def test_settings_that_differ_are_columns() -> None:
    text = terminal.table([point(), point(stream=False)])
    assert text.splitlines()[1].split()[:2] == ["load", "stream"]
    assert [cells(text, row)[1] for row in (0, 1)] == ["True", "False"]


def test_settings_that_two_backends_never_share_are_no_columns() -> None:
    text = terminal.table([point(), point(backend="fastgen", api="mii")])
    assert "api" not in text and "mii" not in text


def test_the_first_answer_token_has_a_line_where_it_is_not_the_first() -> None:
    thinking = make_log([make_result(i, i, [0.1, 0.5, 0.9], first_answer_event=1) for i in range(20)], (0.0, 20.0))
    assert "first answer token, after the reasoning: p50 0.500" in terminal.line(thinking)
    assert "first answer token" not in terminal.line(point())


def test_a_failed_point_is_a_row_too() -> None:
    log = point()
    measured = msgspec.structs.replace(log, server_facts=schema.ServerFacts(urls=[], engine="vllm 1"))
    text = terminal.table([measured, msgspec.structs.replace(log, status="failed")])
    assert "engine" not in text, "a server that did not start tells no version, which is no other version"
    failed = schema.Log(**{f: getattr(point(), f) for f in Log.__struct_fields__} | {"status": "failed"})
    assert "point failed" in terminal.table([failed])


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (point(requests=10), "10 requests do not carry even a median; more --num_requests"),
        (point(verdict="client-limited: late; a free core"), "client-limited: late; a free core"),
        (
            make_log([make_result(0, 0, [1], error="reset")], (0, 1)),
            "1 of 1 requests failed, the first with: reset",
        ),
        (
            make_log([make_result(0, 0, [1], max_new_tokens=9)], (0, 1)),
            "1 of 1 answers are shorter than asked for",
        ),
        (
            make_log([make_result(0, 0, [1], cached_tokens=50)], (0, 1)),
            "held 50.0% of all prompt tokens, which share nothing; did an earlier benchmark",
        ),
        (
            make_log([make_result(0, 0, [1, 2, 3], max_new_tokens=1)], (0, 1)),
            "1 of 1 answers are longer than asked for",
        ),
        (
            make_log([make_result(0, 0, [1], finish_reason="content_filter")], (0, 1)),
            "1 of 1 answers ended with finish_reason content_filter",
        ),
        (make_log([make_result(0, 0, [1], retries=2)], (0, 1)), "were sent again, 2 times (--max_retries)"),
    ],
)
def test_a_colleague_warns(log: Log, words: str) -> None:
    assert any(words in said for said in advice.of_point(log))


def test_a_good_point_has_no_warning() -> None:
    assert advice.of_point(point()) == []


def test_a_window_that_warms_up_names_the_flag() -> None:
    """One client's answers take 3 s each for the first fifth, then 1 s: tokens/s settle after half a window."""
    latencies = [3.0] * 40 + [1.0] * 360
    sent = np.cumsum([0.0, *latencies])
    results = [make_result(i, sent[i], [lat / 2, lat]) for i, lat in enumerate(latencies)]
    assert any("still warming up; more --warmup" in w for w in advice.of_point(make_log(results, (0.0, sent[-1]))))


def test_throughput_that_contradicts_littles_law_is_named() -> None:
    """The window holds twice the requests in flight that those which count account for."""
    log = point()
    others = [make_result(i, float(i), [0.5, 1.0], phase="cooldown", finish_reason="cancelled") for i in range(60)]
    doubtful = make_log([*log.results, *others], (0.0, 120.0))
    assert any("Little's law" in words for words in advice.of_point(doubtful))


def test_a_queue_in_the_server_shows_between_points() -> None:
    def loaded(clients: int, ttft_s: float) -> Log:
        results = [make_result(i, float(i), [ttft_s, ttft_s + 0.1, ttft_s + 0.2]) for i in range(20)]
        return make_log(results, (0.0, 20.0), num_clients=clients)

    (said,) = advice.of_sweep([loaded(16, 6.0), loaded(1, 0.5), loaded(4, 1.0)])
    assert "1 to 16 clients" in said and "12.0-fold" in said and "--max_ragged_batch_size" in said
    assert advice.of_sweep([loaded(1, 0.5), loaded(16, 1.0)]) == []
    at_a_rate = make_log(loaded(1, 0.5).results, (0.0, 20.0), request_rate=1.0)  # its num_clients says nothing
    assert advice.of_sweep([loaded(16, 6.0), at_a_rate]) == []


def test_the_table_of_a_folder_is_shown_again(tmp_path: Path) -> None:
    for clients in (16, 8):
        log = point(num_clients=clients)
        store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    command = ["-m", "servebench", "summary", tmp_path, "--sla", "fastgen-2", "ttft<1s"]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    assert [cells(done.stdout, row)[0] for row in (0, 1)] == ["8", "16"]
    refused = python(*command[:-1], "nonsense")
    assert refused.returncode == 2 and "is not an SLA" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    log = point()
    store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    process = subprocess.Popen(
        [sys.executable, "-m", "servebench", "summary", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1
    process.stderr.close()
