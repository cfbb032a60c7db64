"""What a GPU did, from the driver to the verdict in the terminal: by the command line, with the stub driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nvml import Stub
from warm_python import python

from servebench.analysis import metrics, trust
from servebench.log import store
from servebench.log.schema import Log

Benchmark = Callable[..., tuple[int, str, str]]
Measure = Callable[..., tuple[Log, str, Stub]]
ALWAYS = "0-100000"  # s: a span


@pytest.fixture
def measured(
    nvml: Callable[..., Stub], stand_in: list[object], benchmark: Benchmark, results: Path, tmp_path: Path
) -> Measure:
    """A point on GPUs that do this: its log, what was printed, the stub."""

    def measure(*words: object, gpus: int | list[dict[str, object]] = 1, **keys: object) -> tuple[Log, str, Stub]:
        stub = nvml(gpus=gpus, **({"own": f"file {tmp_path / 'pid'}"} | keys))
        status, out, err = benchmark(*stand_in, "--num_clients", 1, *words, telemetry=True)
        assert status == 0, out + err
        (path,) = results.glob("vllm/*.json")
        return store.load(path), " ".join(out.split()), stub

    return measure


@pytest.mark.parametrize(
    ("keys", "mark", "words"),
    [
        ({}, "", ""),
        (
            {"throttle": f"0x40@{ALWAYS}"},
            "gpu-throttled",
            "GPU 0 was slowed down by its temperature 100% of the window",
        ),
        ({"throttle": f"0x80@{ALWAYS}"}, "gpu-throttled", "by its power supply or hardware 100% of the window"),
        ({"throttle": f"0x4@{ALWAYS}"}, "", ""),
        ({"throttle": f"0x4@{ALWAYS}", "power_limit_w": 400}, "gpu-throttled", "a power limit of 400 W, below"),
        (
            {"processes": f"1:1000000:train@{ALWAYS}"},
            "gpu-shared",
            "other processes (train (1)) were on GPU 0 100%",
        ),
        ({"processes": f"1:1000000:train@{ALWAYS}", "own": None}, "", ""),  # another PID namespace: nobody knows
    ],
)
def test_each_verdict_is_seen(measured: Measure, keys: dict[str, object], mark: str, words: str) -> None:
    log, out, _ = measured(**keys)
    of_gpu = [found for found in trust.marks([log]) if found.startswith("gpu")]
    assert of_gpu == ([mark] if mark else [])
    assert words in out and ("gpu-" in out) == bool(mark)


def test_energy_and_cost_are_those_of_the_servers_gpus(measured: Measure, results: Path) -> None:
    """Two GPUs of three, the third one far hungrier: by the stub's own integral, and the tokens of the log."""
    powers = ("sawtooth 100 400 0.7", "steps 80 320 1", "constant 700")
    gpus: list[dict[str, object]] = [{"power": power} for power in powers]
    log, _, stub = measured("--tp_size", 2, "--num_requests", 40, "--gpu_hour_price", 2.5, gpus=gpus)
    assert log.window_ns and log.telemetry and [gpu.index for gpu in log.telemetry.gpus] == [0, 1]
    assert all(gpu.energy == "ok" for gpu in log.telemetry.gpus)
    truth = sum(stub.joules(gpu, *log.window_ns) for gpu in (0, 1))
    values, window_s = metrics.values(log), (log.window_ns[1] - log.window_ns[0]) / 1e9
    tokens_per_s = values["output_token_throughput_per_s"]
    assert tokens_per_s
    assert values["energy_per_output_token_j"] == pytest.approx(truth / window_s / tokens_per_s, rel=0.01)
    assert values["dollars_per_million_output_tokens"] == pytest.approx(2 * 2.5 / 3600 / tokens_per_s * 1e6)
    shown = python("-m", "servebench", "summary", results, "--gpu_hour_price", 5).stdout
    assert f"{2 * 5 / 3600 / tokens_per_s * 1e6:.3g}"[:3] in shown


def test_a_shared_gpu_has_no_energy_of_its_own(measured: Measure) -> None:
    log, _, _ = measured(processes=f"1:1000000:train@{ALWAYS}")
    assert metrics.values(log)["energy_per_output_token_j"] is None
    assert log.telemetry and log.telemetry.gpus[0].energy.startswith("invalid: ")


def test_a_driver_that_fails_midway_costs_its_samples_only(measured: Measure) -> None:
    log, _, _ = measured("--num_requests", 40, driver_gaps="4-100000")
    assert log.status == "ok" and log.telemetry
    assert any(remark.startswith("GPUs: NVML") for remark in log.telemetry.remarks)
