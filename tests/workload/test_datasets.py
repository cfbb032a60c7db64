"""Datasets and traces: every format as its own files have it (samples of our making in data/datasets/)."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import run_config
from tokenizers import processors

from servebench.errors import InputError
from servebench.log import store
from servebench.log.config import Dataset
from servebench.workload import Workload, build_workload, datasets, load_tokenizer
from servebench.workload.formats import ANSWER_TOKENS

SAMPLES = Path(__file__).parents[1] / "data/datasets"


def read(path: str, multi_turn: bool = False) -> datasets.Contents:
    return datasets.read(Dataset(dataset=path, multi_turn=multi_turn))


@pytest.fixture
def built(tokenizer_dir: Path):  # type: ignore[no-untyped-def]
    def build(name: str, context: int | None = None, **changes: object) -> Workload:
        run = run_config(**({"dataset": str(SAMPLES / name), "num_requests": 3, "warmup": 0} | changes))  # type: ignore[arg-type]
        return build_workload(run, load_tokenizer(str(tokenizer_dir)), context)

    return build


def test_sharegpt_gives_the_first_request_of_each_conversation(built) -> None:  # type: ignore[no-untyped-def]
    workload = built("sharegpt.json", api="chat")
    asked = {r.messages[-1]["content"].split()[0] for r in workload.measured}
    assert asked == {"How", "Why", "Name"}
    assert {len(r.messages) for r in workload.measured} == {1, 2}  # one has a system message


def test_answers_are_asked_for_as_long_as_the_datasets_are(built, tokenizer_dir: Path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = load_tokenizer(str(tokenizer_dir))
    lengths = {
        r.messages[-1]["content"].split()[0]: r.max_new_tokens for r in built("sharegpt.json", api="chat").measured
    }
    assert lengths["Name"] == len(tokenizer.encode("Ultraviolet.").ids)


def test_turns_of_a_conversation_follow_each_other_and_hold_its_history(built) -> None:  # type: ignore[no-untyped-def]
    requests = built("sharegpt.json", api="chat", multi_turn=True, think_time=2.0, num_requests=6).measured
    for _, turns in itertools.groupby(requests, key=lambda r: r.conversation):
        first, *later = turns
        assert first.think_s == 0 and all(r.think_s == 2.0 for r in later)
        for before, after in itertools.pairwise([first, *later]):
            assert after.messages[: len(before.messages)] == before.messages
            assert after.messages[-2]["role"] == "assistant"
    assert sorted(len(r.messages) for r in requests) == [1, 1, 2, 3, 3, 5]


def test_prompts_bring_their_own_lengths_or_get_drawn_ones(built) -> None:  # type: ignore[no-untyped-def]
    workload = built("prompts.jsonl", mean_max_new_tokens=50, max_new_tokens_var=0)
    lengths = {r.prompt.split()[0]: r.max_new_tokens for r in workload.measured}
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
    assert [(r.prompt_tokens, r.max_new_tokens) for r in workload.measured] == lengths
    tokenizer = load_tokenizer(str(tokenizer_dir))
    assert [len(tokenizer.encode(r.prompt).ids) for r in workload.measured] == [p for p, _ in lengths]
    assert np.diff(workload.schedule.times_s)[: len(gaps_s)] == pytest.approx(gaps_s, abs=1e-5)


def test_equal_hashes_of_a_mooncake_trace_are_equal_prefixes(built, tokenizer_dir: Path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = load_tokenizer(str(tokenizer_dir))
    a, b, c = (tokenizer.encode(r.prompt).ids for r in built("mooncake.jsonl", trace_speed=1.0).measured)
    assert a[:1024] == b[:1024] and a[1024:1030] != b[1024:1030]
    assert a[:8] != c[:8]


def test_warm_up_of_a_trace_is_its_beginning(built) -> None:  # type: ignore[no-untyped-def]
    workload = built("azure.csv", trace_speed=1.0, num_requests=2, warmup=1)
    assert [r.prompt_tokens for r in workload.measured] == [96, 128]
    assert workload.schedule.warmup == 1
    first = built("azure.csv", trace_speed=1.0, num_requests=3).measured[0]
    assert workload.filler[0].prompt_tokens == first.prompt_tokens, (
        "the first arrival is the trace's first request"
    )


def test_a_trace_that_comes_at_once_has_no_times_of_its_own(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    row = {"timestamp": 5.5, "input_length": 20, "output_length": 3}
    what = {"trace_speed": 1.0, "trace_format": "guidellm"}
    with pytest.raises(InputError, match="first 4 requests all come at the same time"):
        built(written(tmp_path, *5 * [row]), **what, num_requests=3, warmup=1)
    assert built(written(tmp_path, *3 * [row], row | {"timestamp": 6.0}), **what, num_requests=3, warmup=1)


def test_what_exceeds_the_context_is_left_out(built) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="has 1 request that can be used, 3 are needed"):
        built("sharegpt.json", context=60)


def test_more_requests_than_there_are_is_an_error_not_a_repetition(built) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="lower --num_requests"):
        built("azure.csv", num_requests=4)


def test_options_that_a_dataset_cannot_follow_are_refused(built) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="has no arrival times"):
        built("sharegpt.json", trace_speed=1.0)
    with pytest.raises(InputError, match="has no conversations"):
        built("azure.csv", multi_turn=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no request in it"),
        ("[{broken", "cannot be read"),
        ('{"prompt": "a"}\n{"prompt": \n', "line 2 is not JSON by itself"),
        ('{\n  "data": [{"prompt": "a"}]\n}', "line 1 is not JSON by itself.*give one entry per line, or a list"),
        ('{"prompt": "a"}\n{"question": "b"}\n', "entry 2 is not understood.*its keys are question"),
        ('{"prompt": "a"}\n{"input_length": 3, "output_length": 4}\n', "some entries have texts"),
        ('{"prompt": [101, 102]}', "a list of token ids"),
        ('{"prompt": ["a", "b"]}', "a list of texts"),
        ('{"prompt": {"text": "a"}}', "an object"),
        ('{"prompt": null}\n{"prompt": " "}', r"no request in it \(2 without text\)"),
        ('{"prompt": "a", "max_tokens": "many"}', "max_tokens is 'many'"),
        ('[{"conversations": [{"speaker": "a", "said": "b"}]}]', "needs role and content, and has speaker, said"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "from 'tool'"),
        ('{"input_length": 9, "output_length": 9, "session_id": 1, "delay": 5}', "give timestamps"),
        ('{"input_length": 9, "output_length": 9, "hash_ids": [1, 2, 3, 4]}', "--trace_format"),
        ("a,b\n1,2\n", "entry 2 is not understood"),
        ('[{"conversations": [{"from": "martian", "value": "x"}]}]', "entry 1 is not understood"),
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "a message that is not text"),
    ],
)
def test_a_file_that_is_no_dataset_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "d").write_text(content)
    with pytest.raises(InputError, match=reason):
        read(str(tmp_path / "d"))


def written(folder: Path, *entries: object) -> str:
    """A file of a new name: what is in one is read once."""
    file = folder / f"{len(list(folder.iterdir()))}.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(file)


BAILIAN = {"chat_id": 1, "parent_chat_id": -1, "type": "text", "turn": 1}


def test_a_bailian_trace_is_in_seconds_and_in_blocks_of_16(built, tokenizer_dir: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [
        BAILIAN | {"timestamp": 0.4 * i, "input_length": 48, "output_length": 4, "hash_ids": [0, 10 + i, 20 + i]}
        for i in range(3)
    ]
    workload = built(written(tmp_path, *rows), trace_speed=1.0)
    assert np.diff(workload.schedule.times_s)[:2] == pytest.approx([0.4, 0.4])
    tokenizer = load_tokenizer(str(tokenizer_dir))
    a, b, c = (tokenizer.encode(r.prompt).ids for r in workload.measured)
    assert a[:16] == b[:16] == c[:16] and len({tuple(ids[16:20]) for ids in (a, b, c)}) == 3


def test_times_that_may_be_of_either_unit_are_asked_for(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [{"timestamp": 400 * i, "input_length": 48, "output_length": 4} for i in range(3)]
    path = written(tmp_path, *rows)
    with pytest.raises(InputError, match=r"keys: timestamp, input_length, output_length.*--trace_format mooncake"):
        built(path, trace_speed=1.0)
    for name, gap_s in (("mooncake", 0.4), ("guidellm", 400)):
        workload = built(path, trace_speed=1.0, trace_format=name)
        assert np.diff(workload.schedule.times_s)[:2] == pytest.approx([gap_s, gap_s])
    assert len(built(path).measured) == 3  # nobody asks for its times


def test_blocks_of_another_size_are_told_by_the_number_of_hashes(
    built, tokenizer_dir: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    rows = [
        {"timestamp": i, "input_length": 200, "output_length": 4, "hash_ids": [1, 2, 3, 10 + i]} for i in range(3)
    ]
    with pytest.raises(InputError, match="s or ms"):
        built(written(tmp_path, *rows), trace_speed=1.0)
    a, b, _ = built(written(tmp_path, *rows), trace_speed=1.0, trace_format="mooncake").measured
    a, b = (load_tokenizer(str(tokenizer_dir)).encode(r.prompt).ids for r in (a, b))
    assert a[:192] == b[:192] and a[192:] != b[192:]


def test_lengths_without_times_are_sent_at_a_rate_or_by_clients(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = written(tmp_path, *({"prompt_len": 20 + i, "output_len": 5} for i in range(3)))
    assert [(r.prompt_tokens, r.max_new_tokens) for r in built(path).measured] == [(20, 5), (21, 5), (22, 5)]
    with pytest.raises(InputError, match="has no arrival times"):
        built(path, trace_speed=1.0)


@pytest.mark.parametrize("name", ANSWER_TOKENS)
def test_an_answers_length_is_known_under_every_tools_name(tmp_path: Path, name: str) -> None:
    dataset = read(written(tmp_path, {"prompt": "a", name: 37}))
    assert dataset.conversations[0][0].max_new_tokens == 37


@pytest.mark.parametrize(
    "entry",
    [
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "u"}]},
            ]
        },
        {"conversation": [{"from": "system", "value": "s"}, {"from": "human", "value": "u"}]},
        {"conversations": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        {
            "custom_id": "1",
            "body": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        },
    ],
)
def test_a_chat_is_known_in_every_tools_way(tmp_path: Path, entry: object) -> None:
    (row,) = read(written(tmp_path, entry)).conversations[0]
    assert row.messages == ({"role": "system", "content": "s"}, {"role": "user", "content": "u"})


@pytest.mark.parametrize("entry", [{"prompt": "u"}, {"text_input": "u"}, {"text": "u"}])
def test_a_prompt_is_known_under_every_tools_name(tmp_path: Path, entry: object) -> None:
    assert read(written(tmp_path, entry)).conversations[0][0].text == "u"


def test_what_asks_nothing_is_left_out_and_counted(tmp_path: Path) -> None:
    blank = {"conversations": [{"from": "human", "value": " "}, {"from": "gpt", "value": "Yes?"}]}
    dataset = read(written(tmp_path, {"prompt": "a"}, {"prompt": ""}, blank, {"prompt": None}))
    assert len(dataset.conversations) == 1 and dataset.remark == "3 without text"
    dataset = read(written(tmp_path, {"prompt": "a"}, {"prompt": "b", "max_tokens": 0}))
    assert len(dataset.conversations) == 1 and dataset.remark == "1 without tokens of prompt or answer"
    dataset = read(str(SAMPLES / "burstgpt.csv"))
    assert dataset.remark == "1 without tokens of prompt or answer"


def test_a_conversation_ends_before_its_first_blank(tmp_path: Path) -> None:
    said = [("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", ""), ("human", "d"), ("gpt", "e")]
    path = written(tmp_path, {"conversations": [{"from": who, "value": text} for who, text in said]})
    assert [row.messages[-1]["content"] for row in read(path, multi_turn=True).conversations[0]] == ["a"]


def test_a_conversation_ends_before_the_request_that_exceeds_the_context(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    said = [
        ("human", "babe"),
        ("gpt", "gugo"),
        ("human", "babe " * 60),
        ("gpt", "gugo"),
        ("human", "babe"),
        ("gpt", "b"),
    ]
    path = written(tmp_path, *3 * [{"conversations": [{"from": who, "value": text} for who, text in said]}])
    workload = built(path, context=50, num_requests=3, multi_turn=True)
    assert [r.prompt for r in workload.measured] == ["babe"] * 3
    assert workload.remark == "6 requests left out, longer than the context of 50 tokens"


def test_long_cells_of_a_csv_are_read(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("prompt\n" + "word " * 40_000)
    ((row,),) = read(str(tmp_path / "long.csv")).conversations
    assert len(row.text) >= 199_999


def test_hashes_may_be_negative(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    hashes = ([-5, -2], [-5, 2**70])
    path = written(
        tmp_path,
        *({"timestamp": i, "input_length": 600, "output_length": 4, "hash_ids": h} for i, h in enumerate(hashes)),
    )
    one, other = (r.prompt.split() for r in built(path, num_requests=2).measured)
    assert one[:512] == other[:512] and one[512:520] != other[512:520]


def test_dates_without_a_zone_know_no_summer_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    rows = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-03-31 01:59:59,5,5\n2024-03-31 03:00:01,5,5\n"
    (tmp_path / "azure.csv").write_text(rows)
    (early,), (late,) = read(str(tmp_path / "azure.csv")).conversations
    monkeypatch.undo()
    time.tzset()
    assert late.at_s - early.at_s == 3602


def test_answers_count_without_the_token_that_begins_a_prompt(tokenizer_dir: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_dir))
    bare = len(tokenizer.encode("babe gugo").ids)
    tokenizer.add_special_tokens(["<s>"])
    begin = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    said = [{"from": "human", "value": "babe gugo"}, {"from": "gpt", "value": "babe gugo"}]
    run = run_config(dataset=written(tmp_path, {"conversations": said}), num_requests=1, warmup=0)
    (request,) = build_workload(run, tokenizer, None).measured
    assert (request.prompt_tokens, request.max_new_tokens) == (bare + 1, bare)


def test_what_the_context_takes_away_is_said(built, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    entries = [{"prompt": "babe " * n, "max_tokens": 4} for n in (2, *8 * [200], 2)]
    workload = built(written(tmp_path, *entries), context=100, num_requests=2)
    assert workload.remark.endswith(" requests left out, longer than the context of 100 tokens")
    trace = [{"input_length": n, "output_length": 4} for n in (20, 200, 20)]
    workload = built(written(tmp_path, *trace), context=100)
    assert workload.remark == "1 request cut to the context of 100 tokens"
    assert max(r.prompt_tokens + r.max_new_tokens for r in workload.measured) == 100


def test_the_terminal_says_what_was_left_out(
    benchmark: Callable[..., tuple[int, str, str]],
    reference: Callable[..., str],
    tokenizer_dir: Path,
    results: Path,
    tmp_path: Path,
) -> None:
    texts = ["babe", "", "gugo", *(f"babe {i}" * 300 for i in range(8))]
    path = written(tmp_path, *({"prompt": text, "max_tokens": 3} for text in texts))
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference/config.json").write_text('{"max_position_embeddings": 200}')
    status, out, err = benchmark(
        "--backend", "openai", "--openai_api_url", f"{reference()}/v1", "--model", tmp_path / "reference",
        "--seed", 1, "--tokenizer", tokenizer_dir, "--dataset", path, "--num_clients", 1, "--num_requests", 2,
        "--warmup", 0, "--num_workers", 1,
    )  # fmt: skip
    assert status == 0, err
    assert "left out 1 without text" in out
    assert "requests left out, longer than the context of 200 tokens" in out
    (log,) = (store.load(file) for file in results.rglob("*.json"))
    assert [r.max_new_tokens for r in log.results if r.phase == "measured"] == [3, 3]
