"""Why a point is as it is: what its engine, its GPUs and the parts of its TTFT say, and what would help."""

from __future__ import annotations

from collections.abc import Iterator

from servebench.analysis import latency, samples
from servebench.log.schema import Log

FULL_SHARE = 0.1  # of the window with a full KV cache
PREEMPTED_SHARE = 0.01  # preemptions over requests
LONG_TTFT_S = 0.5  # nobody asks why a shorter one is as it is
QUEUE_SHARE, PREFILL_SHARE = 0.5, 0.8  # of TTFT
IDLE_SHARE, WAITING = 0.2, 1.0  # of the GPUs, with so many requests in the queue
FEW_ACCEPTED = 0.5  # of the drafted tokens: below it they cost more than they save


def causes(log: Log) -> list[str]:
    """One sentence each; none where nothing is known or nothing stands out."""
    return [*_kv_cache(log), *_ttft(log), *_waiting(log), *_drafts(log), *_corrupted(log)]


def ttft_parts(log: Log) -> dict[str, float] | None:
    """Mean TTFT of the client by where it went (s): wire, queue, prefill; rest is what is unknown.

    The engine's own TTFT, queue and prefill are of the requests that it counted in the window. A server that tells
    them of each request is asked of those that count.
    """
    total_s, engine_s = _mean_s(log, "ttft_s"), _mean(_told(log, "ttft_s"))
    if total_s is None:
        return None
    known = {"wire": None if engine_s is None else max(0.0, total_s - engine_s)}
    for name in ("queue", "prefill"):
        of_requests = _mean_s(log, f"{name}_s")
        known[name] = _mean(_told(log, f"{name}_s")) if of_requests is None else of_requests
    parts = {name: part_s for name, part_s in known.items() if part_s is not None}
    return parts | {"rest": max(0.0, total_s - sum(parts.values()))} if parts else None


def more_room(log: Log) -> str:
    """What lets a server work on more requests at once. One that runs already has its own options."""
    if not log.server.urls:
        return "raise --max_ragged_batch_size or --num_replicas"
    return (
        "raise the server's own limit (--max-num-seqs of vLLM, --max-running-requests of SGLang) or add replicas"
    )


def _told(log: Log, name: str) -> list[float]:
    """What the replicas that tell say of this field of theirs."""
    engines = log.telemetry.engines if log.telemetry else []
    return [value for engine in engines if (value := getattr(engine, name)) is not None]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _mean_s(log: Log, name: str) -> float | None:
    """Of the requests that count, if all of them tell."""
    done = samples.succeeded(log)
    values = [latency.ttft_s(r) if name == "ttft_s" else getattr(r, name) for r in done]
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None


def _kv_cache(log: Log) -> Iterator[str]:
    if not _memory_is_short(log):
        return
    full, preempted = max(_told(log, "kv_cache_full_share"), default=0.0), sum(_told(log, "preemptions"))
    tokens = log.server_facts.kv_cache_tokens
    size = f" of {tokens} tokens" if tokens else ""
    less = "a lower load" if log.run.open_loop else "fewer clients"
    seen = f"KV cache{size} full {full:.0%} of the window, {preempted:.0f} preemptions"
    yield f"{seen}: {_more_memory(log)}, or {less}"


def _memory_is_short(log: Log) -> bool:
    full, preempted = max(_told(log, "kv_cache_full_share"), default=0.0), sum(_told(log, "preemptions"))
    return full >= FULL_SHARE or preempted > PREEMPTED_SHARE * len(samples.measured(log))


def _more_memory(log: Log) -> str:
    if log.server.urls:
        return "more memory for it (--gpu-memory-utilization of vLLM, --mem-fraction-static of SGLang)"
    return "a larger VLLM_CPU_KVCACHE_SPACE" if log.server_facts.engine.endswith("+cpu") else "more --tp_size"


def _ttft(log: Log) -> Iterator[str]:
    parts = ttft_parts(log)
    total_s = sum(parts.values()) if parts else 0.0
    if not parts or total_s < LONG_TTFT_S:
        return
    for name, enough in (("queue", QUEUE_SHARE), ("prefill", PREFILL_SHARE)):
        share = parts.get(name, 0.0) / total_s
        if share >= enough:
            yield f"{share:.0%} of TTFT is {name} ({parts[name]:.2g} of {total_s:.2g} s): {_sooner(log, name)}"


def _sooner(log: Log, part: str) -> str:
    """What makes a part of TTFT shorter."""
    if part == "queue":
        return "add replicas" if _memory_is_short(log) else more_room(log)
    return "send shorter prompts" if log.server.urls else "raise --tp_size, or send shorter prompts"


def _waiting(log: Log) -> Iterator[str]:
    waiting, running = _mean(_told(log, "waiting")) or 0.0, _mean(_told(log, "running")) or 0.0
    gpus = log.telemetry.gpus if log.telemetry else []
    idle = _mean([gpu.idle_share for gpu in gpus if gpu.idle_share is not None]) or 0.0
    if waiting >= WAITING and idle >= IDLE_SHARE:
        yield (
            f"the GPU was idle {idle:.0%} of the window with requests waiting: "
            "the CPU side of the engine is the limit"
        )
    elif waiting >= max(WAITING, running) and not _told(log, "queue_s"):
        yield f"{waiting:.3g} requests waited in the server while it worked on {running:.3g}: {more_room(log)}"


def _drafts(log: Log) -> Iterator[str]:
    accepted = _mean(_told(log, "acceptance_rate"))
    if accepted is not None and accepted < FEW_ACCEPTED:
        yield f"the speculative decoder's drafts were accepted {accepted:.0%} of the time: draft fewer"


def _corrupted(log: Log) -> Iterator[str]:
    corrupted = sum(_told(log, "corrupted_requests"))
    if corrupted >= 0.5:  # counts are interpolated at the edges of the window
        yield f"{corrupted:.0f} corrupted requests by the engine's own count: their answers are worth nothing"
