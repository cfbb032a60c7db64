"""The options of `run_benchmark.py` about load and requests beyond the original suite's, and what they exclude."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from servebench.records import InputError
from servebench.workload import datasets
from servebench.workload.lengths import parse_scenario


def number(kind: type[int] | type[float], least: float, most: float = float("inf")):  # type: ignore[no-untyped-def]
    """An argparse type: a number of this kind between the bounds."""

    def parse(text: str) -> float:
        wanted = "a whole number" if kind is int else "a number"
        bounds = f"of at least {least:g}" + (f" and at most {most:g}" if most != float("inf") else "")
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted} {bounds}")
        return value

    return parse


def prefix(text: str) -> tuple[int, int]:
    """An argparse type: `TOKENS:GROUPS`."""
    tokens, colon, groups = text.partition(":")
    if not (colon and tokens.isdecimal() and groups.isdecimal() and int(tokens) and int(groups)):
        raise argparse.ArgumentTypeError(f"{text!r} is not TOKENS:GROUPS, such as 512:4")
    return int(tokens), int(groups)


COUNT, SHARE, SECONDS = number(int, 1), number(float, 0, 1), number(float, 0.001)


def add_open_loop(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--request_rate",
        nargs="+",
        type=number(float, 1e-6),
        default=[],
        metavar="R",
        help="requests/s, sent at times set beforehand whether or not the last ones ended (instead of clients)",
    )
    add(
        "--arrival",
        choices=["poisson", "constant", "gamma"],
        default="poisson",
        help="gaps between them [%(default)s]",
    )
    add(
        "--burstiness",
        type=number(float, 1e-3),
        metavar="X",
        help="shape of gamma gaps: 1 is poisson, less is burstier, more is more regular [1]",
    )
    add(
        "--ramp_from",
        type=number(float, 1e-6),
        metavar="R",
        help="grow from this rate at the first counted request to --request_rate at the last [no ramp]",
    )
    add(
        "--max_concurrency",
        type=COUNT,
        metavar="N",
        help="most requests in flight; the others wait, which is part of the latency from schedule [no limit]",
    )
    add(
        "--trace_speed",
        nargs="+",
        type=number(float, 1e-6),
        default=[],
        metavar="X",
        help="send the trace of --dataset at its own times, X times as fast",
    )
    add(
        "--probe_rate",
        type=number(float, 0),
        default=0.0,
        metavar="R",
        help="short requests/s beside any load, reported apart: what a stranger feels [0]",
    )


def add_requests(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--length_distribution",
        choices=["normal", "uniform", "fixed"],
        default="normal",
        help="of both lengths, around the means above [%(default)s]",
    )
    add(
        "--scenario",
        nargs="+",
        default=[],
        metavar="S",
        help="lengths of prompt and answer instead: 'D(100,32)', 'N(480,240)/(300,150)', 'U(50,100)/(200,250)'",
    )
    add(
        "--prompt_text",
        choices=["words", "prose"],
        default="words",
        help="what prompts are made of: random words, or sentences behind eight random words [%(default)s]",
    )
    add(
        "--shared_prefix",
        type=prefix,
        metavar="TOKENS:GROUPS",
        help="prompts begin with one of GROUPS texts of TOKENS tokens [each begins with its own]",
    )
    add(
        "--dataset",
        default="",
        metavar="FILE",
        help="file of requests: ShareGPT, JSONL of prompts or messages; traces of Azure, BurstGPT, Mooncake",
    )
    add(
        "--multi_turn",
        action="store_true",
        help="send whole conversations, each by one client [their first requests]",
    )
    add(
        "--think_time",
        type=number(float, 0),
        default=0.0,
        metavar="S",
        help="from an answer to the conversation's next request, in s [0]",
    )


def check(given: Mapping[str, Any], clients_given: bool) -> None:
    """What makes no sense together. Raises InputError."""
    for name, needed, refused, why in _rules(given, clients_given):
        if refused:
            raise InputError(f"--{name} {why}; {needed}")
    _check_lengths(given)


def _rules(given: Mapping[str, Any], clients_given: bool) -> list[tuple[str, str, bool, str]]:
    """(option, what to do, whether it is refused, why)."""
    rate, trace, dataset = given["request_rate"], given["trace_speed"], given["dataset"]
    open_loop = bool(rate or trace)
    gamma = given["arrival"] == "gamma"
    take_out = "leave it out"
    without_rate = "is about the times of --request_rate"
    return [
        (
            "num_clients",
            "leave one of them out",
            open_loop and clients_given,
            "and an open loop exclude each other",
        ),
        ("trace_speed", "leave one of them out", bool(rate and trace), "and --request_rate exclude each other"),
        ("trace_speed", "give a trace with --dataset", bool(trace and not dataset), "sends a trace at its times"),
        ("arrival", "give --request_rate", given["arrival"] != "poisson" and not rate, without_rate),
        ("burstiness", "give --arrival gamma", given["burstiness"] is not None and not gamma, "shapes gamma gaps"),
        ("ramp_from", "give --request_rate", bool(given["ramp_from"] and not rate), without_rate),
        ("ramp_from", "give another rate", given["ramp_from"] in rate, "is the rate that it ends at"),
        (
            "max_concurrency",
            "give --request_rate",
            bool(given["max_concurrency"] and not open_loop),
            "limits an open loop; a closed one has --num_clients",
        ),
        ("multi_turn", "give --dataset", given["multi_turn"] and not dataset, "sends conversations of a dataset"),
        (
            "multi_turn",
            "give --num_clients",
            given["multi_turn"] and open_loop,
            "sends a request when the last answer came, which an open loop does not wait for",
        ),
        (
            "think_time",
            "give --multi_turn",
            bool(given["think_time"] and not given["multi_turn"]),
            "is the time between a conversation's requests",
        ),
        ("scenario", take_out, bool(given["scenario"] and dataset), "gives lengths that --dataset gives"),
        (
            "scenario",
            take_out,
            bool(given["scenario"]) and given["length_distribution"] != "normal",
            "has a distribution of its own beside --length_distribution",
        ),
        (
            "shared_prefix",
            take_out,
            bool(given["shared_prefix"] and dataset),
            "is for made-up prompts, not for --dataset",
        ),
    ]


def _check_lengths(given: Mapping[str, Any]) -> None:
    most = given["max_prompt_length"]
    for scenario in given["scenario"]:
        prompt, _ = parse_scenario(scenario)
        if prompt.mean > most:
            raise InputError(f"--scenario {scenario} exceeds --max_prompt_length {most}; raise the latter")
    if given["shared_prefix"] and given["shared_prefix"][0] > most:
        raise InputError(f"--shared_prefix exceeds --max_prompt_length {most}; raise the latter")


def complete(given: dict[str, Any]) -> None:
    """Fill in what follows from the options themselves. Raises InputError when the dataset cannot be read."""
    given["dataset_sha256"] = datasets.sha256_of(given["dataset"]) if given["dataset"] else ""
    given["burstiness"] = 1.0 if given["burstiness"] is None else given["burstiness"]
