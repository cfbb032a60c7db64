"""Two folders side by side: ratios, verdicts, refusals, and the exit status that CI sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import make_log, make_result
from warm_python import python

from servebench.analysis import stats
from servebench.errors import InputError
from servebench.log import schema, store
from servebench.log.config import RunConfig, all_fields
from servebench.log.schema import Log
from servebench.show import compare, matching
from servebench.show.compare import Comparison


def run(latency_s: float, repetition: int = 0, requests: int = 10, sha: str = "same", **changes: object) -> Log:
    """Requests back to back, each of this latency, its first token at half of it."""
    results = [make_result(i, i * latency_s, [latency_s / 2, latency_s]) for i in range(requests)]
    log = make_log(results, (0.0, requests * latency_s), repetition=repetition, **changes)
    return msgspec.structs.replace(log, client={"workload_sha256": f"{sha}-{repetition}"})


def runs(latencies_s: Sequence[float], **changes: object) -> list[Log]:
    return [run(latency, i, **changes) for i, latency in enumerate(latencies_s)]  # type: ignore[arg-type]


def of(rows: list[Comparison], metric: str) -> Comparison:
    (found,) = [row for row in rows if row.metric == metric]
    return found


def test_the_ratio_of_means_is_welchs_by_hand() -> None:
    # Means 2 and 4, variances 1 and 4 of 3 values: relative variances of the means 1/12 and 1/12, so the log of
    # the ratio has deviation sqrt(1/6) = 0.4082 with (1/6)^2 / (2 (1/12)^2 / 2) = 4 degrees of freedom: t = 2.776.
    found = stats.ratio_of_means([1, 2, 3], [2, 4, 6])
    assert found == pytest.approx((2, 2 / np.exp(1.1333), 2 * np.exp(1.1333), 3), rel=1e-3)
    assert stats.ratio_of_means([1], [2, 3]) is None and stats.ratio_of_means([0, 0], [1, 2]) is None


def test_the_ratio_of_pairs_is_students_by_hand() -> None:
    # Ratios 2, 2 and 2 e^0.3: logs 0.693, 0.693, 0.993; mean 0.793, deviation 0.1732, half 4.303 * 0.1 = 0.4303
    found = stats.ratio_of_pairs([1, 2, 3], [2, 4, 6 * np.exp(0.3)])
    assert found == pytest.approx((np.exp(0.7931), np.exp(0.3628), np.exp(1.2234), 3), rel=1e-3)


def test_verdicts_know_which_way_is_better() -> None:
    rows = compare.compare(runs([1.0, 1.01, 0.99]), runs([0.8, 0.81, 0.79]), [], paired=False)
    throughput, latency = of(rows, "request_throughput_per_s"), of(rows, "e2e_latency_mean_s")
    assert throughput.ratio == pytest.approx(1.25, rel=1e-3) and throughput.verdict == "better"
    assert latency.ratio == pytest.approx(0.8, rel=1e-3) and latency.verdict == "better"
    assert throughput.evidence == "runs" and throughput.interval and throughput.interval.runs == 3
    back = compare.compare(runs([0.8, 0.81, 0.79]), runs([1.0, 1.01, 0.99]), [], paired=False)
    assert of(back, "ttft_p50_s").verdict == "worse"
    assert replace(throughput, metric="effective_concurrency").verdict == "different", "neither way is better"


def test_what_lies_within_the_spread_of_runs_is_not_distinguishable() -> None:
    rows = compare.compare(runs([1.0, 1.1, 0.9]), runs([1.05, 0.95, 1.12]), [], paired=False)
    assert of(rows, "e2e_latency_mean_s").verdict == "not distinguishable"


def test_pairs_cancel_what_both_runs_share() -> None:
    """Runs differ by 30 %, pairs by 5 % each: only the pairs tell."""
    slow = [1.0, 1.3, 0.8, 1.1, 0.9, 1.2]
    rows = compare.compare(runs(slow), runs([0.95 * s for s in slow]), [], paired=True)
    assert of(rows, "ttft_mean_s").ratio == pytest.approx(0.95)
    assert of(rows, "ttft_mean_s").verdict == "better"
    unpaired = compare.compare(runs(slow), runs([0.95 * s for s in slow]), [], paired=False)
    assert of(unpaired, "ttft_mean_s").verdict == "not distinguishable"


def test_five_pairs_are_too_few_for_a_verdict() -> None:
    rows = compare.compare(runs([1.0] * 5), runs([0.5, 0.5, 0.5, 0.5, 0.51]), [], paired=True)
    assert of(rows, "ttft_mean_s").verdict == "takes 6 pairs"


def test_single_runs_are_compared_by_their_batches_and_percentiles_are_not() -> None:
    rng = np.random.default_rng(0)

    def noisy(mean_s: float) -> Log:
        ends = mean_s * rng.uniform(0.9, 1.1, 400)
        sent = np.cumsum([0.0, *ends[:-1]])
        return make_log([make_result(i, sent[i], [e / 2, e]) for i, e in enumerate(ends)], (0.0, sent[-1]))

    rows = compare.compare([noisy(1.0)], [noisy(1.2)], [], paired=False)
    assert (of(rows, "ttft_mean_s").evidence, of(rows, "ttft_mean_s").verdict) == ("batches", "worse")
    assert of(rows, "ttft_p50_s").ratio == pytest.approx(1.2, rel=0.05)
    assert of(rows, "ttft_p99_s").verdict == "no interval: more --runs"
    same = compare.compare([noisy(1.0)], [noisy(1.0)], [], paired=False)
    assert of(same, "request_throughput_per_s").verdict == "not distinguishable"


def test_a_point_that_is_not_stationary_gets_no_verdict() -> None:
    growing = [make_result(i, float(i), [1.0 + i, 1.5 + i]) for i in range(200)]
    bad = make_log(growing, (0.0, 200.0))
    assert of(compare.compare([bad], [bad], [], paired=False), "ttft_mean_s").verdict == "not stationary"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (run(1.0, temperature=0.0), "temperature is 1.0 and 0.0"),
        (run(1.0, prompt_length_var=0.1), "prompt_length_var is 0.3 and 0.1"),
        (run(1.0, sha="other"), "unlike prompts in run 1"),
        (run(1.0, seed=7), "seed is 0 and 7; measure both with one --seed"),
        (run(1.0, repetition=1), "no run has the same prompts"),
        (run(1.0, num_clients=7), "no point is in both"),
    ],
)
def test_unlike_workloads_are_refused(other: Log, words: str) -> None:
    with pytest.raises(InputError, match=words):
        matching.matched([run(1.0)], [other])


def test_what_is_not_a_condition_has_to_be_alike() -> None:
    """A new option is part of the workload, unless it is named as a condition."""
    assert set(matching.CONDITIONS) <= set(all_fields(RunConfig()))
    for field, value in {"prompt_text": "prose", "temperature": 0.5, "probe_rate": 1.0}.items():
        with pytest.raises(InputError, match=f"unlike workloads, {field} is"):
            matching.matched([run(1.0)], [run(1.0, **{field: value})])


def test_how_it_was_asked_may_differ_and_is_said() -> None:
    vllm = [run(1.0, backend="vllm", api="completions", request_timeout=60.0)]
    fastgen = [run(0.5, backend="fastgen", api="mii", request_timeout=600.0)]
    assert len(matching.matched(vllm, fastgen)) == 1
    assert matching.notes(vllm, fastgen) == [
        "api: completions in A, mii in B",
        "request_timeout: 60.0 in A, 600.0 in B",
    ]
    with pytest.raises(InputError, match="chat template is False and True"):
        matching.matched(vllm, [run(1.0, api="chat")])


def test_vllm_is_compared_with_fastgen_on_the_command_line(tmp_path: Path) -> None:
    for backend, api in (("vllm", "completions"), ("fastgen", "mii")):
        for log in runs([1.0, 1.01, 0.99], backend=backend, api=api):
            store.save(log, tmp_path / backend / schema.log_name(log.server, log.run))
    command = ["-m", "servebench", "compare", str(tmp_path / "vllm"), str(tmp_path / "fastgen")]
    done = python(*command)
    assert done.returncode == 0 and "note: api: completions in A, mii in B" in done.stdout, done.stderr


def test_two_settings_in_one_folder_are_named() -> None:
    with pytest.raises(InputError, match=r"unlike settings \(stream\) in one folder"):
        matching.matched([run(1.0), run(1.0, stream=False)], [run(1.0)])
    with pytest.raises(InputError, match=r"unlike settings \(num_requests\).* choose with --filter"):
        matching.matched([run(1.0), run(1.0, num_requests=99)], [run(1.0)])


def test_filters_choose_among_settings_of_one_folder(tmp_path: Path) -> None:
    for name, latency, engine_args in (("plain", 1.0, ()), ("eager", 1.5, ("--enforce-eager",))):
        store.save(run(latency, engine_args=engine_args), tmp_path / f"{name}-clients1.json")
    command = [
        "-m",
        "servebench",
        "compare",
        str(tmp_path),
        str(tmp_path),
        "--metric",
        "ttft_p50_s",
    ]
    words = ["--filter", "num_clients=1", "--filter_a", "engine_args=[]"]
    words += ["--filter_b", 'engine_args=["--enforce-eager"]']
    done = python(*command, *words)
    assert done.returncode == 0 and " 1.500 " in done.stdout, done.stderr
    done = python(*command, "--filter", "engine=none")
    assert done.returncode == 2 and "correct --filter" in done.stderr
    done = python(*command, "--filter", "engine_args=--x")
    assert done.returncode == 2 and "lists and objects are JSON" in done.stderr


def test_a_point_that_failed_fails_a_limit_and_one_of_a_single_folder_is_named(tmp_path: Path) -> None:
    for side in "ab":
        for clients in (1, 2):
            log = run(1.0, num_clients=clients)
            if (side, clients) == ("b", 2):
                log = msgspec.structs.replace(log, status="failed", failure="it ended", results=[])
            store.save(log, tmp_path / side / schema.log_name(log.server, log.run))
    log = run(1.0, num_clients=4)
    store.save(log, tmp_path / "a" / schema.log_name(log.server, log.run))
    command = ["-m", "servebench", "compare", str(tmp_path / "a"), str(tmp_path / "b")]
    done = python(*command)
    assert (
        done.returncode == 0 and "clients2 failed in B" in done.stdout and "clients4 is in A alone" in done.stdout
    )
    done = python(*command, "--fail_if", "failed_share > 1")
    assert done.returncode == 1 and "\nfailed: " in done.stdout and "clients2 failed in B" in done.stdout


def test_latencies_of_an_overload_do_not_win() -> None:
    late = runs([1.0, 1.01, 0.99], request_rate=2.0)
    rows = compare.compare(late, runs([0.5, 0.51, 0.49], request_rate=2.0, overloaded=True), [], paired=False)
    assert of(rows, "ttft_p50_s").verdict == "B: overloaded"
    assert of(rows, "request_throughput_per_s").verdict == "better"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({"verdict": "client-limited: late"}, "B: client-limited"), ({"verdict": "ok"}, "better")],
)
def test_what_is_in_doubt_does_not_win(changes: dict[str, object], verdict: str) -> None:
    rows = compare.compare(runs([1.0, 1.01, 0.99]), runs([0.5, 0.51, 0.49], **changes), [], paired=False)
    assert of(rows, "ttft_p50_s").verdict == of(rows, "request_throughput_per_s").verdict == verdict


def test_latencies_of_the_few_that_did_not_fail_do_not_win() -> None:
    def failing(log: Log) -> Log:
        lost = make_result(99, 0.0, [], error="HTTP 503", max_new_tokens=2)
        return msgspec.structs.replace(log, results=[*log.results, lost])

    rows = compare.compare(runs([1.0, 1.01, 0.99]), list(map(failing, runs([0.5, 0.51, 0.49]))), [], paired=False)
    assert of(rows, "e2e_latency_p99_s").verdict == "B: 9% failed"
    assert of(rows, "request_throughput_per_s").verdict == "better"  # counts what was completed


def test_backends_are_matched_by_name_only_where_there_are_several() -> None:
    both = [run(1.0, backend="vllm"), run(2.0, backend="fastgen")]
    assert [(a[0].server.backend, b[0].server.backend) for _, a, b in matching.matched(both[:1], both[1:])] == [
        ("vllm", "fastgen")
    ]
    assert [name.partition("/")[0] for name, _, _ in matching.matched(both, both)] == ["vllm", "fastgen"]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Runs of 1 s and of about 1.25 s."""
    for name, latencies in (("a", [1.0, 1.01, 0.99]), ("b", [1.25, 1.26, 1.24])):
        for log in runs(latencies):
            store.save(log, tmp_path / name / schema.log_name(log.server, log.run))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.mark.parametrize(
    ("limits", "status", "words"),
    [
        ([], 0, "worse"),
        (["ttft_p99 > 1.3"], 0, "worse"),
        (["ttft_p99 > 1.05"], 1, "failed: ttft_p99 > 1.05"),
        (["ttft_p99_s > 1.3", "request_throughput<0.9"], 1, "failed: request_throughput<0.9"),
        (["failed_share > 1"], 0, "worse"),
        (["ttft_from_schedule_p50 > 2"], 1, "is at not known"),
        (["ttft_p98 > 1"], 2, "no metric has this name"),
        (["ttft_p99 is 1"], 2, "write METRIC > RATIO"),
    ],
)
def test_the_exit_status_is_usable_in_ci(folders: list[str], limits: list[str], status: int, words: str) -> None:
    command = ["-m", "servebench", "compare", *folders, "--fail_if", *limits]
    done = python(*(command if limits else command[:-1]))
    assert done.returncode == status, done.stdout + done.stderr
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("a", "b", "limit", "said"),
    [
        ([1.0, 1.1, 0.9], [1.05, 0.95, 1.12], "ttft_p99 > 1.03", "cannot tell: ttft_p99 > 1.03"),  # 1.04: noise
        ([1.0, 1.1, 0.9], [1.05, 0.95, 1.12], "ttft_p99 > 2", None),
        ([1.0, 1.01, 0.99], [1.25, 1.26, 1.24], "ttft_p99 > 1.2", "failed: ttft_p99 > 1.2"),
        ([1.0, 1.01, 0.99], [1.25, 1.26, 1.24], "ttft_p99 > 1.25", "cannot tell: ttft_p99 > 1.25"),
        ([1.0, 1.01, 0.99], [1.25, 1.26, 1.24], "request_throughput < 0.9", "failed: request_throughput < 0.9"),
        ([1.0], [1.25], "ttft_p99 > 1.05", "failed: ttft_p99 > 1.05"),  # beyond, and nothing says that it is noise
        ([1.0], [1.02], "ttft_p99 > 1.05", "cannot tell: ttft_p99 > 1.05"),
        ([1.0], [1.02], "ttft_from_schedule_p50 > 2", "failed: ttft_from_schedule_p50 > 2"),  # not known
        ([1.0], [1.02], "failed_share > 1", None),
    ],
)
def test_noise_does_not_fail_and_what_is_not_known_does(
    a: list[float], b: list[float], limit: str, said: str | None
) -> None:
    rows = compare.compare(runs(a), runs(b), [], paired=False)
    judge = compare.parse_fail_if(limit, [row.metric for row in rows]).judge
    words = [found for row in rows if (found := judge(row))]
    assert (len(words), words[0].startswith(said)) == (1, True) if said else words == []


def test_a_metric_that_does_not_exist_is_one_line(folders: list[str]) -> None:
    command = ["-m", "servebench", "compare", *folders, "--metric", "ttft"]
    done = python(*command)
    assert done.returncode == 2 and "there are" in done.stderr and done.stderr.count("\n") == 1


def test_an_empty_folder_is_one_line(folders: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for other, reason in (("empty", "no measured points"), ("none", "is not a folder")):
        command = ["-m", "servebench", "compare", folders[0], str(tmp_path / other)]
        done = python(*command)
        assert done.returncode == 2 and reason in done.stderr and done.stderr.count("\n") == 1


def test_two_backends_are_measured_in_turn_with_the_same_prompts(
    reference: Callable[..., str], tokenizer_dir: Path, tmp_path: Path
) -> None:
    load = ["--backend", "openai", "--model", "m", "--tokenizer", str(tokenizer_dir), "--mean_prompt_length", "8"]
    load += ["--num_clients", "2", "--num_requests", "6", "--max_new_tokens_var", "0"]
    sides = [
        f"--openai_api_url {reference('--ttft', ttft, '--gap', '0.001')} --out_json_dir {tmp_path / name}"
        for name, ttft in (("a", "0.05"), ("b", "0.15"))
    ]
    command = ["-m", "servebench", "paired", *sides, "--runs", "2", *load]
    done = python(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line for line in done.stdout.splitlines() if " ttft_mean_s " in line]
    assert "2 pairs" in row and "takes 6 pairs" in row, row
    assert float(row.split()[4]) == pytest.approx(3.0, rel=0.1)
    logs = [store.load(path) for path in (tmp_path / "a").glob("*/*.json")]
    order = sorted((log.started_at, log.run.repetition) for log in logs)
    assert [repetition for _, repetition in order] == [0, 1]


def test_two_that_would_write_to_one_folder_are_refused() -> None:
    command = ["-m", "servebench", "paired", "--backend vllm", "--backend vllm --tp_size 2"]
    done = python(*command)
    assert done.returncode == 2 and "another --out_json_dir" in done.stderr and done.stderr.count("\n") == 1
