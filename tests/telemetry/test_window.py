"""From samples to facts over the window, and to the grid that a log keeps: against sums done by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import point

from servebench.log import store
from servebench.log.telemetry import Series, Telemetry
from servebench.telemetry import window
from servebench.telemetry.sampler import REMARK, Sample

START = 1_800_000_000_000_000_000  # ns
SAMPLED_S = np.arange(0, 20.01, 0.5)


def at(seconds: float) -> int:
    return START + round(seconds * 1e9)


def hosts(
    others: Callable[[float], float] = lambda s: 0.0, steal: float = 0.0, server: bool = True
) -> list[Sample]:
    """Two cores: the client takes 0.1 of a core, the server 0.5; what others have taken until then is given."""

    def values(s: float) -> dict[str, float]:
        busy = 0.6 * s + others(s)
        known = {"client_s": 0.1 * s, "busy_s": busy, "kernel_s": 0.02 * s, "steal_s": steal * 2 * s}
        known |= {"server_s": 0.5 * s, "wanted_s": 1.5 * others(s)} if server else {}
        return known | {"idle_s": 2 * s - busy - 0.02 * s - steal * 2 * s, "network_bytes": 1000 * s}

    return [Sample("host", at(s), values(s)) for s in SAMPLED_S]


def gauge(source: str, name: str, of: Callable[[float], float], every_s: float = 0.1) -> list[Sample]:
    return [Sample(source, at(s), {name: of(s)}) for s in np.arange(0, 20.01, every_s)]


def seen(samples: list[Sample], of: window.Window) -> Telemetry:
    return window.telemetry(samples, window.tracks(samples), of)


def test_shares_of_the_host_add_up() -> None:
    host = seen(hosts(others=lambda s: 0.4 * s, steal=0.1), (at(3.2), at(17.9))).host
    assert host is not None
    shares = (host.client_cpu_share, host.server_cpu_share, host.others_cpu_share, host.kernel_cpu_share)
    assert shares == pytest.approx((0.05, 0.25, 0.2, 0.01), abs=1e-5)
    assert host.others_wanted_share == pytest.approx(0.3, abs=1e-4)
    assert (host.steal_share, host.idle_share) == pytest.approx((0.1, 0.39), abs=1e-5)
    assert host.network_bytes_per_s == pytest.approx(1000)


def test_what_others_did_before_the_window_is_not_in_it() -> None:
    host = seen(hosts(others=lambda s: min(s, 5.0)), (at(5.1), at(18.0))).host
    assert host is not None and host.others_cpu_share == pytest.approx(0, abs=1e-6)


def test_of_a_server_that_is_not_ours_nobody_knows_what_others_took() -> None:
    host = seen(hosts(server=False), (at(5), at(18))).host
    assert host is not None and host.server_cpu_share is None and host.others_cpu_share is None


def test_a_sampler_that_was_late_or_gave_nothing_is_said() -> None:
    assert seen([], (at(1), at(2))).remarks == ["the sampler gave no samples"]
    late = [sample for sample in hosts() if not at(6) < sample.at_ns < at(12)]
    (words,) = seen(late, (at(1), at(19))).remarks
    assert words == "no samples for 6.0 s: the sampler was kept from its core"


def test_remarks_are_counted() -> None:
    said = [Sample(REMARK, at(s), {"engine 0: status 500": 1}) for s in (1, 2, 3)]
    assert seen([*hosts(), *said], (at(1), at(19))).remarks == ["engine 0: status 500 (3 times)"]


def test_throttling_and_sharing_are_shares_of_the_window() -> None:
    """5 s of 10 too hot (hardware's bit for heat 0x40), 2 s of 10 with a foreign process; idle from 4 s to 6 s."""
    samples = hosts() + gauge("gpu0", "throttle", lambda s: 0x40 * (5 < s < 10))
    samples += gauge("gpu0", "shared", lambda s: float(13 < s < 15), every_s=0.5)
    samples += gauge("gpu0", "sm", lambda s: 0.0 if 6 < s < 8 else 0.9) + gauge("gpu0", "power_w", lambda s: 300.0)
    samples.append(Sample("gpu0.others", at(14), {"python (4711)": 1.0}))
    (gpu,) = seen(samples, (at(5), at(15))).gpus
    assert gpu.throttled["thermal"] == pytest.approx(0.5, abs=0.02) and "power_cap" not in gpu.throttled
    assert gpu.shared_share == pytest.approx(0.15, abs=0.06) and gpu.sharing == ["python (4711)"]
    assert gpu.idle_share == pytest.approx(0.2, abs=0.02)
    assert gpu.energy == "invalid: other processes were on the GPU"


def test_the_grid_has_means_of_gauges_and_increases_of_counters() -> None:
    samples = hosts(others=lambda s: 0.4 * s) + gauge("engine0", "running", lambda s: s)
    samples += gauge("engine0", "preemptions", lambda s: 3 * s) + gauge("engine0", "waiting", lambda s: 7.0)
    samples.sort(key=lambda sample: sample.source)
    grid = window.series(window.tracks(samples))
    assert grid and (grid.start_ns, grid.every_ns, grid.bins) == (START, 500_000_000, 40)
    running = grid.of("engine0.running")
    assert running[:2] + running[-1:] == pytest.approx([0.25, 0.75, 19.75], abs=0.06)
    assert grid.columns["engine0.waiting"] == [7] and grid.of("engine0.waiting") == [7] * 40
    assert sum(v or 0 for v in grid.of("engine0.preemptions")) == pytest.approx(60, rel=0.01)
    assert grid.columns["host.server"] == [0.25] and grid.columns["host.others"] == [0.2]


def test_a_long_point_has_wider_bins() -> None:
    samples = [msgspec.structs.replace(s, at_ns=START + (s.at_ns - START) * 100) for s in hosts()]
    grid = window.series(window.tracks(samples))
    assert grid and grid.bins == window.MOST_BINS


def test_a_log_keeps_the_grid_behind_its_requests(tmp_path: Path) -> None:
    grid = Series(start_ns=START, every_ns=10**9, bins=2, columns={"host.client": [0.1, None], "gpu0.sm": [1]})
    log, path = msgspec.structs.replace(point("vllm", 1, 1.0), series=grid), tmp_path / "p-clients1.json"
    store.save(log, path)
    assert store.load(path).series == grid and store.load(path, requests=False).series is None
    head = store.head(path)
    assert head and head.series is None
    assert '\n"gpu0.sm":[1]}}\n}\n' in path.read_text()


def test_samples_of_another_time_say_nothing_of_the_host() -> None:
    assert seen(hosts(), (at(30), at(40))).host is None
