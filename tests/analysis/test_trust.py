"""Which numbers may decide: what gathers events, what a cache held, what one run of several shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from conftest import make_log, make_result

from servebench.analysis import trust
from servebench.log import schema, store
from servebench.log.schema import Log
from servebench.show import advice

GAP_S = 0.001  # ten times what no server generates in


def log_of(events_s: list[float], **changes: object) -> Log:
    per_request = {name: changes.pop(name) for name in ("cached_tokens", "asked_prompt_tokens") if name in changes}
    return make_log([make_result(i, float(i), events_s, **per_request) for i in range(20)], (0.0, 20.0), **changes)


def evenly(first_s: float, gap_s: float, tokens: int = 20) -> list[float]:
    return [first_s + i * gap_s for i in range(tokens)]


def test_tokens_that_came_all_at_once_decide_nothing() -> None:
    gathered = log_of(evenly(0.5, 1e-6))
    assert all("all at once" in str(trust.doubt(gathered, m)) for m in ("ttft_p99", "tpot", "itl_p50_s"))
    assert (
        trust.doubt(gathered, "e2e_latency_mean_s") is None and trust.doubt(gathered, "request_throughput") is None
    )
    assert trust.marks([gathered]) == ["buffered"]
    assert any("something between" in words for words in advice.of_point(gathered))


@pytest.mark.parametrize(
    "log",
    [
        log_of(evenly(0.5, GAP_S)),
        log_of([0.5, 0.5, 0.5]),  # too few tokens to tell
        make_log([make_result(0, 0, [0.5], event_tokens=[20], generated_tokens=20)], (0, 1)),  # in a single event
        log_of(evenly(0.5, 0.0), stream=False),
    ],
)
def test_what_is_not_gathered(log: Log) -> None:
    assert not trust.buffered(log) and trust.doubt(log, "ttft") is None


def test_a_client_that_read_late_is_not_a_proxy_that_gathers() -> None:
    late = log_of(evenly(0.5, 0.0), verdict="client-limited: it read too late")
    assert trust.marks([late]) == ["client-limited"]


def test_prompts_that_a_cache_held_decide_nothing() -> None:
    cached = log_of(evenly(0.1, GAP_S), cached_tokens=98)  # of 100
    assert trust.marks([cached]) == ["98% cached"] and "98%" in str(trust.doubt(cached, "ttft"))
    by_counters = msgspec.structs.replace(log_of(evenly(0.1, GAP_S)), cache_hit_rate=0.5)
    assert trust.cached_share(by_counters) == 0.5
    assert trust.doubt(log_of(evenly(0.1, GAP_S), cached_tokens=10), "ttft") is None  # a few blocks


@pytest.mark.parametrize(
    "changes",
    [
        {"shared_prefix": (90, 1)},
        {"dataset": "chats.json"},
        {"dataset": "chats.json", "multi_turn": True},
        {"api": "chat", "asked_prompt_tokens": 2},  # 98 of the 100 are the template's
    ],
)
def test_what_is_shared_may_be_cached(changes: dict[str, object]) -> None:
    assert trust.cached_share(log_of(evenly(0.1, GAP_S), cached_tokens=98, **changes)) == 0


def test_one_run_of_several_is_said_and_does_not_brand_the_point() -> None:
    good, bad = log_of(evenly(0.5, GAP_S)), log_of(evenly(0.5, GAP_S), verdict="client-limited: late")
    assert trust.of_point([good, good, bad]) is None
    assert trust.marks([good, good, bad]) == ["1 of 3 runs client-limited"]
    doubt = trust.of_point([good, bad, bad], "e2e_latency")
    assert doubt and doubt.kind == "client-limited" and trust.marks([good, bad, bad]) == ["client-limited"]


def test_a_failed_point_decides_nothing() -> None:
    failed = msgspec.structs.replace(log_of([0.5]), status="failed")
    assert trust.doubt(failed, "failed_share") == "the point failed"


def test_the_stand_in_of_fastgen_is_known_by_its_engine() -> None:
    def of(engine: str, backend: str = "fastgen") -> Log:
        facts = schema.ServerFacts(urls=[], engine=engine)
        return msgspec.structs.replace(log_of([0.5], backend=backend), server_facts=facts)

    assert trust.stand_in(of("deepspeed-mii 0.3.3+cpu")) and not trust.stand_in(of("deepspeed-mii 0.3.3"))
    assert not trust.stand_in(of("vllm 0.11+cpu", "vllm"))
    assert any("stand-in" in words for words in advice.of_point(of("deepspeed-mii 0.3.3+cpu")))


def test_a_proxy_that_gathers_is_named_on_the_terminal(
    reference: Callable[..., str],
    benchmark: Callable[..., tuple[int, str, str]],
    tokenizer_dir: Path,
    results: Path,
) -> None:
    url = reference("--buffered")
    where = ("--backend", "openai", "--openai_api_url", url, "--model", "reference", "--tokenizer", tokenizer_dir)
    load = ("--num_clients", 2, "--num_requests", 12, "--mean_prompt_length", 8, "--mean_max_new_tokens", 20)
    code, out, err = benchmark(*where, *load)
    assert code == 0, out + err
    assert "warning: the tokens of an answer came all at once" in out
    (log,) = [store.load(path) for path in results.glob("openai/*.json")]
    limited = "client-limited" in out  # on a busy machine: late as well, which its verdict says
    assert trust.buffered(log) and (limited or out.count("buffered") >= 3)
