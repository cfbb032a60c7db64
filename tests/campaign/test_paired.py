"""servebench paired: the order of servers and runs."""

from __future__ import annotations

import pytest
from warm_python import python

from servebench.campaign.paired import in_turn
from servebench.plan import arguments
from servebench.plan.sweep import ServerPlan, make_plan

SIDES = [
    "--backend openai --openai_api_url http://127.0.0.1:9",
    "--backend openai --openai_api_url http://127.0.0.1:11",
]


def plan_of(*sides: str, runs: int) -> list[ServerPlan]:
    """A plan that starts nothing: each side is attached to a server of this name."""
    words = "--backend openai --model m --num_clients 1 2 --seed 0"
    asked = [[*words.split(), "--openai_api_url", f"http://{side}", "--runs", str(runs)] for side in sides]
    return [each for words in asked for each in make_plan(*arguments.parse(words))]


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servebench.plan.sweep._version_at", lambda url, headers: "")


def starts(plan: list[ServerPlan]) -> list[tuple[str, list[int]]]:
    """Each server that is started, and the runs that are measured on it, in order."""
    return [(each.server.urls[0][-1], [run.repetition for run in each.strategy.runs]) for each in in_turn(plan)]


def test_a_server_that_ends_a_turn_begins_the_next() -> None:
    assert starts(plan_of("a", "b", runs=4)) == [
        ("a", [0, 0]),
        ("b", [0, 0, 1, 1]),
        ("a", [1, 1, 2, 2]),
        ("b", [2, 2, 3, 3]),
        ("a", [3, 3]),
    ]


def test_several_servers_are_measured_forwards_and_backwards() -> None:
    assert [name for name, _ in starts(plan_of("a", "b", "c", runs=3))] == ["a", "b", "c", "b", "a", "b", "c"]


def test_one_run_is_the_plan_itself() -> None:
    assert starts(plan_of("a", "b", runs=1)) == [("a", [0, 0]), ("b", [0, 0])]


def test_unlike_machines_may_be_compared_if_asked_for() -> None:
    """The option may stand anywhere, and is none of the benchmark's."""
    for words in (["--across", "machines", *SIDES], [*SIDES, "--across", "machines"]):
        done = python("-m", "servebench", "paired", *words, "--model", "m", "--dry_run")
        assert "across" not in done.stderr and "OPTIONS OF" not in done.stderr, done.stderr
    done = python("-m", "servebench", "paired", *SIDES, "--across", "engines")
    assert done.returncode == 2 and "--across" in done.stderr
