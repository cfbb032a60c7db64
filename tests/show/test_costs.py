"""Energy, $ and start-up time where results are shown: known, unknown, and none where there are no GPUs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from conftest import on_gpus, point
from msgspec.structs import replace
from warm_python import python

from servebench.analysis import cost, metrics
from servebench.log import schema, store
from servebench.log.schema import Log
from servebench.show import gate, layouts, spreadsheet, summary
from servebench.show.html import first_screen, groups, read, table

ENERGY, DOLLARS = metrics.COSTS
RUNS = 6


def save(log: Log, results: Path) -> Log:
    store.save(log, results / log.server.backend / schema.log_name(log.server, log.run))
    return log


def measured(backend: str, watts: float, latency_s: float = 1.0, **changes: object) -> list[Log]:
    """Runs of a TP 2 server whose GPUs draw so much, a little more in each."""
    fields = {"tp_size": 2, "num_requests": 20} | changes
    logs = [point(backend, 2, latency_s, repetition=i, **fields) for i in range(RUNS)]
    return [on_gpus(log, watts + i, watts + i) for i, log in enumerate(logs)]


def servebench(*words: object) -> str:
    ended = python("-m", "servebench", *words)
    assert ended.returncode in (0, 1), ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture
def gpu_results(results: Path) -> Path:
    """vLLM at 300 W a GPU and SGLang at 200 W, with a price, and llama.cpp without telemetry."""
    for log in (*measured("vllm", 300.0), *measured("sglang", 200.0)):
        save(replace(log, gpu_hour_price=3.6), results)
    for i in range(RUNS):
        save(point("llamacpp", 2, 1.0, num_requests=20, repetition=i), results)
    return results


@pytest.fixture
def cpu_results(results: Path) -> Path:
    for backend in ("vllm", "sglang"):
        for i in range(RUNS):
            log = point(backend, 2, 1.0, num_requests=20, repetition=i)
            save(replace(log, identity={"environment": {"host": "8 cores"}}), results)
    return results


# In the terminal.


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_with_costs_keep_to_the_width(
    gpu_results: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    pair = (gpu_results / "vllm", gpu_results / "sglang")
    shown = [servebench("summary", gpu_results), servebench("compare", *pair)]
    shown += [servebench("compare", *pair, "--wide")] if width > 80 else []
    for text in shown:
        assert "J/token" in text
        typed = [line for line in text.splitlines() if "./servebench" in line or "servebench gate" in line]
        assert max(len(line) for line in text.splitlines() if line not in typed) <= width


def test_a_summary_shows_costs_where_they_are_known(gpu_results: Path) -> None:
    stored = servebench("summary", gpu_results)
    given = servebench("summary", gpu_results, "--gpu_hour_price", "36")
    # 0.002 $/s or 0.02 over 7.9 tokens/s; 605 W over 7.9 tokens/s.
    assert "J/token" in stored and "253" in stored and "2532" in given
    assert f"{605 / 7.9:.1f}" in stored and f"{605 / 7.9:.1f}" in given


def test_a_log_without_energy_has_a_dash(results: Path) -> None:
    logs = [on_gpus(point("vllm", 1, 1.0), 300.0), on_gpus(point("vllm", 2, 1.0), 300.0, energy="invalid: shared")]
    cells = [line.split()[-1] for line in summary.table(logs).splitlines()[4:6]]
    assert cells == [f"{300 / 4:.1f}", "-"], "the invalid one decides nothing"


def test_without_gpus_there_are_no_new_columns(cpu_results: Path) -> None:
    plain, priced = (servebench("summary", cpu_results, *more) for more in ((), ("--gpu_hour_price", "2")))
    compared = servebench("compare", cpu_results / "vllm", cpu_results / "sglang")
    for text in (plain, priced, compared, servebench("summary", cpu_results, "--wide")):
        assert "J/token" not in text and "per M" not in text and "energy" not in text
    assert priced.count(cost.NO_GPUS) == 1 and cost.NO_GPUS not in plain
    points = list(read.read(cpu_results, read.entries(cpu_results), 2.0))
    ((_, found),) = groups.studies(points)
    assert not {ENERGY, DOLLARS} & {column.key for column in table.columns(found)}


# In files.


def test_the_spreadsheet_has_costs_with_intervals_and_starts(gpu_results: Path) -> None:
    started = on_gpus(
        point("fastgen", 2, 1.0), 300.0, energy="invalid: reset", start_s=66.5, weights_cached_share=0.2
    )
    save(started, gpu_results)
    file, _ = spreadsheet.write(gpu_results, price=7.2)
    rows = {row["backend"]: row for row in csv.DictReader(file.read_text().splitlines())}
    vllm, fastgen, llamacpp = rows["vllm"], rows["fastgen"], rows["llamacpp"]
    low, mean, high = (float(vllm[f"{ENERGY}{end}"]) for end in ("_low", "", "_high"))
    assert low < mean < high and mean == pytest.approx(605 / 7.9)
    assert float(vllm[DOLLARS]) == pytest.approx(0.004 / 7.9 * 1e6) and vllm[f"{DOLLARS}_low"]
    assert (vllm["energy"], vllm["start_s"], vllm["start"]) == ("ok", "", "")
    assert (fastgen["energy"], fastgen[ENERGY]) == ("invalid: reset", "")
    assert (fastgen["start_s"], fastgen["start"], fastgen["gpu_hour_price"]) == ("66.5", "cold", "7.2")
    assert (llamacpp["energy"], llamacpp[ENERGY]) == ("", "")


def test_the_report_has_costs_and_takes_limits_of_them(gpu_results: Path) -> None:
    points = list(read.read(gpu_results, read.entries(gpu_results), 7.2))
    ((_, found),) = groups.studies(points)
    shown = {column.key: column for column in table.columns(found)}
    assert {ENERGY, DOLLARS} <= shown.keys() & set(first_screen.SHOWN)
    vllm = next(each for each in points if each.log.server.backend == "vllm")
    text, value = shown[ENERGY].cell(vllm)
    assert value == pytest.approx(605 / 7.9) and "±" in text
    assert vllm.numbers["dollars"] == pytest.approx(0.004 / 7.9 * 1e6)
    units = read.units()
    assert (units["energy_per_output_token"], units["gpu_power"], units["dollars"]) == ("J", "W", "")
    assert (units["error_rate"], units["gpu_idle_share"], units["ttft_p99"]) == ("%", "%", "s")


# Compared and judged.


def test_less_energy_is_better_but_not_faster(gpu_results: Path) -> None:
    pair = ("compare", gpu_results / "vllm", gpu_results / "sglang")
    usual = servebench(*pair)
    assert "vLLM and SGLang are not distinguishable" in usual.replace("\n  ", " ") and "J/token" in usual
    (row,) = (line for line in usual.splitlines() if line.startswith("2 clients"))
    assert "76.6→51.3 +" in row and "253→253 =" in row
    asked = servebench(*pair, "--metric", "energy_per_output_token").replace("\n  ", " ")
    assert asked.startswith("SGLang is cheaper than vLLM: energy per output token 3")


def test_costs_of_one_side_only_are_not_shown(gpu_results: Path) -> None:
    text = servebench("compare", gpu_results / "vllm", gpu_results / "llamacpp")
    assert "J/token" not in text and "energy" not in text


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("energy_per_output_token<80J", "pass"),
        ("energy_per_output_token<70J", "FAIL"),
        ("tokens_per_joule>0.01", "pass"),
        ("gpu_power<200W", "FAIL"),
        ("dollars<254", "pass"),
        ("dollars<250", "FAIL"),
    ],
)
def test_a_gate_judges_costs_over_runs(limit: str, says: str) -> None:
    runs = [replace(log, gpu_hour_price=3.6) for log in measured("vllm", 300.0)]
    (wanted,) = gate.read_limits(limit)
    assert gate.judge(wanted, "p", runs).says == says


def test_an_unknown_cost_meets_no_limit_and_says_why(gpu_results: Path) -> None:
    limits = "energy_per_output_token<1000J, dollars_per_million_output_tokens<1000"
    text = servebench("gate", gpu_results / "llamacpp", "--limits", limits)
    assert text.count("cannot tell") > 2 and "no GPU's energy is in its log" in text
    assert "no price is known; give --gpu_hour_price" in text and "dollars<1000" in text
    assert "passes" in servebench("gate", gpu_results / "vllm", "--limits", limits, "--gpu_hour_price", "1")
    bad = [on_gpus(log, 300.0, 300.0, energy="invalid: clock") for log in measured("vllm", 300.0)]
    found = gate.judge(gate.read_limits(limits)[0], "p", bad)
    assert (found.says, found.why) == ("cannot tell", "GPU energy invalid: clock")


def test_a_value_in_joules_has_its_unit_once(gpu_results: Path) -> None:
    text = servebench("gate", gpu_results / "vllm", "--limits", "energy_per_output_token<80J")
    assert "76.6 J (76." in text and " J to " not in text


# Starts.


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        ([], ""),
        ([(24.0, 0.9)], "24 s (warm)"),
        ([(66.0, 0.1), (24.0, 1.0), (26.0, 1.0)], "25 s warm, 66 s cold"),
        ([(24.0, 1.0), (24.0, 1.0), (30.0, 1.0)], "27 s (warm)"),  # points of one start count once
        ([(24.0, None)], "24 s"),
        ([(24.0, 1.0), (130.0, None)], "24 s warm, 2 min"),
    ],
)
def test_starts_in_words(starts: list[tuple[float, float | None]], words: str) -> None:
    one = point("vllm", 1, 1.0)
    logs = [
        replace(one, server_facts=replace(one.server_facts, start_s=start_s, weights_cached_share=share))
        for start_s, share in starts
    ]
    assert layouts.start_words(logs or [one]) == words


def test_a_start_stands_beside_its_server_and_not_beside_one_of_others(results: Path) -> None:
    facts = {"start_s": 24.0, "weights_cached_share": 1.0}
    ours = on_gpus(point("vllm", 1, 1.0), 300.0, **facts)
    theirs = on_gpus(point("openai", 1, 1.0, urls=("http://a:1/v1",)), 300.0, **facts)
    assert "\nvLLM TP 1 x 1, started in 24 s (warm)\n" in summary.table([ours, theirs])
    assert summary.table([ours]).splitlines()[0].endswith("by clients, vLLM TP 1 x 1, started in 24 s (warm)")
    assert "started" not in summary.table([theirs])
    assert spreadsheet.row([theirs])["start_s"] is None
    for log in (ours, theirs):
        save(log, results)
    ((_, found),) = groups.studies(list(read.read(results, read.entries(results))))
    assert table.table(found).count("started in 24 s (warm)") == 1
