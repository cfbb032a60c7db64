"""The sampler beside a point, by the command line: what is in the log, and that nothing depends on the sampler."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from real_engines import wait_for

from servebench.log import store
from servebench.log.schema import Log
from servebench.telemetry import recorder
from servebench.telemetry.sampler import Sample, Samples

Benchmark = Callable[..., tuple[int, str, str]]
Driver = Callable[..., "subprocess.Popen[str]"]
TEN_S = ["--num_requests", 40]  # of 0.2 s each


def logs(folder: Path) -> list[Log]:
    return [store.load(path) for path in sorted(folder.glob("*/*clients*.json"))]


def samplers(results: Path) -> list[int]:
    """The pids of those that sample for these results."""
    found = psutil.process_iter(["cmdline", "status"])
    lines = {each.pid: each.info["cmdline"] or [] for each in found if each.info["status"] != "zombie"}
    return [
        pid for pid, line in lines.items() if "servebench.telemetry.sampler" in line and str(results) in line[-1]
    ]


def test_a_log_has_the_host_over_its_window_and_the_samples(
    stand_in: list[object], benchmark: Benchmark, results: Path
) -> None:
    status, _, _ = benchmark(*stand_in, "--num_clients", 1, 2, telemetry=True)
    one, two = logs(results)
    assert status == 0 and not samplers(results)
    for log in (one, two):
        assert log.telemetry and log.telemetry.host and log.series and log.window_ns
        host = log.telemetry.host
        known = (host.client_cpu_share, host.server_cpu_share or 0, host.others_cpu_share or 0)
        assert 0 < sum(known) + host.kernel_cpu_share + host.steal_share + host.idle_share < 1.05
        assert 0 < known[0] < 0.6 and 0 < known[1] < 0.6
        assert log.quality.others_cpu_share == host.others_cpu_share
        end_ns = log.series.start_ns + log.series.bins * log.series.every_ns
        assert log.series.start_ns < log.window_ns[0] < log.window_ns[1] < end_ns
    assert one.series.start_ns < two.series.start_ns  # type: ignore[union-attr]
    assert not list(results.glob("*/*.tmp*"))


def test_without_telemetry_there_is_none(stand_in: list[object], benchmark: Benchmark, results: Path) -> None:
    assert benchmark(*stand_in, "--num_clients", 1)[0] == 0
    (log,) = logs(results)
    assert log.telemetry is None and log.series is None and log.quality.others_cpu_share is None


def test_a_sampler_that_dies_costs_its_samples_only(stand_in: list[object], driver: Driver, results: Path) -> None:
    running = driver(*stand_in, "--num_clients", 1, 2, *TEN_S, telemetry=True)
    wait_for(lambda: bool(samplers(results)))
    for pid in samplers(results):
        os.kill(pid, signal.SIGKILL)
    out, _ = running.communicate()
    assert running.returncode == 0 and "2 points measured, 0 failed" in out
    for log in logs(results):
        assert log.telemetry and "the sampler gave no samples" in log.telemetry.remarks[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_sampler_ends_with_the_benchmark(
    number: signal.Signals, stand_in: list[object], driver: Driver, results: Path
) -> None:
    running = driver(*stand_in, "--num_clients", 1, *TEN_S, telemetry=True)
    wait_for(lambda: bool(list(results.glob("*/*.tmp*"))))
    running.send_signal(number)
    running.communicate()
    wait_for(lambda: not samplers(results))
    if number != signal.SIGKILL:
        assert not list(results.glob("*/*.tmp*"))


def test_samples_of_a_full_disk_are_lost_and_nothing_else(tmp_path: Path) -> None:
    to = Samples("/dev/full")
    to.put("host", {"busy_s": 1.0})
    file = tmp_path / "samples"
    file.write_bytes(b'["host",1,{"busy_s":1.0}]\n["host",2,{"busy_s":')
    assert list(recorder.read(file)) == [Sample("host", 1, {"busy_s": 1.0})]
