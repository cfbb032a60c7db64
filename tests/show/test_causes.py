"""Why a point is as it is, in words: from logs made by hand."""

from __future__ import annotations

import msgspec
import pytest
from conftest import make_log, make_result

from servebench.analysis import engine
from servebench.log.schema import Log
from servebench.log.telemetry import EngineUse, GpuUse, Telemetry
from servebench.show import advice, causes

ATTACHED = {"backend": "openai", "urls": ("http://gpu7:8000",)}


def point(*engines: dict[str, float], gpus: tuple[GpuUse, ...] = (), **changes: object) -> Log:
    """Ten requests with a TTFT of 1.5 s, and what the replicas say."""
    results = [make_result(i, i, [1.5, 1.6, 1.7, 1.8]) for i in range(10)]
    found = [EngineUse(server=i, **use) for i, use in enumerate(engines)]
    log = make_log(results, (0.0, 12.0), **changes)
    return msgspec.structs.replace(log, telemetry=Telemetry(engines=found, gpus=list(gpus)))


def of_server(log: Log, **changes: object) -> Log:
    return msgspec.structs.replace(log, server_facts=msgspec.structs.replace(log.server_facts, **changes))


def test_ttft_is_split_into_its_parts() -> None:
    log = point(
        {"queue_s": 1.2, "prefill_s": 0.1, "ttft_s": 1.4}, {"queue_s": 1.0, "prefill_s": 0.1, "ttft_s": 1.4}
    )
    assert engine.ttft_parts(log) == pytest.approx({"wire": 0.1, "queue": 1.1, "prefill": 0.1, "rest": 0.2})


def test_what_a_server_says_of_each_request_counts_more() -> None:
    log = point({"running": 2.0})
    results = [msgspec.structs.replace(r, prefill_s=0.25) for r in log.results]
    assert engine.ttft_parts(msgspec.structs.replace(log, results=results)) == {"prefill": 0.25, "rest": 1.25}


def test_nothing_is_said_where_nothing_is_known() -> None:
    bare = msgspec.structs.replace(point(), telemetry=None)
    assert engine.ttft_parts(bare) is None and causes.causes(bare) == []
    assert engine.ttft_parts(point({"running": 2.0})) is None and causes.causes(point({"running": 2.0})) == []


def test_a_full_kv_cache() -> None:
    use = {"kv_cache_full_share": 0.71, "preemptions": 312.4}
    (said,) = causes.causes(of_server(point(use), kv_cache_tokens=20480))
    assert (
        said
        == "KV cache of 20480 tokens full 71% of the window, 312 preemptions: more --tp_size, or fewer clients"
    )
    (said,) = causes.causes(of_server(point(use), engine="vllm 0.32.0+cpu"))
    assert said.endswith("a larger VLLM_CPU_KVCACHE_SPACE, or fewer clients")
    (said,) = causes.causes(point(use, **ATTACHED))
    assert "--gpu-memory-utilization of vLLM" in said and "--tp_size" not in said
    assert causes.causes(point({"kv_cache_full_share": 0.05, "preemptions": 0.0})) == []


def test_a_long_queue() -> None:
    (said,) = causes.causes(point({"queue_s": 1.2, "ttft_s": 1.45}))
    assert said == "80% of TTFT is queue (1.2 of 1.5 s): raise --max_ragged_batch_size or --num_replicas"
    (said,) = causes.causes(point({"queue_s": 1.2, "ttft_s": 1.45}, **ATTACHED))
    assert "--max-num-seqs of vLLM" in said
    _, said = causes.causes(point({"queue_s": 1.2, "kv_cache_full_share": 0.9}))
    assert said.endswith("(1.2 of 1.5 s): add replicas"), "more requests at once do not fit its memory"


def test_a_long_prefill() -> None:
    (said,) = causes.causes(point({"prefill_s": 1.35, "queue_s": 0.0}))
    assert said == "90% of TTFT is prefill (1.4 of 1.5 s): raise --tp_size, or send shorter prompts"


def test_requests_that_wait_in_an_engine_without_times() -> None:
    (said,) = causes.causes(point({"running": 2.0, "waiting": 6.0}))
    assert said.startswith("6 requests waited in the server while it worked on 2: raise")
    gpus = (GpuUse(index=0, idle_share=0.3), GpuUse(index=1, idle_share=0.5))
    (said,) = causes.causes(point({"running": 9.0, "waiting": 6.0}, gpus=gpus))
    assert said.startswith("the GPU was idle 40% of the window with requests waiting")


def test_drafts_and_corrupted_requests() -> None:
    log = point({"acceptance_rate": 0.23, "corrupted_requests": 3.0})
    assert [said.partition(":")[0] for said in causes.causes(log)] == [
        "the speculative decoder's drafts were accepted 23% of the time",
        "3 corrupted requests by the engine's own count",
    ]
    assert advice.of_point(log)[-2:] == causes.causes(log)
