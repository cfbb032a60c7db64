"""The log: what was asked, what was measured and under which conditions. One JSON file a point.

    results/vllm/SmolLM2-135M-Instruct-tp1-bs768-replicas1-prompt128-gen32-clients4-1a2b3c.json

Everything that ServeBench prints or draws is derived from these files alone. All times are nanoseconds of
the host's CLOCK_REALTIME, which the kernel stamps arriving bytes with; events count from `sent_ns`.

Log versions: 1 (2026-11) the first.  Logs of DeepSpeed-FastGen's own scripts are read by `original.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

LOG_VERSION = 1
MOST_SIGNS = 80  # of a name that is part of a file name, of which a file system takes 255

Phase = Literal["warmup", "measured", "hold", "probe"]


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One server to benchmark: what is launched, or what is attached to."""

    backend: str
    model: str
    tp_size: int = 1  # GPUs (or CPU workers) that one replica is sharded over
    max_ragged_batch_size: int = 768  # most sequences that the engine may batch
    num_replicas: int = 1
    fp6: bool = False
    engine_args: tuple[str, ...] = ()  # handed to the engine as they are
    urls: tuple[str, ...] = ()  # attach: the base URLs of servers that run already
    deployment_name: str = ""  # which deployment behind the URL (aml), or its name (fastgen)
    gpus: tuple[int, ...] = ()  # that servers may use, dealt in this order; none: as the engine finds them
    router: bool = False  # a router in front of the replicas instead of the client's own dealing


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One load to put on a server. Lengths in tokens, times in seconds."""

    mean_prompt_length: int = 2600
    prompt_length_var: float = 0.3  # standard deviation as a share of the mean
    max_prompt_length: int = 4000
    mean_max_new_tokens: int = 60
    max_new_tokens_var: float = 0.3
    num_clients: int = 1
    num_requests: int = 36  # measured ones; warm-up and hold requests come on top
    warmup: int = 1  # requests that every client completes before anything counts
    stream: bool = True
    api: Literal["completions", "chat", "score", "mii"] = "completions"
    temperature: float = 1.0
    top_p: float = 0.9
    respect_eos: bool = False
    extra_body: dict[str, Any] = {}  # fields of every request beyond ours, or instead of them
    request_timeout: float = 600.0  # of each attempt
    max_retries: int = 0  # attempts after the first, a request
    seed: int = 0
    repetition: int = 0  # which of several runs of the same load (--runs); each has fresh requests
    request_rate: float | None = None  # open loop: requests/s, at times set beforehand; num_clients is unused then
    trace_speed: float | None = None  # open loop: the dataset's own times, so many times as fast
    arrival: Literal["poisson", "constant", "gamma"] = "poisson"  # gaps between requests at request_rate
    burstiness: float = 1.0  # shape of gamma gaps: 1 is poisson, less is burstier
    ramp_from: float | None = None  # requests/s at the first counted request, growing to request_rate at the last
    max_concurrency: int | None = None  # open loop: requests in flight; more wait, which is latency from schedule
    stop_when_overloaded: bool = False  # end a point early that the server clearly does not keep up with
    length_distribution: Literal["normal", "uniform", "fixed"] = "normal"  # with the means and deviations above
    scenario: str = ""  # lengths instead: D(in,out), N(mean,deviation)/(..), U(least,most)/(..)
    prompt_text: Literal["words", "prose"] = "words"
    shared_prefix: tuple[int, int] | None = None  # (tokens, groups): prompts of a group begin with the same tokens
    dataset: str = ""  # file that requests are taken from
    dataset_sha256: str = ""
    trace_format: str = "auto"  # whose trace the dataset is; auto: as its keys say
    multi_turn: bool = False  # whole conversations of the dataset, each turn after the last one's answer
    think_time: float = 0.0  # s between an answer and the conversation's next turn
    probe_rate: float = 0.0  # short requests/s beside the load

    @property
    def open_loop(self) -> bool:
        return self.request_rate is not None or self.trace_speed is not None

    @property
    def load(self) -> tuple[str, str]:
        """The kind of load and its size: ("clients", "8"), ("rate", "2.5") or ("trace", "1")."""
        if self.request_rate is not None:
            return "rate", f"{self.request_rate:g}"
        if self.trace_speed is not None:
            return "trace", f"{self.trace_speed:g}"
        return "clients", str(self.num_clients)


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One request as it went. A failed one has `error` set and keeps what did arrive.

    Times and tokens of a log that was read are arrays, a fifth of the memory of lists. No cycle can hold a
    request, so the collector need not look at each of a million (gc=False).
    """

    id: int
    phase: Phase  # only "measured" requests count as requests; the others keep the server under load
    client: int
    server: int = 0  # index into Log.server_facts.urls
    prompt_tokens: int
    asked_prompt_tokens: int | None = None  # by our tokenizer, where the server counts otherwise
    max_new_tokens: int  # asked for
    generated_tokens: int  # achieved
    token_source: str  # where the counts come from: "usage", "token_ids", "events", ...
    reasoning_tokens: int | None = None  # of generated_tokens, if the server says so; hidden ones are in no event
    cached_tokens: int | None = None  # prompt tokens that the server found in its prefix cache, if it says so
    scheduled_ns: int | None = None  # when it should have left (open loop)
    sent_ns: int  # just before its last byte was handed to the kernel
    event_ns: Sequence[int]  # arrival of every event that carries content, ns after sent_ns
    event_tokens: Sequence[int]  # tokens in each of them
    merged: list[tuple[int, int]] = []  # (event index, earliest ns): event_ns is an upper bound for these
    streamed: bool = True  # False: the answer came whole, so no time of its first token is known
    first_answer_event: int | None = 0  # index of the first event that is not reasoning; None: there was none
    ended_ns: int | None = None  # when a request without a whole answer was given up, ns after sent_ns
    texts: list[str] = []  # what each event said; kept only until tokens are counted, where the server counts none
    finish_reason: str | None = None  # the server's word, or "cancelled" when the point had ended
    status: int = 0  # HTTP status, 0 when no answer came
    connect_ns: int = 0  # TCP (and TLS) connect of the connection used, outside of every latency
    resent: int = 0  # times it was sent again since it had provably not reached the server
    retries: int = 0  # attempts after the first; times count from the first
    error: str | None = None


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The server as it really ran."""

    urls: list[str]
    commands: list[str] = []  # as typed into a shell, one a replica
    engine: str = ""  # name and version
    model: str = ""  # its own name for the model
    learnt: list[str] = []  # what a first request told of it, and what follows for the others
    log_files: list[str] = []
    start_s: float = 0.0  # launch to ready
    log_tail: str = ""  # first errors and last lines of the engine's log, when it failed


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How far this point's client can be trusted (defined in quality.py). Shares are 0..1, times seconds."""

    verdict: str = "unknown"  # "ok" or "client-limited: why, what to do"
    lag_p50_s: float | None = None  # wake-up of the client minus kernel stamp, per read
    lag_p99_s: float | None = None
    lag_max_s: float | None = None
    reads: int = 0
    merged_share: float = 0.0  # content events whose stamp is an upper bound
    unstamped_share: float = 0.0  # reads without a kernel stamp
    send_late_p99_s: float | None = None  # request due to request sent
    asked_concurrency: float = 0.0
    achieved_concurrency: float = 0.0  # mean requests in flight over the window
    worker_cpu_share: list[float] = []  # of one core, per load process
    cpu_per_event_s: float | None = None  # CPU of all load processes over the events they read
    host_cpu_share: float | None = None  # of all cores, everything on this host
    clock_step_s: float = 0.0  # largest change of REALTIME against MONOTONIC
    connect_p50_s: float | None = None
    overloaded: bool = False  # open loop: requests in flight grew all through the point


class Log(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One point of a sweep. `__dict__` keeps what took all of its tokens to work out (metrics.py)."""

    servebench_log: int = LOG_VERSION
    status: Literal["ok", "failed"]
    failure: str | None = None
    stopped: str | None = None  # why this was the last run of its point (--target_ci)
    started_at: str  # ISO 8601, UTC
    fingerprint: str  # hash of the identity
    identity: dict[str, Any] = {}  # what makes this point no other (identity.py); empty in logs of older versions
    server: ServerConfig
    run: RunConfig
    server_facts: ServerFacts
    client: dict[str, str | int | float]  # host, Python and package versions
    window_ns: tuple[int, int] | None  # all clients active, warm-up over: what throughput is taken from
    quality: Quality = Quality()
    cache_hit_rate: float | None = None  # of prompt tokens, by the engine's own counters, over all that was sent
    probes: list[Result] = []  # short requests beside the load (--probe_rate); part of no other figure
    results: list[Result] = []

    @property
    def label(self) -> str:
        return self.server.backend

    @property
    def file_name(self) -> str:
        return log_name(self.server, self.run, self.fingerprint if self.identity else "")


def model_name(model: str) -> str:
    """A model as people write it: its id; of a local path the last name."""
    path = Path(model)
    local = path.is_absolute() or model.startswith((".", "~")) or path.exists()
    return path.name.removesuffix(".gguf") if local else model


def model_label(model: str) -> str:
    """As part of a file name: `meta-llama/Llama-2-7b-hf` -> `meta-llama_Llama-2-7b-hf`."""
    return model_name(model).replace("/", "_")


def workload_label(run: RunConfig) -> str:
    """The scenario or the dataset that requests are from, as part of a file name; "" where their means say it."""
    return re.sub(r"[^\w.]+", "_", Path(run.dataset).stem or run.scenario).strip("_")


def log_name(server: ServerConfig, run: RunConfig, fingerprint: str = "") -> str:
    """File name of a point, as the original suite writes it; a repetition of it has its number at the end.

    Six digits of the fingerprint let points lie side by side that differ in what the name does not say.
    """
    again = f"-run{run.repetition}" if run.repetition else ""
    what = workload_label(run) or f"prompt{run.mean_prompt_length}-gen{run.mean_max_new_tokens}"
    digits = f"-{fingerprint[:6]}" if fingerprint else ""
    return (
        f"{model_label(server.model)[:MOST_SIGNS]}-tp{server.tp_size}-bs{server.max_ragged_batch_size}"
        f"-replicas{server.num_replicas}-{what[:MOST_SIGNS]}-{''.join(run.load)}{digits}{again}.json"
    )
