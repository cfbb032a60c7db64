"""Options are declared once, as fields: the parser, a --config file, the log and --filter follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from servebench.errors import InputError
from servebench.log.config import Clients, Dataset, Rate, Scenario, Synthetic
from servebench.plan import arguments
from servebench.plan.options import FindMax, TargetCi, declared, document

VLLM = ["--backend", "vllm"]


def config(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "sweep.yaml").write_text(text)
    return ["--config", str(tmp_path / "sweep.yaml")]


def test_each_option_is_declared_once() -> None:
    names = [each.name for each in declared()]
    assert len(names) == len(set(names)) > 60
    assert all(each.option.help for each in declared())


def test_a_file_takes_the_same_names_and_the_command_line_wins(tmp_path: Path) -> None:
    text = "backend: vllm\nnum_clients: [1, 8]\nnum_replicas: 1\nshared_prefix: 512:4\nno_such: 1\n".replace(
        "no_such: 1\n", ""
    )
    text += "engine_args: --enforce-eager\nextra_body: {top_k: 4}\nstream: false\ntemperature: 0\nfp6: false\n"
    (settings,) = arguments.parse([*config(tmp_path, text), "--num_clients", "3"])
    assert settings.loads == (Clients(num_clients=3),)
    assert isinstance(settings.requests[0], Synthetic) and settings.requests[0].shared_prefix == (512, 4)
    assert (settings.common.stream, settings.common.temperature) == (False, 0.0)
    assert (settings.common.extra_body, settings.variants[0].args) == ({"top_k": 4}, ("--enforce-eager",))
    (settings,) = arguments.parse(config(tmp_path, text))
    assert [load.size for load in settings.loads] == [1, 8]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("num_client: 1", "unknown option num_client: did you mean num_clients"),
        ("[1", "give a YAML file"),
        ("- 1", "it is a list; write a line NAME: VALUE"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        arguments.parse(config(tmp_path, text))


def test_a_value_in_a_file_is_checked_as_if_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(config(tmp_path, "num_clients: [0]"))
    assert "at least 1" in capsys.readouterr().err


def test_names_in_a_file_may_have_hyphens(tmp_path: Path) -> None:
    (settings,) = arguments.parse([*VLLM, *config(tmp_path, "num-clients: 1,3")])
    assert [load.size for load in settings.loads] == [1, 3]


def test_a_dozen_options_are_common() -> None:
    assert 10 <= sum(each.option.common for each in declared()) <= 16


def test_the_document_of_the_options_is_up_to_date() -> None:
    assert (ROOT / "docs/options.md").read_text() == document(), (
        "python -m servebench.plan.options > docs/options.md"
    )


def test_the_option_chooses_the_kind(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "a"}')
    (rate,) = arguments.parse([*VLLM, "--request_rate", "2", "--arrival", "constant", "--scenario", "D(9,9)"])
    assert rate.loads == (Rate(request_rate=2.0, arrival="constant"),)
    assert isinstance(rate.requests[0], Scenario)
    (found,) = arguments.parse([*VLLM, "--dataset", str(tmp_path / "d.jsonl"), "--find_max", "ttft_p99<2s"])
    assert isinstance(found.requests[0], Dataset) and isinstance(found.strategy, FindMax)
    assert isinstance(arguments.parse([*VLLM, "--target_ci", "5%"])[0].strategy, TargetCi)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rate(request_rate=1.0, burstiness=0.5),
        lambda: Rate(request_rate=1.0, ramp_from=1.0),
        lambda: Synthetic(mean_prompt_length=5000),
        lambda: Scenario(scenario="E(1,2)"),
        lambda: Dataset(dataset="d", think_time=1.0),
        lambda: TargetCi(target_ci=0.05, min_runs=9, max_runs=3),
    ],
)
def test_a_kind_refuses_nonsense_when_it_is_made(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError):
        make()
