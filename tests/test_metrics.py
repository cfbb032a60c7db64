"""Every metric against numbers worked out by hand (they stand in the comments)."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_log, make_result

from servebench import metrics
from servebench.records import Log

# Sent at 10 s; tokens at 0.5, 0.6, 0.8 s after it.
ONE = make_result(0, 10.0, [0.5, 0.6, 0.8])
# Three tokens in the first event at 1 s, one at 1.2 s, two at 2.2 s.
MANY = make_result(1, 0.0, [1.0, 1.2, 2.2], event_tokens=[3, 1, 2], generated_tokens=6)


def test_ttft_is_first_content_event_minus_sent() -> None:
    assert metrics.ttft_s(ONE) == pytest.approx(0.5)


def test_ttft_is_unknown_when_the_answer_came_whole() -> None:
    assert metrics.ttft_s(make_result(0, 0, [2.0], event_tokens=[5], generated_tokens=5)) is None


def test_e2e_is_last_content_event_minus_sent() -> None:
    assert metrics.e2e_s(ONE) == pytest.approx(0.8)


def test_itl_are_gaps_between_events() -> None:
    assert metrics.itl_s(ONE) == pytest.approx([0.1, 0.2])


def test_tpot_leaves_the_tokens_of_the_first_event_out() -> None:
    assert metrics.tpot_s(ONE) == pytest.approx(0.15)  # (0.8 - 0.5) / 2
    assert metrics.tpot_s(MANY) == pytest.approx(0.4)  # (2.2 - 1.0) / (6 - 3)
    assert metrics.tpot_s(make_result(0, 0, [1.0])) is None


def test_tokens_of_one_event_have_no_gap_between_them() -> None:
    assert metrics.token_gaps_s(MANY) == pytest.approx([0, 0, 0.2, 1.0, 0])


def test_prompt_sla_allows_prompt_tokens_over_rate() -> None:
    assert metrics.meets_prompt_sla(ONE, 200)  # 100 / 200 = 0.5 s
    assert not metrics.meets_prompt_sla(ONE, 201)


def test_ema_has_adjusted_weights() -> None:
    # span 3: alpha 1/2. (2*1 + 1*0.5) / 1.5 = 5/3;  (4 + 2*0.5 + 1*0.25) / 1.75 = 3
    assert metrics.ema(np.array([1.0, 2.0, 4.0]), span=3) == pytest.approx([1.0, 5 / 3, 3.0])


def test_generation_sla_by_moving_average() -> None:
    # Gaps 0.1, 0.2 with alpha 2/17: 0.1, then (0.2 + 0.1 * 15/17) / (1 + 15/17) = 0.153125
    assert metrics.meets_generation_sla_ema(ONE, 6.5)  # limit 0.15385
    assert not metrics.meets_generation_sla_ema(ONE, 6.6)  # limit 0.15152


def test_generation_sla_by_running_sum() -> None:
    # Sums 0.1, 0.3 against 1/r, 2/r: r = 6.6 allows 0.1515, 0.3030
    assert metrics.meets_generation_sla_cumulative(ONE, 6.6)
    assert not metrics.meets_generation_sla_cumulative(ONE, 6.7)
    # Gaps 0, 0, 0.2, 1.0, 0: at the fourth 1.2 <= 4/r, so r is at most 3.33
    assert metrics.meets_generation_sla_cumulative(MANY, 3.3)
    assert not metrics.meets_generation_sla_cumulative(MANY, 3.4)


def test_limits_are_all_to_be_met() -> None:
    assert metrics.meets_limits(ONE, ttft=0.5, tpot=0.16, e2e=0.8)
    assert not metrics.meets_limits(ONE, tpot=0.14)
    assert not metrics.meets_limits(ONE, e2e=0.7)


@pytest.fixture
def log() -> Log:
    """Window 1..5 s. Ends: warm-up 1.5, measured 2 and 4.5, one failed; a cancelled hold has some at 4.8, 5.4."""
    return make_log(
        [
            make_result(10, 0.0, [0.5, 1.5], phase="warmup"),
            make_result(0, 1.0, [0.5, 1.0]),
            make_result(1, 1.5, [1.0, 2.0, 3.0]),
            make_result(2, 2.0, [], error="HTTP 503", generated_tokens=0),
            make_result(11, 4.5, [0.3, 0.9], phase="hold", finish_reason="cancelled"),
        ],
        (1.0, 5.0),
        num_clients=2,
        achieved_concurrency=1.5,
        tp_size=2,
    )


def test_request_throughput_counts_what_ended_in_the_window(log: Log) -> None:
    assert metrics.request_throughput(log) == pytest.approx(3 / 4)  # ends at 1.5, 2.0, 4.5


def test_output_token_throughput_goes_by_each_tokens_stamp(log: Log) -> None:
    # In (1, 5]: 1.5 | 1.5, 2.0 | 2.5, 3.5, 4.5 | 4.8; not 0.5 and 5.4
    assert metrics.output_token_throughput(log) == pytest.approx(7 / 4)


def test_total_token_throughput_adds_prompts_of_ended_requests(log: Log) -> None:
    assert metrics.total_token_throughput(log) == pytest.approx((7 + 300) / 4)


def test_failed_requests_are_counted_and_meet_nothing(log: Log) -> None:
    assert metrics.failed_share(log) == pytest.approx(1 / 3)
    assert metrics.share_meeting(log, lambda r: True) == pytest.approx(2 / 3)


def test_effective_throughput_is_the_rate_of_requests_that_meet_the_sla(log: Log) -> None:
    # Of the two that succeeded one has TTFT 0.5 s: 3/4 requests/s x 1/2
    assert metrics.effective_throughput(log, lambda r: (metrics.ttft_s(r) or 9) < 0.6) == pytest.approx(3 / 8)


def test_blog_throughput_is_clients_over_mean_latency(log: Log) -> None:
    assert metrics.blog_throughput(log) == pytest.approx(2 / 2.0)  # latencies 1 and 3


def test_makespan_throughput(log: Log) -> None:
    assert metrics.makespan_throughput(log) == pytest.approx(2 / 3.5)  # from 1.0 to 4.5


def test_littles_law_ratio(log: Log) -> None:
    assert metrics.littles_law_ratio(log) == pytest.approx(0.75 * 2.0 / 1.5)


def test_tflops_per_gpu(log: Log) -> None:
    # 7e9 parameters x (100 + 2.5) tokens x 2 x 0.75 requests/s / 2 GPUs
    assert metrics.tflops_per_gpu(log) == pytest.approx(7e9 * 102.5 * 2 * 0.75 / 2 / 1e12)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("meta-llama/Llama-2-70b-hf", 70),
        ("mistralai/Mixtral-8x7B-v0.1", 12.9),
        ("microsoft/phi-2", 2.7),
        ("tiiuae/falcon-180B", 180),
        (".models/SmolLM2-135M-Instruct", 0.135),
        ("Qwen/Qwen2.5-0.5B", 0.5),
    ],
)
def test_parameters_are_known_by_name(model: str, billions: float) -> None:
    assert metrics.parameters(model) == pytest.approx(billions * 1e9)


def test_parameters_of_other_names_are_unknown() -> None:
    assert metrics.parameters("gpt-tiny") is None


def test_a_log_without_window_has_no_throughput() -> None:
    log = make_log([ONE], None)
    assert metrics.request_throughput(log) is None
    assert metrics.output_token_throughput(log) is None


def test_interactivity_is_tokens_per_second_of_a_user(log: Log) -> None:
    assert metrics.interactivity(log) == pytest.approx([2.0, 1.0])
