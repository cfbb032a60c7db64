"""--check over real sockets: questions during the load and alone, against a server that is taught to break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from servebench.analysis import answers, samples, trust
from servebench.log import store
from servebench.log.schema import Log
from servebench.show import answers as show
from servebench.workload import Request
from servebench.workload.checks import within_share
from servebench.workload.questions import BASIC, Question

Benchmark = Callable[..., tuple[int, str, str]]
LENGTHS = ("--mean_prompt_length", "64", "--mean_max_new_tokens", "16", "--max_new_tokens_var", "0")


@pytest.fixture
def checked(
    benchmark: Benchmark, reference: Callable[..., str], tokenizer_dir: Path, tmp_path: Path
) -> Callable[..., Log]:
    """Put a load with questions on servers with these options; gives the log."""

    def run(
        server: str,
        *arguments: object,
        requests: int = 2000,
        replicas: int = 1,
        clients: int = 16,
        status: int = 0,
    ) -> Log:
        options = ("--ttft", "0.004", "--gap", "0.0002", "--know", str(BASIC), *server.split())
        urls = [reference(*options) for _ in range(replicas)]
        load = [] if "--request_rate" in arguments else ["--num_clients", clients]
        where = ["--backend", "openai", "--openai_api_url", *urls, "--model", "reference"]
        asked = ["--tokenizer", tokenizer_dir, "--num_requests", requests, "--check", "basic"]
        code, out, err = benchmark(*where, *asked, *LENGTHS, *load, *arguments)
        assert code == status, out + err
        (path,) = (tmp_path / "results/openai").glob("*.json")
        return store.load(path)

    return run


def test_questions_are_asked_alone_and_under_load_and_are_in_no_other_figure(checked: Callable[..., Log]) -> None:
    log = checked("", "--num_workers", 2)
    found = answers.checked([log])
    assert found and found.n + sum(not each.scored for each in log.checks) == len(log.checks)
    assert 0.02 * 2000 < len(log.checks) <= 0.05 * 2000
    assert [each.question for each in log.checks_alone] == sorted(
        (each.question for each in log.checks), key=[each.question for each in log.checks_alone].index
    )
    assert (found.share, found.share_before) == (1, 1)
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
    assert found and found.share_before == 1
    if kind:
        assert flaws[kind] == pytest.approx(0.4 * 2000, rel=0.15) and len(flaws) == 1
        assert ("answers: broken" in trust.marks([log])) == (kind != "repeated")  # as healthy models do, too
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
    log = checked("", "--request_rate", 400, "--num_workers", 2, requests=2400)
    assert log.quality.verdict != "unknown" and 50 < len(log.checks) <= 120
    assert answers.verdict([log]) == "ok"


def test_questions_whose_server_fails_are_not_right(checked: Callable[..., Log]) -> None:
    log = checked("--fault status --fault_every 4", "--max_failed_share", "100%", requests=1000)
    failed = [each for each in log.checks if each.error]
    assert failed and not any(each.right for each in failed)


def test_chats_and_whole_answers(checked: Callable[..., Log]) -> None:
    log = checked("", "--api", "chat", "--no_stream", requests=1000)
    found = answers.checked([log])
    assert found and found.share == found.share_before == 1


def test_a_server_that_fails_its_questions_is_not_asked_on_alone(checked: Callable[..., Log]) -> None:
    log = checked("--fault status", "--max_failed_share", "100%", requests=600, status=1)
    assert len(log.checks_alone) == 3 and all("503" in str(each.error) for each in log.checks_alone)
    assert "answers failed, the first with: HTTP 503" in show.of_point([log])


def test_one_broken_replica_is_named(checked: Callable[..., Log]) -> None:
    log = checked("", replicas=2)
    wrong = [replace(each, right=each.right and each.server == 0) for each in log.checks]
    (words,) = show._replicas("vLLM", [replace(log, checks=wrong)])
    assert words.startswith("vLLM: replica 2 answers 0 of")


def test_the_cap_holds_in_requests_and_in_tokens() -> None:
    """Long prompts and long answers of any file; the mean of what was drawn is not that of the file."""
    rng = np.random.default_rng(0)
    measured = [Request("", int(n), int(n // 2)) for n in rng.integers(20, 200, 400)]
    few = [Question(str(i), "", (), "", "exact", int(rng.integers(1, 300))) for i in range(500)]
    taken = within_share(((each, int(rng.integers(1, 2000))) for each in few), measured)
    assert taken and len(taken) <= 0.05 * len(measured)
    assert sum(tokens for _, tokens in taken) <= 0.02 * sum(r.prompt_tokens for r in measured)
    assert sum(each.max_new_tokens for each, _ in taken) <= 0.02 * sum(r.max_new_tokens for r in measured)
