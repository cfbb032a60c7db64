"""How words are read: hyphens, commas, ranges, lists before folders, what begins with dashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from servebench.cli import commandline, keys
from servebench.cli.commandline import Number
from servebench.cli.nearest import near
from servebench.commands import COMMANDS
from servebench.completion import parser_of
from servebench.plan import arguments
from servebench.plan.options import declared

VLLM = ["--backend", "vllm"]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders, here."""
    monkeypatch.chdir(tmp_path)
    for name in "AB":
        (tmp_path / name).mkdir()


def parser(*places: str) -> commandline.Parser:
    made = commandline.Parser(prog="x")
    for place in places:
        made.add_argument(place.strip("?"), type=commandline.folder, nargs="?" if "?" in place else None)
    made.add_argument("--names", nargs="+")
    made.add_argument("--some_numbers", nargs="+", type=Number(int, 0))
    made.add_argument("--one_text")
    made.add_argument("--wide", action="store_true")
    made.add_argument("--words", type=commandline.words_in_quotes)
    made.quoted = {"--words"}
    return made


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize(
    ("words", "names", "a", "b"),
    [
        ("--names n A B", ["n"], "A", "B"),
        ("--names n m A B --wide", ["n", "m"], "A", "B"),
        ("A --names n B", ["n"], "A", "B"),
        ("--names n A --some_numbers 1 B", ["n"], "A", "B"),
        ("A B --names n A", ["n", "A"], "A", "B"),
        ("--names n A --wide B", ["n"], "A", "B"),
        ("--names n -- A B", ["n"], "A", "B"),
        ("A --names n --some-numbers 1 2 B", ["n"], "A", "B"),
        ("--names=n A B", ["n"], "A", "B"),
        ("--one-text n A B", None, "A", "B"),
        ("--names A --one_text A A B", ["A"], "A", "B"),
    ],
)
def test_a_list_ends_where_the_folders_begin(words: str, names: list[str] | None, a: str, b: str) -> None:
    found = parser("a", "b").parse_args(words.split())
    assert (found.names, found.a, found.b) == (names, Path(a), Path(b))


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize(
    ("words", "names", "a"),
    [
        ("--names n A", ["n"], Path("A")),
        ("--names n no_folder", ["n", "no_folder"], None),
        ("--names A", ["A"], None),
        ("A --names n B", ["n", "B"], Path("A")),
    ],
)
def test_a_folder_that_may_be_left_out_is_one_that_is_there(words: str, names: list[str], a: Path | None) -> None:
    found = parser("a?").parse_args(words.split())
    assert (found.names, found.a) == (names, a)


@pytest.mark.usefixtures("folders")
def test_a_folder_that_is_missing_is_the_word_at_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser("a", "b").parse_args(["--names", "n", "A", "Bee"])
    assert capsys.readouterr().err.startswith("x: error: Bee is not a folder")


@pytest.mark.parametrize("given", ["1,2,4", "1, 2, 4", "1 2,4", "1 2 4"])
def test_numbers_may_have_commas(given: str) -> None:
    assert parser().parse_args(["--some_numbers", *given.split()]).some_numbers == [1, 2, 4]


def test_so_may_choices_but_no_texts() -> None:
    assert [each.backend for each in arguments.parse(["--backend", "vllm,sglang"])] == ["vllm", "sglang"]
    assert parser().parse_args(["--names", "a,b", "--one_text=c,d"]).names == ["a,b"]


@pytest.mark.parametrize("given", ["0-3", "0..3", "0,1-2,3", "0 1 2 3"])
def test_gpus_may_be_a_range(given: str) -> None:
    (settings,) = arguments.parse([*VLLM, "--gpus", *given.split()])
    assert settings.servers[0].gpus == (0, 1, 2, 3)


def test_values_keep_their_hyphens() -> None:
    found = parser().parse_args(
        ["--one-text", "--not-an-option --wide", "--words", "--one-text", "--names", "a-b"]
    )
    assert (found.one_text, found.words, found.names) == ("--not-an-option --wide", ("--one-text",), ["a-b"])
    (settings,) = arguments.parse([*VLLM, "--engine-args", "--max-retries 3", "--max-retries", "2"])
    assert (settings.variants[0].args, settings.common.max_retries) == (("--max-retries", "3"), 2)


@pytest.mark.parametrize("name", [each.name for each in declared()])
def test_each_option_of_the_benchmark_has_a_spelling_with_hyphens(name: str) -> None:
    action = parser_of("run")._option_string_actions[f"--{name}"]
    value = {"backend": "vllm", "target_ci": "5%", "layouts": "2x4", "min_runs": "2", "max_runs": "2"}.get(
        name, (list(action.choices or ()) or ["1"])[0]
    )
    value = {"engine_args": "--x", "engine_env": "A=1", "engine_grid": "--x"}.get(name, value)
    value = {"extra_headers": "a:b", "extra_body": '{"a": 1}', "shared_prefix": "1:1", "budget": "2h"}.get(
        name, value
    )
    words = [f"--{name.replace('_', '-')}", *([] if action.nargs == 0 else [value])]
    assert getattr(parser_of("run").parse_args(words), name)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_them_too(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = parser_of(command)
    with pytest.raises(SystemExit):
        made.parse_args(["--no-such-option", "sk-secret"])
    said = capsys.readouterr().err
    assert "error: unknown option --no-such-option" in said and "secret" not in said
    names = [name for name in made._option_string_actions if name.startswith("--")]
    assert not [name for name in names if "-" in name[2:]], "an option is declared with underscores"


def test_keys_under_hyphens_are_hidden() -> None:
    words = [
        "--openai-api-key",
        "sk-1",
        "--extra-headers",
        "a:sk-2",
        "b: sk-3",
        "--aml-api-key=sk-4",
        "--seed",
        "1",
    ]
    hidden = ["--openai-api-key", "***", "--extra-headers", "a:***", "b:***", "--aml-api-key=***", "--seed", "1"]
    assert keys.hide_in_words(words) == hidden
    assert arguments.parse([*VLLM, *words[:2]])[0].access.key == "sk-1"


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("num_client", "num_clients"),
        ("batch-size", "max_ragged_batch_size"),
        ("tp", "tp_size"),
        ("replicas", "num_replicas"),
        ("temprature", "temperature"),
        ("out", "out_json_dir"),
    ],
)
def test_what_may_have_been_meant(word: str, first: str) -> None:
    assert near(word, [each.name for each in declared()])[0] == first


def test_nothing_is_like_nonsense() -> None:
    assert near("qqqq", [each.name for each in declared()]) == []


def test_options_of_another_program_are_left_as_they_are() -> None:
    """`servebench paired` hands them on."""
    made = commandline.Parser(prog="x")
    made.add_argument("place")
    found, rest = made.parse_known_args(["--seed=1", "words of it", "--num-clients", "1"])
    assert (found.place, rest) == ("words of it", ["--seed=1", "--num-clients", "1"])
