"""Questions with known answers: what is said of them, against theory and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_log, make_result
from msgspec.structs import replace

from servebench.analysis import answers, capacity, metrics, trust
from servebench.log.checks import Asked
from servebench.log.schema import Log
from servebench.log.telemetry import EngineUse, Telemetry

N = 250


def log_of(alone: np.ndarray, under: np.ndarray, **fields: object) -> Log:
    """The log of a point whose questions were answered so (right or not)."""
    asked = [
        [Asked(question=str(i), right=bool(right)) for i, right in enumerate(side)] for side in (alone, under)
    ]
    log = make_log([make_result(i, i / 10, [0.1, 0.2]) for i in range(200)], (0.0, 20.0))
    return replace(log, checks_alone=asked[0], checks=asked[1], **fields)


def simulated(rng: np.random.Generator, drop: float) -> Log:
    """A model that knows 80 % of the answers, and of 5 % of the questions now one thing, now another."""
    known = np.where(rng.random(N) < 0.05, 0.5, rng.random(N) < 0.8)
    alone, under = rng.random(N) < known, rng.random(N) < known
    return log_of(alone, under & ~(rng.random(N) < drop / 0.8))


def test_a_drop_of_ten_points_is_found_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(20)
    found, false = (
        sum(answers.verdict([simulated(rng, drop)]) != "ok" for _ in range(200)) for drop in (0.1, 0.0)
    )
    assert found >= 190
    assert false <= 2


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (7, 0), (8, 0), (9, 1), (20, 8), (25, 8)])
def test_the_test_is_the_binomial_one(lost: int, won: int) -> None:
    """Against the distribution itself, drawn."""
    drawn = np.random.default_rng(1).binomial(lost + won, 0.5, 2_000_000)
    p = answers.chance((-1,) * won + (1,) * lost)
    assert p == pytest.approx(float((drawn >= lost).mean()), abs=1e-3)
    assert p == pytest.approx(answers.chance((-12,) * won + (12,) * lost))


def test_differences_of_several_sizes_are_flipped_one_by_one() -> None:
    differences = np.array([60, 60, 30, 20, -40, 60, 15, -5, 60, 60])
    signs = np.random.default_rng(2).choice([-1, 1], (200_000, len(differences)))
    drawn = (signs * np.abs(differences)).sum(axis=1)
    expected = float((drawn >= differences.sum()).mean())
    assert answers.chance(tuple(differences.tolist())) == pytest.approx(expected, abs=2e-3)


def test_the_smallest_drop_is_the_one_that_is_found() -> None:
    rng, drop = np.random.default_rng(2), answers.smallest_drop(N, 6)
    assert drop

    def share_found(drop: float) -> float:
        lost = rng.binomial(N, drop + 6 / N, 2000)
        return float(np.mean([answers.chance((-1,) * 6 + (1,) * int(n)) < answers.LEVEL for n in lost]))

    assert share_found(drop) >= 0.93
    assert share_found(drop - 0.02) < 0.95
    assert answers.smallest_drop(7, 0) is None
    assert answers.needed(0.1) <= N
    assert 0.01 <= (answers.smallest_drop(14000, 900) or 0) <= 0.02  # of all of MMLU


def alike(right: int, of: int) -> np.ndarray:
    return np.arange(of) < right


@pytest.mark.parametrize(
    ("alone", "under", "floor", "words"),
    [
        (alike(90, 100), alike(90, 100), None, "ok"),
        (alike(90, 100), alike(71, 100), None, "worse under load (71% against 90% alone)"),
        (alike(71, 100), alike(90, 100), None, "ok"),
        (alike(70, 100), alike(70, 100), 0.88, "below --check_floor (70%, at most 78%, against 0.88)"),
        (alike(90, 100), alike(90, 100), 0.88, "not known (90% is too near --check_floor 0.88, with 100 asked)"),
        (alike(99, 100), alike(99, 100), 0.88, "ok"),
        (alike(0, 100), alike(0, 100), None, "not known (too few are right alone)"),
        (alike(0, 100), alike(0, 100), None, "not known (too few are right alone)"),
        (alike(5, 5), alike(0, 5), None, "not known (5 asked, which is too few)"),
    ],
)
def test_verdicts(alone: np.ndarray, under: np.ndarray, floor: float | None, words: str) -> None:
    assert answers.verdict([log_of(alone, under, check_floor=floor)]) == words


def test_no_questions_no_verdict() -> None:
    assert answers.verdict([make_log([], None)]) == ""
    assert answers.check_share(make_log([], None)) is None


def test_a_question_of_several_runs_counts_once() -> None:
    """Runs that repeat the same seven losses are no more evidence than one."""
    run = log_of(alike(90, 100), alike(83, 100))
    assert answers.verdict([run] * 5) == "ok"
    assert answers.checked([run] * 5) == answers.checked([run])


def test_more_runs_hide_nothing() -> None:
    """A server that answers each question wrongly now and then, at random: more runs find it the better."""
    rng, known = np.random.default_rng(3), np.ones(324, dtype=bool)
    for runs in (1, 2, 5):
        found = answers.checked([log_of(known, rng.random(324) >= 0.07) for _ in range(runs)])
        assert found and found.share == pytest.approx(0.93, abs=0.03) and found.worse()


def test_runs_raise_no_more_false_alarms() -> None:
    """Questions that are answered now so, now so, alone too."""
    rng, false = np.random.default_rng(4), 0
    for _ in range(200):
        known = np.where(rng.random(N) < 0.1, 0.5, rng.random(N) < 0.8)
        alone = rng.random(N) < known
        false += answers.verdict([log_of(alone, rng.random(N) < known) for _ in range(3)]).startswith("worse")
    assert false <= 2


def test_worse_answers_decide_nothing_and_are_more_than_the_server_sustains() -> None:
    worse = log_of(alike(90, 100), alike(60, 100))
    found = trust.of_point([worse], "ttft_p99_s")
    assert found and found.mark == "answers: worse under load (60% against 90% alone)"
    assert trust.of_point([worse], "check_share") is None  # that is the number that says so
    assert capacity.exceeded([worse]).startswith("its answers are worse under load")
    assert not capacity.exceeded([log_of(alike(90, 100), alike(90, 100))])


# What answers look like.


def flawed(n: int, **how: object) -> Log:
    results = [make_result(i, i / 10, [0.1, 0.2], **(how if i < n else {})) for i in range(100)]
    return make_log(results, (0.0, 10.0))


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"flaw": "repeated"}, "repeated"),
        ({"flaw": "blank"}, "blank"),
        ({"finish_reason": "length", "max_new_tokens": 9}, "truncated"),
        ({"finish_reason": "abort", "error": "the server ended the answer"}, "aborted"),
        ({"error": "empty answer: no text and no tokens"}, "blank"),
    ],
)
def test_answers_are_broken_where_many_are_flawed(how: dict[str, object], kind: str) -> None:
    many = 62 if kind == "repeated" else 30
    assert answers.flaws(flawed(many, **how)) == {kind: many}
    assert metrics.values(flawed(many, **how))["flawed_share"] == pytest.approx(many / 100)
    assert answers.broken(flawed(many, **how)) == f"{many}% of its answers are broken ({many} {kind})"
    assert "answers: broken" in trust.marks([flawed(many, **how)])
    assert answers.broken(flawed(many - 5, **how)) is None, "the interval holds the limit"
    assert answers.broken(replace(flawed(many, **how), max_flawed_share=1.0)) is None
    if kind != "repeated":
        assert answers.broken(replace(flawed(20, **how), max_flawed_share=0.1))


def test_greedy_models_repeat_themselves() -> None:
    """34 to 58 % of answers of 128 tokens of a healthy SmolLM2 do, at temperature 0."""
    greedy = flawed(62, flaw="repeated")
    greedy = replace(greedy, run=replace(greedy.run, temperature=0.0))
    assert metrics.values(greedy)["flawed_share"] == pytest.approx(0.62)
    assert answers.broken(greedy) is None
    blank = flawed(60, flaw="blank")
    assert answers.broken(replace(blank, run=replace(blank.run, temperature=0.0)))


def test_short_answers_that_ended_by_themselves_are_not_truncated() -> None:
    assert answers.flaws(flawed(30, finish_reason="stop", max_new_tokens=9)) == {}
    counted_here = flawed(30, finish_reason="length", max_new_tokens=9, token_source="tokenizer")
    assert answers.flaws(counted_here) == {}  # by our count, which may differ from the server's


def test_what_the_engine_counts_as_corrupted_counts() -> None:
    engines = [EngineUse(server=0, corrupted_requests=25.0), EngineUse(server=1, corrupted_requests=5.0)]
    log = replace(flawed(0), telemetry=Telemetry(engines=engines))
    assert answers.flawed_of(log) == (30, 100)


# Agreement.


def test_agreement_and_where_answers_part() -> None:
    def asked(words: str) -> Asked:
        return Asked(question="q", scored=False, tokens=words.split())

    pairs = [(asked("a b c"), asked(each)) for each in ("a b c", "a b d", "a x c", "a b", "a b c d")]
    found = answers.agreement(pairs)
    assert found == answers.Agreement(5, 1, 3.0)
    assert [answers.parting(a.tokens, b.tokens) for a, b in pairs] == [0, 3, 2, 3, 4]
    assert answers.agreement([(asked("a"), replace(asked(""), error="HTTP 500"))]) is None
