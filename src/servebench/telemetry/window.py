"""From samples to what a log keeps: facts over the measured window, and the samples on a regular grid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from servebench.analysis.energy import energy
from servebench.log.telemetry import EngineUse, GpuUse, HostUse, Series, Telemetry
from servebench.telemetry import engine_use
from servebench.telemetry.gpus import REASONS
from servebench.telemetry.host import ALL_CPU
from servebench.telemetry.sampler import REMARK, Sample

Window = tuple[int, int]  # ns
LEAST_NS, MOST_BINS, DIGITS = 500_000_000, 240, 3  # a bin's width, how many there are, digits of a value
GAP_S = 3.0  # without samples of the host, which is said
GAUGES = {  # columns of the grid, by the kind of source
    "gpu": ("power_w", "sm", "memory", "sm_clock_mhz", "temperature_c", "memory_used_bytes"),
    "engine": ("running", "waiting", "kv_cache_usage"),
}
COUNTED = {"engine": ("preemptions",)}
PARTS = ("client_s", "server_s", "steal_s")  # of the CPU of a host


@dataclass(frozen=True)
class Track:
    """All samples of a source."""

    at_ns: np.ndarray  # shape (samples,)
    values: dict[str, np.ndarray]  # likewise; NaN where a sample has no such value

    def of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """When it is known, and what it is then."""
        values = self.values.get(name, np.full(len(self.at_ns), np.nan))
        known = ~np.isnan(values)
        return self.at_ns[known], values[known]

    def increases(self, name: str, edges: np.ndarray) -> np.ndarray:
        """Of a sum that only grows, between edges (ns). NaN outside of what is known."""
        at, values = self.of(name)
        return np.diff(np.interp(edges, at, values)) if len(at) else np.full(len(edges) - 1, np.nan)

    def means(self, name: str, edges: np.ndarray) -> np.ndarray:
        """Of a value that goes up and down, between edges, weighted by time."""
        at, values = self.of(name)
        if len(at) < 2:
            return np.full(len(edges) - 1, values[0] if len(at) else np.nan)
        area = np.concatenate([[0.0], np.cumsum(np.diff(at) * (values[1:] + values[:-1]) / 2)])
        inside = np.clip(edges, at[0], at[-1])
        width = np.diff(inside)
        return np.where(width > 0, np.diff(np.interp(inside, at, area)) / np.maximum(width, 1), np.nan)

    def inside(self, name: str, window: Window) -> np.ndarray:
        """The samples in a window."""
        at, values = self.of(name)
        return values[(at >= window[0]) & (at <= window[1])]

    def most(self, name: str, window: Window) -> float | None:
        inside = self.inside(name, window)
        return _known(inside.max()) if len(inside) else None

    def mean(self, name: str, window: Window) -> float | None:
        return _known(self.means(name, np.array(window))[0])

    def increase(self, name: str, window: Window) -> float | None:
        gained = self.increases(name, np.array(window))[0]
        return None if np.isnan(gained) else float(gained)


def telemetry(samples: Sequence[Sample], window: Window) -> Telemetry:
    """What is known of the measured window."""
    found = tracks(samples)
    host = found.get("host")
    gpus = [
        gpu_use(int(source[3:]), found, samples, window) for source in found if re.fullmatch(r"gpu\d+", source)
    ]
    engines = [_engine_use(int(source[6:]), found[source], window) for source in found if source[:6] == "engine"]
    return Telemetry(
        remarks=list(_remarks(samples, host, window)),
        host=host_use(host, _others(samples), window) if host else None,
        gpus=gpus,
        engines=[engine for engine in engines if engine],
    )


def tracks(samples: Iterable[Sample]) -> dict[str, Track]:
    """By source, in the order of their names."""
    by_source: dict[str, list[Sample]] = {}
    for sample in samples:
        by_source.setdefault(sample.source, []).append(sample)
    return {source: _track(by_source[source]) for source in sorted(by_source) if source != REMARK}


def _track(samples: list[Sample]) -> Track:
    samples.sort(key=lambda sample: sample.at_ns)
    names = dict.fromkeys(name for sample in samples for name in sample.values)
    values = {name: np.array([sample.values.get(name, np.nan) for sample in samples]) for name in names}
    return Track(np.array([sample.at_ns for sample in samples], dtype=np.int64), values)


def _remarks(samples: Iterable[Sample], host: Track | None, window: Window) -> Iterator[str]:
    """What sources said of themselves, how often; and where the sampler itself was late."""
    words = Counter(word for sample in samples if sample.source == REMARK for word in sample.values)
    yield from (f"{word} ({n} times)" if n > 1 else word for word, n in words.items())
    if host is None:
        yield "the sampler gave no samples"
        return
    at = np.concatenate([host.at_ns[(host.at_ns > window[0]) & (host.at_ns < window[1])], window])
    longest_s = np.diff(np.sort(at)).max() / 1e9
    if longest_s > GAP_S:
        yield f"no samples for {longest_s:.1f} s: the sampler was kept from its core"


def _others(samples: Iterable[Sample]) -> list[str]:
    """The other programs that took most of the CPU: `python 98%` of a core."""
    found = (each.values for each in samples if each.source == "others")
    return [f"{name} {cores:.0%}" for values in found for name, cores in values.items()]


def host_use(host: Track, others: list[str], window: Window) -> HostUse | None:
    """Shares of all cores; other programs are what neither client nor server took."""
    took = {name: host.increase(name, window) for name in (*ALL_CPU, *PARTS)}
    all_s = sum(took[name] or 0.0 for name in ALL_CPU)
    if not all_s:
        return None
    share = {name: None if used is None else round(used / all_s, 4) for name, used in took.items()}
    client, server, length_s = share["client_s"] or 0.0, share["server_s"], (window[1] - window[0]) / 1e9
    network = host.increase("network_bytes", window)
    return HostUse(
        client_cpu_share=client,
        server_cpu_share=server,
        others_cpu_share=None
        if server is None
        else round(max(0.0, (share["busy_s"] or 0.0) - client - server), 4),
        kernel_cpu_share=share["kernel_s"] or 0.0,
        steal_share=share["steal_s"] or 0.0,
        idle_share=share["idle_s"] or 0.0,
        busiest_others=others,
        memory_used_share=host.most("memory_used_share", window),
        network_bytes_per_s=None if network is None else round(network / length_s),
    )


def gpu_use(index: int, found: dict[str, Track], samples: Iterable[Sample], window: Window) -> GpuUse:
    gpu = found[f"gpu{index}"]
    used = energy(gpu.at_ns, _or_nan(gpu, "energy_counter_j"), _or_nan(gpu, "power_w"), window)
    power_w = None if used.joules is None else used.joules / ((window[1] - window[0]) / 1e9)
    bits, shared = (gpu.inside(name, window) for name in ("throttle", "shared"))
    throttled = {why: float(np.mean(bits.astype(int) & mask != 0)) for why, mask in REASONS.items() if len(bits)}
    sm = gpu.inside("sm", window)
    names = (name for each in samples if each.source == f"gpu{index}.others" for name in each.values)
    by_others = "invalid: other processes were on the GPU" if len(shared) and shared.any() else ""
    return GpuUse(
        index=index,
        power_w=power_w,
        energy_j=used.joules,
        power_readings_j=used.readings_j,
        energy=by_others or used.verdict,
        sm_share=gpu.mean("sm", window),
        memory_share=gpu.mean("memory", window),
        idle_share=float(np.mean(sm == 0)) if len(sm) else None,
        sm_clock_mhz=gpu.mean("sm_clock_mhz", window),
        temperature_c=gpu.most("temperature_c", window),
        memory_used_bytes=gpu.most("memory_used_bytes", window),
        throttled={why: share for why, share in throttled.items() if share},
        shared_share=float(np.mean(shared)) if len(shared) else None,
        sharing=list(dict.fromkeys(names)),
    )


def _engine_use(server: int, engine: Track, window: Window) -> EngineUse | None:
    return engine_use.use(server, engine.at_ns, engine.values, window)


def _or_nan(track: Track, name: str) -> np.ndarray:
    return track.values.get(name, np.full(len(track.at_ns), np.nan))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.4g}")


# The grid.


def series(samples: Sequence[Sample]) -> Series | None:
    """All samples, those of warm-up and cooldown too, in bins of equal width."""
    found = tracks(samples)
    if "host" not in found or len(found["host"].at_ns) < 2:
        return None
    first, last = (int(found["host"].at_ns[i]) for i in (0, -1))
    every = max(LEAST_NS, -(-(last - first) // MOST_BINS))
    bins = max(1, -(-(last - first) // every))
    edges = first + every * np.arange(bins + 1)
    columns = {f"{source}.{name}": values for source, name, values in _columns(found, edges)}
    packed = {name: _packed(values) for name, values in columns.items()}
    return Series(start_ns=first, every_ns=every, bins=bins, columns=packed)


def _columns(found: dict[str, Track], edges: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    for source, track in found.items():
        kind = source.rstrip("0123456789")
        for name in GAUGES.get(kind, ()):
            if name in track.values:
                yield source, name, track.means(name, edges)
        for name in COUNTED.get(kind, ()):
            if name in track.values:
                yield source, name, track.increases(name, edges)
    host = found["host"]
    all_s = sum(host.increases(name, edges) for name in ALL_CPU)
    for name in PARTS:
        if name in host.values:
            yield "host", name.removesuffix("_s"), host.increases(name, edges) / np.maximum(all_s, 1e-9)
    if "server_s" in host.values:
        known = sum(host.increases(name, edges) for name in ("client_s", "server_s"))
        yield "host", "others", np.maximum(host.increases("busy_s", edges) - known, 0) / np.maximum(all_s, 1e-9)


def _packed(values: np.ndarray) -> list[float | None]:
    """With few digits, whole numbers as such; a column that never changes is one value."""
    short = [
        None if np.isnan(v) else round(v, DIGITS) if v < 1 else float(f"{v:.{DIGITS}g}") for v in values.tolist()
    ]
    whole = [int(v) if v is not None and v == int(v) else v for v in short]
    return whole[:1] if len(set(whole)) == 1 else whole
