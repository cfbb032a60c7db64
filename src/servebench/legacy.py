"""Logs of DeepSpeed-FastGen's own benchmark scripts (`args` / `time` / `response_details`), read as ours.

What such a log cannot tell is said, not guessed: it holds no token counts of prompts (the configured mean
stands in), no phases (every request counts) and no kernel stamps (the client's own clock, quality "unknown").
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import msgspec

from servebench.records import Log, Quality, Result, RunConfig, ServerConfig, ServerFacts


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


def decode(data: bytes) -> Log:
    """Raises msgspec.MsgspecError when it is no such log."""
    original = msgspec.json.decode(data, type=OriginalLog)
    server = _known(ServerConfig, {"backend": "unknown", "model": "unknown"} | original.args)
    run = _known(RunConfig, original.args | {"num_requests": len(original.response_details)})
    results = [_result(i, response, run) for i, response in enumerate(original.response_details)]
    return Log(
        status="ok" if results else "failed",
        started_at=original.time,
        fingerprint="",
        server=server,
        run=run,
        server_facts=ServerFacts(urls=[], engine=f"{server.backend} (original suite)"),
        client={"source": "DeepSpeed-FastGen benchmark scripts"},
        window_ns=_all_active(results, run.num_clients),
        quality=Quality(asked_concurrency=run.num_clients),
        results=results,
    )


def _known(kind: type[Any], args: dict[str, Any]) -> Any:
    fields = {f.name for f in msgspec.structs.fields(kind)}
    return msgspec.convert({k: v for k, v in args.items() if k in fields and v is not None}, kind)


def _result(index: int, response: Response, run: RunConfig) -> Result:
    streamed = bool(response.token_gen_time)
    gaps = response.token_gen_time if streamed else [response.end_time - response.start_time]
    whole = response.generated_tokens
    tokens = len(gaps) if streamed else len(whole) if isinstance(whole, list) else run.mean_max_new_tokens
    return Result(
        id=index,
        phase="measured",
        client=0,
        prompt_tokens=run.mean_prompt_length,
        max_new_tokens=run.mean_max_new_tokens,
        generated_tokens=tokens,
        token_source="original log: one token a callback, configured mean for prompts",
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
