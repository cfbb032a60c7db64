"""The options of `run_benchmark.py` that are no part of a log (log/config.py has those), and the parser of all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from servebench.analysis import cost
from servebench.cli.commandline import flag_and_values, header, non_empty, seconds, share, tp_and_replicas
from servebench.cli.declare import Declared, Option, add_options, described, options_of, values_of
from servebench.cli.parser import Parser, Shows
from servebench.log.config import (
    ANSWERS,
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

SEARCH, RESULTS = "search for a load", "results"
Port = Annotated[int, Meta(ge=1, le=65535)]
GROUPS = (SERVER, RUNNING, LOAD, OPEN_LOOP, SEARCH, REQUESTS, OWN_REQUESTS, ANSWERS, RESULTS)
EXAMPLES = """examples:
  python run_benchmark.py --backend vllm sglang --num_clients 1 2 4 8 --dry_run
  python run_benchmark.py --backend openai --model NAME --num_clients 1 4 16 \\
      --openai_api_url http://localhost:8000/v1 --mean_prompt_length 512
  python run_benchmark.py --backend vllm --find_max "ttft_p99<2s, e2e_p99<30s"

Lists are swept: each combination is one point. Defaults are in brackets.
--help_all shows all {} options.
"""
ALL_EXAMPLES = """examples: start an engine
  python run_benchmark.py --backend vllm --tp_size 1 2 --num_clients 1 8 32
  python run_benchmark.py --backend vllm --engine_args "--enforce-eager" \\
      --model .models/SmolLM2-135M-Instruct --mean_prompt_length 128
... or measure a server that is running
  python run_benchmark.py --backend openai --model NAME --num_clients 1 4 16 \\
      --openai_api_url http://localhost:8000/v1
  python run_benchmark.py --backend aml --model mistralai/Mixtral-8x7B-v0.1 \\
      --aml_api_url https://HOST/score --aml_api_key KEY --deployment_name NAME
a closed loop: clients that wait for answers
  python run_benchmark.py --backend vllm --num_clients 1 4 16 --runs 5
  python run_benchmark.py --backend vllm --dataset chats.jsonl --multi_turn
... or an open loop: requests on a schedule
  python run_benchmark.py --backend vllm --request_rate 1 2 4 \\
      --scenario "N(480,240)/(300,150)"
  python run_benchmark.py --backend vllm --dataset trace.jsonl --trace_speed 1 2
a grid of settings
  python run_benchmark.py --backend vllm --tp_size 1 2 --num_replicas 1 2
  python run_benchmark.py --config sweep.yaml --num_clients 64
... or a search for the highest load
  python run_benchmark.py --backend vllm --find_max "ttft_p99<2s, tpot_p99<100ms"
  python run_benchmark.py --backend vllm --find_max "e2e_p90<10s" \\
      --request_rate 0.5 16

Lists are swept: each combination is one point, and each of its runs one log. What
was measured before with the same settings is skipped. Defaults are in brackets.
Exit status: 0 all points measured, 1 some failed, 2 bad input.
"""
ABOUT = """# Options of run_benchmark.py

Made by `python -m servebench.plan.options > docs/options.md` from the declarations in `log/config.py` and
`plan/options.py`. `-h` shows the common options, `--help_all` all of them. Hyphens work as well as underscores.

Options with `...` take several values. They are swept: each combination of values is one point. Only `--gpus`,
`--openai_api_url` and `--extra_headers` are plain lists. Numbers may be joined by commas (`--num_clients 1,2,4`).
`--config FILE.yaml` reads options from a file, with a line `NAME: VALUE` for each; the command line overrides
it. Times are in seconds, lengths in tokens.
"""


def results_folder(text: str) -> Path:
    """An argparse type."""
    return expanded("--out_json_dir", non_empty(text))


# A declaration reads as one statement.
# fmt: off
class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is started or reached."""

    tokenizer: Annotated[str, Option(
        "tokenizer that counts tokens: Hugging Face id or local directory [the model's]", SERVER, "NAME")] = ""
    port: Annotated[Port | None, Option(
        "port of the first replica; with --client_only, of the running server [a free one]", SERVER, "N")] = None
    server_timeout: Annotated[float, Meta(ge=0.001), Option(
        "a server that takes longer than this to start has failed, in s", SERVER, "S")] = 1800.0
    client_only: Annotated[bool, Option(
        "start no server; measure the one at --openai_api_url or --port with the requests of --backend",
        RUNNING)] = False
    openai_api_url: Annotated[tuple[str, ...], Option(
        "OpenAI-compatible servers, such as http://HOST:PORT/v1 [none]",
        RUNNING, "URL", parse=str.strip, common=True)] = ()
    openai_api_key: Annotated[str, Option(
        "key for --openai_api_url [$OPENAI_API_KEY]", RUNNING, "KEY", parse=str)] = ""
    aml_api_url: Annotated[str, Option(
        "URL of an Azure ML endpoint; /score endpoints do not stream, so only end-to-end latency is measured",
        RUNNING, "URL", parse=str.strip)] = ""
    aml_api_key: Annotated[str, Option("key for --aml_api_url [$AML_API_KEY]", RUNNING, "KEY", parse=str)] = ""
    extra_headers: Annotated[tuple[tuple[str, str], ...], Option(
        "more headers for every request; they replace ours of the same name and are not logged [none]",
        REQUESTS, "NAME:VALUE", parse=header)] = ()


class EngineGrid(msgspec.Struct, frozen=True, kw_only=True):
    """Flags of the engine, each with its values."""

    engine_grid: Annotated[tuple[tuple[tuple[str, ...], ...], ...], Option(
        "sweep flags of the engine, such as \"--max-num-seqs 8 64\" \"--enforce-eager\" (with it and without): "
        "every combination is a variant [none]",
        SERVER, "\"--FLAG V ...\"", parse=flag_and_values, quoted=True)] = ()


class Layouts(msgspec.Struct, frozen=True, kw_only=True):
    """Servers by TP size and replicas together."""

    layouts: Annotated[tuple[tuple[int, int], ...], Option(
        "servers to measure, by TP size x replicas, such as 1x8 2x4 4x2 8x1 (instead of all combinations of "
        "--tp_size and --num_replicas)",
        SERVER, "TPxN", parse=tp_and_replicas, common=True)] = ()


class ClientsPerReplica(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop that grows with the server."""

    clients_per_replica: Annotated[Count, Option(
        "clients per replica, N x --num_replicas in all, to see how replicas scale (instead of --num_clients)",
        LOAD, "N", swept=True)]


class Repeats(msgspec.Struct, frozen=True, kw_only=True):
    """Every point so many times."""

    runs: Annotated[Count, Option(
        "runs of each point, with new prompts each time; all points are run before any is repeated, so that "
        "drift affects all alike", LOAD, "N", common=True)] = 1


class TargetCi(msgspec.Struct, frozen=True, kw_only=True):
    """Every point until its numbers are known well enough."""

    target_ci: Annotated[float, Option(
        "repeat each point until the 95% intervals of request throughput and mean end-to-end latency are "
        "within this share of their means, such as 5% or 0.05 (instead of --runs)",
        LOAD, "SHARE", parse=partial(share, least=0.001))]
    min_runs: Annotated[int, Meta(ge=2), Option("fewest runs with --target_ci", LOAD, "N")] = 3
    max_runs: Annotated[int, Meta(ge=2), Option("most runs with --target_ci", LOAD, "N")] = 10

    def __post_init__(self) -> None:
        if self.min_runs > self.max_runs:
            runs = f"--min_runs {self.min_runs} is more than --max_runs {self.max_runs}"
            raise ValueError(f"{runs}; raise the latter")


class FindMax(msgspec.Struct, frozen=True, kw_only=True):
    """The highest load that meets limits."""

    find_max: Annotated[str, Option(
        "find the highest load that meets limits such as \"ttft_p99<2s, tpot_p99<100ms\"; the search doubles the "
        "load from the lowest --num_clients or --request_rate until a limit is broken or the highest is reached, "
        "then bisects; it can be interrupted and resumed",
        SEARCH, "LIMITS", common=True)]


class FindPeak(msgspec.Struct, frozen=True, kw_only=True):
    """The load with the highest effective throughput."""

    find_peak: Annotated[float, Meta(ge=0.001), Option(
        "find the load with the most requests/s that meet FastGen's SLAs, with R tokens/s for generation [4]",
        SEARCH, "R", const=4.0)]


class Decide(msgspec.Struct, frozen=True, kw_only=True):
    """The best of all servers."""

    decide: Annotated[str, Option(
        "find the server that serves the most requests/s a GPU within limits such as \"ttft_p99<2s, "
        "tpot_p99<100ms\"; all are measured coarsely, then those that may be the best at the loads that decide, "
        "until one is ahead or they cannot be told apart; it can be interrupted and resumed",
        SEARCH, "LIMITS", common=True)]
    budget: Annotated[float | None, Option(
        "with --decide, stop after this long, such as 2h or 30min, with the best answer so far [none]",
        SEARCH, "TIME", parse=seconds)] = None


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """How the plan is executed, and where its logs go."""

    num_workers: Annotated[Count | None, Option(
        "client processes [chosen by cores and clients]", LOAD, "N")] = None
    max_failed_share: Annotated[float, Option(
        "a point fails if more than this share of its requests fail, such as 5% or 0.05 [5%]",
        LOAD, "SHARE", parse=share)] = 0.05
    out_json_dir: Annotated[Path, Option(
        "folder for the logs", RESULTS, "DIR", parse=results_folder, common=True)] = Path("results")
    overwrite_results: Annotated[bool, Option(
        "measure again what was measured before with the same settings", RESULTS)] = False
    on_error: Annotated[Literal["continue", "stop"], Option(
        "after a failed point, go on with the next or stop", RESULTS)] = "continue"
    telemetry: Annotated[bool, Option(
        "sample host, GPUs and the engine's own metrics while a point runs; with --no_telemetry nobody knows "
        "whether another program slowed the server", RESULTS)] = True
    gpu_hour_price: Annotated[Annotated[float, Meta(ge=0)] | None, Option(
        f"{cost.HELP}; commands that read logs take another [none]", RESULTS, cost.METAVAR)] = None
    check_floor: Annotated[float | None, Option(
        "with --check: the least share of right answers under load, such as 88% [none]",
        ANSWERS, "SHARE", parse=share)] = None
    max_flawed_share: Annotated[float, Option(
        "a point whose answers are blank, repeated, truncated, invalid or aborted more often than this is marked "
        "`answers: broken`, and decides nothing; with repeated ones it takes 50%; 1 for random weights [20%]",
        ANSWERS, "SHARE", parse=share)] = 0.2
    sla: Annotated[str, Option(
        "limits such as \"ttft_p99<2s, tpot_p99<100ms\": the end says which server is the best within them [none]",
        RESULTS, "LIMITS")] = ""
    dry_run: Annotated[bool, Option("show the plan and exit", RESULTS, common=True)] = False
    print_config: Annotated[bool, Option(
        "print the --config file that repeats this command, without keys, and exit", RESULTS)] = False
    show_request: Annotated[bool, Option(
        "as --dry_run, and show each server's command and first request", RESULTS)] = False
    list_models: Annotated[bool, Option("list the models that have their own defaults and exit", RESULTS)] = False


# fmt: on
# Of each of these a command line chooses one kind, by the option that only it has.
LOADS: dict[str, Any] = {
    "num_clients": Clients,
    "clients_per_replica": ClientsPerReplica,
    "request_rate": Rate,
    "trace_speed": Trace,
}
KINDS_OF_REQUESTS: dict[str, Any] = {"mean_prompt_length": Synthetic, "scenario": Scenario, "dataset": Dataset}
CHOICES = {"backend": tuple(BACKENDS)}
STRATEGIES: dict[str, Any] = {
    "runs": Repeats,
    "target_ci": TargetCi,
    "find_max": FindMax,
    "find_peak": FindPeak,
    "decide": Decide,
}


def declared() -> tuple[Declared, ...]:
    """Every option there is, once."""
    kinds = (*LOADS.values(), *KINDS_OF_REQUESTS.values(), *STRATEGIES.values())
    return options_of(ServerConfig, EngineGrid, Layouts, Connection, *kinds, RunConfig, Execution)


def build_parser() -> Parser:
    """The parser of all options. Its -h shows the common ones."""
    parser = _parser(ALL_EXAMPLES)
    parser.hint = "-h lists the common options, --help_all all"
    parser.add_argument("-h", "--help", action=Shows, const=common_help, help="show the common options and exit")
    parser.add_argument("--help_all", action=Shows, const=parser.format_help, help="show all options and exit")
    parser.add_argument(
        "--config", type=non_empty, metavar="FILE.yaml", help="read options from a file, one line NAME: VALUE each"
    )
    add_options(parser, GROUPS, declared(), CHOICES)
    return parser


def common_help() -> str:
    """Only the common options, each with only what stands before the first semicolon."""
    common = [each._replace(option=_brief(each.option)) for each in declared() if each.option.common]
    parser = _parser(EXAMPLES.format(len(declared()) + 1))
    add_options(parser, (), common, CHOICES)
    return parser.format_help()


def _brief(option: Option) -> Option:
    words, bracket, usual = option.help.partition(" [")
    return replace(option, help=words.partition("; ")[0] + bracket + usual)


def _parser(epilog: str) -> Parser:
    about = "Benchmark LLM servers: start them, or use one that is running, and sweep loads."
    parser = Parser(description=about, epilog=epilog, add_help=False)
    parser.usage = f"{parser.prog} [--backend ENGINE] [options]"
    return parser


def document() -> str:
    """docs/options.md."""
    tables = [f"## {title[0].upper()}{title[1:]}\n\n{_table(title)}" for title in GROUPS]
    return "\n".join([ABOUT, *tables])


def _table(group: str) -> str:
    rows = [_row(each) for each in declared() if each.option.group == group]
    return "\n".join(["| option | what it does | default |", "|---|---|---|", *rows, ""])


def _row(each: Declared) -> str:
    words, usual = described(each)
    cells = [
        f"`{' '.join([f'--{each.name}', *values_of(each, CHOICES)])}`",
        f"{words[0].upper()}{words[1:]}.",
        usual,
    ]
    return f"| {' | '.join(cell.replace('|', '¦') for cell in cells)} |"


if __name__ == "__main__":
    print(document(), end="")
