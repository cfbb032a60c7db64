"""Searches for the highest rate on the reference server: what an overload does to its point, and to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conftest import errors

from servebench.analysis import latency, samples
from servebench.log import store

Benchmark = Callable[..., tuple[int, str, str]]


def test_a_point_after_an_overload_begins_at_a_server_that_is_at_rest(
    benchmark: Benchmark, reference: Callable[..., str], tokenizer_dir: Path, results: Path
) -> None:
    """The reference server works off what nobody waits for any more: it does 50 a second."""
    url = reference("--ttft", "0.02", "--gap", "0", "--slots", "1")
    where = ["--backend", "openai", "--openai_api_url", url, "--model", "m", "--tokenizer", tokenizer_dir]
    what = ["--scenario", "D(16,1)", "--arrival", "constant", "--num_requests", 80, "--find_max", "e2e_p90<0.5s"]
    code, out, err = benchmark(*where, *what, "--request_rate", 160, "--warmup", 0)
    assert code == 0, out + err
    logs = [store.load(path) for path in (results / "openai").glob("*.json")]
    first, *rest = sorted(logs, key=lambda log: -log.run.load.size)
    assert first.quality.overloaded and rest[-1].run.load.request_rate < 50
    for log in (log for log in rest if log.run.load.size < 45):
        begin = sorted(samples.measured(log), key=lambda r: r.sent_ns)[:10]
        assert min(latency.end_ns(r) - r.sent_ns for r in begin) < 0.2e9, "all wait for 0.5 s"


def test_a_search_stops_an_overloaded_point_early_and_ends_at_the_capacity(
    benchmark: Benchmark, reference: Callable[..., str], tokenizer_dir: Path, results: Path
) -> None:
    """100 places of 0.5 s: 200 requests/s. What still waited when a point was stopped has failed, not vanished."""
    url = reference("--ttft", "0.5", "--gap", "0", "--slots", "100")
    where = ["--backend", "openai", "--openai_api_url", url, "--model", "m", "--tokenizer", tokenizer_dir]
    what = ["--scenario", "D(16,1)", "--request_rate", 190, "--arrival", "constant", "--max_concurrency", 110]
    for _ in range(3):  # on a busy machine the client may say that it was the limit, and is right
        more = ["--num_requests", 400, "--find_max", "e2e_p90<0.65s", "--overwrite_results"]
        code, out, err = benchmark(*where, *what, *more)
        assert code == 0, out + err
        if "the client was the limit" not in out:
            break
    found = [line for line in out.splitlines() if " meet e2e_p90<0.65s" in line]
    assert found, out
    assert 160 <= float(found[0].split(": ")[1].split()[0]) <= 250, found
    stopped = [
        log for path in (results / "openai").glob("*.json") if len(samples.measured(log := store.load(path))) < 400
    ]
    assert stopped and all(log.quality.overloaded for log in stopped)
    assert any("cut off" in error for log in stopped for error in errors(log))
