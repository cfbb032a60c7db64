"""What is kept beside logs says what the logs say, and only as long as they say it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import make_log, make_result, on_gpus, point
from msgspec.structs import replace
from warm_python import python

from servebench.analysis import cache, cost, filters, metrics, samples, sla, stationarity
from servebench.analysis.cache import derived
from servebench.errors import LogError
from servebench.log import store, unread
from servebench.log.schema import Log
from servebench.show import summary
from servebench.show.html import read

COST = "dollars_per_million_output_tokens"


@pytest.fixture
def file(logs: Path) -> Path:
    return next(path for path, _ in store.load_folder(logs))


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nobody may read a log's own file."""

    def refuse(path: Path, requests: bool = True) -> Log:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(store, "load", refuse)


def rate(log: Log) -> float | None:
    return metrics.OF_POINT["request_throughput_per_s"].function(log)  # type: ignore[no-any-return]


def of_folder(folder: Path) -> list[Log]:
    slas = [sla.parse("fastgen-2"), sla.parse("ttft<1s,tpot<0.5s")]
    found = filters.passing(folder, (), None, lambda log: (summary.document([log], slas, []), rate(log)))
    return [log for _, log in found]


def said(logs: list[Log]) -> tuple[bytes, str]:
    slas = [sla.parse("fastgen-2"), sla.parse("ttft<1s,tpot<0.5s")]
    return msgspec.json.encode(summary.document(logs, slas, [])), summary.report(logs, slas, wide=True)


def mixed(folder: Path) -> None:
    """Beside the others: several runs, an open loop, failed requests, energy, and enough requests for batches."""
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.exponential(0.5, 400))
    many = [make_result(i, float(t), sorted(rng.exponential(0.2, 5))) for i, t in enumerate(ends)]
    many[7] = make_result(7, float(ends[7]), [], error="HTTP 500", max_new_tokens=5)
    for repetition in (0, 1):
        log = make_log(many, (1.0, float(ends[-1])), num_clients=8, repetition=repetition)
        store.save(on_gpus(log, 300.0), folder / "vllm" / log.file_name)
    log = point("vllm", 1, 0.5, request_rate=2.0)
    store.save(log, folder / "vllm" / log.file_name)


def test_what_is_kept_says_what_the_logs_say_bit_by_bit(logs: Path, request: pytest.FixtureRequest) -> None:
    mixed(logs)
    anew = said([log for _, log in store.load_folder(logs)])
    assert said(of_folder(logs)) == anew, "the first time"
    assert len(list((logs / "vllm" / ".derived").iterdir())) == 12
    said(of_folder(logs))  # what only several layouts together ask for
    request.getfixturevalue("unreadable")
    assert said(of_folder(logs)) == anew, "the second time, without reading a log"


def test_the_report_reads_no_log_the_second_time(logs: Path, request: pytest.FixtureRequest) -> None:
    found = read.entries(logs)
    first = [(p.rate, p.numbers, p.marks, [run.row for run in p.runs]) for p in read.read(logs, found)]
    request.getfixturevalue("unreadable")
    assert [(p.rate, p.numbers, p.marks, [run.row for run in p.runs]) for p in read.read(logs, found)] == first


def test_what_decides_is_kept_too(file: Path, request: pytest.FixtureRequest) -> None:
    ttft = metrics.OF_REQUESTS["ttft_s"]

    def asked(log: Log) -> list[Any]:
        return [
            metrics.OF_POINT["request_throughput_per_s"].batches(log),
            sla._of_log(log, ttft, True).tolist(),
            stationarity.why_not_stationary(log),
            samples.failed_of(log),
            samples.mean_e2e_s(log),
        ]

    anew = asked(store.load(file))
    cache.load(file, asked)
    request.getfixturevalue("unreadable")
    assert asked(cache.load(file)) == anew


def test_a_log_that_changes_is_noticed(file: Path) -> None:
    before, log = rate(cache.load(file, rate)), store.load(file)
    store.save(replace(log, results=[*log.results, *log.results]), file)
    assert rate(cache.load(file, rate)) == 2 * (before or 0)
    same_size = file.read_bytes().replace(b'"ok"', b'"no"', 1)
    file.write_bytes(same_size)
    with pytest.raises(LogError, match="not a benchmark log"):
        cache.load(file)


def test_a_log_that_was_touched_or_copied_is_the_same(file: Path, request: pytest.FixtureRequest) -> None:
    before = rate(cache.load(file, rate))
    os.utime(file, ns=(1, 1))
    copy = Path(shutil.copytree(file.parent, file.parent.with_name("copy"))) / file.name
    request.getfixturevalue("unreadable")
    assert rate(cache.load(file)) == rate(cache.load(copy)) == before


def test_other_code_works_it_out_anew(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.load(file, rate)
    monkeypatch.setattr(cache, "_code", lambda: "other")
    (beside,) = (file.parent / ".derived").iterdir()
    before = beside.read_bytes()
    cache.load(file, rate)
    assert beside.read_bytes() != before and cache._found(file)


def test_a_folder_that_cannot_be_written_to_is_no_fault(file: Path) -> None:
    (file.parent / ".derived").write_text("in the way")
    log = cache.load(file, rate)
    assert rate(log) == rate(store.load(file)) and samples.failed_of(log) == (0, 16)


@pytest.mark.parametrize("cut", [0, 10, 40, -1])
def test_a_file_that_is_broken_is_ignored(file: Path, cut: int) -> None:
    before = rate(cache.load(file, rate))
    (beside,) = (file.parent / ".derived").iterdir()
    whole = beside.read_bytes()
    for broken in (whole[:cut], whole[:cut] + b"\0" + whole[cut + 1 :]):
        beside.write_bytes(broken)
        assert not cache._found(file) and rate(cache.load(file, rate)) == before


def test_a_price_is_not_kept(results: Path) -> None:
    log = on_gpus(point("vllm", 4, 1.0), 300.0)
    store.save(log, results / "vllm" / log.file_name)

    def dollars(*price: object) -> float | None:
        options = ["--gpu_hour_price", *price] if price else []
        done = python("-m", "servebench", "summary", results, "--json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["points"][0]["metrics"][COST]  # type: ignore[no-any-return]

    # 157 tokens in 10 s on one GPU: 2 $ an hour are 2 / 3600 / 15.7 * 1e6 $ per million
    assert [dollars(), dollars(2), dollars(3), dollars()] == [None, *map(pytest.approx, (35.3857, 53.0786)), None]


def test_nothing_that_is_kept_depends_on_the_price(results: Path) -> None:
    kept = []
    for price in (2.0, 3.0):
        log = replace(on_gpus(point("vllm", 4, 1.0), 300.0), gpu_hour_price=price)
        path = results / str(price) / log.file_name
        store.save(log, path)
        cache.load(path, lambda log: (said([log]), read.point(0, "", {"": log}), metrics.batch_values(log)))
        kept.append(cache._found(path).values)  # type: ignore[union-attr]
    assert kept[0] == kept[1] and len(kept[0]) > 30


def test_requests_are_read_when_they_are_needed(file: Path) -> None:
    whole, log = store.load(file), cost.with_price(cache.load(file), 2.0)
    assert isinstance(log.results, unread.Unread) and log.gpu_hour_price == 2.0
    assert [*log.results] == [*whole.results] and len(log.results) == len(whole.results) > 0
    assert log.results[-1] == whole.results[-1] and log.results[:2] == whole.results[:2] and not log.probes
    assert samples.each(log, lambda r: r.prompt_tokens).tolist() == [100.0] * len(whole.results)
    store.save(cache.load(file), file.with_name("again.json"))
    assert file.with_name("again.json").read_text() == file.read_text()


def test_what_is_worked_out_later_is_kept(file: Path, request: pytest.FixtureRequest) -> None:
    log = cost.with_price(cache.load(file), 2.0)
    length, rated = samples.mean_e2e_s(log), rate(log)
    request.getfixturevalue("unreadable")
    again = cache.load(file)
    assert (samples.mean_e2e_s(again), rate(again)) == (length, rated)


def test_requests_of_few_logs_are_in_memory(logs: Path) -> None:
    found = [log for _, log in filters.passing(logs, (), None, said_alone)]
    assert all("memory" not in log.__dict__ for log in found)
    assert all(len(samples.succeeded(log)) for log in found)
    assert unread._read.cache_info().currsize <= unread.IN_MEMORY < len(found)


def said_alone(log: Log) -> None:
    summary.report([log])


def test_a_log_that_is_replaced_while_a_command_runs_is_not_mixed_with_its_successor(file: Path) -> None:
    log = cache.load(file)
    store.save(replace(store.load(file), results=[]), file)
    with pytest.raises(LogError, match="was replaced"):
        len(log.results)


@derived
def zeros(log: Log, size: int) -> np.ndarray:
    return np.zeros(size, dtype=bool)


def test_what_is_large_is_not_kept(file: Path) -> None:
    log = cache.load(file, lambda log: (zeros(log, 10), zeros(log, cache.LARGEST)))
    assert [key for key in cache._found(file).values] == ["test_cache.zeros 10"]  # type: ignore[union-attr]
    assert zeros(log, 10).tolist() == [False] * 10 and len(zeros(log, cache.LARGEST)) == cache.LARGEST


ANSWER = {"generated_tokens": ["a", "b"], "prompt": "p", "token_gen_time": [1.0, 0.5]}
ORIGINAL = {
    "args": {"backend": "fastgen", "model": "m-7b", "num_clients": 1, "mean_prompt_length": 9}
    | {"mean_max_new_tokens": 2, "stream": True},
    "response_details": [ANSWER | {"start_time": at, "end_time": at + 1.5} for at in (100.0, 101.5)],
}


@pytest.mark.parametrize("kind", ["original", "version 1"])
def test_logs_of_other_versions_are_kept_too(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    version_1 = (Path(__file__).parents[1] / "data/logs/version1-rate10.json").read_text()
    file = tmp_path / "log-clients1.json"
    file.write_text(json.dumps(ORIGINAL) if kind == "original" else version_1)
    anew = metrics.values(store.load(file))
    cache.load(file, metrics.values)
    request.getfixturevalue("unreadable")
    assert metrics.values(cache.load(file)) == anew and anew["request_throughput_per_s"]
