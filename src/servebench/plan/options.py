"""The options of `run_benchmark.py` that are no part of a log (log/config.py has those), and the parser of all."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from servebench.cli.commandline import Parser, header, non_empty, share, tp_and_replicas
from servebench.cli.declare import Declared, Option, add_options, options_of
from servebench.log.config import (
    LOAD,
    OPEN_LOOP,
    OWN_REQUESTS,
    REQUESTS,
    RUNNING,
    SERVER,
    Clients,
    Count,
    Dataset,
    Rate,
    RunConfig,
    Scenario,
    ServerConfig,
    Synthetic,
    Trace,
)
from servebench.servers.backends import BACKENDS
from servebench.workload.model_files import expanded

SEARCH, RESULTS = "the load, searched for", "the results"
Port = Annotated[int, Meta(ge=1, le=65535)]
GROUPS = (SERVER, RUNNING, LOAD, OPEN_LOOP, SEARCH, REQUESTS, OWN_REQUESTS, RESULTS)
EPILOG = """examples:
  python run_benchmark.py --backend vllm --dry_run                     show the plan of the default sweep
  python run_benchmark.py --backend vllm --tp_size 1 2 --num_clients 1 8 32
  python run_benchmark.py --backend vllm --model .models/SmolLM2-135M-Instruct --mean_prompt_length 128 \\
      --mean_max_new_tokens 32 --num_clients 1 2 4 --engine_args "--enforce-eager"
  python run_benchmark.py --backend vllm --request_rate 1 2 4 --scenario "N(480,240)/(300,150)"
  python run_benchmark.py --backend openai --openai_api_url http://localhost:8000/v1 --model NAME
  python run_benchmark.py --backend aml --aml_api_url https://HOST/score --aml_api_key KEY \\
      --deployment_name NAME --model mistralai/Mixtral-8x7B-v0.1
  python run_benchmark.py --config sweep.yaml --num_clients 64         options from a file; those typed here win
{swept}
Exit status: 0 all points measured, 1 some failed, 2 bad input.
"""


def results_folder(text: str) -> Path:
    """An argparse type."""
    return expanded("--out_json_dir", non_empty(text))


# A declaration reads as one statement.
# fmt: off
class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is started or reached."""

    tokenizer: Annotated[str, Option(
        "Hugging Face id or directory that prompts are measured with [the model]", SERVER, "NAME")] = ""
    port: Annotated[Port | None, Option(
        "port of the first replica, or with --client_only of the server [a free one]", SERVER, "N")] = None
    server_timeout: Annotated[float, Meta(ge=0.001), Option(
        "a server that takes longer to start has failed, in s", SERVER, "S")] = 1800.0
    client_only: Annotated[bool, Option(
        "start no server; measure the one at --openai_api_url or --port", RUNNING)] = False
    openai_api_url: Annotated[tuple[str, ...], Option(
        "OpenAI-compatible servers: http://HOST:PORT, or a base with its own path and query (.../v1, "
        ".../openai/deployments/NAME?api-version=V), or the whole URL of the API",
        RUNNING, "URL", parse=str.strip)] = ()
    openai_api_key: Annotated[str, Option("their key [$OPENAI_API_KEY]", RUNNING, "KEY", parse=str)] = ""
    aml_api_url: Annotated[str, Option("URL of an Azure ML endpoint", RUNNING, "URL", parse=str.strip)] = ""
    aml_api_key: Annotated[str, Option("its key [$AML_API_KEY]", RUNNING, "KEY", parse=str)] = ""
    extra_headers: Annotated[tuple[tuple[str, str], ...], Option(
        "further headers of every call, in place of ours of that name; they are not logged",
        REQUESTS, "NAME:VALUE", parse=header)] = ()


class Layouts(msgspec.Struct, frozen=True, kw_only=True):
    """Servers by TP size and replicas together."""

    layouts: Annotated[tuple[tuple[int, int], ...], Option(
        "TP size x replicas of each server to measure, instead of all combinations: 1x8 2x4 4x2 8x1",
        SERVER, "TPxN", parse=tp_and_replicas)] = ()


class ClientsPerReplica(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop that grows with the server."""

    clients_per_replica: Annotated[Count, Option(
        "clients of each replica instead: N x --num_replicas of them, to see how replicas scale",
        LOAD, "N", swept=True)]


class Repeats(msgspec.Struct, frozen=True, kw_only=True):
    """Every point so many times."""

    runs: Annotated[Count, Option(
        "runs of every point, each with fresh requests, all points once before any again", LOAD, "N")] = 1


class TargetCi(msgspec.Struct, frozen=True, kw_only=True):
    """Every point until its numbers are known well enough."""

    target_ci: Annotated[float, Option(
        "5%% or 0.05; instead of --runs: runs of a point until the 95%% intervals of request throughput and "
        "mean E2E latency are within this of their means [off]", LOAD, "SHARE", parse=partial(share, least=0.001))]
    min_runs: Annotated[int, Meta(ge=2), Option("fewest runs with --target_ci", LOAD, "N")] = 3
    max_runs: Annotated[int, Meta(ge=2), Option("most runs with --target_ci", LOAD, "N")] = 10

    def __post_init__(self) -> None:
        if self.min_runs > self.max_runs:
            runs = f"--min_runs {self.min_runs} is more than --max_runs {self.max_runs}"
            raise ValueError(f"{runs}; raise the latter")


class FindMax(msgspec.Struct, frozen=True, kw_only=True):
    """The highest load that meets limits."""

    find_max: Annotated[str, Option(
        "find the most clients, or the highest rate, that meets limits such as 'ttft_p99<2s,tpot_p99<100ms', "
        "from the least to the most of --num_clients or --request_rate", SEARCH, "LIMITS")]


class FindPeak(msgspec.Struct, frozen=True, kw_only=True):
    """The load with the highest effective throughput."""

    find_peak: Annotated[float, Meta(ge=0.001), Option(
        "find the load with the most requests/s that meet FastGen's SLAs, R tokens/s for generation [4]",
        SEARCH, "R", const=4.0)]


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """How the plan is executed, and where its logs go."""

    num_workers: Annotated[Count | None, Option("client processes [by cores and clients]", LOAD, "N")] = None
    max_failed_share: Annotated[float, Option(
        "a point of whose requests more than this fail has failed; 5%% or 0.05 [5%%]",
        LOAD, "SHARE", parse=share)] = 0.05
    out_json_dir: Annotated[Path, Option("where logs go", RESULTS, "DIR", parse=results_folder)] = Path("results")
    overwrite_results: Annotated[bool, Option(
        "measure again what was measured with these settings", RESULTS)] = False
    on_error: Annotated[Literal["continue", "stop"], Option(
        "after a failed point go on with the next, or end", RESULTS)] = "continue"
    dry_run: Annotated[bool, Option("show the plan and end", RESULTS)] = False
    list_models: Annotated[bool, Option("show the models with defaults of their own and end", RESULTS)] = False


# fmt: on
# Of each of these a command line chooses one kind, by the option that only it has.
LOADS: dict[str, Any] = {
    "num_clients": Clients,
    "clients_per_replica": ClientsPerReplica,
    "request_rate": Rate,
    "trace_speed": Trace,
}
KINDS_OF_REQUESTS: dict[str, Any] = {"mean_prompt_length": Synthetic, "scenario": Scenario, "dataset": Dataset}
STRATEGIES: dict[str, Any] = {
    "runs": Repeats,
    "target_ci": TargetCi,
    "find_max": FindMax,
    "find_peak": FindPeak,
}


def declared() -> tuple[Declared, ...]:
    """Every option there is, once."""
    kinds = (*LOADS.values(), *KINDS_OF_REQUESTS.values(), *STRATEGIES.values())
    return options_of(ServerConfig, Layouts, Connection, *kinds, RunConfig, Execution)


def build_parser() -> argparse.ArgumentParser:
    names = ", ".join(each.name for each in declared() if each.option.swept)
    swept = fill(
        f"Options that take several values ({names}) are swept: every combination is one point and one log. "
        "A point that was measured before with the same settings is skipped.",
        width=108,
    )
    parser = Parser(
        prog="run_benchmark.py",
        description="Benchmark LLM servers: sweep servers and loads, write one JSON log a point.",
        epilog=EPILOG.format(swept=swept),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a key under a shortened name would not be recognised as one
    )
    parser.add_argument("--config", type=non_empty, metavar="FILE.yaml", help="further options, as NAME: VALUE")
    add_options(parser, GROUPS, declared(), {"backend": tuple(BACKENDS)})
    return parser
