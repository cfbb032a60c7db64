"""What the replicas of a server told of themselves over the window, and where TTFT went."""

from __future__ import annotations

from servebench.analysis import latency, samples
from servebench.analysis.cache import derived
from servebench.log.schema import Log


def told(log: Log, name: str) -> list[float]:
    """What the replicas that tell say of this field of theirs."""
    engines = log.telemetry.engines if log.telemetry else []
    return [value for engine in engines if (value := getattr(engine, name)) is not None]


def mean(values: list[float] | list[float | None]) -> float | None:
    """None if one of them is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


@derived
def ttft_parts(log: Log) -> dict[str, float] | None:
    """Mean TTFT of the client by where it went (s): wire, queue, prefill; rest is what is unknown.

    The engine's own times are of the requests that it counted in the window, unless it tells them of each request.
    """
    done = samples.succeeded(log)
    total_s, engine_s = mean([latency.ttft_s(r) for r in done]), mean(told(log, "ttft_s"))
    if total_s is None:
        return None
    parts = {} if engine_s is None else {"wire": max(0.0, total_s - engine_s)}
    for name in ("queue", "prefill"):
        of_requests = mean([getattr(r, f"{name}_s") for r in done])
        part_s = mean(told(log, f"{name}_s")) if of_requests is None else of_requests
        parts |= {} if part_s is None else {name: part_s}
    return parts | {"rest": max(0.0, total_s - sum(parts.values()))} if parts else None


def ttft_wire(log: Log) -> float | None:
    """Mean TTFT of the client - that of the engine, s: network, HTTP, what comes before the engine counts."""
    return (ttft_parts(log) or {}).get("wire")


def ttft_queue(log: Log) -> float | None:
    """Mean time of a request in the engine's queue, s, by the engine."""
    return (ttft_parts(log) or {}).get("queue")


def ttft_prefill(log: Log) -> float | None:
    """Mean time of a request in prefill, s, by the engine."""
    return (ttft_parts(log) or {}).get("prefill")


def kv_cache_usage(log: Log) -> float | None:
    """Mean share of the KV cache in use, 0..1, by the engine. The mean over replicas."""
    return mean(told(log, "kv_cache_usage"))


def preemptions(log: Log) -> float | None:
    """Requests that the engine put aside in the window to make room in its KV cache, by its own count."""
    counts = told(log, "preemptions")
    return sum(counts) if counts else None
