"""Datasets and traces: every format as its own files have it (samples of our making in data/datasets/)."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from servebench.records import InputError, RunConfig
from servebench.workload import Workload, build_workload, load_tokenizer
from servebench.workload.datasets import read

SAMPLES = Path(__file__).parent / "data/datasets"


@pytest.fixture
def built(tokenizer_dir: Path):  # type: ignore[no-untyped-def]
    def build(name: str, context: int | None = None, **changes: object) -> Workload:
        run = RunConfig(**({"dataset": str(SAMPLES / name), "num_requests": 3, "warmup": 0} | changes))  # type: ignore[arg-type]
        return build_workload(run, load_tokenizer(str(tokenizer_dir)), context)

    return build


def test_sharegpt_gives_the_first_request_of_each_conversation(built) -> None:  # type: ignore[no-untyped-def]
    workload = built("sharegpt.json", api="chat")
    asked = {r.messages[-1]["content"].split()[0] for r in workload.counted}
    assert asked == {"How", "Why", "Name"}
    assert {len(r.messages) for r in workload.counted} == {1, 2}  # one has a system message


def test_answers_are_asked_for_as_long_as_the_datasets_are(built, tokenizer_dir: Path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = load_tokenizer(str(tokenizer_dir))
    lengths = {
        r.messages[-1]["content"].split()[0]: r.max_new_tokens for r in built("sharegpt.json", api="chat").counted
    }
    assert lengths["Name"] == len(tokenizer.encode("Ultraviolet.").ids)


def test_turns_of_a_conversation_follow_each_other_and_hold_its_history(built) -> None:  # type: ignore[no-untyped-def]
    requests = built("sharegpt.json", api="chat", multi_turn=True, think_time=2.0, num_requests=6).counted
    for _, turns in itertools.groupby(requests, key=lambda r: r.conversation):
        first, *later = turns
        assert first.think_s == 0 and all(r.think_s == 2.0 for r in later)
        for before, after in itertools.pairwise([first, *later]):
            assert after.messages[: len(before.messages)] == before.messages
            assert after.messages[-2]["role"] == "assistant"
    assert sorted(len(r.messages) for r in requests) == [1, 1, 2, 3, 3, 5]


def test_prompts_bring_their_own_lengths_or_get_drawn_ones(built) -> None:  # type: ignore[no-untyped-def]
    workload = built("prompts.jsonl", mean_max_new_tokens=50, max_new_tokens_var=0)
    lengths = {r.prompt.split()[0]: r.max_new_tokens for r in workload.counted}
    assert lengths == {"List": 12, "system:": 7, "Write": 50}


@pytest.mark.parametrize(
    ("name", "lengths", "gaps_s"),
    [
        ("azure.csv", [(374, 44), (96, 9), (128, 27)], [0.3, 1.2]),
        ("azure_2024.csv", [(220, 18), (48, 5), (64, 11)], [0.25, 0.74007]),
        ("burstgpt.csv", [(472, 18), (417, 276)], [113.0]),  # one row is a failed request
        ("mooncake.jsonl", [(1100, 50), (1200, 40), (600, 30)], [0.5, 2.5]),
    ],
)
def test_a_trace_gives_lengths_and_times(
    built, tokenizer_dir: Path, name: str, lengths: list[tuple[int, int]], gaps_s: list[float]
) -> None:  # type: ignore[no-untyped-def]
    workload = built(name, trace_speed=1.0, num_requests=len(lengths))
    assert [(r.prompt_tokens, r.max_new_tokens) for r in workload.counted] == lengths
    tokenizer = load_tokenizer(str(tokenizer_dir))
    assert [len(tokenizer.encode(r.prompt).ids) for r in workload.counted] == [p for p, _ in lengths]
    assert np.diff(workload.schedule.times_s)[: len(gaps_s)] == pytest.approx(gaps_s, abs=1e-5)


def test_equal_hashes_of_a_mooncake_trace_are_equal_prefixes(built, tokenizer_dir: Path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = load_tokenizer(str(tokenizer_dir))
    a, b, c = (tokenizer.encode(r.prompt).ids for r in built("mooncake.jsonl", trace_speed=1.0).counted)
    assert a[:1024] == b[:1024] and a[1024:1030] != b[1024:1030]
    assert a[:8] != c[:8]


def test_warm_up_of_a_trace_is_its_beginning(built) -> None:  # type: ignore[no-untyped-def]
    workload = built("azure.csv", trace_speed=1.0, num_requests=2, warmup=1)
    assert [r.prompt_tokens for r in workload.counted] == [96, 128]
    assert workload.schedule.warmup == 1


def test_what_exceeds_the_context_is_left_out(built) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="has 1 requests that can be used, 3 are needed"):
        built("sharegpt.json", context=60)


def test_more_requests_than_there_are_is_an_error_not_a_repetition(built) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="lower --num_requests"):
        built("azure.csv", num_requests=4)


def test_options_that_a_dataset_cannot_follow_are_refused(built) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="tells no arrival times"):
        built("sharegpt.json", trace_speed=1.0)
    with pytest.raises(InputError, match="has no conversations"):
        built("azure.csv", multi_turn=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no request in it"),
        ("{broken", "cannot be read"),
        ('{"prompt": "a"}\n{"text": "b"}\n', "entry 2 is not understood"),
        ("a,b\n1,2\n", "entry 2 is not understood"),
        ('[{"conversations": [{"from": "martian", "value": "x"}]}]', "entry 1 is not understood"),
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "a message that is not text"),
    ],
)
def test_a_file_that_is_no_dataset_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "d").write_text(content)
    with pytest.raises(InputError, match=reason):
        read(str(tmp_path / "d"), multi_turn=False)
