"""The result of a sweep in words."""

from __future__ import annotations

from pathlib import Path

import conftest
from conftest import make_log, make_result
from msgspec.structs import replace
from test_terminal import point

from servebench.log import store
from servebench.log.schema import Log
from servebench.plan import strategies
from servebench.show import layouts, verdict

PEAK_AND_LIMIT = ("peak fastgen-4", "ttft_p99<1s")


def said(logs: list[Log]) -> str:
    return " ".join(verdict.result(layouts.studies(logs)))


def runs(backend: str, *rates: float, **changes: object) -> list[Log]:
    """A run for each of these rates, of one client."""
    return [point(1 / rate, backend=backend, repetition=i, **changes) for i, rate in enumerate(rates)]


def test_the_best_point_comes_first_and_a_difference_is_said_where_intervals_say_so() -> None:
    text = said(runs("vllm", 5.0, 5.1, 4.9) + runs("llamacpp", 2.0, 2.1, 1.9))
    assert text.startswith(
        "Most requests/s: vLLM TP 1 x 1 at 1 client: 4.99 requests/s, TTFT p99 ~50.0 ms, TPOT p99"
    )
    assert "llama.cpp TP 1 x 1 reaches 2.00 at 1 client (5" in text and "% less)." in text


def test_layouts_whose_ratio_is_known_to_be_near_one_are_about_equal() -> None:
    text = said(runs("vllm", 5.0, 5.1, 4.9) + runs("llamacpp", 4.95, 5.05, 4.9))
    assert "reaches 4.95 at 1 client: about equal." in text and "less" not in text


def test_runs_that_differ_much_cannot_tell() -> None:
    text = said(runs("vllm", 9.96, 7.24) + runs("llamacpp", 5.9, 4.49))
    assert "about equal" not in text and "too few runs to tell" in text


def test_single_short_runs_cannot_tell() -> None:
    text = said(runs("vllm", 5.0, requests=60) + runs("llamacpp", 2.0, requests=60))
    assert "reaches 2.00 at 1 client; too few runs to tell whether that is chance (--runs 3)" in text


def test_points_that_do_not_count_are_counted() -> None:
    limited = point(num_clients=8, verdict="client-limited: late")
    failing = make_log([make_result(i, i, [1.0], error="x" if i % 2 else None) for i in range(20)], (0.0, 20.0))
    text = said([point(), limited, failing])
    assert "2 of 3 points do not count: 1 with failed requests, 1 client-limited." in text
    assert said([limited]).startswith("No point can be trusted") and "1 of 1 point does not count" in said(
        [limited]
    )


def test_throughput_that_still_grows_names_the_option() -> None:
    growing = [conftest.point("vllm", n, 1.0) for n in (1, 2, 4)]
    assert "still grows at the highest load: try more --num_clients," in said(growing)
    replicas = [conftest.point("vllm", n, 1.0, num_replicas=8) for n in (1, 2, 4)]
    assert "try more --clients_per_replica, with the other options as they are." in said(replicas)
    flat = [conftest.point("llamacpp", n, float(n)) for n in (1, 2, 4)]
    assert "still grows" not in said(flat) and "still grows" not in said(growing + flat), "one has enough"


def test_each_study_has_its_result() -> None:
    lines = verdict.result(layouts.studies([point(), replace_prompt(point())]))
    assert len(lines) == 2 and "prompt 128" in lines[1]


def replace_prompt(log: Log) -> Log:
    return replace(log, run=replace(log.run, requests=replace(log.run.requests, mean_prompt_length=128)))


def test_what_to_type_next_names_the_folder(logs: Path) -> None:
    servers = [log.server for _, log in store.load_folder(logs)]
    lines = verdict.next_steps(logs, servers, streamed=True).splitlines()
    assert lines[0] == f"Next:  ./servebench report {logs}/"
    assert lines[1].strip() == f"./servebench compare {logs}/fastgen {logs}/vllm"
    assert lines[2].strip() == f'./servebench decide {logs}/ --sla "ttft_p90<2s, tpot_p90<100ms"'
    sizes = sorted((each for each in servers if each.backend == "vllm" and each.tp_size == 1), key=str)
    lines = verdict.next_steps(logs / "vllm", sizes, streamed=False).splitlines()
    assert (
        lines[1].strip()
        == f"./servebench compare {logs}/vllm/ --filter_a num_replicas=1 --filter_b num_replicas=2"
    )
    assert len(verdict.next_steps(logs, servers[:1], streamed=True).splitlines()) == 2
    loads = [strategies.LoadResult(load, 1, says) for load, says in ((4, "meets"), (5, "does not meet"))]
    found = [verdict.SearchResult("", "clients", loads, searched) for searched in PEAK_AND_LIMIT]
    steps = verdict.next_steps(logs, servers[:1], True, found)
    assert steps.endswith('--limits "ttft_p99<1s" --filter num_clients=4'), "what was searched, at what was found"


def test_what_searches_found_is_read_with_the_logs(tmp_path: Path) -> None:
    store.write_whole(
        tmp_path / "vllm/searches/a.json", b'{"words": "w", "unit": "clients", "loads": [], "best": 1}'
    )
    store.write_whole(tmp_path / "vllm/searches/b.json", b"no json")
    assert [found.words for found in verdict.searches(tmp_path)] == ["w"]
