"""Why a point is as it is: what its engine, its GPUs and the parts of its TTFT say, and what would help."""

from __future__ import annotations

from collections.abc import Iterator

from servebench.analysis import engine, samples
from servebench.analysis.engine import mean, told
from servebench.log.schema import Log

FULL_SHARE = 0.1  # of the window with a full KV cache
PREEMPTED_SHARE = 0.01  # preemptions over requests
LONG_TTFT_S = 0.5  # nobody asks why a shorter one is as it is
MOSTLY = {"queue": 0.5, "prefill": 0.8}  # shares of TTFT
IDLE_SHARE, WAITING = 0.2, 1.0  # of the GPUs, with so many requests in the queue
FEW_ACCEPTED = 0.5  # of the drafted tokens: below it they cost more than they save


def causes(log: Log) -> list[str]:
    """One sentence each; none where nothing is known or nothing stands out."""
    return [*_kv_cache(log), *_ttft(log), *_waiting(log), *_drafts(log)]


def more_room(log: Log) -> str:
    """What lets a server work on more requests at once. One that runs already has its own options."""
    if not log.server.urls:
        return "raise --max_ragged_batch_size or --num_replicas"
    return (
        "raise the server's own limit (--max-num-seqs of vLLM, --max-running-requests of SGLang) or add replicas"
    )


def _memory_use(log: Log) -> tuple[float, float] | None:
    """(share of the window in which the KV cache was full, preemptions), where its memory is short."""
    full, preempted = max(told(log, "kv_cache_full_share"), default=0.0), sum(told(log, "preemptions"))
    short = full >= FULL_SHARE or preempted > PREEMPTED_SHARE * len(samples.measured(log))
    return (full, preempted) if short else None


def _kv_cache(log: Log) -> Iterator[str]:
    if use := _memory_use(log):
        tokens = log.server_facts.kv_cache_tokens
        size = f" of {tokens} tokens" if tokens else ""
        less = "a lower load" if log.run.open_loop else "fewer clients"
        seen = f"KV cache{size} full {use[0]:.0%} of the window, {use[1]:.0f} preemptions"
        yield f"{seen}: {_more_memory(log)}, or {less}"


def _more_memory(log: Log) -> str:
    if log.server.urls:
        return "more memory for it (--gpu-memory-utilization of vLLM, --mem-fraction-static of SGLang)"
    return "a larger VLLM_CPU_KVCACHE_SPACE" if log.server_facts.engine.endswith("+cpu") else "more --tp_size"


def _ttft(log: Log) -> Iterator[str]:
    parts = engine.ttft_parts(log) or {}
    total_s = sum(parts.values())
    larger = "send shorter prompts" if log.server.urls else "raise --tp_size, or send shorter prompts"
    sooner = {"queue": "add replicas" if _memory_use(log) else more_room(log), "prefill": larger}
    for name, share in MOSTLY.items() if total_s >= LONG_TTFT_S else ():
        part_s = parts.get(name, 0.0)
        if part_s >= share * total_s:
            yield f"{part_s / total_s:.0%} of TTFT is {name} ({part_s:.2g} of {total_s:.2g} s): {sooner[name]}"


def _waiting(log: Log) -> Iterator[str]:
    waiting, running = mean(told(log, "waiting")) or 0.0, mean(told(log, "running")) or 0.0
    idle = mean([gpu.idle_share for gpu in log.telemetry.gpus]) or 0.0 if log.telemetry else 0.0
    if waiting >= WAITING and idle >= IDLE_SHARE:
        seen = f"the GPU was idle {idle:.0%} of the window with requests waiting"
        yield f"{seen}: the CPU side of the engine is the limit"
    elif waiting >= max(WAITING, running) and not told(log, "queue_s"):
        yield f"{waiting:.3g} requests waited in the server while it worked on {running:.3g}: {more_room(log)}"


def _drafts(log: Log) -> Iterator[str]:
    accepted, corrupted = mean(told(log, "acceptance_rate")), sum(told(log, "corrupted_requests"))
    if accepted is not None and accepted < FEW_ACCEPTED:
        yield f"the speculative decoder's drafts were accepted {accepted:.0%} of the time: draft fewer"
    if corrupted >= 0.5:  # counts are interpolated at the edges of the window
        yield f"{corrupted:.0f} corrupted requests by the engine's own count: their answers are worth nothing"
