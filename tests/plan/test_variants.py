"""Flags of an engine, swept: from the command line to servers, names, commands and logs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from conftest import make_log

from servebench.errors import InputError
from servebench.log import store
from servebench.log.schema import log_name, server_label
from servebench.plan import arguments, sweep
from servebench.plan.settings import Settings
from servebench.servers.launch import launch_of

SECRET = "sk-very-secret-1"
GRID = ("--engine_grid", "--max-num-seqs 2 8", "--enforce-eager")


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as a plan looks, a vLLM is installed."""
    (tmp_path / "engines/vllm").mkdir(parents=True)
    (tmp_path / "engines/vllm/.installed").write_text("vllm 1.0")
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path / "engines"))


def parsed(*words: str) -> Settings:
    (settings,) = arguments.parse(["--backend", "vllm", "--model", "m", "--num_clients", "1", "4", *words])
    return settings


def flags(*words: str) -> list[tuple[str, str]]:
    return [(server.variant, " ".join(server.engine_args)) for server in parsed(*words).servers]


def test_one_text_is_no_variant() -> None:
    assert flags("--engine_args", "--enforce-eager") == [("", "--enforce-eager")]
    assert flags() == [("", "")]
    assert flags("--engine_args", "eager: --enforce-eager") == [("eager", "--enforce-eager")]


def test_several_texts_are_variants_with_their_names() -> None:
    assert flags("--engine_args", "", "--x", "--n 2", "small: --n 1") == [
        ("no engine_args", ""),
        ("x", "--x"),
        ("n 2", "--n 2"),
        ("small", "--n 1"),
    ]
    assert flags("--engine_args", "usual:", "other one: --x 'a b'") == [("usual", ""), ("other one", "--x a b")]


def test_a_grid_is_every_combination() -> None:
    assert flags(*GRID) == [
        ("max-num-seqs 2", "--max-num-seqs 2"),
        ("max-num-seqs 2, enforce-eager", "--max-num-seqs 2 --enforce-eager"),
        ("max-num-seqs 8", "--max-num-seqs 8"),
        ("max-num-seqs 8, enforce-eager", "--max-num-seqs 8 --enforce-eager"),
    ]
    assert flags("--engine_args", "a: --x", "b: --y", "--engine_grid", "--n 1 2") == [
        ("a, n 1", "--x --n 1"),
        ("a, n 2", "--x --n 2"),
        ("b, n 1", "--y --n 1"),
        ("b, n 2", "--y --n 2"),
    ]


def test_a_variable_with_several_values_is_swept() -> None:
    servers = parsed("--engine_env", "A=1", "B=x=y", "A=2").servers
    assert [(server.variant, server.engine_env) for server in servers] == [
        ("A=1", ("A=1", "B=x=y")),
        ("A=2", ("A=2", "B=x=y")),
    ]


def test_a_name_stands_before_what_is_swept_beside_it() -> None:
    servers = parsed("--engine_args", "a: --x", "b: --y", "--engine_env", "A=1", "A=2").servers
    assert [server.variant for server in servers] == ["a, A=1", "a, A=2", "b, A=1", "b, A=2"]


def test_flags_that_are_hidden_are_still_other_points() -> None:
    """Whatever looks like a key is not shown; but two points that differ in it are not the same."""

    def marks(*words: str) -> list[str]:
        return [plan.points[0].fingerprint for plan in sweep.make_plan(parsed(*words))]

    assert marks("--engine_args", "--api-key k -c 1") != marks("--engine_args", "--api-key k -c 2")
    assert marks("--engine_args", "--api-key k") == marks("--engine_args", "--api-key other")
    assert marks("--engine_env", "GGML_KEY=1") != marks("--engine_env", "GGML_KEY=2")
    first, second = marks("--engine_args", "a: --kv-key 1", "b: --kv-key 2")
    assert first != second
    serve = ("--backend", "command", "--serve")
    commands = [f"sh -c 'TOKEN=k exec x --port {{port}} --ttft {n}'" for n in (1, 2)]
    found = [arguments.parse([*serve, each, "--model", "m", "--num_clients", "1"])[0] for each in commands]
    assert len({sweep.make_plan(each)[0].points[0].fingerprint for each in found}) == 2


def test_long_names_stay_apart_in_file_names() -> None:
    names = {
        server_label(server)
        for server in parsed("--engine_args", *(f"{'n' * 45}{i}: --n {i}" for i in "ab")).servers
    }
    assert len(names) == 2 and all(len(name) < 80 for name in names)


def test_variants_are_measured_on_every_layout() -> None:
    servers = parsed(*GRID[:2], "--layouts", "1x2", "1x1").servers
    assert [(server.layout, server.variant) for server in servers] == [
        ("TP 1 x 2", "max-num-seqs 2"),
        ("TP 1 x 2", "max-num-seqs 8"),
        ("TP 1 x 1", "max-num-seqs 2"),
        ("TP 1 x 1", "max-num-seqs 8"),
    ]


def test_each_server_is_started_with_its_own_flags_and_keys() -> None:
    settings = parsed(
        "--engine_args", f"--x --api-key {SECRET}", "--y", "--engine_env", f"HF_TOKEN={SECRET}", "A=1"
    )
    assert SECRET not in repr(settings)
    first, second = sweep.make_plan(settings)
    launches = [launch_of(plan.server, plan.access, 1, 0) for plan in (first, second)]
    assert "--x" in launches[0].command and "--y" in launches[1].command and "--x" not in launches[1].command
    assert launches[0].env["VLLM_API_KEY"] == SECRET and "VLLM_API_KEY" not in launches[1].env
    assert [(each.env["HF_TOKEN"], each.env["A"]) for each in launches] == [(SECRET, "1")] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine_args", "enforce-eager"], "does not begin with an option"),
        (["--engine_args", "a: --x", "a: --y"], "are named a"),
        (["--engine_args", "a b: --x", "a_b: --y"], "alike in file names"),
        (["--engine_args", "--kv-key a", "--kv-key b"], "give them other names"),
        (["--engine_grid", "--n 1 2", "--n 3"], "--engine_grid has a flag twice"),
        (["--engine_grid", "--n=1 2"], "not one flag and its values"),
        (["--engine_args", "a: --x", "b: --x"], "have the same flags"),
        (["--engine_grid", "--n 1 --m 2"], "not one flag and its values"),
        (["--engine_env", "NAME"], "not NAME=VALUE"),
        (["--engine_args", "--x", "--dry_rum"], "unknown option --dry_rum: did you mean --dry_run"),
        (["--engine_args", "", "--x", "--client_only", "--port", "1"], "a running server has only one"),
    ],
)
def test_nonsense_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, InputError)) as refused:
        parsed(*words)
    assert said in capsys.readouterr().err + str(refused.value)


def test_flags_in_a_list_may_begin_with_dashes_and_options_of_ours_end_it() -> None:
    settings = parsed("--engine_args", "--a", "--b", "--c 1", "--seed", "3", "--engine_grid", "--e", "--port", "9")
    assert [variant.args for variant in settings.variants[:3]] == [("--a",), ("--a", "--e"), ("--b",)]
    assert (settings.seed, settings.access.port, len(settings.variants)) == (3, 9, 6)


def test_one_variant_more_and_other_names_measure_nothing_again(tmp_path: Path) -> None:
    out = ("--out_json_dir", str(tmp_path / "results"))
    plan = sweep.make_plan(parsed(*GRID, *out))
    points = [point for of_one in plan for point in of_one.points]
    assert len({point.path for point in points}) == len(points) == 8
    for point in points:
        fields = {"server": point.server, "run": point.run, "fingerprint": point.fingerprint}
        store.put(msgspec.structs.replace(make_log([], None), identity=point.identity, **fields), point.path)
    more = sweep.make_plan(parsed("--engine_args", "", "--engine_grid", "--max-num-seqs 2 4 8", GRID[2], *out))
    pending = [point.server.variant for of_one in more for point in of_one.points if point.pending]
    assert pending == ["max-num-seqs 4"] * 2 + ["max-num-seqs 4, enforce-eager"] * 2
    named = parsed("--engine_args", "all: --max-num-seqs 8 --enforce-eager", *out)
    (of_one,) = sweep.make_plan(named)
    assert not any(point.pending for point in of_one.points)
    assert {point.path for point in of_one.points} == {point.path for point in points[-2:]}


def test_names_of_files_are_as_before_without_variants() -> None:
    server, run = parsed("--engine_args", "--x").servers[0], sweep.make_plan(parsed())[0].points[0].run
    assert log_name(server, run).startswith("m-tp1-bs768-replicas1-prompt2600")
    assert "-replicas1-n_2-prompt" in log_name(parsed("--engine_args", "--n 2", "--n 1").servers[0], run)


def test_of_several_engines_each_argument_names_its_own() -> None:
    words = ("--engine_args", "vllm: --max-num-seqs 2", "vllm: wide: --max-num-seqs 16", "llamacpp: --threads 1")
    vllm, llamacpp, sglang = arguments.parse(["--backend", "vllm", "llamacpp", "sglang", *words])
    assert [(each.name, each.args) for each in vllm.variants] == [
        ("max-num-seqs 2", ("--max-num-seqs", "2")),
        ("wide", ("--max-num-seqs", "16")),
    ]
    assert [each.args for each in llamacpp.variants] == [("--threads", "1")]
    assert [each.args for each in sglang.variants] == [()], "none is for it"
    alone = arguments.parse(["--backend", "vllm", "--engine_args", "vllm: --x", "wide: --y"])[0]
    assert [each.name for each in alone.variants] == ["x", "wide"], "of one engine its name may stand there, too"
    with pytest.raises(InputError, match="is for an engine that --backend does not name; leave it out"):
        arguments.parse(["--backend", "llamacpp", "--engine_args", "vllm: --x", "llamacpp: --y"])
