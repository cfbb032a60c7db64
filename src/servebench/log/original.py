"""Logs of DeepSpeed-FastGen's own benchmark scripts (`args` / `time` / `response_details`), read as ours.

Such a log holds no phases (so every request counts), no kernel stamps (its times are the client's own, and its
quality is "unknown") and no token counts of prompts (they are estimated from the mean that was asked for, by the
length of each text). Throughput is clients / mean latency (throughput.request_throughput says why).

The first release named its settings otherwise (client_num, prompt_length, max_new_tokens, vllm) and left model and
sizes to the name of the deployment, such as llama2-70b-tp4-b768_repl2.
"""

from __future__ import annotations

import hashlib
import re
from itertools import accumulate
from typing import Any

import msgspec
from msgspec.structs import replace

from servebench.log.config import Clients, RunConfig, ServerConfig, Synthetic
from servebench.log.result import Result
from servebench.log.schema import Log, Quality, ServerFacts


class Response(msgspec.Struct):
    """One entry of `response_details`; times in s; `token_gen_time` are gaps, the first from the start."""

    start_time: float
    end_time: float
    generated_tokens: str | list[str] = ""
    prompt: str = ""
    token_gen_time: list[float] = []


class OriginalLog(msgspec.Struct):
    args: dict[str, Any]
    response_details: list[Response]
    time: str = ""


SOURCE = "DeepSpeed-FastGen benchmark scripts"
FIRST_RELEASE_NAMES = {
    "client_num": "num_clients",
    "prompt_length": "mean_prompt_length",
    "max_new_tokens": "mean_max_new_tokens",
}
NEEDED = tuple(FIRST_RELEASE_NAMES.values())


def is_original(log: Log) -> bool:
    return log.client.get("source") == SOURCE


def decode(data: bytes, file_name: str) -> Log:
    """Raises msgspec.MsgspecError when it is no such log."""
    original = msgspec.json.decode(data, type=OriginalLog)
    details = original.response_details
    args: dict[str, Any] = {}
    release = "original suite"
    if any(name in original.args for name in FIRST_RELEASE_NAMES if name != "max_new_tokens"):
        release = "original suite, first release"
    if "backend" not in original.args and "vllm" in original.args:  # the first release, and some after it
        args = _sizes(f"{original.args.get('deployment_name')} {file_name}")
        args["backend"] = "vllm" if original.args["vllm"] else "fastgen"
    args |= {
        FIRST_RELEASE_NAMES.get(name, name): value for name, value in original.args.items() if value is not None
    }
    if missing := [name for name in NEEDED if not isinstance(args.get(name), int)]:
        raise msgspec.ValidationError(f"its args have no number for {', '.join(missing)}")
    if args.get("backend") != "aml":  # it only names what the other settings say
        args.pop("deployment_name", None)
    args["max_prompt_length"] = max(args.get("max_prompt_length", 0), args["mean_prompt_length"], 4000)
    args |= {"api": "mii"} if args.get("backend") == "fastgen" else {}
    asked = {"num_requests": max(1, len(details)), "stream": any(r.token_gen_time for r in details)}
    server = _known(ServerConfig, {"backend": "unknown", "model": "unknown"} | args)
    load, requests = _known(Clients, args), _known(Synthetic, args)
    run = replace(_known(RunConfig, args | asked), load=load, requests=requests)
    mean_length = sum(len(r.prompt) for r in details) / max(1, len(details))
    results = [_result(i, response, requests, mean_length) for i, response in enumerate(details)]
    return Log(
        status="ok" if results else "failed",
        failure=None if results else "it has no requests",
        started_at=original.time,
        fingerprint="",
        server=server,
        run=run,
        server_facts=ServerFacts(urls=[], engine=f"{server.backend} ({release})"),
        client={"source": SOURCE, "workload_sha256": _sha256(details)},
        window_ns=_all_active(results, load.num_clients),
        quality=Quality(asked_concurrency=load.num_clients),
        results=results,
    )


def _sizes(name: str) -> dict[str, Any]:
    """What names of deployments and files told then: llama2-70b-tp4-b768_repl2, vllm-llama2-7b-tp1."""
    told: dict[str, Any] = {}
    for field, pattern in (
        ("tp_size", r"-tp(\d+)"),
        ("max_ragged_batch_size", r"-b(\d+)"),
        ("num_replicas", r"_repl(\d+)"),
    ):
        if found := re.search(pattern, name):
            told[field] = int(found[1])
    if found := re.search(r"llama2-(\d+b)", name):
        told["model"] = f"meta-llama/Llama-2-{found[1]}-hf"
    return told


def _sha256(details: list[Response]) -> str:
    """The same for the same prompts, whoever answered them first."""
    return hashlib.sha256("\0".join(sorted(response.prompt for response in details)).encode()).hexdigest()


def _known(kind: type[Any], args: dict[str, Any]) -> Any:
    fields = {f.name for f in msgspec.structs.fields(kind)}
    return msgspec.convert({k: v for k, v in args.items() if k in fields and v is not None}, kind)


def _result(index: int, response: Response, asked: Synthetic, mean_length: float) -> Result:
    streamed = bool(response.token_gen_time)
    gaps = response.token_gen_time if streamed else [response.end_time - response.start_time]
    whole = response.generated_tokens
    tokens = len(gaps) if streamed else len(whole) if isinstance(whole, list) else asked.mean_max_new_tokens
    return Result(
        id=index,
        phase="measured",
        client=0,
        prompt_tokens=round(asked.mean_prompt_length * (len(response.prompt) / mean_length if mean_length else 1)),
        max_new_tokens=asked.mean_max_new_tokens,
        generated_tokens=tokens,
        token_source="original log: one token a callback, prompts by the length of their text",
        sent_ns=round(response.start_time * 1e9),
        streamed=streamed,
        event_ns=[round(t * 1e9) for t in accumulate(gaps)],
        event_tokens=[1] * tokens if streamed else [tokens],
        finish_reason=None,
        status=200,
    )


def _all_active(results: list[Result], num_clients: int) -> tuple[int, int] | None:
    """First to last moment at which as many requests as clients were in flight."""
    steps = sorted(
        [(r.sent_ns, 1) for r in results] + [(r.sent_ns + r.event_ns[-1], -1) for r in results if r.event_ns]
    )
    in_flight = list(accumulate(step for _, step in steps))
    peak = min(num_clients, max(in_flight, default=0))
    full = [i for i, n in enumerate(in_flight[:-1]) if n >= peak]
    return (steps[full[0]][0], steps[full[-1] + 1][0]) if full else None
