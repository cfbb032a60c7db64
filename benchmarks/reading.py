#!/usr/bin/env python3
"""How long do summary, spreadsheet and every figure take over many logs, and how much memory?

    .venv/bin/python benchmarks/reading.py --logs 100 --requests 1000 --tokens 100

Makes logs of two backends in a temporary folder, runs every reader as a user does, all of `src/plot_*.py` among
them, one after another and then two at a time, and prints time, CPU time and memory. Compiled modules are kept, as
on any machine that has drawn before: compiling them is not timed. Beside it the original suite's way of effective
throughput alone: every prompt tokenised again for each SLA; that is timed on some prompts and multiplied.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tabulate import tabulate
from tokenizers import Tokenizer

from servebench.analysis import deadlines
from servebench.log import schema, store
from servebench.log.config import Clients, RunConfig, ServerConfig, Synthetic
from servebench.log.result import Result
from servebench.log.schema import Log, ServerFacts
from servebench.workload.texts import exact_texts

ROOT = Path(__file__).parents[1]
PROMPT_TOKENS = 2600
TOKENIZED = 200  # prompts that the original's way is timed on
BEFORE = os.getloadavg()[0]  # processes that ran already


def make_log(rng: np.random.Generator, server: ServerConfig, run: RunConfig, tokens: int) -> Log:
    """Clients with requests back to back; gaps of some 30 ms."""
    sent_ns = dict.fromkeys(range(int(run.load.size)), 0)
    results = []
    for i in range(run.num_requests):
        client = i % int(run.load.size)
        event_ns = np.cumsum(rng.exponential(0.03e9, tokens)).astype(int).tolist()
        results.append(
            Result(
                id=i,
                phase="measured",
                client=client,
                prompt_tokens=PROMPT_TOKENS,
                max_new_tokens=tokens,
                generated_tokens=tokens,
                token_source="made",
                sent_ns=sent_ns[client],
                event_ns=event_ns,
                event_tokens=[1] * tokens,
                finish_reason="length",
                status=200,
            )
        )
        sent_ns[client] += event_ns[-1]
    return Log(
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        fingerprint="made",
        server=server,
        run=run,
        server_facts=ServerFacts(urls=[]),
        client={},
        window_ns=(0, min(sent_ns.values())),
        results=results,
    )


def make_folder(folder: Path, logs: int, requests: int, tokens: int) -> None:
    """Two backends, five prompt lengths, so many clients as it takes."""
    rng = np.random.default_rng(0)
    for i in range(logs):
        server = ServerConfig(backend=("vllm", "fastgen")[i % 2], model="meta-llama/Llama-2-7b-hf")
        clients = 1 + i // 10
        lengths = Synthetic(mean_prompt_length=500 * (1 + i // 2 % 5))
        run = RunConfig(load=Clients(num_clients=clients), requests=lengths, num_requests=requests)
        log = make_log(rng, server, run, tokens)
        store.save(log, folder / server.backend / schema.log_name(server, run))


def commands(folder: Path) -> dict[str, list[str]]:
    """Every reader by name."""
    module = [sys.executable, "-m"]
    found = {name: [*module, f"servebench.{name}", str(folder)] for name in ("summary", "spreadsheet")}
    for script in sorted((ROOT / "src").glob("plot_*.py")):
        out = str(folder.parent / "plots" / script.stem)
        found[script.stem] = [sys.executable, str(script), "--log_dir", str(folder), "--out_dir", out]
    return found


def timed(command: list[str], compiled: Path) -> tuple[float, float, float]:
    """(s, s of CPU, most MB) of a command; `compiled` is where Python keeps compiled modules."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(compiled), "PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def in_pairs(all_commands: list[list[str]], compiled: Path) -> tuple[float, float, float]:
    """(s, s of CPU, MB that two together need at most) when two run at a time."""
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        _, cpu, most = zip(*pool.map(partial(timed, compiled=compiled), all_commands), strict=True)
    return time.perf_counter() - start, sum(cpu), sum(sorted(most)[-2:])


def machine() -> str:
    """Cores and kind of processor, and how busy others keep it."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    kind = models[0] if models else platform.machine()
    return f"{os.cpu_count()} cores of {kind} (load before: {BEFORE:.1f})"


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=100)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--tokenizer", type=Path, default=ROOT / ".models/SmolLM2-135M-Instruct/tokenizer.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_folder(folder / "results", args.logs, args.requests, args.tokens)
        readers = commands(folder / "results")
        compiled = folder / "compiled"
        for command in readers.values():
            timed([*command, "--help"], compiled)
        rows = [(reader, *timed(command, compiled)) for reader, command in readers.items()]
        together = (sum(row[1] for row in rows), sum(row[2] for row in rows), max(row[3] for row in rows))
        rows.append(("all, one after another", *together))
        rows.append(("all, two at a time", *in_pairs(list(readers.values()), compiled)))
    print(f"{args.logs} logs of {args.requests} requests x {args.tokens} tokens, on {machine()}")
    print(tabulate(rows, ["", "s", "s of CPU", "peak memory (MB)"], floatfmt=("", ".1f", ".1f", ".0f")))
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    prompts = exact_texts(tokenizer, [PROMPT_TOKENS] * TOKENIZED, np.random.default_rng(0))
    each = seconds(lambda: [tokenizer.encode(prompt) for prompt in prompts]) / TOKENIZED
    times = args.logs * args.requests * len(deadlines.GENERATION_RATES)
    print(f"the original's way: {each * 1e3:.2f} ms a prompt of {PROMPT_TOKENS} tokens, {times} times: "
          f"{each * times:.0f} s for its {len(deadlines.GENERATION_RATES)} SLAs")  # fmt: skip


if __name__ == "__main__":
    main()
