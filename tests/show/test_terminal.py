"""A point in the terminal, and what a colleague would say about it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from conftest import make_log, make_result

from servebench.log import schema
from servebench.log.schema import Log
from servebench.show import advice, terminal


def point(latency_s: float = 1.0, requests: int = 120, **changes: object) -> Log:
    """Requests of one client back to back; tokens at a quarter, half, three quarters and the end."""
    results = [
        make_result(i, i * latency_s, [latency_s * f for f in (0.25, 0.5, 0.75, 1)]) for i in range(requests)
    ]
    return make_log(results, (0.0, latency_s * requests), **({"num_clients": 1} | changes))


def test_a_good_point_is_one_line() -> None:
    assert terminal.line(point()) == "  1 client  1.00 req/s  TTFT 250 ms, p99 250  TPOT 250 ms, p99 250  120 ok"


def test_a_line_has_room_on_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = terminal.line(point(0.123, num_clients=16)).splitlines()[0]
    assert text.endswith("120 ok") and len(text) <= 80
    text = terminal.line(point(0.123, num_clients=1024, repetition=11)).splitlines()[0]
    assert len(text) <= 80 and " ok" not in text, "how many succeeded is left out where none failed"
    failing = make_log([make_result(i, i, [0.5, 1.0], error="x" if i else None) for i in range(9)], (0.0, 9.0))
    assert max(map(len, terminal.line(failing).splitlines())) <= 80


def test_answers_that_came_whole_have_their_latency() -> None:
    whole = make_log([make_result(i, i, [12.5], streamed=False) for i in range(20)], (0.0, 250.0), stream=False)
    text = terminal.line(whole)
    assert "E2E 12.5 s, p99 12.5 s" in text and "TTFT" not in text


def test_failed_requests_and_warnings_are_said_below() -> None:
    results = [make_result(i, i, [0.5, 1.0], error="HTTP 500" if i % 4 == 0 else None) for i in range(40)]
    first, *rest = terminal.line(make_log(results, (0.0, 40.0))).splitlines()
    assert first.endswith("10 of 40 failed")
    assert any(row.startswith("    warning: 10 of 40 requests failed, the first with: HTTP 500") for row in rest)


def test_a_warning_is_said_once_of_points_that_differ_in_its_numbers() -> None:
    said: set[str] = set()
    assert "client-limited" not in terminal.line(point())
    first, second = (point(verdict=f"client-limited: {n} ms late; a free core") for n in (3, 5))
    limited = terminal.line(first, warned=said)
    assert "client-limited" in limited.splitlines()[0] and "    warning: client-limited: 3 ms late" in limited
    assert "client-limited" in terminal.line(second, warned=said) and "warning" not in terminal.line(
        second, warned=said
    )


def test_a_failed_point_says_why_and_a_known_failure_shows_no_log_again() -> None:
    facts = schema.ServerFacts(urls=[], log_tail="out of memory")
    failed = msgspec.structs.replace(point(), status="failed", failure="it ended", server_facts=facts)
    assert terminal.line(failed).splitlines() == ["  1 client  FAILED: it ended", "    | out of memory"]
    assert terminal.line(failed, known=True) == "  1 client  FAILED: it ended"


def test_the_first_answer_token_has_a_line_where_it_is_not_the_first() -> None:
    thinking = make_log([make_result(i, i, [0.1, 0.5, 0.9], first_answer_event=1) for i in range(20)], (0.0, 20.0))
    assert "first answer token, after the reasoning: 500 ms" in terminal.line(thinking)
    assert "first answer token" not in terminal.line(point())


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (point(requests=10), "10 requests are too few even for a median; use more --num_requests"),
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
            "held 50.0% of all prompt tokens, although prompts share nothing; did an earlier benchmark",
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


def test_programs_that_took_the_cores_are_said() -> None:
    log = msgspec.structs.replace(point(others_cpu_share=0.45), client={"cores": 2})
    assert any("other programs wanted 0.9 of 2 cores" in words for words in advice.of_point(log))
    assert not any("other programs" in words for words in advice.of_point(point(others_cpu_share=0.05)))


def test_a_point_that_is_not_settled_names_the_flag() -> None:
    growing = [make_result(i, float(i), [0.5 + i, 1.0 + i]) for i in range(200)]
    words = advice.of_point(make_log(growing, (0.0, 200.0), num_clients=1))
    assert any(each.startswith("not settled (") and "--num_requests" in each for each in words)


def test_a_window_that_warms_up_names_the_flag() -> None:
    """One client's answers take 3 s each for the first fifth, then 1 s: tokens/s settle after half a window."""
    latencies = [3.0] * 40 + [1.0] * 360
    sent = np.cumsum([0.0, *latencies])
    results = [make_result(i, sent[i], [lat / 2, lat]) for i, lat in enumerate(latencies)]
    assert any(
        "still warming up; use more --warmup" in w for w in advice.of_point(make_log(results, (0.0, sent[-1])))
    )


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
    attached = {"urls": ("http://host:1/v1",), "backend": "openai"}
    running = [
        msgspec.structs.replace(log, server=msgspec.structs.replace(log.server, **attached))
        for log in (loaded(16, 6.0), loaded(1, 0.5))
    ]
    (said,) = advice.of_sweep(running)
    assert "--max-num-seqs" in said and "--max_ragged_batch_size" not in said, "it has options of its own"
    at_a_rate = make_log(loaded(1, 0.5).results, (0.0, 20.0), request_rate=1.0)  # its num_clients says nothing
    assert advice.of_sweep([loaded(16, 6.0), at_a_rate]) == []
