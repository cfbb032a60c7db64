"""Every metric against numbers worked out by hand (they stand in the comments)."""

from __future__ import annotations

import msgspec
import pytest
from conftest import ROOT, make_log, make_result, run_config

from servebench.analysis import cache, deadlines, latency, metrics, model_size, samples, stats, throughput
from servebench.log.schema import Log

# Sent at 10 s; tokens at 0.5, 0.6, 0.8 s after it.
ONE = make_result(0, 10.0, [0.5, 0.6, 0.8])
# Three tokens in the first event at 1 s, one at 1.2 s, two at 2.2 s.
MANY = make_result(1, 0.0, [1.0, 1.2, 2.2], event_tokens=[3, 1, 2], generated_tokens=6)


def test_ttft_is_first_content_event_minus_sent() -> None:
    assert latency.ttft_s(ONE) == pytest.approx(0.5)


def test_ttft_is_known_when_all_tokens_came_in_one_event() -> None:
    assert latency.ttft_s(make_result(0, 0, [2.0], event_tokens=[5], generated_tokens=5)) == 2.0


def test_the_first_answer_token_comes_after_the_reasoning() -> None:
    times = [0.5, 0.6, 0.9]
    assert latency.time_to_first_answer_token_s(make_result(0, 0, times)) == 0.5
    assert latency.time_to_first_answer_token_s(make_result(0, 0, times, first_answer_event=2)) == 0.9
    assert latency.time_to_first_answer_token_s(make_result(0, 0, times, first_answer_event=None)) is None
    assert latency.time_to_first_answer_token_s(make_result(0, 0, [1.0], streamed=False)) is None


def test_reasoning_that_was_not_shown_is_in_no_tpot() -> None:
    times = [10 + 0.02 * i for i in range(20)]
    hidden = make_result(0, 0, times, generated_tokens=520, reasoning_tokens=500)
    assert latency.tpot_s(hidden) == pytest.approx(0.02)


def test_ttft_is_unknown_when_the_answer_came_whole() -> None:
    assert latency.ttft_s(make_result(0, 0, [2.0], event_tokens=[5], generated_tokens=5, streamed=False)) is None


def test_e2e_is_last_content_event_minus_sent() -> None:
    assert latency.e2e_s(ONE) == pytest.approx(0.8)


def test_itl_are_gaps_between_events() -> None:
    assert latency.itl_s(ONE) == pytest.approx([0.1, 0.2])


def test_tpot_leaves_the_tokens_of_the_first_event_out() -> None:
    assert latency.tpot_s(ONE) == pytest.approx(0.15)  # (0.8 - 0.5) / 2
    assert latency.tpot_s(MANY) == pytest.approx(0.4)  # (2.2 - 1.0) / (6 - 3)
    assert latency.tpot_s(make_result(0, 0, [1.0])) is None


def test_tokens_of_one_event_have_no_gap_between_them() -> None:
    gaps = samples.gaps([ONE, MANY], of_tokens=True)
    assert gaps.gap_s == pytest.approx([0.1, 0.2, 0, 0, 0.2, 1.0, 0])
    assert gaps.owner.tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_itl_is_pooled_over_requests() -> None:
    assert samples.each(make_log([ONE, MANY], None), latency.itl_s) == pytest.approx([0.1, 0.2, 0.2, 1.0])


def test_latencies_from_the_schedule_count_the_wait_before_sending() -> None:
    late = make_result(0, 10.0, [0.5, 0.8], scheduled_ns=9_750_000_000)  # left 0.25 s late
    assert latency.ttft_from_schedule_s(late) == pytest.approx(0.75)
    assert latency.e2e_from_schedule_s(late) == pytest.approx(1.05)
    assert latency.ttft_from_schedule_s(ONE) is None and latency.e2e_from_schedule_s(ONE) is None


def test_early_tokens_bank_slack_and_a_miss_starts_the_deadlines_anew() -> None:
    # Due 1.0, 1.2, 1.4, 1.6: the token at 1.5 is late, so the next is due at 1.5 + 0.2.
    assert deadlines.deadlines_met(make_result(0, 0, [0.9, 1.2, 1.5, 1.7]), ttft=1.0, tpot=0.2) == 3
    # 1.2 s pass before the last, but the three before it were early: it is due at 1.6.
    assert deadlines.deadlines_met(make_result(0, 0, [0.1, 0.2, 0.3, 1.5]), ttft=1.0, tpot=0.2) == 4
    assert deadlines.deadlines_met(MANY, ttft=0.9, tpot=0.5) == 5  # only the first is late; then due 1.5 ...


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
    assert throughput.request_throughput(log) == pytest.approx(3 / 4)  # ends at 1.5, 2.0, 4.5


def test_output_token_throughput_goes_by_each_tokens_stamp(log: Log) -> None:
    # In (1, 5]: 1.5 | 1.5, 2.0 | 2.5, 3.5, 4.5 | 4.8; not 0.5 and 5.4
    assert throughput.output_token_throughput(log) == pytest.approx(7 / 4)


def test_total_token_throughput_adds_prompts_of_ended_requests(log: Log) -> None:
    assert throughput.total_token_throughput(log) == pytest.approx((7 + 300) / 4)


def test_failed_requests_are_counted(log: Log) -> None:
    assert samples.failed_share(log) == pytest.approx(1 / 3)


def test_blog_throughput_is_clients_over_mean_latency(log: Log) -> None:
    assert throughput.blog_throughput(log) == pytest.approx(2 / 2.0)  # latencies 1 and 3
    pausing = msgspec.structs.replace(log, run=run_config(dataset="d", multi_turn=True, think_time=5.0))
    assert throughput.blog_throughput(pausing) is None


def test_makespan_throughput(log: Log) -> None:
    assert throughput.makespan_throughput(log) == pytest.approx(2 / 3.5)  # from 1.0 to 4.5


def test_effective_concurrency_is_the_integral_of_requests_in_flight(log: Log) -> None:
    # 1..5 s: warm-up 0.5 s, 1 s, 3 s, the failed one none, the cancelled one to the end 0.5 s
    assert throughput.effective_concurrency(log) == pytest.approx(5 / 4)


def test_littles_law_ratio(log: Log) -> None:
    assert throughput.littles_law_ratio(log) == pytest.approx(0.75 * 2.0 / 1.25)


def test_a_client_that_waits_for_its_timeout_has_a_request_in_flight() -> None:
    """One client, 2 s each, none answered: 1 in flight, and Little's law holds."""
    late = [make_result(i, 2.0 * i, [], error="no end", ended_ns=2_000_000_000) for i in range(5)]
    log = make_log(late, (0.0, 10.0))
    assert throughput.effective_concurrency(log) == pytest.approx(1)
    assert throughput.littles_law_ratio(log) == pytest.approx(1)


def test_throughput_per_gpu(log: Log) -> None:
    assert throughput.throughput_per_gpu(log) == pytest.approx(7 / 4 / 2)


def test_tflops_per_gpu(log: Log) -> None:
    # 7e9 parameters x (100 + 2.5) tokens x 2 x 0.75 requests/s / 2 GPUs
    assert throughput.tflops_per_gpu(log) == pytest.approx(7e9 * 102.5 * 2 * 0.75 / 2 / 1e12)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("meta-llama/Llama-2-70b-hf", 70),
        ("mistralai/Mixtral-8x7B-v0.1", 12.9),
        ("microsoft/phi-2", 2.7),
        ("tiiuae/falcon-180B", 180),
        (".models/SmolLM2-135M-Instruct", 0.135),
        ("Qwen/Qwen2.5-0.5B", 0.5),
        ("Qwen/Qwen2.5-7B-Instruct-1M", 7),  # a million tokens of context
        ("01-ai/Yi-34B-200K", 34),
        ("facebook/opt-125m", 0.125),
        ("HF1BitLLM/Llama3-8B-1.58-100B-tokens", 8),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7),
        ("TheBloke/Llama-2-7B-AWQ-4bit", 7),
        ("/data/7b-models/opt-125m.Q8_0.gguf", 0.125),
        ("/hub/models--meta-llama--Llama-2-7b-hf/snapshots/0123456789ab39b", 7),
        # Mixtures of experts: what a token passes through.
        ("Qwen/Qwen3-30B-A3B", 3),
        ("ibm/granite-3.0-1b-a400m", 0.4),
        ("mistralai/Mixtral-8x22B-v0.1", 39.1),
        ("meta-llama/Llama-4-Scout-17B-16E", 17),
        ("openai/gpt-oss-120b", 5.1),
        ("deepseek-ai/DeepSeek-V3.1", 37),
    ],
)
def test_parameters_are_known_by_name(model: str, billions: float) -> None:
    assert model_size.parameters(model) == pytest.approx(billions * 1e9)


@pytest.mark.parametrize(
    "model",
    ["gpt-tiny", "x/y-1.58bit", "x/Mixtral-4x9B", "7b-owner/secret", "THUDM/glm-4-1k", "internlm/internlm2-1_8b"],
)
def test_parameters_of_other_names_are_unknown(model: str) -> None:
    assert model_size.parameters(model) is None


def test_a_log_without_window_has_no_throughput() -> None:
    log = make_log([ONE], None)
    assert throughput.request_throughput(log) is None
    assert throughput.output_token_throughput(log) is None


def test_interactivity_is_tokens_per_second_of_a_user(log: Log) -> None:
    users = samples.each(log, latency.interactivity_per_s)
    assert users == pytest.approx([2.0, 1.0])
    assert stats.percentile(users, 50) == pytest.approx(1.5)
    assert stats.percentile(users, 10) == pytest.approx(1.1)


def test_what_is_kept_with_a_log_is_kept_by_function_not_by_name() -> None:
    """Two functions of one name in one place or in two, which a plot script and a module may well have."""

    def kept(number: int):  # type: ignore[no-untyped-def]
        @cache.once_a_log
        def value(log: Log) -> int:
            return number

        return value

    log = make_log([], None)
    first, second = kept(1), kept(2)
    assert (first(log), second(log), first(log)) == (1, 2, 1)


def test_the_documentation_lists_every_metric() -> None:
    """To mend it: python -m servebench.analysis.metrics > docs/metrics.md."""
    assert (ROOT / "docs/metrics.md").read_text() == metrics.page()


def test_a_metric_is_known_by_the_beginning_of_its_columns() -> None:
    names = ("ttft", "ttft_p99_s", "ttft_from_schedule_p50_s", "effective_throughput[ttft=2]_per_s")
    found = ["ttft_s", "ttft_s", "ttft_from_schedule_s", "effective_throughput_per_s"]
    assert [metrics.named(name).name for name in names] == found
    with pytest.raises(ValueError, match="is not a metric"):
        metrics.named("latency")


def test_what_we_cut_off_in_an_overload_is_neither_failed_nor_counted() -> None:
    good, failed = make_result(0, 0.0, [0.1]), make_result(1, 0.0, [], error="HTTP 500")
    cut = make_result(2, 0.0, [], error="cut off: the point was stopped", finish_reason="cancelled")
    assert samples.failed_of(make_log([good, failed, cut], (0.0, 1.0), overloaded=True, request_rate=1.0)) == (
        1,
        2,
    )
    assert samples.failed_of(make_log([good, failed, cut], (0.0, 1.0))) == (2, 3), "not overloaded: it hung"
