"""The table of a folder: what it shows at which width, in which order, and as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import conftest
import msgspec
import numpy as np
import pytest
from conftest import make_log, make_result
from test_terminal import point
from warm_python import python

from servebench.analysis import metrics, sla
from servebench.log import schema, store
from servebench.log.schema import Log
from servebench.plan.strategies import LoadResult
from servebench.show import summary
from servebench.show.verdict import SearchResult


def cells(text: str, row: int = 0) -> list[str]:
    """Of a row of the table, as shown, without names of layouts."""
    lines = text.splitlines()
    ruler = next(i for i, line in enumerate(lines) if line.startswith("---"))
    rows = [re.split(r" {2,}", line.strip()) for line in lines[ruler + 1 :]]
    return [cells for cells in rows if len(cells) > 2][row]


def column(text: str, head: str) -> int:
    """Where the column with this last line of its head is."""
    lines = text.splitlines()
    ruler = next(i for i, line in enumerate(lines) if line.startswith("---"))
    return re.split(r" {2,}", lines[ruler - 1].strip()).index(head)


def test_what_all_points_share_stands_above_the_table() -> None:
    text = summary.table([point(num_clients=2), point(num_clients=1)])
    shared = "meta-llama/Llama-2-7b-hf, prompt 2600, generation 60 tokens, by clients, vLLM TP 1 x 1"
    assert text.splitlines()[0] == shared
    assert [cells(text, row)[0] for row in (0, 1)] == ["1", "2"], "in the order of load, not of measuring"


def test_layouts_stand_above_their_rows() -> None:
    logs = [point(backend=backend, num_clients=n) for backend in ("vllm", "llamacpp") for n in (4, 1)]
    lines = summary.table(logs).splitlines()
    assert [line for line in lines if " TP " in line] == ["vLLM TP 1 x 1", "llama.cpp TP 1 x 1"]


def test_latencies_are_in_ms() -> None:
    text = summary.table([point(num_clients=4)])
    assert cells(text)[1:] == ["1.00", "4.00", "250", "~250", "250", "~250"]
    assert text.count("p50 ms") == 2 and "~: too few requests for a reliable percentile" in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal(logs: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines, three layouts each, three loads; with marks, several runs, a search, SLAs, and failures."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(logs.parent)
    found = [log for _, log in store.load_folder(logs)]
    again = [msgspec.structs.replace(log, run=msgspec.structs.replace(log.run, repetition=1)) for log in found]
    again[0] = conftest.point("vllm", 8, 1.0, verdict="client-limited: " + "late " * 30, overloaded=True)
    again[1].results[:] = [msgspec.structs.replace(r, error="HTTP 500 " * 9) for r in again[1].results]
    slas = [sla.parse("fastgen-4")]
    for some in (found, found + again):
        text = summary.report(some, slas) + summary.ending(some, [], Path("results"))
        assert max(map(len, text.splitlines())) <= width
        assert text.splitlines()[-1].startswith("       ./servebench decide results/")


def test_runs_become_a_mean_with_its_interval_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rates 1, 1.25 and 1.5: mean 1.25, 4.303 * 0.25 / sqrt(3) = 0.62
    runs = [point(1 / rate, repetition=i) for i, rate in enumerate((1.0, 1.25, 1.5))]
    text = summary.table(runs)
    assert cells(text)[1] == "1.25 ±0.62" and "3 runs of each" in text
    monkeypatch.setenv("COLUMNS", "60")
    narrow = summary.table(runs)
    assert cells(narrow)[1] == "1.25" and "±" not in narrow and max(map(len, narrow.splitlines())) <= 60


def test_all_columns_are_shown_if_asked_for() -> None:
    text = summary.table([point(num_clients=4)], wide=True)
    assert "clients / mean latency" in text and cells(text)[column(text, "s")] == "120"
    assert text.count("p90 ms") == 3 and "0/120" in text and "unstamped" in text


def test_a_single_run_has_the_interval_of_its_parts_in_the_wide_table() -> None:
    # 20 batches of 6 requests, medians 1.95 and 2.05 s in turn: deviation 0.0513, times 2.093 / sqrt(20).
    latencies = np.concatenate([2.05 - 0.1 * (i % 2) + np.array([-5, 3, -1, 1, -3, 5]) / 10 for i in range(20)])
    sent = np.cumsum([0.0, *latencies])
    log = make_log([make_result(i, sent[i], [t / 2, t]) for i, t in enumerate(latencies)], (0.0, sent[-1]))
    text = summary.table([log], wide=True)
    assert "2000 (±24)" in text and "1000 (±12)" in text  # E2E, TTFT
    assert "(±): estimated from parts of a single run" in text
    assert "(±" not in summary.table([point(requests=99)], wide=True) + summary.table([log])


def test_runs_that_have_not_settled_get_no_interval() -> None:
    growing = [make_result(i, float(i), [0.5 + i, 1.0 + i]) for i in range(200)]
    runs = [make_log(growing, (0.0, 200.0), num_clients=1, repetition=i) for i in range(3)]
    text = summary.table(runs)
    assert cells(text)[-1] == "not settled" and "±" not in text and "more --num_requests or a lower load" in text


def test_slas_are_columns() -> None:
    # TTFT 0.25 s and TPOT 0.25 s at 1 request/s
    slas = [sla.parse("ttft<0.3s"), sla.parse("fastgen-5"), sla.parse("tpot<0.2s")]
    text = summary.table([point()], slas)
    assert "ttft<0.3s" in text and cells(text)[-3:] == ["1.00", "0.00", "0.00"]


def test_kinds_of_requests_are_studies_of_their_own() -> None:
    text = summary.table([point(), point(scenario="D(2600,60)"), point(dataset="chats.json")])
    heads = [line for line in text.splitlines() if line.startswith("meta-llama/")]
    kinds = ("prompt 2600", "D(2600,60)", "chats")
    assert all(kind in head for kind, head in zip(kinds, heads, strict=True))


def test_an_overloaded_point_is_marked() -> None:
    text = summary.table([point(request_rate=1.0, overloaded=True)])
    assert cells(text)[-1] == "overloaded" and "kept growing" in text
    assert "overloaded" not in summary.table([point(request_rate=1.0)])


def test_doubts_are_marked() -> None:
    at_once = make_log([make_result(i, i, [0.5] * 4) for i in range(20)], (0.0, 20.0), num_clients=1)
    text = summary.table([at_once])
    assert cells(text)[-1] == "buffered" and "buffered: an answer's tokens came all at once" in text
    several = [point(repetition=i, verdict=v) for i, v in enumerate(("ok", "client-limited: late", "ok"))]
    assert cells(summary.table(several))[-1] == "1 of 3 runs client-limited"
    assert cells(summary.table([point(others_cpu_share=0.5)]))[-1] == "host-contended"


def test_settings_that_differ_name_the_layouts() -> None:
    text = summary.table([point(), point(stream=False)])
    assert "vLLM TP 1 x 1, stream True" in text and "vLLM TP 1 x 1, stream False" in text


def test_settings_that_two_backends_never_share_are_not_named() -> None:
    text = summary.table([point(), point(backend="fastgen", api="mii")])
    assert "api" not in text and "mii" not in text


def test_a_failed_point_is_a_row_too() -> None:
    log = point()
    measured = msgspec.structs.replace(log, server_facts=schema.ServerFacts(urls=[], engine="vllm 1"))
    text = summary.table([measured, msgspec.structs.replace(log, status="failed")])
    assert "engine" not in text, "a server that did not start tells no version, which is no other version"
    failed = schema.Log(**{f: getattr(point(), f) for f in Log.__struct_fields__} | {"status": "failed"})
    assert cells(summary.table([failed]))[-1] == "point failed"


def test_failed_requests_have_a_column_if_there_are_any() -> None:
    failing = point(num_clients=2)
    failing.results[0] = msgspec.structs.replace(failing.results[0], error="HTTP 500")
    text = summary.table([point(), failing])
    assert cells(text, 1)[column(text, "failed")] == "1/120"
    assert "failed" not in summary.table([point()])


def test_a_search_says_which_loads_meet_its_limits() -> None:
    logs = [point(num_clients=n) for n in (4, 1, 2)]
    says = {1: "meets", 2: "meets", 4: "does not meet"}
    loads = [LoadResult(n, 1, words, logs=[point(num_clients=n).file_name]) for n, words in says.items()]
    text = summary.table(logs, searches=[SearchResult("", "clients", loads, "ttft_p99<2s, tpot_p99<100ms")])
    assert [cells(text, row)[1] for row in range(3)] == ["meets", "meets", "does not meet"]
    assert "ttft_p99<2s" in text


def test_warnings_that_differ_in_numbers_alone_are_one_line() -> None:
    logs = [point(requests=requests, num_clients=requests) for requests in (8, 9, 10)]
    (said,) = [line for line in summary.warnings(logs) if "median" in line]
    assert said.startswith("vLLM TP 1 x 1, 8 clients: 8 requests are") and said.endswith("(2 more alike)")


def test_json_has_every_metric_of_every_point(logs: Path) -> None:
    done = python("-m", "servebench", "summary", logs, "--json", "--sla", "ttft<1s")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["points"]) == 18 and document["result"] and document["searches"] == []
    first = document["points"][0]
    log = next(iter(store.load_folder(logs)))[1]
    assert first["metrics"].keys() == {*metrics.values(log), "effective_throughput[ttft<1s]_per_s"}
    assert {"layout", "load", "marks", "warnings", "runs", "failed", "intervals", "logs"} <= first.keys()
    assert {each["layout"] for each in document["points"]} >= {"vLLM TP 2 x 1", "DeepSpeed-FastGen TP 1 x 2"}


def test_the_table_of_a_folder_is_shown_again(tmp_path: Path) -> None:
    for clients in (16, 8):
        log = point(num_clients=clients)
        store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    command = ["-m", "servebench", "summary", tmp_path, "--sla", "fastgen-2", "ttft<1s"]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    assert [cells(done.stdout, row)[0] for row in (0, 1)] == ["8", "16"]
    refused = python(*command[:-1], "nonsense")
    assert refused.returncode == 2 and "is not an SLA" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    log = point()
    store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    process = subprocess.Popen(
        [sys.executable, "-m", "servebench", "summary", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1
    process.stderr.close()
