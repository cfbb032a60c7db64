"""From samples to what a log keeps: facts over the measured window, and the samples on a regular grid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from servebench.analysis.energy import energy
from servebench.log.telemetry import GpuUse, HostUse, Series, Telemetry
from servebench.telemetry import engine_use
from servebench.telemetry.gpus import REASONS
from servebench.telemetry.host import ALL_CPU
from servebench.telemetry.sampler import REMARK, Sample

Window = tuple[int, int]  # ns
LEAST_NS, MOST_BINS = 500_000_000, 240  # a bin's width, how many there are
GAP_S = 3.0  # without samples of the host, which is said
GAUGES = {  # columns of the grid, by the kind of source
    "gpu": ("power_w", "sm", "memory", "sm_clock_mhz", "temperature_c", "memory_used_bytes"),
    "engine": ("running", "waiting", "kv_cache_usage"),
}
COUNTED = {"engine": ("preemptions",)}
IN_GRID = ("client_cpu_share", "server_cpu_share", "others_cpu_share", "steal_share")  # of the host


@dataclass(frozen=True)
class Track:
    """All samples of a source."""

    at_ns: np.ndarray  # shape (samples,)
    values: dict[str, np.ndarray]  # likewise; NaN where a sample has no such value

    def all(self, name: str) -> np.ndarray:
        return self.values.get(name, np.full(len(self.at_ns), np.nan))

    def of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """When it is known, and what it is then."""
        known = ~np.isnan(self.all(name))
        return self.at_ns[known], self.all(name)[known]

    def increases(self, name: str, edges: np.ndarray) -> np.ndarray:
        """Of a sum that only grows, between edges (ns). NaN if it is not known."""
        at, values = self.of(name)
        return np.diff(np.interp(edges, at, values)) if len(at) else np.full(len(edges) - 1, np.nan)

    def means(self, name: str, edges: np.ndarray) -> np.ndarray:
        """Of a value that goes up and down, between edges, weighted by time. NaN outside of what is known."""
        at, values = self.of(name)
        if len(at) < 2:
            return np.full(len(edges) - 1, np.nan)
        area = np.append(0, np.cumsum(np.diff(at) * (values[1:] + values[:-1]) / 2))
        inside = np.clip(edges, at[0], at[-1])
        width = np.diff(inside)
        return np.where(width > 0, np.diff(np.interp(inside, at, area)) / np.maximum(width, 1), np.nan)

    def inside(self, name: str, window: Window) -> np.ndarray:
        """The samples in a window."""
        at, values = self.of(name)
        return values[(at >= window[0]) & (at <= window[1])]

    def most(self, name: str, window: Window) -> float | None:
        return _known(self.inside(name, window).max(initial=-np.inf))

    def mean(self, name: str, window: Window) -> float | None:
        return _known(self.means(name, np.array(window))[0])


def _known(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _mean(inside: np.ndarray) -> float | None:
    return float(np.mean(inside)) if len(inside) else None


def telemetry(samples: Iterable[Sample], found: Mapping[str, Track], window: Window) -> Telemetry:
    """What is known of the measured window. `found`: the tracks of the samples."""
    names = _names(samples)
    host, said = found.get("host"), names.get(REMARK, {})
    others = [f"{name} {cores:.0%}" for name, cores in names.get("others", {}).items()]
    engines = (
        engine_use.use(int(source[6:]), found[source].at_ns, found[source].values, window)
        for source in found
        if source.startswith("engine")
    )
    return Telemetry(
        remarks=[f"{word} ({n:.0f} times)" if n > 1 else word for word, n in said.items()] + _late(host, window),
        host=host_use(host, others, window) if host else None,
        gpus=[
            gpu_use(int(source[3:]), found[source], list(names.get(f"{source}.others", ())), window)
            for source in found
            if re.fullmatch(r"gpu\d+", source)
        ],
        engines=[engine for engine in engines if engine],
    )


def tracks(samples: Iterable[Sample]) -> dict[str, Track]:
    """By source, in the order of their names."""
    by_source: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: (sample.source, sample.at_ns)):
        by_source.setdefault(sample.source, []).append(sample)
    return {source: _track(of_source) for source, of_source in by_source.items() if source != REMARK}


def _track(samples: list[Sample]) -> Track:
    names = dict.fromkeys(name for sample in samples for name in sample.values)
    values = {name: np.array([sample.values.get(name, np.nan) for sample in samples]) for name in names}
    return Track(np.array([sample.at_ns for sample in samples], dtype=np.int64), values)


def _names(samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """By source, of those that name things, the names that it said, each with the sum of its values."""
    found: dict[str, dict[str, float]] = {}
    for sample in (each for each in samples if each.source == REMARK or each.source.endswith("others")):
        of_source = found.setdefault(sample.source, {})
        for name, value in sample.values.items():
            of_source[name] = of_source.get(name, 0) + value
    return found


def _late(host: Track | None, window: Window) -> list[str]:
    """That the sampler gave no samples, or none for a while."""
    if host is None:
        return ["the sampler gave no samples"]
    inside = host.at_ns[(host.at_ns > window[0]) & (host.at_ns < window[1])]
    longest_s = np.diff([window[0], *inside, window[1]]).max() / 1e9
    return [f"no samples for {longest_s:.1f} s: the sampler was kept from its core"] * bool(longest_s > GAP_S)


def shares(host: Track, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Of all cores, between edges, by the fields of HostUse; others are what neither client nor server took."""
    client, server, *all_cpu = (host.increases(name, edges) for name in ("client_s", "server_s", *ALL_CPU))
    busy, kernel, steal, idle = all_cpu
    took = {"client_cpu": client, "server_cpu": server, "others_cpu": np.maximum(busy - client - server, 0)}
    took |= {"kernel_cpu": kernel, "steal": steal, "idle": idle}
    all_s = np.sum(all_cpu, axis=0)
    return {f"{name}_share": used / np.where(all_s > 0, all_s, np.nan) for name, used in took.items()}


def host_use(host: Track, others: list[str], window: Window) -> HostUse | None:
    edges = np.array(window)
    known: dict[str, Any] = {name: _known(share[0]) for name, share in shares(host, edges).items()}
    if known["idle_share"] is None:
        return None
    wanted_s, all_s = (sum(host.increases(name, edges)[0] for name in names) for names in (("wanted_s",), ALL_CPU))
    return HostUse(
        **known,
        others_wanted_share=None if known["server_cpu_share"] is None else _known(wanted_s / all_s),
        busiest_others=others,
        memory_used_share=host.most("memory_used_share", window),
        network_bytes_per_s=_known(host.increases("network_bytes", edges)[0] / np.diff(edges)[0] * 1e9),
    )


def gpu_use(index: int, gpu: Track, others: list[str], window: Window) -> GpuUse:
    used = energy(gpu.at_ns, gpu.all("energy_counter_j"), gpu.all("power_w"), window)
    bits, shared, sm = (gpu.inside(name, window) for name in ("throttle", "shared", "sm"))
    throttled = {why: _mean(bits.astype(int) & mask != 0) for why, mask in REASONS.items()}
    return GpuUse(
        index=index,
        power_w=used.joules and used.joules / (window[1] - window[0]) * 1e9,
        energy_j=used.joules,
        power_readings_j=used.readings_j,
        energy="invalid: other processes were on the GPU" if shared.any() else used.verdict,
        sm_share=gpu.mean("sm", window),
        memory_share=gpu.mean("memory", window),
        idle_share=_mean(sm == 0),
        sm_clock_mhz=gpu.mean("sm_clock_mhz", window),
        temperature_c=gpu.most("temperature_c", window),
        memory_used_bytes=gpu.most("memory_used_bytes", window),
        throttled={why: share for why, share in throttled.items() if share},
        shared_share=_mean(shared),
        sharing=others,
    )


# The grid.


def series(found: Mapping[str, Track]) -> Series | None:
    """All samples, those of warm-up and cooldown too, in bins of equal width."""
    if "host" not in found or len(found["host"].at_ns) < 2:
        return None
    first, last = (int(found["host"].at_ns[i]) for i in (0, -1))
    every = max(LEAST_NS, -(-(last - first) // MOST_BINS))
    bins = max(1, -(-(last - first) // every))
    edges = first + every * np.arange(bins + 1)
    columns = {name: _packed(values) for name, values in _columns(found, edges) if not np.isnan(values).all()}
    return Series(start_ns=first, every_ns=every, bins=bins, columns=columns)


def _columns(found: Mapping[str, Track], edges: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for source, track in found.items():
        kind = source.rstrip("0123456789")
        yield from ((f"{source}.{name}", track.means(name, edges)) for name in GAUGES.get(kind, ()))
        yield from ((f"{source}.{name}", track.increases(name, edges)) for name in COUNTED.get(kind, ()))
    of_host = shares(found["host"], edges)
    yield from ((f"host.{name.partition('_')[0]}", of_host[name]) for name in IN_GRID)


def _packed(values: np.ndarray) -> list[float | None]:
    """With few digits; a column that never changes is one value."""
    short = [None if np.isnan(v) else round(v, 3) if v < 1 else float(f"{v:.3g}") for v in values.tolist()]
    whole = [int(v) if v is not None and v == int(v) else v for v in short]  # which is shorter still
    return whole[:1] if len(set(whole)) == 1 else whole
