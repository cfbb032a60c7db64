"""What variants of an engine are called."""

from __future__ import annotations

import pytest
from conftest import make_log
from msgspec.structs import replace

from servebench.analysis import differences, variants
from servebench.log.config import ServerConfig

BASE = ("--load-format", "dummy")


def server(*args: str, env: tuple[str, ...] = (), name: str = "") -> ServerConfig:
    return ServerConfig(backend="vllm", model="m", engine_args=args, engine_env=env, variant=name)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([BASE], ["load-format dummy"]),
        ([()], ["no engine_args"]),
        ([(), BASE], ["no engine_args", "load-format dummy"]),
        ([BASE, (*BASE, "--enforce-eager")], ["no more engine_args", "enforce-eager"]),
        ([(*BASE, "--n", "2"), (*BASE, "--n=8", "--eager")], ["n 2", "n 8, eager"]),
        ([("--seed", "-1"), ("--seed", "1", "2")], ["seed -1", "seed 1 2"]),
    ],
)
def test_a_variant_is_called_by_what_not_all_have(flags: list[tuple[str, ...]], names: list[str]) -> None:
    assert variants.made([(words, ()) for words in flags]) == names


def test_variables_are_named_too() -> None:
    assert variants.made([(BASE, ("A=1", "B=1")), (BASE, ("A=2", "B=1"))]) == ["A=1", "A=2"]


def test_long_names_are_cut_and_stay_apart() -> None:
    names = variants.made([(("--additional-config-of-this-engine", f'{{"a": {n}}}'), ()) for n in (1, 2)])
    assert len(set(names)) == 2 and all(len(name) < 42 for name in names)
    assert names == variants.made([(("--additional-config-of-this-engine", f'{{"a": {n}}}'), ()) for n in (1, 2)])


def test_names_of_the_plan_are_kept_unless_two_variants_have_one() -> None:
    fast, slow = server("--x", name="fast"), server("--y", name="slow")
    assert list(variants.names_of([fast, slow, fast]).values()) == ["fast", "slow"]
    assert list(variants.names_of([fast, replace(slow, variant="fast")]).values()) == ["x", "y"]
    assert list(variants.names_of([server("--x"), server("--z"), fast]).values()) == ["fast", "z"]


def test_commands_are_called_by_what_differs_behind_their_beginning() -> None:
    command = ("python", "-m", "some.module.with.a.long.name", "--port", "{port}", "--ttft")
    servers = [replace(server(), backend="command", serve=(*command, ttft)) for ttft in ("0.1", "0.2")]
    assert list(variants.names_of(servers).values()) == ["ttft 0.1", "ttft 0.2"]


def test_settings_are_compared_whole_and_shown_short() -> None:
    """The first 32 letters are the same."""
    logs = [make_log([], None, engine_args=("--same-long-option-of-an-engine", "x" * 9, end)) for end in "ab"]
    assert differences.differing(logs) == ["engine_args"]
    words = differences.shown(logs)
    assert words(logs[0], ["engine_args"]) != words(logs[1], ["engine_args"])
