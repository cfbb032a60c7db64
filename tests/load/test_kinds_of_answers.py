"""The client against the reference server's record, for every kind of answer that today's models give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from servebench.analysis import latency, samples
from servebench.load.chunks import logprobs_of
from servebench.log import store
from servebench.log.result import Result
from servebench.log.schema import Log
from servebench.reference import calibrate
from servebench.reference.behaviour import CHAT_ANSWERS, RequestRecord

TOKENS, GAP_S, NEAR_S = 10, 0.02, 0.02
Truth = dict[int, RequestRecord]


@pytest.fixture
def measured(
    benchmark: Callable[..., tuple[int, str, str]], tokenizer_dir: Path, tmp_path: Path
) -> Callable[..., tuple[Log, Truth]]:
    """Put a small load on a reference server with these options; gives the log, and the server's record by id."""

    def run(*server: str, load: tuple[str, ...] = (), api: str = "chat") -> tuple[Log, Truth]:
        folder = tmp_path / "server"
        folder.mkdir()
        with calibrate.reference_server(folder, GAP_S, *server) as (url, record):
            where = ["--openai_api_url", url, "--model", "reference", "--tokenizer", tokenizer_dir, "--api", api]
            lengths = ["--mean_prompt_length", 16, "--mean_max_new_tokens", TOKENS, "--max_new_tokens_var", 0]
            many = ["--num_clients", 2, "--num_requests", 6]
            code, out, err = benchmark("--backend", "openai", *where, *lengths, *many, *load)
            assert code == 0, out + err
            load_alone = [sent for sent in record() if sent.request_id]  # and not what was asked beforehand
            truth = {int(sent.request_id.rpartition("-")[2]): sent for sent in load_alone}
        (path,) = (tmp_path / "results/openai").glob("*.json")
        return store.load(path), truth

    return run


def same_tokens(log: Log, truth: Truth) -> bool:
    done = samples.succeeded(log)
    return len(done) == 6 and all(
        list(r.event_tokens) == truth[r.id].event_tokens
        and r.generated_tokens == truth[r.id].tokens == TOKENS
        and (r.reasoning_tokens or 0) == truth[r.id].reasoning_tokens
        and r.first_answer_event == truth[r.id].first_answer_event
        for r in done
    )


def near(
    log: Log, truth: Truth, of_request: Callable[[Result], float | None], truth_s: Callable[..., float]
) -> bool:
    """Is the client's median near the record's? (Of one request a busy machine may say anything.)"""
    done = samples.succeeded(log)
    off = [abs((of_request(r) or 0.0) - truth_s(truth[r.id])) for r in done]
    return float(np.median(off)) < NEAR_S


def after_s(at: int) -> Callable[[RequestRecord], float]:
    return lambda sent: (sent.events_ns[at] - sent.arrived_ns) / 1e9


def tpot_s(sent: RequestRecord) -> float:
    rest = sum(sent.event_tokens[1:])
    return (sent.events_ns[-1] - sent.events_ns[0]) / 1e9 / rest


LAST = [(say, "last") for say in CHAT_ANSWERS]


@pytest.mark.parametrize(("say", "usage"), [*LAST, ("hidden_reasoning", "each"), ("reasoning_tool_calls", "each")])
def test_tokens_and_times_are_the_servers(
    measured: Callable[..., tuple[Log, Truth]], say: str, usage: str
) -> None:
    log, truth = measured("--say", say, "--usage", usage)
    assert same_tokens(log, truth)
    assert near(log, truth, latency.ttft_s, after_s(0))
    assert near(log, truth, latency.e2e_s, after_s(-1))
    first_answer = TOKENS // 2 if say in ("reasoning", "parts", "reasoning_tool_calls") else 0
    assert near(log, truth, latency.time_to_first_answer_token_s, after_s(first_answer))
    assert near(log, truth, lambda r: 10 * (latency.tpot_s(r) or 0.0), lambda sent: 10 * tpot_s(sent))


def test_an_answer_that_comes_all_at_once_has_a_ttft(measured: Callable[..., tuple[Log, Truth]]) -> None:
    log, truth = measured("--buffered")
    assert same_tokens(log, truth)
    assert near(log, truth, latency.ttft_s, after_s(0)) and near(log, truth, latency.e2e_s, after_s(-1))
    assert all(latency.ttft_s(r) == latency.e2e_s(r) > TOKENS * GAP_S for r in samples.succeeded(log))


def test_all_tokens_in_one_event_have_a_ttft(measured: Callable[..., tuple[Log, Truth]]) -> None:
    log, truth = measured("--tokens_per_event", str(TOKENS))
    assert same_tokens(log, truth)
    assert near(log, truth, latency.ttft_s, after_s(0))
    assert all(latency.tpot_s(r) is None for r in samples.succeeded(log))


@pytest.mark.parametrize("say", ["text", "reasoning"])
def test_a_whole_answer_has_no_ttft(measured: Callable[..., tuple[Log, Truth]], say: str) -> None:
    log, truth = measured("--say", say, load=("--no_stream",))
    assert same_tokens(log, truth)
    assert not any(r.streamed for r in log.results) and samples.each(log, latency.ttft_s).size == 0


def test_log_probabilities_are_read_in_both_forms() -> None:
    """As completions and chats of vLLM, and both of llama.cpp, give them."""
    assert logprobs_of({"token_logprobs": [-0.5, None, -1], "tokens": ["a", "b", "c"]}) == [-0.5, -1.0]
    chat = {"content": [{"token": "a", "logprob": -0.25, "top_logprobs": [{"token": "b", "logprob": -2}]}]}
    assert logprobs_of(chat) == [-0.25]
    assert logprobs_of(None) == logprobs_of({}) == logprobs_of({"content": None}) == logprobs_of([1]) == []
    odd = ({"content": "a text"}, {"content": ["a"]}, {"token_logprobs": 1.5}, {"content": {"logprob": -1}}, "-1")
    assert [logprobs_of(each) for each in odd] == [[]] * len(odd), "no reason to end a load process"
