"""`--target_ci`: how many runs are enough, and a driver that measures no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_log, make_result

from servebench.analysis import target_ci
from servebench.errors import InputError
from servebench.log import store
from servebench.log.schema import Log
from servebench.plan import arguments, options


def run_of(latency_s: float) -> Log:
    """10 requests back to back, each of this latency."""
    return make_log([make_result(i, i * latency_s, [latency_s]) for i in range(10)], (0.0, 10 * latency_s))


def test_equal_runs_stop_at_the_least_number() -> None:
    assert target_ci.why_stop([run_of(1.0)] * 2, 0.05, 3, 10) is None
    said = target_ci.why_stop([run_of(1.0)] * 3, 0.05, 3, 10)
    assert said and "to 0.0%" in said and "after 3 runs (--target_ci 0.05)" in said


def test_runs_go_on_until_both_are_known() -> None:
    # Latencies 0.9, 1, 1.1: deviation 0.1, half-width 4.303 * 0.1 / sqrt(3) = 0.248 of a mean of 1.
    runs = [run_of(0.9), run_of(1.0), run_of(1.1)]
    assert target_ci.why_stop(runs, 0.24, 3, 10) is None
    assert "latency to 24.8%" in str(target_ci.why_stop(runs, 0.26, 3, 10))


def test_the_most_runs_end_it_and_say_what_is_known() -> None:
    said = target_ci.why_stop([run_of(0.9), run_of(1.1), run_of(1.0)], 0.05, 2, 3)
    assert said and "24.8%" in said and "--max_runs 3" in said


def test_the_driver_stops_when_it_is_known_and_a_rerun_measures_nothing(
    benchmark: Callable[..., tuple[int, str, str]],
    reference: Callable[..., str],
    tokenizer_dir: Path,
    results: Path,
) -> None:
    url = reference("--ttft", "0.02", "--gap", "0.001")
    words = ["--backend", "openai", "--openai_api_url", url, "--tokenizer", tokenizer_dir, "--model", "m"]
    words += ["--num_clients", 1, 2, "--num_requests", 8, "--mean_prompt_length", 8, "--max_new_tokens_var", 0]
    words += ["--target_ci", "100%", "--min_runs", 3, "--max_runs", 5]
    code, _, err = benchmark(*words)
    assert code == 0, err
    logs = [store.load(path) for path in results.glob("*/*.json")]
    last = [log for log in logs if log.stopped]
    assert len(last) == 2 and all("after 3 runs" in str(log.stopped) for log in last)
    assert len(logs) == 6 and len({log.client["workload_sha256"] for log in logs}) == 6
    before = {path: path.stat().st_mtime_ns for path in results.glob("*/*.json")}
    assert benchmark(*words)[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in results.glob("*/*.json")}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--target_ci", "5%", "--runs", "2"], "exclude each other"),
        (["--target_ci", "5%", "--min_runs", "11"], "more than --max_runs 10"),
        (["--max_runs", "2"], "goes with --target_ci"),
    ],
)
def test_bounds_that_contradict_are_refused(words: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        arguments.parse(["--backend", "vllm", *words])


def test_the_least_runs_are_no_more_than_the_most() -> None:
    (settings,) = arguments.parse(["--backend", "vllm", "--target_ci", "5%", "--max_runs", "2"])
    assert settings.strategy == options.TargetCi(target_ci=0.05, min_runs=2, max_runs=2)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.1", 0.1), ("2.5%", 0.025)])
def test_a_target_is_a_percentage_or_a_share(text: str, share: float) -> None:
    assert options.share(text, 0.001) == pytest.approx(share)
