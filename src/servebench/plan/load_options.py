"""The options of `run_benchmark.py` about load and requests beyond the original suite's, and what they exclude."""

from __future__ import annotations

import argparse
from typing import Any

from servebench.cli.commandline import COUNT, filled, number
from servebench.errors import InputError
from servebench.workload import datasets, formats
from servebench.workload.lengths import parse_scenario

FEWEST_RUNS, MOST_RUNS = 3, 10  # of a point with --target_ci


def prefix(text: str) -> tuple[int, int]:
    """An argparse type: `TOKENS:GROUPS`."""
    tokens, colon, groups = text.partition(":")
    if not (colon and tokens.isdecimal() and groups.isdecimal() and int(tokens) and int(groups)):
        raise argparse.ArgumentTypeError(f"{text!r} is not TOKENS:GROUPS, such as 512:4")
    return int(tokens), int(groups)


# fmt: off
def add_open_loop(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--request_rate", nargs="+", type=number(float, 1e-6), default=[], metavar="R",
        help="requests/s, sent at times set beforehand whether or not the last ones ended (instead of clients)")
    add("--arrival", choices=["poisson", "constant", "gamma"], default="poisson",
        help="gaps between them, around 1/R [%(default)s]")
    add("--burstiness", type=number(float, 1e-3), metavar="X",
        help="shape of gamma gaps: 1 is poisson, less is burstier, more is more regular [1]")
    add("--ramp_from", type=number(float, 1e-6), metavar="R",
        help="grow from this rate at the first counted request to --request_rate at the last [no ramp]")
    add("--max_concurrency", type=COUNT, metavar="N",
        help="most requests in flight; the others wait, which is part of the latency from schedule [no limit]")
    add("--trace_speed", nargs="+", type=number(float, 1e-6), default=[], metavar="X",
        help="send the trace of --dataset at its own times, X times as fast")


def add_search(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--find_max", type=filled, metavar="LIMITS",
        help="find the most clients, or the highest rate, that meets limits such as 'ttft_p99<2s,tpot_p99<100ms', "
             "from the least to the most of --num_clients or --request_rate")
    add("--find_peak", nargs="?", const=4.0, type=number(float, 1e-3), metavar="R",
        help="find the load with the most requests/s that meet FastGen's SLAs, R tokens/s for generation [4]")


def add_requests(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--length_distribution", choices=["normal", "uniform", "fixed"], default="normal",
        help="of both lengths, around the means above [%(default)s]")
    add("--scenario", nargs="+", default=[], metavar="S",
        help="lengths of prompt and answer instead: 'D(100,32)', 'N(480,240)/(300,150)', 'U(50,100)/(200,250)'")
    add("--prompt_text", choices=["words", "prose"], default="words",
        help="what prompts are made of: random words, or sentences behind eight random words [%(default)s]")
    add("--shared_prefix", type=prefix, metavar="TOKENS:GROUPS",
        help="prompts begin with one of GROUPS texts of TOKENS tokens [each begins with its own]")
    add("--dataset", type=filled, metavar="FILE",
        help="file of requests: ShareGPT, prompts, messages, or a trace (docs/datasets.md)")
    add("--trace_format", choices=["auto", *formats.TRACES], default="auto",
        help="whose trace it is, where its keys do not say what times and hashes stand for [%(default)s]")
    add("--multi_turn", action="store_true",
        help="send whole conversations, each by one client [their first requests]")
    add("--think_time", type=number(float, 0), default=0.0, metavar="S",
        help="pause between an answer and the conversation's next request, in s [0]")
# fmt: on


def check(args: argparse.Namespace, max_prompt_length: int) -> None:
    """What makes no sense together. Raises InputError."""
    found = [why for why, refused in _excluded(args).items() if refused]
    if found:
        raise InputError(found[0])
    for scenario in args.scenario:
        if parse_scenario(scenario)[0].mean > max_prompt_length:
            raise InputError(
                f"--scenario {scenario} exceeds --max_prompt_length {max_prompt_length}; raise the latter"
            )
    if args.shared_prefix and args.shared_prefix[0] > max_prompt_length:
        raise InputError(f"--shared_prefix exceeds --max_prompt_length {max_prompt_length}; raise the latter")


def _excluded(args: argparse.Namespace) -> dict[str, object]:
    """Each reason to refuse the options, and what is true where there is that reason."""
    rate, trace, dataset, turns = args.request_rate, args.trace_speed, args.dataset, args.multi_turn
    open_loop, search, per_replica = rate or trace, args.find_max or args.find_peak, args.clients_per_replica
    means = args.mean_prompt_length or args.mean_max_new_tokens
    bounds = args.min_runs is not None or args.max_runs is not None
    return {
        "--min_runs and --max_runs are bounds of --target_ci; give that": bounds and not args.target_ci,
        "--num_clients and an open loop exclude each other; leave one of them out": open_loop and args.num_clients,
        "--clients_per_replica says how many clients there are; leave --num_clients out": (
            per_replica and args.num_clients
        ),
        "--clients_per_replica and an open loop exclude each other; leave one of them out": (
            per_replica and open_loop
        ),
        "--clients_per_replica fixes the load; leave the search out": per_replica and search,
        "--request_rate and --trace_speed exclude each other; leave one of them out": rate and trace,
        "--trace_format says whose trace --dataset is; give that": args.trace_format != "auto" and not dataset,
        "--trace_speed sends a trace at its own times; give it with --dataset": trace and not dataset,
        "--arrival is about the times of --request_rate; give that": args.arrival != "poisson" and not rate,
        "--burstiness shapes gamma gaps; give --arrival gamma": args.burstiness and args.arrival != "gamma",
        "--ramp_from grows to --request_rate; give that": args.ramp_from and not rate,
        "--ramp_from is the rate that it ends at; give another": args.ramp_from in rate,
        "--max_concurrency limits an open loop; a closed one has --num_clients": (
            args.max_concurrency and not open_loop
        ),
        "--num_requests 1 leaves an open loop no time to measure; give more": open_loop and args.num_requests == 1,
        "--multi_turn sends conversations of a dataset; give --dataset": turns and not dataset,
        "--multi_turn waits for answers, which an open loop does not; give --num_clients": turns and open_loop,
        "--think_time lies between the requests of a conversation; give --multi_turn": (
            args.think_time and not turns
        ),
        "--scenario gives lengths that --dataset gives too; leave it out": args.scenario and dataset,
        "--scenario gives lengths itself; leave out the means": args.scenario and means,
        "--scenario has a distribution of its own; leave out --length_distribution": (
            args.scenario and args.length_distribution != "normal"
        ),
        "--shared_prefix is for made-up prompts; leave it or --dataset out": args.shared_prefix and dataset,
        "--prompt_text is for made-up prompts; leave it or --dataset out": args.prompt_text != "words" and dataset,
        "--find_max and --find_peak exclude each other; leave one of them out": args.find_max and args.find_peak,
        "a search runs each load as often as it must; leave --runs and --target_ci out": (
            search and (args.runs > 1 or args.target_ci)
        ),
        "a search tries clients or rates; give --num_clients or --request_rate": search and trace,
        "a search looks for a rate, which a ramp is not; leave --ramp_from out": search and args.ramp_from,
    }


def complete(given: dict[str, Any]) -> None:
    """Fill in what follows from the options themselves. Raises InputError when the dataset cannot be read."""
    given["dataset"], given["find_max"] = given["dataset"] or "", given["find_max"] or ""
    given["dataset_sha256"] = datasets.sha256_of(given["dataset"]) if given["dataset"] else ""
    given["burstiness"] = 1.0 if given["burstiness"] is None else given["burstiness"]
    given["max_runs"] = given["max_runs"] or MOST_RUNS
    given["min_runs"] = given["min_runs"] or min(FEWEST_RUNS, given["max_runs"])
