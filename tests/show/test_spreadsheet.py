"""summary.csv: every point a row, raw numbers, derived from logs alone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from conftest import make_log, make_result, point
from warm_python import python

from servebench.log import schema, store


def write(folder: Path, *options: str) -> tuple[int, str, list[dict[str, str]]]:
    done = python("-m", "servebench", "spreadsheet", folder, *options)
    with (folder / "summary.csv").open() as file:
        return done.returncode, done.stdout + done.stderr, list(csv.DictReader(file))


def test_a_point_is_a_row(tmp_path: Path) -> None:
    results = [make_result(i, float(i), [0.5, 0.6, 0.8]) for i in range(4)]
    results.append(make_result(4, 4.0, [], error="reset", retries=2))
    for clients in (2, 1):
        log = make_log(results, (0.0, 5.0), num_clients=clients)
        store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    code, said, rows = write(tmp_path)
    assert code == 0 and "2 points" in said
    assert [row["num_clients"] for row in rows] == ["1", "2"]
    first = rows[0]
    assert (first["requests"], first["failed"], first["retries"]) == ("5", "1", "2")
    assert float(first["ttft_mean_s"]) == pytest.approx(0.5)
    assert float(first["itl_p50_s"]) == pytest.approx(0.15)
    assert float(first["request_throughput_per_s"]) == pytest.approx(4 / 5)
    assert first["log"].startswith("vllm/meta-llama_Llama-2-7b-hf-tp1")


def test_a_row_says_what_was_asked(tmp_path: Path) -> None:
    result = make_result(0, 0.0, [0.5, 0.6])
    for asked in ({"request_rate": 2.5, "scenario": "D(9,2)"}, {"trace_speed": 2.0, "dataset": "azure.csv"}):
        log = make_log([result], (0.0, 1.0), **asked)
        store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    _, _, rows = write(tmp_path)
    names = ("num_clients", "request_rate_per_s", "trace_speed", "scenario", "dataset")
    assert [[row[name] for name in names] for row in rows] == [
        ["", "2.5", "", "D(9,2)", ""],
        ["", "", "2.0", "", "azure.csv"],
    ]


def test_what_is_no_log_is_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "m-clients1.json").write_text("{}")
    result = make_result(0, 0.0, [0.5, 0.6])
    log = make_log([result], (0.0, 1.0))
    file = tmp_path / "vllm" / schema.log_name(log.server, log.run)
    store.save(log, file)
    code, said, rows = write(tmp_path)
    assert code == 0 and len(rows) == 1 and "left out" in said and "m-clients1.json" in said
    file.unlink()
    code, said, _ = write(tmp_path)
    assert code == 2 and "no logs in" in said


def test_runs_of_a_point_are_one_row_with_intervals(tmp_path: Path) -> None:
    # Rates 0.8, 1.0 and 1.2: mean 1, 4.303 * 0.2 / sqrt(3) = 0.497
    for i, window_s in enumerate((5.0, 4.0, 4 / 1.2)):
        results = [make_result(n, n * 0.8, [0.5, 0.6, 0.8]) for n in range(4)]
        log = make_log(results, (0.0, window_s), repetition=i)
        store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    _, _, (row,) = write(tmp_path)
    assert (row["runs"], row["requests"]) == ("3", "12")
    assert float(row["request_throughput_per_s"]) == pytest.approx(1.0)
    assert float(row["request_throughput_per_s_low"]) == pytest.approx(1 - 0.497, abs=1e-3)
    assert float(row["request_throughput_per_s_high"]) == pytest.approx(1 + 0.497, abs=1e-3)


def test_doubts_and_what_is_not_stationary_have_columns(tmp_path: Path) -> None:
    growing = [
        make_result(i, float(i), [0.5 + i, 0.7 + i, 0.9 + i, 1.0 + i], cached_tokens=98) for i in range(200)
    ]
    for i, verdict in enumerate(("ok", "client-limited: late", "ok")):
        log = make_log(growing, (0.0, 200.0), num_clients=1, repetition=i, verdict=verdict)
        store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    _, _, (row,) = write(tmp_path)
    assert row["client"] == "ok, but 1 of 3 runs client-limited: late"
    assert row["decides_nothing"] == "98% cached, 1 of 3 runs client-limited" and row["cached_share"] == "0.98"
    assert row["not_stationary"] and row["e2e_latency_mean_s"] and not row["e2e_latency_mean_s_low"]


def test_the_first_answer_token_has_columns(tmp_path: Path) -> None:
    log = make_log([make_result(n, n * 1.0, [0.5, 0.6, 0.8], first_answer_event=2) for n in range(4)], (0.0, 4.0))
    store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    _, _, (row,) = write(tmp_path)
    assert (float(row["ttft_p50_s"]), float(row["time_to_first_answer_token_p50_s"])) == (0.5, 0.8)


def test_slas_become_columns(tmp_path: Path) -> None:
    log = make_log([make_result(n, n * 1.0, [0.5, 0.6, 0.8]) for n in range(4)], (0.0, 4.0))
    store.save(log, tmp_path / "vllm" / schema.log_name(log.server, log.run))
    _, _, (row,) = write(tmp_path, "--sla", "ttft<0.5s, tpot<100ms", "fastgen-4")
    assert float(row["effective_throughput[ttft<0.5s,tpot<100ms]_per_s"]) == 0  # TPOT 0.15 s
    # Tokens are due at 0.5, 0.6, 0.7: the last is late.
    assert float(row["fluidity_index[ttft<0.5s,tpot<100ms]"]) == pytest.approx(2 / 3)
    assert float(row["effective_throughput[fastgen-4]_per_s"]) == 0  # prompts of 100 tokens are due in 0.2 s


def test_a_setting_that_is_not_the_default_has_a_column(tmp_path: Path) -> None:
    for name, changes in (("plain", {}), ("cool", {"top_p": 0.5, "shared_prefix": (512, 4)})):
        store.save(point("vllm", 1, 1.0, **changes), tmp_path / f"{name}-clients1.json")
    _, _, (cool, plain) = write(tmp_path)
    assert (cool["top_p"], cool["shared_prefix"], plain["top_p"]) == ("0.5", "(512, 4)", "")
