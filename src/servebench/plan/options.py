"""The options of `run_benchmark.py`: names, types, defaults, and what `-h` says of them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import msgspec

from servebench.cli.commandline import COUNT, SECONDS, SHARE, Parser, filled, number
from servebench.plan import defaults, load_options
from servebench.servers.backends import BACKENDS
from servebench.workload.model_files import expanded

EPILOG = """examples:
  python run_benchmark.py --backend vllm --dry_run                     show the plan of the default sweep
  python run_benchmark.py --backend vllm --tp_size 1 2 --num_clients 1 8 32
  python run_benchmark.py --backend vllm --model .models/SmolLM2-135M-Instruct --mean_prompt_length 128 \\
      --mean_max_new_tokens 32 --num_clients 1 2 4 --engine_args "--enforce-eager"
  python run_benchmark.py --backend vllm --request_rate 1 2 4 --scenario "N(480,240)/(300,150)"
  python run_benchmark.py --backend openai --openai_api_url http://localhost:8000/v1 --model NAME
  python run_benchmark.py --backend aml --aml_api_url https://HOST/score --aml_api_key KEY \\
      --deployment_name NAME --model mistralai/Mixtral-8x7B-v0.1
Options that take several values (tp_size, num_replicas, max_ragged_batch_size, mean_prompt_length,
mean_max_new_tokens, scenario, num_clients, clients_per_replica, request_rate, trace_speed) are swept: every
combination is one point and one log. A point that was measured before with the same settings is skipped.
Exit status: 0 all points measured, 1 some failed, 2 bad input.
"""


def share(text: str, least: float = 0) -> float:
    """An argparse type: `5%` or `0.05`, at most all of it."""
    of_hundred, of_one = number(float, 100 * least, 100), number(float, least, 1)
    return of_hundred(text[:-1]) / 100 if text.endswith("%") else of_one(text)


def json_object(text: str) -> dict[str, Any]:
    """An argparse type: a JSON object."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise argparse.ArgumentTypeError(f"it is not a JSON object: {error}") from error


def header(text: str) -> tuple[str, str]:
    """An argparse type: `NAME:VALUE`. What it says does not show the value, which may be a key."""
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not (colon and re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII)):
        raise argparse.ArgumentTypeError("one of them is not NAME:VALUE")
    if not (value.isprintable() and all(ord(sign) < 256 for sign in value)):
        raise argparse.ArgumentTypeError(f"the value of {name} has a sign that no header can carry")
    if name.lower() in ("content-length", "transfer-encoding"):
        raise argparse.ArgumentTypeError(f"{name} follows from the request; leave it out")
    return name, value


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="run_benchmark.py",
        description="Benchmark LLM servers: sweep servers and loads, write one JSON log a point.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a key under a shortened name would not be recognised as one
    )
    _server_options(parser.add_argument_group("the server"))
    _endpoint_options(parser.add_argument_group("a server that runs already"))
    _load_options(parser.add_argument_group("the load"))
    load_options.add_open_loop(parser.add_argument_group("the load, as an open loop"))
    load_options.add_search(parser.add_argument_group("the load, searched for"))
    _sampling_options(parser.add_argument_group("the requests"))
    load_options.add_requests(parser.add_argument_group("the requests, more like your own"))
    _output_options(parser.add_argument_group("the results"))
    return parser


# fmt: off
def _server_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", type=filled, metavar="NAME",
        help=f"Hugging Face id or a local directory [{defaults.DEFAULT_MODEL}]")
    add("--backend", choices=[*BACKENDS], default="fastgen", help="serving engine [%(default)s]")
    add("--tokenizer", type=filled, metavar="NAME",
        help="Hugging Face id or directory that prompts are measured with [the model]")
    add("--tp_size", nargs="+", type=COUNT, metavar="N", help="tensor parallel sizes [the model's]")
    add("--num_replicas", nargs="+", type=COUNT, default=[1], metavar="N", help="model replicas [1]")
    add("--max_ragged_batch_size", nargs="+", type=COUNT, default=[768], metavar="N",
        help="fastgen: tokens of a forward step, and sequences; vllm, sglang: most sequences, if it is not 768; "
             "llamacpp: slots, at most 32 [768, and other engines keep their own limits]")
    add("--fp6", action="store_true", help="quantise the weights to 6 bits (fastgen)")
    add("--engine_args", default="", metavar='"..."', help="further words of the engine's own command line")
    add("--gpus", nargs="+", type=number(int, 0), default=[], metavar="N",
        help="GPUs to start servers on, dealt to the replicas in this order [those visible]")
    add("--router", action="store_true",
        help="put vllm-router before the replicas, on the next port [the client deals]")
    add("--deployment_name", metavar="NAME", help="name of the deployment (aml: which one; fastgen: as you like)")
    add("--port", type=number(int, 1, 65535), metavar="N",
        help="port of the first replica, or with --client_only of the server [a free one]")
    add("--server_timeout", type=SECONDS, default=1800.0, metavar="S",
        help="a server that takes longer to start has failed, in s [1800]")


def _endpoint_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--client_only", action="store_true",
        help="start no server; measure the one at --openai_api_url or --port")
    add("--openai_api_url", nargs="+", default=[], metavar="URL",
        help="OpenAI-compatible servers: http://HOST:PORT, or a base with its own path and query "
             "(.../v1, .../openai/deployments/NAME?api-version=V), or the whole URL of the API")
    add("--openai_api_key", metavar="KEY", help="their key [$OPENAI_API_KEY]")
    add("--aml_api_url", metavar="URL", help="URL of an Azure ML endpoint")
    add("--aml_api_key", metavar="KEY", help="its key [$AML_API_KEY]")
    add("--api", choices=["completions", "chat"],
        help="OpenAI's API to use (fastgen has its own) [what the URL names, else completions]")


def _load_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--num_clients", nargs="+", type=COUNT, default=[], metavar="N",
        help="clients, each sends its next request when its last ended [1 2 4 6 8 12 ... 32]")
    add("--clients_per_replica", nargs="+", type=COUNT, default=[], metavar="N",
        help="clients of each replica instead: N x --num_replicas of them, to see how replicas scale")
    add("--num_requests", type=COUNT, metavar="N",
        help="counted requests a point [4 x clients + 32; open loop: those of 30 s, 100 at least]")
    add("--runs", type=COUNT, default=1, metavar="N",
        help="runs of every point, each with fresh requests, all points once before any again [1]")
    add("--target_ci", type=lambda text: share(text, 0.001), metavar="SHARE",
        help="5%% or 0.05; instead of --runs: runs of a point until the 95%% intervals of request throughput "
             "and mean E2E latency are within this of their means [off]")
    add("--min_runs", type=number(int, 2), metavar="N", help="fewest runs with --target_ci [3]")
    add("--max_runs", type=number(int, 2), metavar="N", help="most runs with --target_ci [10]")
    add("--warmup", type=number(int, 0), metavar="N",
        help="uncounted requests before: of each client [1]; open loop: of all [a tenth]")
    add("--num_workers", type=COUNT, metavar="N", help="client processes [by cores and clients]")
    add("--request_timeout", type=SECONDS, default=600.0, metavar="S",
        help="a request that takes longer fails, in s [600]")
    add("--max_retries", type=number(int, 0), default=0, metavar="N",
        help="times a request is sent again after 429, 5xx, an error in its answer or a broken connection; "
             "all count; waits as Retry-After says, at most 60 s [0]")
    add("--max_failed_share", type=share, default=0.05, metavar="SHARE",
        help="a point of whose requests more than this fail has failed; 5%% or 0.05 [5%%]")
    add("--probe_rate", type=number(float, 0), default=0.0, metavar="R",
        help="short requests/s beside the load, reported apart: what a stranger feels [0]")


def _sampling_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--mean_prompt_length", nargs="+", type=COUNT, metavar="N", help="mean tokens of prompts [the model's]")
    add("--prompt_length_var", type=SHARE, default=0.3, metavar="X",
        help="standard deviation of prompt lengths as a share of the mean [0.3]")
    add("--max_prompt_length", type=COUNT, metavar="N", help="no prompt is longer [the model's, mostly 4000]")
    add("--mean_max_new_tokens", nargs="+", type=COUNT, metavar="N", help="mean tokens to generate [the model's]")
    add("--max_new_tokens_var", type=SHARE, default=0.3, metavar="X", help="likewise for generated tokens [0.3]")
    add("--stream", dest="stream", action="store_true", default=True, help="ask for streamed tokens [yes]")
    add("--no_stream", dest="stream", action="store_false", help="ask for whole answers: E2E latency only")
    add("--temperature", type=number(float, 0), default=1.0, metavar="X", help="of sampling; 0 is greedy [1.0]")
    add("--top_p", type=SHARE, default=0.9, metavar="X", help="share of likely tokens to sample from [0.9]")
    add("--respect_eos", action="store_true", help="let answers end early; else every engine does the same work")
    add("--extra_body", type=json_object, default={}, metavar="JSON",
        help="further fields of every request, as a JSON object; they win over ours, and null takes one away; "
             "max_completion_tokens is learnt from a chat server that wants it [{}]")
    add("--extra_headers", nargs="+", type=header, default=[], metavar="NAME:VALUE",
        help="further headers of every call, in place of ours of that name; they are not logged")
    add("--seed", type=number(int, 0), metavar="N",
        help="of lengths, texts and times; the same asks for the same [0; a fresh one for a server that runs "
             "already, since it may have the last prompts in its cache]")


def _output_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--out_json_dir", type=lambda text: expanded("--out_json_dir", filled(text)), default=Path("results"),
        metavar="DIR", help="where logs go [results]")
    add("--overwrite_results", action="store_true", help="measure again what was measured with these settings")
    add("--on_error", choices=["continue", "stop"], default="continue",
        help="after a failed point go on with the next, or end [%(default)s]")
    add("--dry_run", action="store_true", help="show the plan and end")
    add("--list_models", action="store_true", help="show the models with defaults of their own and end")
