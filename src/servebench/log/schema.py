"""The log: what was asked, what was measured and under which conditions. One JSON file for each run of a point.

    results/vllm/SmolLM2-135M-Instruct-tp1-bs768-replicas1-prompt128-gen32-clients4-1a2b3c.json

Everything that ServeBench prints or draws is derived from these files alone. All times are nanoseconds of
the host's CLOCK_REALTIME, which the kernel stamps arriving bytes with; events count from `sent_ns`.

Log versions: 1 (2026-11) the first, whose run is flat and whose cooldown is called hold; 2 (2026-11) a load and
requests of a kind. `store.py` reads both, `original.py` the logs of DeepSpeed-FastGen's own scripts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec

from servebench.log.checks import Asked
from servebench.log.config import RunConfig, ServerConfig, all_fields, load_label
from servebench.log.result import Result
from servebench.log.telemetry import Machine, Series, Telemetry

LOG_VERSION = 2
MAX_VARIANT_LENGTH = 40
MAX_NAME_LENGTH = 80  # of a name that is part of a file name, of which a file system takes 255
ENGINE_NAMES = {  # as people write them
    "fastgen": "DeepSpeed-FastGen",
    "vllm": "vLLM",
    "llamacpp": "llama.cpp",
    "aml": "Azure ML",
    "openai": "OpenAI-compatible",
    "sglang": "SGLang",
}


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The server as it really ran."""

    urls: list[str]
    commands: list[str] = []  # as typed into a shell, one a replica
    engine: str = ""  # name and version
    image: str = ""  # of its containers: a digest
    model: str = ""  # its own name for the model
    learnt: list[str] = []  # what the first request revealed, and how requests are adapted to it
    log_files: list[str] = []
    start_s: float = 0.0  # launch to ready
    weights_cached_share: float | None = None  # of the model's files in the host's memory at launch: cold or warm
    gpus: list[int] = []  # those of Log.machine that it uses; none: on the CPU, or unknown
    version: str = ""  # and commit, as the engine itself says them
    configuration: dict[str, Any] = {}  # as it is in effect, by the engine's own names
    kv_cache_tokens: int | None = None  # that its KV cache has room for, all replicas together
    kv_values_per_token: int | None = None  # numbers in the cache, by the model's config, all layers and GPUs
    model_revision: str = ""  # the commit on the hub, or a hash of configuration and weight index
    tokenizer_hash: str = ""
    variables: dict[str, str] = {}  # of the environment, those that change engines
    other_processes: list[str] = []  # on its GPUs when it was ready
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
    others_cpu_share: float | None = None  # likewise, without client and server; unknown of a server not ours
    clock_step_s: float = 0.0  # largest change of REALTIME against MONOTONIC
    connect_p50_s: float | None = None
    overloaded: bool = False  # open loop: requests in flight grew all through the point


class Log(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One run of a point. `__dict__` keeps what is expensive to work out (analysis/cache.py)."""

    servebench_log: int = LOG_VERSION
    status: Literal["ok", "failed"]
    failure: str | None = None
    stopped: str | None = None  # why this was the last run of its point (--target_ci)
    started_at: str  # ISO 8601, UTC
    fingerprint: str  # hash of the identity
    identity: dict[str, Any] = {}  # what makes this point no other (identity.py); empty in logs of older versions
    options: dict[str, Any] = {}  # the command, as typed, without keys; of no meaning but to repeat it
    server: ServerConfig
    run: RunConfig
    server_facts: ServerFacts
    client: dict[str, str | int | float]  # host, Python and package versions
    window_ns: tuple[int, int] | None  # all clients active, warm-up over: what throughput is taken from
    quality: Quality = Quality()
    machine: Machine | None = None  # that the server runs on; None: unknown, it runs elsewhere
    telemetry: Telemetry | None = None  # None: --no_telemetry, or a log of before
    gpu_hour_price: float | None = None  # $, as given when it was measured
    cache_hit_rate: float | None = None  # of prompt tokens, by the engine's own counters, over all that was sent
    check_floor: float | None = None  # the least share of right answers, as given when it was measured
    max_flawed_share: float | None = None  # likewise: above it answers are broken
    checks_alone: Sequence[Asked] = []  # questions (--check) while nothing else was asked
    checks: Sequence[Asked] = []  # the same under the load; part of no other figure
    probes: Sequence[Result] = []  # short requests beside the load (--probe_rate); part of no other figure
    results: Sequence[Result] = []
    series: Series | None = None  # samples of the telemetry; left out like the requests where only a head is read

    @property
    def fields(self) -> dict[str, Any]:
        """Of server and run, by the names of the options; those of other kinds at their defaults."""
        return all_fields(self.server) | all_fields(self.run)

    @property
    def file_name(self) -> str:
        return log_name(self.server, self.run, self.fingerprint if self.identity else "")


def engine_name(backend: str) -> str:
    """A backend as people write it; an unknown one by its own name."""
    return ENGINE_NAMES.get(backend, backend)


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
    return re.sub(r"[^\w.]+", "_", run.requests.name).strip("_")


def log_name(server: ServerConfig, run: RunConfig, fingerprint: str = "") -> str:
    """File name of a point, as the original suite writes it; a repetition of it has its number at the end.

    Six digits of the fingerprint let points lie side by side that differ in what the name does not say.
    """
    again = f"-run{run.repetition}" if run.repetition else ""
    asked = run.requests
    what = workload_label(run) or f"prompt{asked.mean_prompt_length}-gen{asked.mean_max_new_tokens}"
    digits = f"-{fingerprint[:6]}" if fingerprint else ""
    return f"{server_label(server)}-{what[:MAX_NAME_LENGTH]}-{load_label(run.load)}{digits}{again}.json"


def server_label(server: ServerConfig) -> str:
    """A server as part of a file name."""
    sizes = f"tp{server.tp_size}-bs{server.max_ragged_batch_size}-replicas{server.num_replicas}"
    return "-".join(
        filter(None, [model_label(server.model)[:MAX_NAME_LENGTH], sizes, variant_label(server.variant)])
    )


def variant_label(name: str) -> str:
    """The name of a variant as part of a file name."""
    words = re.sub(r"[^\w.-]+", "_", name).strip("_")
    short = f"{words[: MAX_VARIANT_LENGTH - 5]}-{sha256(words.encode()).hexdigest()[:4]}"
    return words if len(words) <= MAX_VARIANT_LENGTH else short
