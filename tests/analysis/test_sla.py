"""SLAs against numbers worked out by hand, and against FastGen's formulas taken literally."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_log, make_result

from servebench.analysis import deadlines, limits, sla, throughput
from servebench.errors import InputError
from servebench.log.result import Result
from servebench.log.schema import Log

# Sent at 10 s; tokens at 0.5, 0.6, 0.8 s after it.
ONE = make_result(0, 10.0, [0.5, 0.6, 0.8])
# Three tokens in the first event at 1 s, one at 1.2 s, two at 2.2 s.
MANY = make_result(1, 0.0, [1.0, 1.2, 2.2], event_tokens=[3, 1, 2], generated_tokens=6)


def log_of(*results: Result) -> Log:
    return make_log(list(results), (0.0, 20.0))


def test_prompt_sla_allows_prompt_tokens_over_rate() -> None:
    assert deadlines.meets_prompt(log_of(ONE, MANY), 200).tolist() == [True, False]  # 100 / 200 = 0.5 s
    assert deadlines.meets_prompt(log_of(ONE, MANY), 201).tolist() == [False, False]


def test_ema_has_adjusted_weights() -> None:
    # span 3: alpha 1/2. Gaps 1, 2, 4: 1, (2 + 1/2) / 1.5 = 5/3, (4 + 2/2 + 1/4) / 1.75 = 3
    rising, falling = make_result(0, 0, [1, 2, 4, 8]), make_result(1, 0, [1, 5, 7, 8])
    single = make_result(2, 0, [1])
    # Gaps 4, 2, 1: 4 at once.
    assert deadlines.largest_ema_s(log_of(single, falling, rising), 3) == pytest.approx([0.0, 4.0, 3.0])


def test_generation_sla_by_moving_average() -> None:
    # Gaps 0.1, 0.2 with alpha 2/17: 0.1, then (0.2 + 0.1 * 15/17) / (1 + 15/17) = 0.153125
    assert deadlines.meets_ema(log_of(ONE), 6.5).all()  # limit 0.15385
    assert not deadlines.meets_ema(log_of(ONE), 6.6).any()  # limit 0.15152


def test_generation_sla_by_running_sum() -> None:
    # Sums 0.1, 0.3 against 1/r, 2/r: r = 6.6 allows 0.1515, 0.3030
    assert deadlines.meets_cumulative(log_of(ONE), 6.6).all()
    assert not deadlines.meets_cumulative(log_of(ONE), 6.7).any()
    # Gaps 0, 0, 0.2, 1.0, 0: at the fourth 1.2 <= 4/r, so r is at most 3.33
    assert deadlines.meets_cumulative(log_of(ONE, MANY), 3.3).tolist() == [True, True]
    assert deadlines.meets_cumulative(log_of(ONE, MANY), 3.4).tolist() == [True, False]


def test_generation_slas_are_fastgens_formulas() -> None:
    """Random answers with stalls: every token's weighted mean and every running sum, as the blog writes them."""
    rng = np.random.default_rng(0)
    answers = [np.cumsum(rng.exponential(0.2, rng.integers(1, 60))).tolist() for _ in range(50)]
    log = log_of(*(make_result(i, 0.0, answer) for i, answer in enumerate(answers)))
    for rate in (2.0, 3.0, 4.0):
        gaps = [np.diff(answer) for answer in answers]
        weights = [(1 - 2 / 17) ** np.arange(len(g))[::-1] for g in gaps]
        pairs = zip(gaps, weights, strict=True)
        ema = [[np.average(g[: i + 1], weights=w[-i - 1 :]) for i in range(len(g))] for g, w in pairs]
        by_ema = [all(value < 1 / rate for value in values) for values in ema]
        by_sum = [all(g[: i + 1].sum() <= (i + 1) / rate for i in range(len(g))) for g in gaps]
        assert 5 < sum(by_ema) < 45 and 5 < sum(by_sum) < 45
        assert deadlines.meets_ema(log, rate).tolist() == by_ema
        assert deadlines.meets_cumulative(log, rate).tolist() == by_sum


def test_limits_are_all_to_be_met() -> None:
    assert sla.parse("ttft<=0.5s, tpot<160ms, e2e<0.81s").met(log_of(ONE)).all()
    assert not sla.parse("tpot<0.14s").met(log_of(ONE)).any()
    assert not sla.parse("e2e<0.7s").met(log_of(ONE)).any()


def test_one_token_has_no_tpot_to_miss_and_a_whole_answer_no_ttft_to_meet() -> None:
    single = make_result(0, 0, [1.0])
    whole = make_result(1, 0, [1.0], event_tokens=[9], generated_tokens=9, streamed=False)
    assert sla.parse("ttft<2s").met(log_of(single, whole)).tolist() == [True, False]
    assert sla.parse("tpot<0.1s").met(log_of(single, whole)).tolist() == [True, False]
    assert sla.parse("e2e<2s").met(log_of(single, whole)).tolist() == [True, True]


@pytest.fixture
def log() -> Log:
    """Window 0..8 s: TTFT 0.5 and 1 s, one failed."""
    failed = make_result(2, 2.0, [0.2], error="HTTP 503", generated_tokens=1, max_new_tokens=4)
    return make_log([make_result(0, 1.0, [0.5, 1.0]), make_result(1, 1.5, [1.0, 2.0, 3.0]), failed], (0.0, 8.0))


def test_failed_requests_meet_nothing(log: Log) -> None:
    assert deadlines.share_meeting(log, sla.parse("e2e<100s").met) == pytest.approx(2 / 3)


def test_effective_throughput_is_the_rate_of_requests_that_meet_the_sla(log: Log) -> None:
    # Of the two that succeeded one has TTFT 0.5 s: 2/8 requests/s x 1/2
    assert deadlines.effective_throughput(log, sla.parse("ttft<0.6s").met) == pytest.approx(1 / 8)
    assert throughput.request_throughput(log) == pytest.approx(2 / 8)


def test_fluidity_index_is_the_share_of_deadlines_met(log: Log) -> None:
    # First: 0.5, 1.0 due 0.6, 1.1: both. Second: due 0.6, then 1.5, 2.5 after misses: none. Failed: none of 4.
    assert deadlines.fluidity_index(log, ttft=0.6, tpot=0.5) == pytest.approx(2 / 9)


def test_presets() -> None:
    # Prompt 100 tokens at 512 a second: 0.195 s
    quick, late = make_result(0, 0, [0.19, 0.4]), make_result(1, 0, [0.2, 0.4])
    assert sla.parse("fastgen-4").met(log_of(quick, late)).tolist() == [True, False]
    assert sla.parse("fastgen-5").met(log_of(quick)).tolist() == [False]  # a gap of 0.21 s
    assert [limit.value for limit in sla.parse("mlperf-llama2-70b").limits] == [2.0, 0.2]
    assert sla.parse("mlperf-llama2-70b").met(log_of(quick)).tolist() == [False]  # TPOT 0.21 s
    assert [limit.value for limit in sla.parse("ttft<2s,e2e<.5s").limits] == [2.0, 0.5]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fastgen-", "is not an SLA; write limits as in"),
        ("fastgen-0", "is not an SLA; write limits as in"),
        ("ttft", "is not an SLA; write limits as in"),
        ("", "is not an SLA; write limits as in"),
        ("ttft=2", "write ttft<2s"),
        ("ttft=2,tpot=0.1", 'in "ttft=2,tpot=0.1" the part "ttft=2": = is not one of < <= > >=; write ttft<2s'),
        ("ttft<2", "write ttft<2s or ttft<2ms"),
        ("ttft<1s,", "it is empty"),
        ("tpt<1s", "did you mean tpot"),
        ("ttft<1s;tpot<2s", "put a comma between them"),
        ("ttft_p99<2s", "every request has to meet; write ttft<2s"),
        ("tpot>100ms", "write tpot<100ms"),
        ("error_rate<1%", "limits the times of a request"),
        ("ttft_p99<+5%", "limits the times of a request"),
    ],
)
def test_what_is_no_sla_is_refused(name: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        sla.parse(name)
    assert str(refused.value).startswith("--sla") and words in str(refused.value)


def test_a_limit_is_judged_as_it_is_written() -> None:
    assert sla.parse("ttft<=0.5s").met(log_of(ONE)).all()  # 0.5 s exactly
    assert not sla.parse("ttft<0.5s").met(log_of(ONE)).any()
    assert sla.parse("itl<=200ms").met(log_of(ONE)).all() and not sla.parse("itl<200ms").met(log_of(ONE)).any()


def test_a_name_is_the_limits_as_they_were_typed_without_spaces(log: Log) -> None:
    found = sla.values(log, [sla.parse("ttft<2s, tpot<100ms")])
    assert list(found) == ["effective_throughput[ttft<2s,tpot<100ms]_per_s", "fluidity_index[ttft<2s,tpot<100ms]"]


def test_one_event_of_many_tokens_does_not_tell_how_fast_they_came() -> None:
    at_once = make_result(0, 0, [0.1], event_tokens=[9], generated_tokens=9)
    single = make_result(1, 0, [0.1])
    assert deadlines.meets_ema(log_of(at_once, single), 4).tolist() == [False, True]
    assert deadlines.meets_cumulative(log_of(at_once, single), 4).tolist() == [False, True]
    assert sla.parse("tpot<1s").met(log_of(at_once, single)).tolist() == [False, True]


def test_answers_that_came_whole_do_not_tell_when_tokens_came() -> None:
    whole = make_log(
        [make_result(i, i, [0.5], event_tokens=[4], generated_tokens=4, streamed=False) for i in range(4)],
        (0, 5),
        stream=False,
    )
    assert sla.parse("fastgen-4").throughput(whole) is None and sla.parse("ttft<1s").throughput(whole) is None
    assert sla.parse("e2e<1s").throughput(whole) == pytest.approx(4 / 5)


def test_one_token_that_was_shown_has_no_tpot_whatever_was_hidden_before_it() -> None:
    hidden = make_result(0, 0, [5.0], event_tokens=[1], generated_tokens=500, reasoning_tokens=499)
    assert not len(sla.of_requests([log_of(hidden)], *limits.parse("tpot_p90<1s")))
    assert sla.parse("tpot<0.1s").met(log_of(hidden)).tolist() == [True]
