"""Studies, their layouts, and the best point of each."""

from __future__ import annotations

from conftest import make_log, point
from msgspec.structs import replace

from servebench.show import layouts

SIZES = [(1, 1), (2, 1), (1, 2)]


def rows(study: layouts.Study) -> list[str]:
    return [layout.name for layout in study.layouts]


def test_layouts_are_named_by_engine_and_sizes_the_fastest_first() -> None:
    logs = [point("vllm", n, 1.0, tp_size=tp, num_replicas=r) for tp, r in SIZES for n in (1, 2)]
    logs += [point("fastgen", n, 0.5) for n in (1, 2)]
    (study,) = layouts.studies(logs)
    assert study.asked == "prompt 2600, generation 60 tokens, by clients"
    assert rows(study)[0] == "DeepSpeed-FastGen TP 1 x 1"
    assert sorted(rows(study)[1:]) == ["vLLM TP 1 x 1", "vLLM TP 1 x 2", "vLLM TP 2 x 1"]
    assert [layout.gpus for layout in study.layouts if "TP 2" in layout.name] == [2]


def test_what_was_asked_apart_is_another_study() -> None:
    logs = [point("vllm", 1, 1.0, mean_prompt_length=length) for length in (128, 2600)]
    assert [study.asked[:10] for study in layouts.studies(logs)] == ["prompt 128", "prompt 260"]


def test_settings_of_one_engine_make_layouts() -> None:
    logs = [point("vllm", 1, 1.0, engine_args=words) for words in ((), ("--enforce-eager",))]
    (study,) = layouts.studies(logs)
    assert sorted(rows(study)) == ["vLLM TP 1 x 1, enforce-eager", "vLLM TP 1 x 1, no engine_args"]


def test_servers_at_two_addresses_are_two_layouts_unless_their_number_says_it() -> None:
    a, b = "http://one:8000", "http://two:8000"
    logs = [point("openai", n, 1.0, urls=urls) for urls in ((a,), (b,)) for n in (1, 2)]
    (study,) = layouts.studies(logs)
    assert sorted(rows(study)) == [f"OpenAI-compatible at {host}:8000" for host in ("one", "two")]
    logs = [point("openai", 1, 1.0, urls=urls, num_replicas=len(urls)) for urls in ((a,), (a, b))]
    (study,) = layouts.studies(logs)
    assert sorted(rows(study)) == ["OpenAI-compatible TP 1 x 2", "OpenAI-compatible at one:8000"]


def test_a_caller_may_know_the_rates() -> None:
    logs = [point("vllm", n, 1.0) for n in (1, 2)]
    (study,) = layouts.studies(
        [replace(log, results=[]) for log in logs], lambda runs: 3.0 - runs[0].run.load.size
    )
    best = study.layouts[0].best()
    assert best and best[0].run.load.size == 1


def test_the_best_point_has_the_most_requests_and_runs_stay_together() -> None:
    logs = [point("vllm", n, 1.0, repetition=again) for again in (0, 1) for n in (4, 1, 2)]
    (layout,) = layouts.studies(logs)[0].layouts
    assert [[log.run.load.size for log in runs] for runs in layout.points] == [[1, 1], [2, 2], [4, 4]]
    best = layout.best()
    assert best and best[0].run.load.size == 4
    within = layout.best(lambda runs: runs[0].run.load.size < 4)
    assert within and within[0].run.load.size == 2


def test_a_point_that_cannot_be_trusted_is_never_the_best() -> None:
    good = point("vllm", 1, 1.0)
    limited = point("vllm", 2, 1.0, verdict="client-limited: CPU")
    overloaded = point("vllm", 3, 1.0, overloaded=True)
    failing = point("vllm", 4, 1.0)
    failing.results[:] = [replace(r, error="HTTP 500") if r.id % 2 else r for r in failing.results]
    (layout,) = layouts.studies([good, limited, overloaded, failing])[0].layouts
    assert layout.best() == [good]


def test_failed_points_make_no_layout() -> None:
    failed = replace(make_log([], None, num_clients=1), status="failed", failure="it did not start")
    assert layouts.studies([failed]) == []
