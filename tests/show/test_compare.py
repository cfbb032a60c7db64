"""Two folders side by side: ratios, verdicts, refusals, and the exit status that CI sees."""

from __future__ import annotations

import json
import re
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
from servebench.log.telemetry import Gpu, Machine
from servebench.show import matching, ratios, winner
from servebench.show.ratios import Comparison


def run(latency_s: float, repetition: int = 0, requests: int = 10, sha: str = "same", **changes: object) -> Log:
    """Requests back to back, each of this latency, its first token at half of it."""
    results = [make_result(i, i * latency_s, [latency_s / 2, latency_s]) for i in range(requests)]
    log = make_log(results, (0.0, requests * latency_s), repetition=repetition, **changes)
    return msgspec.structs.replace(log, client={"workload_sha256": f"{sha}-{repetition}"})


def runs(latencies_s: Sequence[float], **changes: object) -> list[Log]:
    return [run(latency, i, **changes) for i, latency in enumerate(latencies_s)]  # type: ignore[arg-type]


def compared(a: list[Log], b: list[Log], paired: bool = False) -> list[Comparison]:
    return ratios.compare(matching.matched(a, b).pairs, paired=paired)


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
    rows = compared(runs([1.0, 1.01, 0.99]), runs([0.8, 0.81, 0.79]))
    throughput, latency = of(rows, "request_throughput_per_s"), of(rows, "e2e_latency_mean_s")
    assert throughput.ratio == pytest.approx(1.25, rel=1e-3) and throughput.verdict == "better"
    assert latency.ratio == pytest.approx(0.8, rel=1e-3) and latency.verdict == "better"
    assert throughput.evidence == "runs" and throughput.interval and throughput.interval.runs == 3
    back = compared(runs([0.8, 0.81, 0.79]), runs([1.0, 1.01, 0.99]))
    assert of(back, "ttft_p50_s").verdict == "worse"
    assert replace(throughput, metric="effective_concurrency").verdict == "different", "neither way is better"


def test_what_lies_within_the_spread_of_runs_is_not_distinguishable() -> None:
    rows = compared(runs([1.0, 1.1, 0.9]), runs([1.05, 0.95, 1.12]))
    assert of(rows, "e2e_latency_mean_s").verdict == "not distinguishable"


def test_pairs_cancel_what_both_runs_share() -> None:
    """Runs differ by 30 %, pairs by 5 % each: only the pairs tell."""
    slow = [1.0, 1.3, 0.8, 1.1, 0.9, 1.2]
    rows = compared(runs(slow), runs([0.95 * s for s in slow]), paired=True)
    assert of(rows, "ttft_mean_s").ratio == pytest.approx(0.95)
    assert of(rows, "ttft_mean_s").verdict == "better"
    unpaired = compared(runs(slow), runs([0.95 * s for s in slow]))
    assert of(unpaired, "ttft_mean_s").verdict == "not distinguishable"


def test_five_pairs_are_too_few_for_a_verdict() -> None:
    rows = compared(runs([1.0] * 5), runs([0.5, 0.5, 0.5, 0.5, 0.51]), paired=True)
    assert of(rows, "ttft_mean_s").verdict == "takes 6 pairs"


def test_single_runs_are_compared_by_their_batches_and_percentiles_are_not() -> None:
    rng = np.random.default_rng(0)

    def noisy(mean_s: float) -> Log:
        ends = mean_s * rng.uniform(0.9, 1.1, 400)
        sent = np.cumsum([0.0, *ends[:-1]])
        return make_log([make_result(i, sent[i], [e / 2, e]) for i, e in enumerate(ends)], (0.0, sent[-1]))

    rows = compared([noisy(1.0)], [noisy(1.2)])
    assert (of(rows, "ttft_mean_s").evidence, of(rows, "ttft_mean_s").verdict) == ("batches", "worse")
    assert of(rows, "ttft_p50_s").ratio == pytest.approx(1.2, rel=0.05)
    assert of(rows, "ttft_p99_s").verdict == "no interval: more --runs"
    same = compared([noisy(1.0)], [noisy(1.0)])
    assert of(same, "request_throughput_per_s").verdict == "not distinguishable"


def test_a_point_that_has_not_settled_gets_no_verdict() -> None:
    growing = [make_result(i, float(i), [1.0 + i, 1.5 + i]) for i in range(200)]
    bad = make_log(growing, (0.0, 200.0))
    assert of(compared([bad], [bad]), "ttft_mean_s").verdict == "not settled"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (run(1.0, temperature=0.0), "temperature is 1.0 and 0.0"),
        (run(1.0, prompt_length_var=0.1), "prompt_length_var is 0.3 and 0.1"),
        (run(1.0, sha="other"), "the prompts of run 1 differ"),
        (run(1.0, seed=7), "seed is 0 and 7; measure both with the same --seed"),
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
        with pytest.raises(InputError, match=f"the workloads differ: {field} is"):
            matching.matched([run(1.0)], [run(1.0, **{field: value})])


def test_how_it_was_asked_may_differ_and_is_said() -> None:
    vllm = [run(1.0, backend="vllm", api="completions", request_timeout=60.0)]
    fastgen = [run(0.5, backend="fastgen", api="mii", request_timeout=600.0)]
    found = matching.matched(vllm, fastgen)
    names = matching.names_of(found, ("a", "b"))
    assert names == ("vLLM", "DeepSpeed-FastGen") and len(found.pairs) == 1
    assert matching.notes(found, names) == [
        "api: completions for vLLM, mii for DeepSpeed-FastGen",
        "request_timeout: 60.0 for vLLM, 600.0 for DeepSpeed-FastGen",
    ]
    with pytest.raises(InputError, match="chat template is False and True"):
        matching.matched(vllm, [run(1.0, api="chat")])


# What is paired with what.


def pairs(found: matching.Matched) -> list[tuple[str, int, int]]:
    return [(pair.name, pair.a[0].server.tp_size, pair.b[0].server.tp_size) for pair in found.pairs]


def sized(backend: str, tp_size: int, num_replicas: int, clients: int = 1, **changes: object) -> Log:
    sizes = {"tp_size": tp_size, "num_replicas": num_replicas, "num_clients": clients}
    return run(1.0, backend=backend, **sizes, **changes)


def test_what_is_alike_all_over_each_side_and_differs_is_compared() -> None:
    found = matching.matched([sized("vllm", 2, 1)], [sized("sglang", 1, 2)])
    assert pairs(found) == [("1 client", 2, 1)]
    assert found.compared == ["backend", "tp_size", "num_replicas"]
    assert matching.names_of(found, ("a", "b")) == ("vLLM TP 2 x 1", "SGLang TP 1 x 2")


def test_two_running_servers_are_named_by_their_addresses() -> None:
    a, b = ([run(1.0, backend="openai", urls=(f"http://{host}:8000/v1",))] for host in ("one", "two"))
    found = matching.matched(a, b)
    names = matching.names_of(found, ("a", "b"))
    assert names == ("one:8000", "two:8000") and matching.notes(found, names) == []


def test_unlike_numbers_of_gpus_are_named_and_each_gpu_is_compared() -> None:
    found = matching.matched([sized("vllm", 2, 2)], [sized("vllm", 1, 2)])
    names = matching.names_of(found, ("a", "b"))
    assert names == ("vLLM TP 2 x 2 (4 GPUs)", "vLLM TP 1 x 2 (2 GPUs)")
    sides = winner.Sides(names, found, ratios.compare(found.pairs), ["request_throughput_per_s"])
    (row,) = sides.per_gpu
    assert (row.a, row.b, row.ratio) == (pytest.approx(0.25), pytest.approx(0.5), pytest.approx(2.0))


def test_what_varies_within_a_side_is_matched_and_the_rest_is_listed() -> None:
    a = [sized("vllm", tp, 1, clients) for tp in (1, 2) for clients in (1, 8)]
    b = [sized("sglang", tp, 1, clients) for tp in (2, 4) for clients in (8, 16)]
    found = matching.matched(a, b)
    assert pairs(found) == [("8 clients", 2, 2)]
    assert found.alone == {
        "only in A": ["TP 1 x 1, 1 client", "TP 1 x 1, 8 clients", "TP 2 x 1, 1 client"],
        "only in B": ["TP 2 x 1, 16 clients", "TP 4 x 1, 8 clients", "TP 4 x 1, 16 clients"],
    }


def test_flags_within_a_side_are_matched_and_versions_that_follow_from_the_engine_are_not() -> None:
    def versioned(backend: str, version: str, *engine_args: str) -> Log:
        log = run(1.0, backend=backend, engine_args=engine_args)
        return msgspec.structs.replace(log, server_facts=replace_struct(log.server_facts, engine=version))

    before = [versioned("vllm", "vllm 0.9", *words) for words in ((), ("--enforce-eager",))]
    after = [versioned("vllm", "vllm 1.0", *words) for words in ((), ("--enforce-eager",))]
    found = matching.matched(before, after)
    assert [pair.name for pair in found.pairs] == [
        "no engine_args, 1 client",
        "enforce-eager, 1 client",
    ]
    assert matching.names_of(found, ("a", "b")) == ("vLLM, vllm 0.9", "vLLM, vllm 1.0")
    both = matching.matched([*before, versioned("fastgen", "mii 1")], [*after, versioned("fastgen", "mii 2")])
    assert len(both.pairs) == 3 and both.compared == [], "the versions differ, but not in one way all over"


def replace_struct(struct: object, **changes: object):  # type: ignore[no-untyped-def]
    return msgspec.structs.replace(struct, **changes)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([sized("vllm", 1, 2), sized("vllm", 2, 1)], [sized("vllm", 4, 1)], "--filter_a tp_size=1"),
        ([sized("vllm", 4, 1)], [sized("vllm", 1, 1), sized("vllm", 2, 1)], "--filter_b tp_size=1"),
        ([sized("vllm", 1, 2), sized("vllm", 2, 1)], [sized("vllm", 1, 1)], "--filter_a tp_size=1 num_replicas=2"),
        ([sized("vllm", 1, 1), sized("sglang", 1, 1)], [sized("fastgen", 1, 1)], "--filter_a backend=vllm"),
        (
            [run(1.0), run(1.0, engine_args=("--x",))],
            [run(1.0, engine_args=("--y",))],
            "--filter_a 'engine_args=[]'",
        ),
        ([run(1.0)], [run(1.0, num_clients=7)], "A has 1 client, B has 7 clients"),
        ([run(1.0)], [run(1.0, scenario="D(1,2)")], r"A has prompt 2600 gen 60, B has D\(1,2\)"),
    ],
)
def test_where_nothing_is_in_both_the_filter_that_chooses_is_named(a: list[Log], b: list[Log], words: str) -> None:
    with pytest.raises(InputError, match=words.replace("[]", r"\[\]")):
        matching.matched(a, b)


def saved(folder: Path, *logs: Log) -> str:
    for log in logs:
        store.save(log, folder / schema.log_name(log.server, log.run, log.fingerprint))
    return str(folder)


def test_layouts_of_one_folder_are_compared_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    logs = [
        run(latency, i, backend=backend, tp_size=tp, num_replicas=3 - tp, num_clients=clients)
        for backend, speed in (("vllm", 1.0), ("sglang", 0.8))
        for tp in (1, 2)
        for clients in (1, 2)
        for i, latency in enumerate([speed, 1.01 * speed, 0.99 * speed])
    ]
    for backend in ("vllm", "sglang"):
        saved(tmp_path / backend, *(log for log in logs if log.server.backend == backend))
    command = ["-m", "servebench", "compare", str(tmp_path)]
    sides = ["--filter_a", "backend=vllm", "tp_size=2", "--filter_b", "backend=sglang", "tp_size=1"]
    done = python(*command, *sides)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.partition("\n\n")[0].split())
    # Latencies of 1 s and 0.8 s: 1.25 times the throughput, 20 % less latency.
    assert said.startswith(
        "SGLang TP 1 x 2 is faster than vLLM TP 2 x 1: request throughput 25 % higher, TTFT p99 20 %"
    )
    assert "at 2 of 2 points" in said and max(map(len, done.stdout.splitlines())) <= 80
    assert "1 client" in done.stdout and "500→400 +" in done.stdout
    refused = python(*command)
    assert refused.returncode == 2 and "--filter_a backend=" in refused.stderr and refused.stderr.count("\n") == 1


def test_vllm_is_compared_with_fastgen_on_the_command_line(tmp_path: Path) -> None:
    for backend, api in (("vllm", "completions"), ("fastgen", "mii")):
        saved(tmp_path / backend, *runs([1.0, 1.01, 0.99], backend=backend, api=api))
    command = ["-m", "servebench", "compare", str(tmp_path / "vllm"), str(tmp_path / "fastgen")]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    assert "note: api: completions for vLLM, mii for DeepSpeed-FastGen" in done.stdout
    assert (
        "vLLM and DeepSpeed-FastGen are not distinguishable" in done.stdout and "would have shown" in done.stdout
    )


def test_two_settings_in_one_folder_are_matched_or_named() -> None:
    assert len(matching.matched([run(1.0), run(1.0, stream=False)], [run(1.0)]).pairs) == 1
    assert len(matching.matched([run(1.0), run(1.0, num_requests=99)], [run(1.0)]).pairs) == 1
    twice = [replace_struct(run(1.0), fingerprint=mark, identity={"server": {"model": mark}}) for mark in "xy"]
    with pytest.raises(InputError, match="A has 1 client twice, from different servers"):
        matching.matched(twice, [run(1.0)])


def test_filters_choose_among_settings_of_one_folder(tmp_path: Path) -> None:
    for name, latency, engine_args in (("plain", 1.0, ()), ("eager", 1.5, ("--enforce-eager",))):
        store.save(run(latency, engine_args=engine_args), tmp_path / f"{name}-clients1.json")
    command = ["-m", "servebench", "compare", str(tmp_path), str(tmp_path), "--metric", "ttft_p50", "--wide"]
    words = ["--filter", "num_clients=1", "--filter_a", "engine_args=[]"]
    words += ["--filter_b", 'engine_args=["--enforce-eager"]']
    done = python(*command, *words)
    assert done.returncode == 0 and " 1.500 " in done.stdout, done.stderr
    assert "A vLLM, no engine_args, B vLLM, enforce-eager" in done.stdout
    done = python(*command, "--filter", "engine=none")
    assert done.returncode == 2 and "correct --filter" in done.stderr
    done = python(*command, "--filter_a", "engine_args=", "--filter_b", "engine_args=--enforce-eager")
    assert done.returncode == 0 and "A vLLM, no engine_args, B vLLM, enforce-eager" in done.stdout


def test_points_without_a_partner_are_named(tmp_path: Path) -> None:
    for side in "ab":
        for clients in (1, 2):
            log = run(1.0, num_clients=clients)
            if (side, clients) == ("b", 2):
                log = msgspec.structs.replace(log, status="failed", failure="it ended", results=[])
            saved(tmp_path / side, log)
    saved(tmp_path / "a", run(1.0, num_clients=4))
    done = python("-m", "servebench", "compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    assert "not compared, failed in B: 1 point: 2 clients" in done.stdout
    assert "not compared, only in A: 1 point: 4 clients" in done.stdout


# What is said.


def said(a: list[Log], b: list[Log], shown: tuple[str, ...] = ("request_throughput_per_s", "ttft_p99_s")) -> str:
    found = matching.matched(a, b)
    return winner.sentence(winner.Sides(("A", "B"), found, ratios.compare(found.pairs), list(shown)))


def test_the_sentence_says_who_is_faster_by_how_much_and_where() -> None:
    slow = [log for clients in (1, 2) for log in runs([1.0, 1.01, 0.99], num_clients=clients)]
    fast = [log for c, speed in ((1, 0.8), (2, 0.5)) for log in runs([speed, 1.01 * speed], num_clients=c)]
    # Means of 1/s: 1.0001 of the slow runs, 1/0.804 and 1/0.5025 of the fast ones.
    words = "request throughput 24 to 99 % higher, TTFT p99 20 to 50 % lower at 2 of 2 points"
    assert said(slow, fast) == f"B is faster than A: {words}"
    assert said(fast, slow) == f"A is faster than B: {words}", "of the faster one, whichever side it is"


def test_a_single_point_is_said_with_its_interval() -> None:
    words = said(runs([1.0, 1.01, 0.99]), runs([0.8, 0.81, 0.79]), ("request_throughput_per_s",))
    low, high = stats.ratio_of_means([1 / s for s in (1.0, 1.01, 0.99)], [1 / s for s in (0.8, 0.81, 0.79)])[1:3]  # type: ignore[index]
    change = f"{100 * (low - 1):.2g} to {100 * (high - 1):.2g} % higher"
    assert words == f"B is faster than A: request throughput {change} (95 % interval)"


def test_neither_is_faster_where_one_has_throughput_and_the_other_latency() -> None:
    def late(log: Log) -> Log:
        """As fast, but with its first token at the end."""
        results = [replace_struct(r, event_ns=[r.event_ns[-1] - 1000, r.event_ns[-1]]) for r in log.results]
        return msgspec.structs.replace(log, results=results)

    words = said(runs([1.0, 1.01, 0.99]), [late(log) for log in runs([0.8, 0.81, 0.79])])
    assert words.startswith("Neither is faster: against A, B has request throughput") and "TTFT p99" in words


def test_nothing_is_said_to_be_faster_where_nothing_tells() -> None:
    assert said([run(1.0)], [run(0.5)]) == (
        "Cannot tell whether A or B is faster: too few runs and requests; measure both with --runs 6"
    )
    late = runs([0.5, 0.51, 0.49], verdict="client-limited: late")
    assert said(runs([1.0, 1.01, 0.99]), late) == "Cannot tell whether A or B is faster: B client-limited"
    noisy = said(runs([1.0, 1.1, 0.9]), runs([1.05, 0.95, 1.12]))
    assert noisy.startswith("A and B are not distinguishable: request throughput and TTFT p99 not distinguishable")


def test_one_verdict_in_twenty_points_does_not_make_a_winner() -> None:
    a = [log for clients in range(1, 6) for log in runs([1.0, 1.02, 0.98], num_clients=clients)]
    b = [
        log
        for clients in range(1, 6)
        for log in runs([0.9, 0.91, 0.89] if clients == 1 else [1.01, 0.99, 1.0], num_clients=clients)
    ]
    assert said(a, b).startswith("A and B are not distinguishable")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.5, 0.5, "50 % lower"),
        (0.9, 0.95, "5 to 10 % lower"),
        (1.05, 1.4, "5 to 40 % higher"),
        (1.8, 2.1, "1.8 to 2.1 times as high"),
    ],
)
def test_ratios_in_words(low: float, high: float, words: str) -> None:
    assert winner.change(low, high) == words
    assert winner.change(1 / high, 1 / low, invert=True) == words


def test_ten_points_are_shown_from_the_first_to_the_last(tmp_path: Path) -> None:
    for side, speed in (("a", 1.0), ("b", 0.8)):
        saved(tmp_path / side, *(run(speed, num_clients=clients) for clients in range(1, 24)))
    command = ["-m", "servebench", "compare", str(tmp_path / "a"), str(tmp_path / "b")]
    done = python(*command)
    shown = [int(line.split()[0]) for line in done.stdout.splitlines() if re.match(r"\d+ clients? ", line)]
    assert len(shown) == 10 and (shown[0], shown[-1]) == (1, 23)
    assert "--all shows the other 13 points" in done.stdout
    done = python(*command, "--all")
    assert len(re.findall(r"^\d+ clients? ", done.stdout, re.MULTILINE)) == 23 and "--all shows" not in done.stdout


def test_everything_is_there_as_json(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a", *runs([1.0, 1.01, 0.99])), saved(tmp_path / "b", *runs([0.8, 0.81, 0.79]))
    done = python("-m", "servebench", "compare", a, b, "--json")
    found = json.loads(done.stdout)
    (row,) = [row for row in found["rows"] if row["metric"] == "ttft_p99_s"]
    assert row["ratio"] == pytest.approx(0.8, rel=1e-2) and row["low"] < 0.8 < row["high"]
    assert row["verdict"] == "better" and " is faster than " in found["answer"]


# What decides nothing.


def test_latencies_of_an_overload_do_not_win() -> None:
    late = runs([1.0, 1.01, 0.99], request_rate=2.0)
    rows = compared(late, runs([0.5, 0.51, 0.49], request_rate=2.0, overloaded=True))
    assert of(rows, "ttft_p50_s").verdict == "B: overloaded"
    assert of(rows, "request_throughput_per_s").verdict == "better"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({"verdict": "client-limited: late"}, "B: client-limited"), ({"verdict": "ok"}, "better")],
)
def test_what_is_in_doubt_does_not_win(changes: dict[str, object], verdict: str) -> None:
    rows = compared(runs([1.0, 1.01, 0.99]), runs([0.5, 0.51, 0.49], **changes))
    assert of(rows, "ttft_p50_s").verdict == of(rows, "request_throughput_per_s").verdict == verdict


def test_latencies_of_the_few_that_did_not_fail_do_not_win() -> None:
    def failing(log: Log) -> Log:
        lost = make_result(99, 0.0, [], error="HTTP 503", max_new_tokens=2)
        return msgspec.structs.replace(log, results=[*log.results, lost])

    rows = compared(runs([1.0, 1.01, 0.99]), list(map(failing, runs([0.5, 0.51, 0.49]))))
    assert of(rows, "e2e_latency_p99_s").verdict == "B: 9% failed"
    assert of(rows, "request_throughput_per_s").verdict == "better"  # counts what was completed


def test_backends_are_matched_where_there_are_several() -> None:
    both = [run(1.0, backend="vllm"), run(2.0, backend="fastgen")]
    assert [pair.name for pair in matching.matched(both[:1], both[1:]).pairs] == ["1 client"]
    assert [pair.name for pair in matching.matched(both, both).pairs] == [
        "vLLM, 1 client",
        "DeepSpeed-FastGen, 1 client",
    ]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Runs of 1 s and of about 1.25 s."""
    sides = (("a", [1.0, 1.01, 0.99]), ("b", [1.25, 1.26, 1.24]))
    return [saved(tmp_path / name, *runs(latencies)) for name, latencies in sides]


def test_what_fail_if_was_is_named(folders: list[str]) -> None:
    done = python("-m", "servebench", "compare", *folders, "--fail_if", "ttft_p99 > 1.05")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert 'servebench gate B --baseline A --limits "ttft_p99<+5%' in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ttft", "is ambiguous; give one of ttft_mean_s, ttft_p50_s"),
        ("ttft99", "did you mean ttft_p99?"),
        ("x", "no metric x"),
    ],
)
def test_a_metric_that_does_not_exist_is_one_line(folders: list[str], name: str, words: str) -> None:
    done = python("-m", "servebench", "compare", *folders, "--metric", name)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


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
    assert "Cannot tell whether" in done.stdout and "fewer than 6 pairs" in done.stdout
    folders = [str(tmp_path / name / "openai") for name in "ab"]
    done = python("-m", "servebench", "compare", "--paired", *folders, "--json")
    (row,) = [row for row in json.loads(done.stdout)["rows"] if row["metric"] == "ttft_p50_s"]
    assert (row["evidence"], row["verdict"]) == ("pairs", "takes 6 pairs")
    assert row["ratio"] == pytest.approx(3.0, rel=0.1)
    logs = [store.load(path) for path in (tmp_path / "a").glob("*/*.json")]
    order = sorted((log.started_at, log.run.repetition) for log in logs)
    assert [repetition for _, repetition in order] == [0, 1]


def test_flags_of_one_engine_are_paired_in_one_folder(
    reference: Callable[..., str], tokenizer_dir: Path, tmp_path: Path
) -> None:
    load = ["--backend", "openai", "--model", "m", "--tokenizer", str(tokenizer_dir), "--mean_prompt_length", "8"]
    load += ["--num_clients", "2", "--num_requests", "6", "--max_new_tokens_var", "0"]
    sides = [f"--openai_api_url {reference('--ttft', ttft)}" for ttft in ("0.05", "0.15")]
    command = ["-m", "servebench", "paired", *sides, "--runs", "2", *load, "--out_json_dir", str(tmp_path)]
    done = python(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Cannot tell whether" in done.stdout and "fewer than 6 pairs" in done.stdout
    assert len(list(tmp_path.glob("openai/*.json"))) == 4


def test_two_that_are_the_same_are_refused() -> None:
    done = python("-m", "servebench", "paired", "--backend vllm", "--backend vllm")
    assert done.returncode == 2 and "say in the quoted parts what differs" in done.stderr
    assert done.stderr.count("\n") == 1


def test_where_each_side_is_faster_at_some_points_both_are_named() -> None:
    def at(seconds: float, clients: int) -> list[Log]:
        return [log for log in runs([seconds, 1.01 * seconds, 0.99 * seconds], num_clients=clients)]

    words = said(
        [*at(1.0, 1), *at(1.0, 8)], [*at(2.0, 1), *at(0.8, 8)], ("request_throughput_per_s", "ttft_p99_s")
    )
    assert (
        words.startswith("It depends on the point: B serves ")
        and "% more requests/s at 8 clients, A serves" in words
    )
    assert "times as many requests/s at 1 client; B against A: TTFT p99" in words


# Machines.


def on(log: Log, machine: Machine | None = None, used: Sequence[int] = (), **environment: object) -> Log:
    """The log as measured on this machine; or of before machines were written down, in this environment."""
    facts = msgspec.structs.replace(log.server_facts, gpus=list(used))
    identity = {"environment": environment}
    return msgspec.structs.replace(log, machine=machine, server_facts=facts, identity=identity, fingerprint="")


def gpus(*names: str, limit: float | None = None) -> Machine:
    found = [Gpu(index=i, name=name, power_limit_w=limit) for i, name in enumerate(names)]
    return Machine(cpu="EPYC", cores=64, gpus=found)


A100, H100 = gpus("A100", "A100"), gpus("H100")


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (on(run(1.0), A100), on(run(1.0), H100), "A was measured on A100, B on H100; unlike machines"),
        (
            on(run(1.0), gpus("A", limit=300)),
            on(run(1.0), gpus("A", limit=400)),
            "GPUs limited to 300 W, B on GPUs li",
        ),
        (on(run(1.0), Machine(cpu="EPYC")), on(run(1.0), Machine(cpu="Xeon")), "on EPYC, B on Xeon;"),
        (
            on(run(1.0), Machine(cpu="E", cores=2)),
            on(run(1.0), Machine(cpu="E", cores=4)),
            "on 2 cores, B on 4 cores",
        ),
        (on(run(1.0), gpus=["A100"]), on(run(1.0), H100), "on A100, B on H100"),
        (on(run(1.0), gpus("A", "B"), [0]), on(run(1.0), gpus("A", "B"), [1]), "on A, B on B"),
    ],
)
def test_unlike_machines_are_refused(a: Log, b: Log, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        matching.matched([a], [b])
    assert str(refused.value).endswith("; to do so all the same: --across machines")
    found = matching.matched([a], [b], across="machines")
    assert found.machines and matching.notes(found, ("A", "B"))[0].startswith("unlike machines: A on ")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (on(run(1.0), A100), on(run(1.0), gpus("A100"))),  # fewer of the same
        (on(run(1.0), A100), on(run(1.0))),  # a log of before
        (on(run(1.0), A100), on(run(1.0), Machine(cpu="EPYC", cores=64))),  # no driver that tells
        (on(run(1.0), gpus("A", limit=300)), on(run(1.0), gpus("A"))),
        (on(run(1.0), gpus("A", "B"), [0]), on(run(1.0), gpus("A", "B"))),  # an engine on the CPU
        (
            on(run(1.0, urls=("http://a",)), host="x86_64 2 cores"),
            on(run(1.0), host="x86_64 4 cores"),
        ),  # the client's
    ],
)
def test_what_is_not_known_to_differ_is_compared(a: Log, b: Log) -> None:
    assert matching.matched([a], [b]).machines is None
