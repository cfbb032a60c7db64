"""Flags of a real engine, swept: logs side by side, a refused flag alone, nothing measured twice, a curve each."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from real_engines import SMOLLM2, nothing_is_left
from warm_python import python

from servebench.log import store
from servebench.log.schema import Log

Benchmark = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.engine
_ = nothing_is_left  # a fixture for every test here
SWEEP = ["--backend", "llamacpp", "--model", SMOLLM2, "--mean_prompt_length", 24, "--mean_max_new_tokens", 8]
SWEEP += ["--num_clients", 1, 2, "--num_requests", 4]


def measured(results: Path) -> dict[tuple[str, int], Log]:
    found = [store.load(path) for path in (results / "llamacpp").glob("*.json")]
    return {(log.server.variant, log.run.load.num_clients): log for log in found}


def test_a_refused_variant_fails_alone_and_only_what_is_new_is_measured(
    benchmark: Benchmark, results: Path, tmp_path: Path
) -> None:
    grid = ["--engine_grid", "--threads 1 2", "--batch-size 64 128"]
    code, out, _ = benchmark(*SWEEP, *grid)
    assert code == 0 and len(measured(results)) == 8
    for (name, _), log in measured(results).items():
        words = log.server_facts.commands[0]
        assert all(f"--{part}" in words for part in name.split(", ")), (
            "the engine was started with what it is called"
        )
    begun = {key: log.started_at for key, log in measured(results).items()}

    code, out, _ = benchmark(*SWEEP, *grid)
    assert code == 0 and "Everything is measured already" in out

    code, out, _ = benchmark(*SWEEP, "--engine_grid", "--threads 1 2 none", "--batch-size 64 128")
    assert code == 1 and "8 points measured, 4 failed" in out
    assert "invalid int value: 'none'" in out.partition("| ")[0], "the engine's own words, before its log"
    now = measured(results)
    assert {key: log.started_at for key, log in now.items() if log.status == "ok"} == begun
    assert {key for key, log in now.items() if log.status != "ok"} == {
        (f"threads none, batch-size {size}", clients) for size in (64, 128) for clients in (1, 2)
    }

    drawn = python(
        str(ROOT / "src/plot_th_lat.py"),
        "--log_dir",
        str(results),
        "--out_dir",
        str(tmp_path),
        "--by",
        "engine_args",
    )
    assert drawn.returncode == 0 and list(tmp_path.glob("*.png")), drawn.stderr
    words = ["--filter", "variant=threads 1, batch-size 64"]
    gate = python("-m", "servebench", "gate", str(results), "--limits", "error_rate<1%", *words)
    assert gate.returncode == 0 and "2 clients" in gate.stdout, gate.stdout + gate.stderr
    python("-m", "servebench", "spreadsheet", str(results))
    rows = list(csv.DictReader((results / "summary.csv").read_text().splitlines()))
    assert {row["variant"] for row in rows} == {name for name, _ in now}
