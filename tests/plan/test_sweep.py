"""The plan: every combination once, in order, and only what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import conftest
import msgspec
import pytest
from conftest import ROOT, make_log
from warm_python import python

from servebench.campaign import loop
from servebench.errors import InputError
from servebench.log import identity, schema, store
from servebench.plan import arguments, sweep


@pytest.fixture
def points_of(tmp_path: Path):  # type: ignore[no-untyped-def]
    """The points that are known beforehand, of each server of the plan."""

    def make(*words: str) -> list[list[sweep.Point]]:
        base = ["--backend", "openai", "--openai_api_url", "http://127.0.0.1:1/v1", "--model", "m"]
        plan = sweep.make_plan(*arguments.parse([*base, "--out_json_dir", str(tmp_path), *words]))
        return [server_plan.points for server_plan in plan]

    return make


def done(point: sweep.Point, **changes: object) -> None:
    log = make_log([], None)
    fields = {"server": point.server, "run": point.run, "fingerprint": point.fingerprint} | changes
    store.put(msgspec.structs.replace(log, identity=point.identity, **fields), point.path)


def test_every_combination_is_one_point() -> None:
    words = "--backend vllm --dry_run --tp_size 1 2 --num_replicas 1 4"
    words += " --mean_prompt_length 10 20 --mean_max_new_tokens 5 --num_clients 1 8"
    plan = sweep.make_plan(*arguments.parse(words.split()))
    assert [(p.server.tp_size, p.server.num_replicas) for p in plan] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert [(p.run.requests.mean_prompt_length, p.run.load.num_clients) for p in plan[0].points] == [
        (10, 1),
        (10, 8),
        (20, 1),
        (20, 8),
    ]
    assert len({p.path for server_plan in plan for p in server_plan.points}) == 16


def test_clients_of_each_replica_are_counted_for_each_server() -> None:
    words = "--backend vllm --dry_run --num_replicas 1 2 4 --mean_prompt_length 10 --mean_max_new_tokens 5"
    plan = sweep.make_plan(*arguments.parse([*words.split(), "--clients_per_replica", "16", "3"]))
    loads = {p.server.num_replicas: [run.load.size for run in p.strategy.runs] for p in plan}
    assert loads == {1: [16, 3], 2: [32, 6], 4: [64, 12]}
    assert [run.num_requests for run in plan[2].strategy.runs] == [4 * 64 + 32, 4 * 12 + 32]
    same = sweep.make_plan(*arguments.parse([*words.split(), "--num_clients", "16", "32", "64"]))
    assert {p.points[0].fingerprint for p in plan} <= {point.fingerprint for p in same for point in p.points}


def test_the_figure_of_replicas_is_drawn_from_clients_per_replica(
    benchmark: Callable[..., tuple[int, str, str]],
    reference: Callable[..., str],
    tokenizer_dir: Path,
    results: Path,
) -> None:
    for replicas in (1, 2):
        urls = [reference("--ttft", "0.02", "--gap", "0") for _ in range(replicas)]
        where = ["--backend", "openai", "--model", "m", "--tokenizer", tokenizer_dir, "--openai_api_url", *urls]
        lengths = ["--mean_prompt_length", 16, "--mean_max_new_tokens", 4]
        code, out, err = benchmark(*where, *lengths, "--num_replicas", replicas, "--clients_per_replica", 3)
        assert code == 0, out + err
    logs = [store.load(path) for path in sorted((results / "openai").glob("*.json"))]
    assert [(log.server.num_replicas, log.run.load.num_clients) for log in logs] == [(1, 3), (2, 6)]
    script = [ROOT / "src/plot_repl_scale.py", "--log_dir", results, "--out_dir", results]
    drawn = python(*script, "--clients_per_replica", 3)
    assert drawn.returncode == 0 and len(list(results.glob("*clients_per_replica3*.png"))) == 1, drawn.stderr


def test_rates_and_scenarios_are_swept_and_named(points_of) -> None:  # type: ignore[no-untyped-def]
    (points,) = points_of("--request_rate", "0.5", "20", "--scenario", "D(100,32)", "N(480,240)/(300,150)")
    names = [p.path.name.partition("-replicas1-")[2].rpartition("-")[0] for p in points]
    assert names == [
        "D_100_32-rate0.5",
        "D_100_32-rate20",
        "N_480_240_300_150-rate0.5",
        "N_480_240_300_150-rate20",
    ]
    assert [p.run.num_requests for p in points] == [100, 600, 100, 600]  # 30 s, 100 at least
    assert [p.run.warmup for p in points] == [10, 60, 10, 60]  # a tenth
    assert (points[2].run.requests.mean_prompt_length, points[2].run.requests.mean_max_new_tokens) == (480, 300)


def test_a_dataset_gives_its_name_and_content_to_the_point(points_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "chats v1.jsonl"
    file.write_text('{"prompt": "a"}')
    ((point,),) = points_of("--dataset", str(file), "--num_clients", "2")
    assert point.path.name.endswith(f"-replicas1-chats_v1-clients2-{point.fingerprint[:6]}.json")
    file.write_text('{"prompt": "b"}')
    ((other,),) = points_of("--dataset", str(file), "--num_clients", "2")
    assert other.fingerprint != point.fingerprint


def test_requests_grow_with_clients_as_in_the_original(points_of) -> None:  # type: ignore[no-untyped-def]
    (points,) = points_of("--num_clients", "1", "32")
    assert [p.run.num_requests for p in points] == [36, 160]
    (points,) = points_of("--num_clients", "1", "--num_requests", "7")
    assert points[0].run.num_requests == 7


def test_runs_are_interleaved_over_the_points(points_of) -> None:  # type: ignore[no-untyped-def]
    (points,) = points_of("--num_clients", "1", "8", "--runs", "3")
    runs = [(p.run.repetition, p.run.load.num_clients) for p in points]
    assert runs == [(0, 1), (0, 8), (1, 1), (1, 8), (2, 1), (2, 8)]
    assert len({p.path for p in points}) == 6
    assert [p.fingerprint for p in points] == [p.fingerprint for p in points[:2]] * 3, (
        "a point's runs are one point"
    )
    done(points[0])
    (again,) = points_of("--num_clients", "1", "8", "--runs", "2")
    assert [p.state for p in again] == ["done", "new", "new", "new"]


def test_a_measured_point_is_not_measured_again(points_of) -> None:  # type: ignore[no-untyped-def]
    (points,) = points_of("--num_clients", "1", "2")
    done(points[0])
    (again,) = points_of("--num_clients", "1", "2")
    assert [p.state for p in again] == ["done", "new"]
    (again,) = points_of("--num_clients", "1", "2", "--overwrite_results")
    assert [p.state for p in again] == ["new", "new"]


def test_a_failed_point_is_tried_again(points_of) -> None:  # type: ignore[no-untyped-def]
    ((point,),) = points_of("--num_clients", "1")
    done(point, status="failed")
    ((point,),) = points_of("--num_clients", "1")
    assert point.state == "failed" and point.pending


def test_logs_of_unlike_settings_lie_side_by_side(points_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ways: list[list[str]] = [[], ["--seed", "1"], ["--engine_args=--enforce-eager"], ["--model", "other/m"]]
    for way in ways:
        ((point,),) = points_of("--num_clients", "1", *way)
        assert point.state == "new"
        done(point)
    for way in ways:
        ((point,),) = points_of("--num_clients", "1", *way)
        assert point.state == "done"
    assert len(identity.by_point(log for _, log in store.load_folder(tmp_path))) == len(ways)


def test_a_failed_log_never_replaces_one_that_is_not(points_of) -> None:  # type: ignore[no-untyped-def]
    ((point,),) = points_of("--num_clients", "1")
    done(point)
    ((point,),) = points_of("--num_clients", "1", "--overwrite_results")
    done(point, status="failed")
    assert store.load(point.path).status == "ok"
    ((point,),) = points_of("--num_clients", "1")
    assert point.state == "done"


def test_a_running_server_that_was_updated_is_another(  # type: ignore[no-untyped-def]
    points_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = []
    for version in ("0.11.0", "0.11.0", "0.12.0"):
        monkeypatch.setattr(sweep, "_version_at", lambda *_, version=version: version)
        ((point,),) = points_of("--num_clients", "1")
        marks.append(point.fingerprint)
    assert marks[0] == marks[1] != marks[2]


def test_an_unreadable_log_is_measured_again(points_of) -> None:  # type: ignore[no-untyped-def]
    ((point,),) = points_of("--num_clients", "1")
    point.path.parent.mkdir(parents=True)
    point.path.write_text("half a lo")
    ((point,),) = points_of("--num_clients", "1")
    assert point.pending


@pytest.fixture
def served(reference: Callable[..., str], tokenizer_dir: Path) -> list[object]:
    """The words that measure a quick server."""
    url = reference("--ttft", "0.002", "--gap", "0.001")
    where = ["--backend", "openai", "--openai_api_url", url, "--tokenizer", tokenizer_dir, "--model", "m"]
    return [*where, "--mean_max_new_tokens", 4, "--num_workers", 1]


def test_a_point_that_cannot_be_is_said_and_the_rest_goes_on(
    benchmark: Callable[..., tuple[int, str, str]], served: list[object], results: Path, tmp_path: Path
) -> None:
    """A dataset of 40 requests is enough for one client (36 requests), not for eight (64)."""
    (tmp_path / "d.jsonl").write_text("".join(f'{{"prompt": "babe dodi {i}"}}\n' for i in range(40)))
    words = [*served, "--dataset", tmp_path / "d.jsonl"]
    code, out, err = benchmark(*words, "--num_clients", 8, 1)
    assert code == 1, err
    assert "warning: --dataset" in err and "has 40 requests that can be used, 64 are needed" in err
    assert "1 point measured, 1 failed" in out
    logs = {log.run.load.num_clients: log for _, log in store.load_folder(results)}
    assert (logs[1].status, logs[8].status) == ("ok", "failed")
    code, _, err = benchmark(*words, "--num_clients", 8)
    assert code == 2 and err.count("\n") == 1, "no point is left to measure"


def test_overwriting_with_a_server_that_fails_keeps_what_was_good(
    benchmark: Callable[..., tuple[int, str, str]],
    served: list[object],
    reference: Callable[..., str],
    results: Path,
) -> None:
    slow = reference("--ttft", "0.4", "--gap", "0")  # so that a look at the timeouts finds its requests in flight
    words = [*served, "--openai_api_url", slow, "--num_clients", 2, "--num_requests", 4]
    assert benchmark(*words)[0] == 0
    (file,) = results.glob("*/*.json")
    before = file.read_bytes()
    log = store.load(file)
    failing = schema.Log(**{f: getattr(log, f) for f in log.__struct_fields__} | {"status": "failed"})
    assert not store.put(failing, file) and file.read_bytes() == before
    code, out, _ = benchmark(*words, "--overwrite_results", "--request_timeout", 0.001)
    assert code == 1 and "the log of this point that was measured before is kept" in out
    assert "1 point measured, 1 failed" in out and file.read_bytes() == before


def test_a_plan_that_is_done_starts_nothing_and_loads_no_tokenizer(
    points_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    words = ["--num_clients", "1", "2", "--tokenizer", str(tmp_path)]
    for point in points_of(*words)[0]:
        done(point)
    monkeypatch.setattr(loop, "load_tokenizer_once", lambda *_: pytest.fail("loaded"))
    base = ["--backend", "openai", "--openai_api_url", "http://127.0.0.1:1/v1", "--model", "m"]
    assert loop.run(arguments.parse([*base, "--out_json_dir", str(tmp_path), *words])) == 0
    assert "2 points measured, 0 failed" in capsys.readouterr().out


def test_a_terminal_of_ascii_is_served(results: Path) -> None:
    for run, latency_s in enumerate((0.48, 0.49, 0.5)):
        log = conftest.point("vllm", 1, latency_s, repetition=run, model="模型")
        store.save(log, results / "vllm" / log.file_name)
    command = [sys.executable, "-m", "servebench", "summary", str(results)]
    plain = os.environ | {"PYTHONIOENCODING": "ascii", "LANG": "C"}
    done = subprocess.run(command, capture_output=True, env=plain)
    assert done.returncode == 0, done.stderr
    assert b"+-" in done.stdout and b"??" in done.stdout and done.stdout.isascii()


# Several engines, layouts, and what does not fit.


def sizes(*words: str) -> list[tuple[int, int]]:
    (settings,) = arguments.parse(["--backend", "vllm", *words])
    return [(server.tp_size, server.num_replicas) for server in settings.servers]


def test_layouts_are_measured_as_they_are_named() -> None:
    assert sizes("--layouts", "1x8", "2x4", "4X2") == [(1, 8), (2, 4), (4, 2)]


def test_sizes_that_do_not_fit_the_gpus_are_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--backend",
        "vllm",
        "--gpus",
        "0",
        "1",
        "2",
        "3",
        "--tp_size",
        "1",
        "2",
        "4",
        "--num_replicas",
        "1",
        "2",
    ]
    (settings,) = arguments.parse(words)
    assert [(s.tp_size, s.num_replicas) for s in settings.servers] == [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1)]
    assert loop.run(arguments.parse([*words, "--dry_run"])) == 0
    assert "left out: TP 4 x 2, since --gpus names 4" in capsys.readouterr().out


def test_the_gpus_of_the_shell_or_the_machine_count_where_none_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["--layouts", "1x1", "2x2"]
    monkeypatch.setenv("SERVEBENCH_ENGINES", "/nowhere")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sizes(*both) == [(1, 1), (2, 2)]  # nobody knows
    (settings,) = arguments.parse(["--backend", "vllm", *both])
    assert settings.fit == "the largest server takes 4 GPUs; none is seen on this machine"
    monkeypatch.setattr("servebench.plan.sizes.names", lambda: ["A100"] * 2)
    assert sizes(*both) == [(1, 1)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert sizes(*both) == [(1, 1), (2, 2)]
    with pytest.raises(InputError, match=r"TP 8 x 1 needs 8 GPUs, and \$CUDA_VISIBLE_DEVICES shows 4"):
        sizes("--layouts", "8x1", "8x2")


def test_engines_on_the_cpu_need_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vllm-cpu").mkdir()
    (tmp_path / "vllm-cpu/.installed").write_text("vllm 0+cpu")
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert sizes("--layouts", "1x2") == [(1, 2)]


def test_several_engines_are_one_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [
        "--backend",
        "vllm",
        "sglang",
        "--model",
        "m",
        "--out_json_dir",
        str(tmp_path),
        "--num_clients",
        "1",
        "2",
    ]
    asked = arguments.parse(words)
    assert [settings.folder.name for settings in asked] == ["vllm", "sglang"]
    assert loop.run(arguments.parse([*words, "--dry_run"])) == 0
    plan = capsys.readouterr().out
    assert plan.index("vLLM") < plan.index("SGLang")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--backend vllm sglang --engine_args --x", 'write "vllm: --x"'),
        ("--backend vllm openai", "openai measures servers that are already running; give it alone"),
        ("--backend vllm sglang --openai_api_url http://h", "--openai_api_url is one server"),
        ("--backend vllm --layouts 1x2 --tp_size 2", "leave --tp_size out"),
    ],
)
def test_what_several_engines_cannot_share_is_refused(words: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        arguments.parse(words.split())
