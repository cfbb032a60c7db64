"""What is said of answers: in the terminal, in tables, by compare, gate, decide and the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_log, make_result
from msgspec.structs import replace
from warm_python import python

from servebench.log import schema, store
from servebench.log.checks import Asked
from servebench.log.schema import Log, Quality
from servebench.show import answers, compare, decide, gate, summary
from servebench.show.candidates import Question

N = 200


def asked(right: int, tokens: str = "a b") -> list[Asked]:
    return [Asked(question=str(i), right=i < right, tokens=tokens.split()) for i in range(N)]


def log_of(backend: str, rate: float, alone: int, under: int, clients: int = 4, **changes: object) -> Log:
    """So many requests/s, and so many of 200 questions answered right."""
    latency_s = clients / rate
    results = [
        make_result(client * 30 + i, i * latency_s + client * 0.001, [latency_s / 2, latency_s])
        for client in range(clients)
        for i in range(30)
    ]
    log = make_log(results, (0.0, 30 * latency_s), backend=backend, num_clients=clients, check="basic")
    log = replace(log, client={"workload_sha256": "same"}, checks_alone=asked(alone), checks=asked(under))
    return replace(log, **changes)


GOOD, FAST_AND_WRONG = log_of("llamacpp", 10, 180, 180), log_of("vllm", 20, 120, 120)
BREAKS = log_of("vllm", 20, 180, 120)


def saved(folder: Path, *logs: Log) -> Path:
    for log in logs:
        store.save(log, folder / log.server.backend / schema.log_name(log.server, log.run))
    return folder


def test_the_line_of_a_point() -> None:
    assert answers.of_point([GOOD]) == (
        "answers: ok: 90% of 200 questions right under load, 90% alone; a drop of 7% would have been found"
    )
    few = replace(GOOD, checks=GOOD.checks[:6], checks_alone=GOOD.checks_alone[:6])
    assert answers.of_point([few]) == (
        "answers: not known (6 asked, which is too few): 100% of 6 questions right under load, 100% alone; "
        "a drop of 10% takes 200: more --num_requests"
    )
    assert answers.of_point([make_log([], None)]) == ""


def test_summary_has_a_column_a_line_for_each_server_and_names_who_answers_worse() -> None:
    text = " ".join(summary.report([GOOD, FAST_AND_WRONG]).split())
    assert "vLLM TP 1 x 1 ok 60% (53% to 67%) 60% 200 100% of 200" in text
    assert "llama.cpp TP 1 x 1 ok 90% (85% to 93%) 90% 200 100% of 200" in text
    assert (
        "vLLM TP 1 x 1 answers worse than llama.cpp TP 1 x 1 by more than chance: 60% of 200 questions right "
        "under load, llama.cpp TP 1 x 1 90%"
    ) in text


def test_the_faster_side_is_said_to_answer_worse() -> None:
    sides = compare.compared([GOOD], [FAST_AND_WRONG], ("A", "B"))
    text = " ".join(compare.text(sides).split())
    assert "But vLLM answers worse than llama.cpp by more than chance" in text
    equal = compare.compared([GOOD], [log_of("vllm", 20, 181, 179)], ("A", "B"))
    assert "answers worse" not in compare.text(equal)


def test_a_server_that_breaks_under_load_is_never_the_best() -> None:
    (found,) = decide.of_logs([GOOD, BREAKS], Question(decide.read_limits("e2e_p90<10s")))
    assert found.best and found.best.name == "llama.cpp TP 1 x 1"
    (alone,) = decide.of_logs([BREAKS], Question(decide.read_limits("e2e_p90<10s")))
    assert not alone.best
    assert "its answers are worse under load (60% against 90% alone) at 4 clients" in decide.sentence(alone)


def test_decide_takes_another_floor(tmp_path: Path) -> None:
    folder = saved(tmp_path, GOOD, FAST_AND_WRONG)
    limits = ("--sla", "e2e_p90<10s")
    best = python("-m", "servebench", "decide", folder, *limits).stdout
    assert best.startswith("vLLM TP 1 x 1 serves") and "answers worse than llama.cpp" in " ".join(best.split())
    floored = python("-m", "servebench", "decide", folder, *limits, "--check_floor", "80%").stdout
    assert floored.startswith("llama.cpp TP 1 x 1 serves")
    unknown = python("-m", "servebench", "decide", folder, *limits, "--check_floor", "90%").stdout
    assert "llama.cpp TP 1 x 1 left out: whether it keeps to --check_floor is not known" in " ".join(
        unknown.split()
    )


@pytest.mark.parametrize(
    ("limit", "log", "says"),
    [
        ("check_share>80%", GOOD, "pass"),
        ("check_share>=0.8", GOOD, "pass"),
        ("check_share>90%", GOOD, "cannot tell"),
        ("check_share>97%", GOOD, "FAIL"),
        ("check_share_alone>80%", BREAKS, "pass"),
        ("check_share>80%", BREAKS, "FAIL"),
        ("flawed_share<5%", GOOD, "pass"),
        ("e2e_p90<10s", BREAKS, "FAIL"),  # however fast it is
        ("check_share>80%", replace(GOOD, checks=[], checks_alone=[]), "cannot tell"),
        ("error_rate<50%", BREAKS, "FAIL"),
        ("check_share>80%", replace(GOOD, quality=Quality(verdict="client-limited: busy")), "pass"),
    ],
)
def test_limits_of_answers(limit: str, log: Log, says: str) -> None:
    (wanted,) = gate.read_limits(limit)
    assert gate.judge(wanted, "here", [log]).says == says


def test_the_report_says_it(tmp_path: Path) -> None:
    folder = saved(tmp_path, GOOD, BREAKS)
    ended = python("-m", "servebench", "report", folder, "--max_figures", "1")
    assert ended.returncode == 0, ended.stderr
    page = (folder / "report.html").read_text()
    assert "Are the answers right?" in page
    assert "answers: worse under load (60% against 90% alone)" in page
    assert "vLLM TP 1 x 1 answers worse than llama.cpp TP 1 x 1 by more than chance" in page
