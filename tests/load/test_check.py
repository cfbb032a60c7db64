"""--check over real sockets: questions during the load and alone, against a server that is taught to break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from servebench.analysis import answers, samples, trust
from servebench.log import store
from servebench.log.schema import Log
from servebench.workload.questions import BASIC

Benchmark = Callable[..., tuple[int, str, str]]
LENGTHS = ("--mean_prompt_length", "64", "--mean_max_new_tokens", "16", "--max_new_tokens_var", "0")


@pytest.fixture
def checked(
    benchmark: Benchmark, reference: Callable[..., str], tokenizer_dir: Path, tmp_path: Path
) -> Callable[..., Log]:
    """Put a load with questions on servers with these options; gives the log."""

    def run(server: str, *arguments: object, requests: int = 2000, replicas: int = 1, clients: int = 16) -> Log:
        options = ("--ttft", "0.004", "--gap", "0.0002", "--know", str(BASIC), *server.split())
        urls = [reference(*options) for _ in range(replicas)]
        load = [] if "--request_rate" in arguments else ["--num_clients", clients]
        where = ["--backend", "openai", "--openai_api_url", *urls, "--model", "reference"]
        asked = ["--tokenizer", tokenizer_dir, "--num_requests", requests, "--check", "basic"]
        code, out, err = benchmark(*where, *asked, *LENGTHS, *load, *arguments)
        assert code == 0, out + err
        (path,) = (tmp_path / "results/openai").glob("*.json")
        return store.load(path)

    return run


def test_questions_are_asked_alone_and_under_load_and_are_in_no_other_figure(checked: Callable[..., Log]) -> None:
    log = checked("", "--num_workers", 2)
    found = answers.checked([log])
    assert found and found.n + sum(not each.scored for each in log.checks) == len(log.checks)
    assert 0.03 * 2000 < len(log.checks) <= 0.05 * 2000
    assert [each.question for each in log.checks_alone] == sorted(
        (each.question for each in log.checks), key=[each.question for each in log.checks_alone].index
    )
    assert (found.right, found.right_alone, found.lost) == (found.n, found.n, 0)
    assert answers.verdict([log]) == "ok"
    assert len(samples.measured(log)) == 2000 and {r.phase for r in log.results} == {
        "warmup",
        "measured",
        "cooldown",
    }
    same = answers.agreement(answers.alone_and_under_load([log]))
    assert same and same.share == 1 and same.pairs == len(log.checks)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("--broken wrong", ""),
        ("--broken swap", ""),
        ("--broken repeat", "repeated"),
        ("--broken truncate", "truncated"),
        ("--broken nan", "repeated"),
        ("--broken blank", "blank"),
        ("--broken invalid", "invalid UTF-8"),
    ],
)
def test_every_way_to_break_above_a_load_is_found(checked: Callable[..., Log], how: str, kind: str) -> None:
    """Above two streams, for four of ten answers; alone the server is as it was."""
    log = checked(f"{how} --broken_above 2 --broken_share 0.4")
    found, flaws = answers.checked([log]), answers.flaws(log)
    assert found and found.share_alone == 1
    if kind:
        assert flaws[kind] == pytest.approx(0.4 * 2000, rel=0.15) and len(flaws) == 1
        assert "answers: broken" in trust.marks([log])
    if kind not in ("truncated", "invalid UTF-8"):  # what is left of a short answer may still be right
        assert answers.verdict([log]).startswith("worse under load")
        assert trust.wrong_answers([log])
    if not kind:
        assert not flaws


def test_what_is_wrong_alone_too_is_not_worse_under_load(checked: Callable[..., Log]) -> None:
    log = checked("--wrong_share 0.5", "--check_floor", "88%")
    assert answers.check_share(log) == pytest.approx(0.5, abs=0.12)
    assert answers.verdict([log]).startswith("below --check_floor")


def test_each_replica_answers_its_questions_alone_and_under_load(checked: Callable[..., Log]) -> None:
    log = checked("", replicas=2)
    servers = {each.question: each.server for each in log.checks}
    assert set(servers.values()) == {0, 1}
    assert servers == {each.question: each.server for each in log.checks_alone}


def test_an_open_loop_asks_too(checked: Callable[..., Log]) -> None:
    log = checked("", "--request_rate", 300, "--num_workers", 2, requests=1000)
    assert log.quality.verdict != "unknown" and len(log.checks) == pytest.approx(50, abs=2)
    assert answers.verdict([log]) == "ok"


def test_questions_whose_server_fails_are_not_right(checked: Callable[..., Log]) -> None:
    log = checked("--fault status --fault_every 4", "--max_failed_share", "100%", requests=1000)
    failed = [each for each in log.checks if each.error]
    assert failed and not any(each.right for each in failed)


def test_chats_and_whole_answers(checked: Callable[..., Log]) -> None:
    log = checked("", "--api", "chat", "--no_stream", requests=1000)
    found = answers.checked([log])
    assert found and found.right == found.right_alone == found.n
