"""--print_config: the file that it prints asks for what the command asked for, without keys."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from msgspec import inspect

from servebench.cli.declare import Declared, file_of
from servebench.errors import InputError
from servebench.plan import arguments
from servebench.plan.options import CHOICES, declared
from servebench.plan.sweep import make_plan

# What YAML would take for something else, and what needs quotes.
TEXTS = [
    "no",
    "on",
    "null",
    "~",
    "1e3",
    "007",
    "1_000",
    "0x10",
    "1.50",
    "12:30:45",
    "2026-11-26",
    "- a",
    "a: b",
    "a #b",
]
TEXTS += [
    "'",
    '"',
    "{a}",
    "[a",
    "a,b",
    "&a",
    "*a",
    "!a",
    "%a",
    "@a",
    "`a",
    "a\nb",
    "\ta",
    "Modèle-日本",
    "=",
    "a\\b",
]
SAMPLES = {  # of options with a form of their own
    "engine_args": ["--enforce-eager", "--a 'b c' --d=\"e\"", "-x", "fast: --a 1", "--a: b"],
    "engine_grid": ["--max-num-seqs 8 64", "--enforce-eager", "--model=x"],
    "engine_env": ["A=1", "A=no", "B= - a: b"],
    "serve": ["engine {model} --port {port}", "docker run -p '{port}:8000' i {{x}}", '--x: "a b"'],
    "layouts": ["1x8", "2x4"],
    "openai_api_url": ["http://127.0.0.1:1/v1", "http://[::1]:1"],
    "aml_api_url": ["https://h/score"],
    "extra_headers": ["X-A:1", "X-B: a: b"],
    "target_ci": ["5%", "0.05"],
    "max_failed_share": ["5%", "0"],
    "shared_prefix": ["512:4", "1:1"],
    "extra_body": ['{"top_k": 4, "stop": ["é", null], "a": {"b": true}}', "{}"],
    "out_json_dir": ["./a/../b", "no", "7"],
    "deployment_name": ["", *TEXTS],
    "find_max": ["ttft_p99<2s, tpot_p99<100ms"],
    "decide": ["ttft_p99<2s, tpot_p99<100ms"],
    "sla": ["ttft_p99<2s, tpot_p99<100ms"],
    "budget": ["2h", "1h30min", "90s"],
    "scenario": ["N(480,240)/(300,150)", "D(9,9)"],
}
KEYS = ("openai_api_key", "aml_api_key")


def samples(each: Declared) -> list[str]:
    """Words that the option takes, by its declaration; a new option is tried without a change here."""
    of = each.type.item_type if isinstance(each.type, inspect.VarTupleType) else each.type
    known = CHOICES.get(each.name) or each.option.choices or tuple(getattr(each.type, "values", ()))
    numbers = {inspect.IntType: ["2", "3"], inspect.FloatType: ["0.5", "1e-1", "1", ".25"]}
    return list(SAMPLES.get(each.name) or known or numbers.get(type(of)) or TEXTS)  # type: ignore[call-overload]


def words_of(each: Declared) -> Iterator[list[str]]:
    flag = f"--{each.name}"
    if isinstance(each.type, inspect.BoolType):
        yield [flag]
        yield from [[f"--no_{each.name}"]] if each.default is True else []
        return
    yield from [[flag]] if each.option.const is not None else []
    yield from ([f"{flag}={value}"] for value in samples(each))
    yield from [[flag, *(v for v in samples(each) if each.option.quoted or v[:1] != "-")]] if each.several else []


@pytest.mark.parametrize(
    "each", [e for e in declared() if e.name not in (*KEYS, "print_config")], ids=lambda e: e.name
)
def test_every_option_survives_the_file(each: Declared, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    for words in words_of(each):
        values, typed = arguments._given(words)
        file.write_text(file_of(typed, ()))
        again, typed_again = arguments._given(["--config", str(file)])
        assert (again, typed_again) == (values, typed), file.read_text()
        assert values[each.name] is not None


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        arguments.parse([*words, "--print_config"])
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    return out, err


COMMANDS = [
    "--backend vllm,sglang --num-clients 1,2,4 --layouts 1x8 2x4 --no_stream",
    "--backend sglang --engine_args --x \"--a 'b c'\" --engine_env A=1 A=2 --engine_grid '--b 1 2' '--c'",
    "--backend vllm --engine_args \"--enforce-eager --a 'b c'\" --gpus 0-3 --tp_size 1 2",
    "--backend llamacpp --scenario 'N(480,240)/(300,150)' --request_rate 1 0.5 --target_ci 5%",
    "--backend fastgen --find_peak --num_clients 4 --shared_prefix 512:4 --max_failed_share 1%",
    "--backend openai --openai_api_url http://127.0.0.1:1/v1 --model no --seed 3 --runs 2 --tokenizer t "
    "--extra_headers X-A:on --extra_body '{\"top_k\": 4}' --api chat",
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[1])
def test_the_file_makes_the_same_plan(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    text, said = printed(words, capsys)
    assert not said
    (tmp_path / "a.yaml").write_text(text)
    again = ["--config", str(tmp_path / "a.yaml")]
    assert printed(again, capsys) == (text, "")

    def marks(words: list[str]) -> list[str]:
        asked = arguments.parse([*words, "--dry_run"])
        return [point.fingerprint for each in asked for plan in make_plan(each) for point in plan.points]

    assert arguments.parse(again) == arguments.parse(words)
    assert marks(again) == marks(words) != []


def test_the_command_line_goes_over_the_file_in_the_order_of_the_declarations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("seed: 007\nnum-clients: [1, 2]\nstream: false\nextra_body: {a: 1}\nmodel:\n")
    words = ["--config", str(tmp_path / "a.yaml"), "--num_clients", "8", "--backend", "vllm", "--num_clients", "9"]
    text, _ = printed(words, capsys)
    assert text == "backend: vllm\nnum_clients: 9\nstream: false\nextra_body: '{\"a\": 1}'\nseed: '007'\n"


def test_keys_are_named_and_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--backend", "openai", "--openai_api_url", "http://u:SECRET@127.0.0.1:1/v1", "--model", "m"]
    words += ["--openai_api_key", "SECRET", "--extra_headers", "X-A:1", "X-Api-Key:SECRET"]
    words += ["--extra_body", '{"api_key": "SECRET"}', "--num_clients", "2"]
    text, said = printed(words, capsys)
    assert "SECRET" not in text + said and "# extra_headers: ['X-A:***', 'X-Api-Key:***']" in text
    assert said.endswith("--openai_api_url, --openai_api_key, --extra_headers, --extra_body\n")
    assert yaml.safe_load(text) == {"backend": "openai", "model": "m", "num_clients": 2}
    text, said = printed(["--backend", "vllm", "--engine_args", "--api-key=SECRET --max-model-len 9"], capsys)
    assert "SECRET" not in text + said and "# engine_args: --api-key=*** --max-model-len 9" in text.replace(
        "'", ""
    )
    text, said = printed(["--backend", "vllm", "--engine_env", "A=1", "HF_TOKEN=SECRET"], capsys)
    assert "SECRET" not in text + said and said.endswith("--engine_env\n")
    settings, *_ = arguments.parse(words)
    assert "SECRET" not in str(settings.options) and settings.options["num_clients"] == "2"


def test_what_makes_no_sense_is_refused_and_not_printed() -> None:
    with pytest.raises(InputError, match="exclude each other"):
        arguments.parse(["--num_clients", "1", "--request_rate", "1", "--print_config"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model: [a, b]", "model is a list, and takes one value; give one"),
        ("stream: [false]", "stream is a list, and takes one value"),
        ("extra_headers: [X-A: 1]", "extra_headers has a list or NAME: VALUE in its list; quote each value"),
        ("gpus: [[0, 1]]", "gpus has a list or NAME: VALUE in its list"),
        ("engine_args: {fast: --x}", "engine_args is a mapping; write its value"),
    ],
)
def test_a_list_where_none_belongs_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=reason):
        arguments.parse(["--config", str(tmp_path / "a.yaml")])


def test_values_of_a_list_may_begin_with_dashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "backend: vllm\ntp_size: 1\nengine_args: [--enforce-eager, --model=x, -x, --a 1, 'fast: --b']\n"
    (tmp_path / "a.yaml").write_text(text)
    (settings,) = arguments.parse(["--config", str(tmp_path / "a.yaml")])
    assert [" ".join(server.engine_args) for server in settings.servers] == (
        ["--enforce-eager", "--model=x", "-x", "--a 1", "--b"]
    )
    assert printed(["--config", str(tmp_path / "a.yaml")], capsys)[0] == text
    (tmp_path / "a.yaml").write_text("backend: vllm\nscenario: ['D(9,9)', '--x']\n")
    with pytest.raises(InputError, match=r"scenario .*--x"):
        arguments.parse(["--config", str(tmp_path / "a.yaml")])


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert arguments.parse(["--config", str(tmp_path / "a.yaml")]) == arguments.parse([])
