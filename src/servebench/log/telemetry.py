"""What a log knows beside its requests: the machine, and what GPUs, host and engines did while they ran."""

from __future__ import annotations

import msgspec


class Gpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """As its driver describes it. What it does not tell is left out."""

    index: int  # as the driver counts
    name: str
    uuid: str = ""
    memory_bytes: int | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    max_sm_clock_mhz: int | None = None
    max_memory_clock_mhz: int | None = None
    memory_bus_bits: int | None = None
    ecc: bool | None = None
    mig: bool | None = None
    links: str = ""  # `NVLink x 12`, `PCIe 4 x 16`


class Machine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host: what a result depends on, beside what was asked. "" and None: unknown."""

    cpu: str = ""  # the model's name
    cores: int | None = None  # logical ones
    numa_nodes: int | None = None
    governor: str = ""  # of the CPU's clock
    memory_bytes: int | None = None
    kernel: str = ""
    container: str = ""  # what kind of container the client runs in, and its limit of cores
    driver: str = ""  # of the GPUs
    cuda: str = ""  # the newest version that the driver knows
    gpus: list[Gpu] = []  # all that are on the host


class HostUse(msgspec.Struct, frozen=True, kw_only=True):
    """The host over the measured window. CPU in shares of all cores; they add up to 1 - idle."""

    client_cpu_share: float
    server_cpu_share: float | None  # None: its processes are not known
    others_cpu_share: float | None  # other programs; likewise
    others_wanted_share: float | None = None  # they ran, or waited for a core
    kernel_cpu_share: float  # interrupts, which belong to no program
    steal_share: float  # taken by other virtual machines
    idle_share: float
    busiest_others: list[str] = []  # programs, with what each wanted of a core while the point ran: `python 98%`
    memory_used_share: float | None = None  # the most
    network_bytes_per_s: float | None = None  # received and sent, without loopback


class GpuUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One GPU of the server over the measured window. Means, if not said otherwise; shares 0..1."""

    index: int
    power_w: float | None = None  # by the energy counter; by the power readings where there is none
    energy_j: float | None = None  # likewise
    power_readings_j: float | None = None  # the same from the trapezoid of the power readings, to check it
    energy: str = "unknown"  # "ok", or "invalid: why"
    sm_share: float | None = None  # of the time in which a kernel ran
    memory_share: float | None = None  # of the time in which memory was read or written
    idle_share: float | None = None  # of the samples, in which nothing ran
    sm_clock_mhz: float | None = None
    temperature_c: float | None = None  # the highest
    memory_used_bytes: float | None = None  # the most
    throttled: dict[str, float] = {}  # share of the window by reason: power_cap, thermal, hardware
    shared_share: float | None = None  # share of the window in which processes of others were on it
    sharing: list[str] = []  # these processes


class EngineUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replica over the measured window, by its own metrics. What it does not tell is None."""

    server: int  # index of the replica
    running: float | None = None  # mean requests that it works on
    waiting: float | None = None  # mean requests in its queue
    waiting_max: float | None = None
    kv_cache_usage: float | None = None  # mean share of the KV cache
    kv_cache_full_share: float | None = None  # share of the window in which it was all but full
    preemptions: float | None = None  # in the window
    prefix_cache_hit_rate: float | None = None
    acceptance_rate: float | None = None  # of the tokens that speculative decoding drafted
    corrupted_requests: float | None = None
    queue_s: float | None = None  # mean time of a request in the queue
    prefill_s: float | None = None  # mean time of a request in prefill
    ttft_s: float | None = None  # mean, as the engine measures it


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """Host, GPUs and engines over the measured window."""

    remarks: list[str] = []  # sources that were missing, slow, restarted or wrong
    host: HostUse | None = None
    gpus: list[GpuUse] = []  # only those of the server
    engines: list[EngineUse] = []


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """All samples, on the clock of the requests: bin k begins at start_ns + k * every_ns.

    A gauge has its mean in a bin, a counter its increase. A column that never changes has one value.
    """

    start_ns: int
    every_ns: int
    bins: int
    columns: dict[str, list[float | None]]  # `host.client`, `gpu0.power_w`, `engine0.running`, ...

    def of(self, column: str) -> list[float | None]:
        """The values of a column, one for each bin. Raises KeyError for a column that is not there."""
        values = self.columns[column]
        return values * self.bins if len(values) == 1 else values
