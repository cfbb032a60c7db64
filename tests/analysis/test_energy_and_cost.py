"""Energy and $ of tokens against theory: known power and a known price over known tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_log, on_gpus, point
from msgspec.structs import replace

from servebench.analysis import cost, limits, metrics, power, throughput
from servebench.errors import InputError
from servebench.log.schema import Log
from servebench.log.telemetry import GpuUse, Telemetry

# 2 clients, a request of 4 tokens each second: 80 tokens, and 20 prompts of 100 tokens, in 10 s.
TWO_CLIENTS = point("vllm", 2, 1.0, tp_size=2)


def values(log: Log) -> dict[str, float | None]:
    names = (
        "gpu_power_w",
        "energy_per_output_token_j",
        "energy_per_request_j",
        "tokens_per_joule",
        "gpu_idle_share",
    )
    return {name: metrics.OF_POINT[name].function(log) for name in names}


def test_energy_is_power_x_time_over_what_came_of_it() -> None:
    tokens = (throughput.output_token_throughput(TWO_CLIENTS) or 0) * 10
    requests = (throughput.request_throughput(TWO_CLIENTS) or 0) * 10
    found = values(on_gpus(TWO_CLIENTS, 300.0, 500.0))
    assert found == pytest.approx(
        {
            "gpu_power_w": 400,
            "energy_per_output_token_j": 800 * 10 / tokens,
            "energy_per_request_j": 800 * 10 / requests,
            "tokens_per_joule": tokens / 10 / 800,  # tokens/s per W
            "gpu_idle_share": 0.05,
        }
    )
    assert (tokens, requests) == (79, 19)  # what ends a moment after the window is left out


def test_one_gpu_of_unsound_energy_makes_all_of_it_unknown() -> None:
    good, bad = (
        GpuUse(index=0, power_w=300, energy_j=3000, energy="ok, by power readings"),
        "invalid: counter reset",
    )
    both = Telemetry(gpus=[good, GpuUse(index=1, power_w=300, energy_j=3000, energy=bad, idle_share=0.5)])
    log = replace(TWO_CLIENTS, telemetry=both)
    assert set(values(log).values()) == {None} and power.energy_verdict(log) == bad
    assert power.why_unknown(log) == "GPU energy invalid: counter reset"
    assert power.energy_verdict(replace(log, telemetry=Telemetry(gpus=[good, good]))) == "ok"


def test_a_gpu_that_was_not_seen_makes_energy_unknown() -> None:
    log = on_gpus(TWO_CLIENTS, 300.0, gpus=[0, 1])
    assert power.energy_verdict(log) == "invalid: only 1 of 2 GPUs were seen"
    assert values(log)["energy_per_output_token_j"] is None


@pytest.mark.parametrize("log", [TWO_CLIENTS, replace(TWO_CLIENTS, telemetry=Telemetry())])
def test_without_gpus_there_is_no_energy(log: Log) -> None:
    assert set(values(log).values()) == {None} and power.energy_verdict(log) == "unknown"


def test_without_tokens_nothing_is_divided_by_them() -> None:
    empty = on_gpus(make_log([], (0.0, 10.0)), 300.0)
    assert values(empty) == {**dict.fromkeys(values(empty)), "gpu_power_w": 300, "gpu_idle_share": 0}
    assert cost.of_output_tokens(replace(empty, gpu_hour_price=2.0)) is None


# $.


def test_dollars_are_price_x_gpus_x_hours_over_tokens() -> None:
    log = replace(TWO_CLIENTS, gpu_hour_price=3.6)  # 2 GPUs: 0.002 $/s
    assert cost.of_output_tokens(log) == pytest.approx(0.002 * 10 / 79 * 1e6)
    assert cost.of_input_tokens(log) == pytest.approx(0.002 * 10 / 1900 * 1e6)
    assert cost.of_output_tokens(cost.with_price(log, 7.2)) == pytest.approx(0.004 * 10 / 79 * 1e6)
    assert cost.with_price(log, None) is log and cost.of_output_tokens(TWO_CLIENTS) is None
    assert cost.of_output_tokens(cost.with_price(log, 0.0)) == 0


@pytest.mark.parametrize(
    ("changes", "identity", "facts", "gpus"),
    [
        ({"tp_size": 2}, {"environment": {"gpus": ["A", "A"]}}, {}, 2),
        ({"tp_size": 2}, {"environment": {"host": "8 cores"}}, {}, None),  # on a CPU
        ({"tp_size": 2}, {}, {}, 2),  # a log of before
        ({"urls": ("http://a",)}, {"environment": {"host": "8 cores"}}, {}, None),
        ({"urls": ("http://a",), "tp_size": 4}, {"environment": {"host": "8 cores"}}, {}, 4),
        ({"urls": ("http://a",)}, {"environment": {"host": "8 cores"}}, {"gpus": [0, 1, 2]}, 3),
        ({"engine_args": ("-dp", "2")}, {"environment": {"gpus": ["A"] * 8}}, {"gpus": [0, 1]}, 2),
    ],
)
def test_a_price_counts_gpus_and_nothing_else(
    changes: dict[str, object], identity: dict[str, object], facts: dict[str, object], gpus: int | None
) -> None:
    log = point("vllm", 1, 1.0, **changes)
    log = replace(log, identity=identity, gpu_hour_price=2.0, server_facts=replace(log.server_facts, **facts))
    assert cost.dollars_per_hour(log) == (gpus and 2.0 * gpus)
    assert (cost.why_unknown(log) == cost.NO_GPUS) == (gpus is None)


def test_a_price_that_counts_for_nothing_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    cpu = replace(TWO_CLIENTS, identity={"environment": {"host": "8 cores"}})
    for logs, price, notes in (([cpu, cpu], 2.0, 1), ([cpu, TWO_CLIENTS], 2.0, 0), ([cpu], None, 0)):
        found = [log for _, log in cost.priced(((Path(), log) for log in logs), price)]
        assert [log.gpu_hour_price for log in found] == [price] * len(logs)
        assert capsys.readouterr().err.count("note: no $") == notes


# Limits.


@pytest.mark.parametrize(
    ("typed", "written", "column", "value"),
    [
        ("energy_per_output_token<2J", "energy_per_output_token<2J", "energy_per_output_token_j", 2),
        ("energy_per_request_j<=0.5 J", "energy_per_request<=0.5J", "energy_per_request_j", 0.5),
        ("gpu_power<300W", "gpu_power<300W", "gpu_power_w", 300),
        ("gpu_idle_share<5%", "gpu_idle_share<5%", "gpu_idle_share", 0.05),
        ("dollars<0.5", "dollars<0.5", "dollars_per_million_output_tokens", 0.5),
        ("dollars_per_million_output_tokens<.5", "dollars<0.5", "dollars_per_million_output_tokens", 0.5),
        ("dollars_per_million_input_tokens<1", "", "dollars_per_million_input_tokens", 1),
        ("dollars<+5%", "dollars<+5%", "dollars_per_million_output_tokens", 1.05),
    ],
)
def test_limits_of_energy_and_dollars(typed: str, written: str, column: str, value: float) -> None:
    (limit,) = limits.parse(typed)
    assert (str(limit), limit.column, limit.value) == (written or typed, column, pytest.approx(value))


@pytest.mark.parametrize(
    ("typed", "instead"),
    [
        ("energy_per_output_token<2", "the limit needs a unit: write energy_per_output_token<2J"),
        ("energy_per_output_token<2kJ", "the unit kJ is not known: write energy_per_output_token<2J"),
        ("energy_per_output_token 2", "write energy_per_output_token<2J"),
        ("gpu_power<2J", "write gpu_power<2W"),
        ("dollars<2J", "takes no unit; write dollars<2"),
        ("dollars<$2", "write for example dollars<5"),
        ("energy_per_output_token=<2", "write energy_per_output_token<2J"),
    ],
)
def test_limits_that_cannot_be_read_say_what_to_write(typed: str, instead: str) -> None:
    with pytest.raises(InputError) as error:
        limits.parse(typed)
    assert str(error.value).endswith(instead)
