"""What is said of a plan before it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import conftest
import pytest
from msgspec.structs import replace

from servebench.log import store
from servebench.log.schema import Log
from servebench.plan import arguments, sweep
from servebench.show import plan_table

WORDS = "--backend vllm sglang --dry_run --model m --mean_prompt_length 9 --mean_max_new_tokens 9 --warmup 0"
Benchmark = Callable[..., tuple[int, str, str]]


def plan_of(tmp_path: Path, *more: str) -> list[sweep.ServerPlan]:
    asked = arguments.parse([*WORDS.split(), "--out_json_dir", str(tmp_path), *more])
    return [server_plan for settings in asked for server_plan in sweep.make_plan(settings)]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_plan_fits_the_terminal(tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = plan_table.table(plan_of(tmp_path, "--num_replicas", "1", "2", "--num_clients", "1", "2", "4", "8"))
    assert max(map(len, text.splitlines())) <= width
    assert "load 1 2 4 8 clients" in text and "SGLang TP 1 x 2" in text, "what all servers share stands above"


def test_a_plan_says_how_much_it_is(tmp_path: Path) -> None:
    """9 requests of 1 client and one more behind them, on each of two servers."""
    text = plan_table.table(plan_of(tmp_path, "--num_clients", "1", "--num_requests", "9"))
    said = "To measure: 2 runs on 2 servers, about 20 requests; the first point will tell how long that takes."
    assert text.splitlines()[-1] == said


def test_what_differs_between_servers_is_a_column(tmp_path: Path) -> None:
    words = ["--num_replicas", "1", "2", "--clients_per_replica", "4"]
    lines = plan_table.table(plan_of(tmp_path, *words)).splitlines()
    assert "load" not in lines[0] and "4 clients" in lines[4] and "8 clients" in lines[5]


def heads_of(plan: list[sweep.ServerPlan]) -> list[Log]:
    return [log for server_plan in plan for log in store.heads(server_plan.settings.folder)]


def test_earlier_logs_of_the_folder_tell_how_long_it_takes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "--num_clients", "1", "--num_requests", "599")
    for server_plan in plan:
        log = replace(conftest.point(server_plan.server.backend, 1, 0.5), server=server_plan.server)
        alike = replace(log, run=replace(log.run, requests=server_plan.points[0].run.requests))
        store.save(log, server_plan.settings.folder / "other-clients1.json")
        other = plan_table.table([server_plan], heads_of([server_plan]))
        assert "the first point will tell" in other, "prompts of another length tell nothing"
        store.save(alike, server_plan.settings.folder / "m-clients1.json")
    assert "about 10 min" in plan_table.table(plan, heads_of(plan))  # twice 600 requests at 2/s


def test_a_rate_tells_how_long_it_takes(tmp_path: Path) -> None:
    text = plan_table.table(plan_of(tmp_path, "--request_rate", "1", "--num_requests", "60"))
    assert text.splitlines()[-1].endswith("at least 2 min.")


def test_a_dry_run_says_what_is_missing(
    benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path / "none"))
    code, out, err = benchmark("--backend", "vllm", "--model", "an/unknown-model", "--dry_run")
    assert (code, err) == (0, "")
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert any("is not installed in" in line for line in notes)
    assert any("an/unknown-model is not on this machine yet" in line for line in notes)
    code, out, _ = benchmark("--backend", "vllm", "--model", str(tmp_path / "gone"), "--dry_run")
    assert code == 0 and "gone: there is no such directory or file" in out
