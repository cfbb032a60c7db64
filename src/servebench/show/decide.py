"""Which server to run: the best one within limits, by how much, and how sure that is.

    servebench decide results/ --sla "ttft_p99<2s, tpot_p99<100ms"
    servebench decide results/ --sla "ttft_p99<2s" --target_rate 20 --gpu_hour_price 2.5 --objective cost

Every server of the folder (engine, flags, TP size, replicas) is a candidate. It is ranked by the requests/s a GPU
at the highest load that keeps the limits, found between the measured loads, or by another --objective. Intervals
are of 95 %. Servers that may well be as good as the best one are named.
Exit status: 0 there is an answer, 1 no server is known to keep the limits (with --strict also where others are not
distinguishable from the best), 2 bad input.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import msgspec
import numpy as np

from servebench.analysis import capacity, cost, limits, sla, trust
from servebench.analysis.cache import altered
from servebench.analysis.capacity import Capacity, interval
from servebench.analysis.filters import add_filter, passing
from servebench.analysis.limits import Limit
from servebench.cli import commandline
from servebench.cli.declare import command_of
from servebench.errors import InputError, no_logs
from servebench.log import evaluation
from servebench.show import answers, points, scores, tables, verdict
from servebench.show.candidates import LOOSER, OBJECTIVES, Candidate, Decision, Question, of_logs, with_limits
from servebench.show.tables import Column, counted, significant

NAMED = 3  # servers in a sentence
ALIKE = "≈"
SEARCHES = (
    "runs",
    "target_ci",
    "min_runs",
    "max_runs",
    "find_max",
    "find_peak",
    "decide",
    "budget",
    "sla",
    "num_clients",
)
COLUMNS = [
    Column("server", left=True, cut=True),
    Column("load"),
    Column("req/s\nwithin the SLA"),
    Column("req/s\na GPU"),
    Column("tok/s\na GPU", drop=3),
    Column("GPUs for\nthe target", drop=2),
    Column("$ per M\ntokens", drop=1),
    Column("J/token", drop=4),
    Column("mean E2E\nlatency"),
    Column("against\nthe best", left=True),
]
NEEDED = 5  # the column of what the target takes


# In words.


def text(decision: Decision) -> str:
    """The answer, the table, and how far to trust it."""
    said = [sentence(decision), *doubts(decision)]
    lines = [tables.wrapped(words) for words in said if words]
    if decision.candidates:
        alike = [f"{ALIKE}: not distinguishable from the best"] if decision.rivals else []
        lines[1:1] = ["", table(decision), *alike, ""]
    asked = answers.table(decision.study.layouts)
    lines += [f"\n{asked}\n"] if asked else []
    return "\n".join([*lines, *_to_type(decision)])


def sentence(decision: Decision) -> str:
    """The answer in one sentence, or why there is none."""
    within = limits.joined(decision.question.limits).replace(",", ", ")
    best = decision.best
    if not decision.candidates:
        return "No server can be judged: no point of the folder counts."
    if best is None:
        return f"{_nobody(decision, within)}."
    serves = _serves(best, decision.question, within)
    rivals = [each.name for each in decision.rivals]
    more = f" and {len(rivals) - NAMED} more" if len(rivals) > NAMED else ""
    alike = f". Not distinguishable from it: {', '.join(rivals[:NAMED])}{more}"
    return f"{serves}{alike if rivals else _ahead(decision)}.{_target(best, decision.question.target_rate)}"


def _nobody(decision: Decision, within: str) -> str:
    """That no server does what is asked, and which one comes nearest."""
    able = [each for each in decision.candidates if each.keeps]
    if able:
        most = max(able, key=lambda each: each.capacity.rate)
        rate = f"{decision.question.target_rate:g} requests/s"
        return f"No server alone serves {rate} within {within}; most: {most.name}, {_known(most.capacity.rates)}"
    nearest = min(decision.candidates, key=lambda each: float(each.capacity.loads.excess[:, 0, 0].max()))
    return f"No server keeps {within} at any load that was measured; nearest: {_missed(nearest, decision)}"


def _missed(of: Candidate, decision: Decision) -> str:
    """`vLLM TP 2 x 4, with ttft_p99 2.4 s at 1 client`: the limit that is exceeded most, at its lowest load."""
    loads, wanted = of.capacity.loads, decision.question.limits
    if why := capacity.exceeded(loads.points[0], wanted):
        return f"{of.name}: {why} at {_load(of, float(loads.sizes[0]))}"
    limit = wanted[int(loads.excess[:, 0, 0].argmax())]
    value = sla.seen(loads.points[0], limit)
    seen = "unknown" if value is None or not isfinite(value) else verdict.value_of(limit.name, value)
    return f"{of.name}, with {limit.name} {seen} at {_load(of, float(loads.sizes[0]))}"


def _serves(best: Candidate, question: Question, within: str) -> str:
    """`vLLM TP 2 x 4 serves 23.7 (22.9 to 24.5) requests/s within ttft_p99<2s on 8 GPUs, at 64 clients`."""
    found, on = best.capacity, f" on {counted(best.gpus, 'GPU')}" if best.gpus else ""
    if question.objective == "latency":
        at = _load(best, found.prompt_at(question.target_rate))
        return f"{best.name} answers soonest: mean E2E latency {_took(best)} at {at}{on}, within {within}"
    return f"{best.name} serves {_rate(found)} within {within}{on}, at {_load(best, found.size)}"


def _rate(of: Capacity) -> str:
    """`at least 23.7 (22.9 or more) requests/s`."""
    return f"{'at least ' if of.at_least else ''}{_known(of.rates, of.unbounded)} requests/s"


def _took(of: Candidate) -> str:
    """`340 (330 to 350) ms`."""
    low, high = interval(1 / of.value[of.value > 0])  # without draws that it does not reach the target in
    shown = [tables.latency(each) for each in (float(1 / of.value[0]), low, high)]
    unit = shown[0].rpartition(" ")[2]
    return "{} ({} to {})".format(*(words.removesuffix(f" {unit}") for words in shown)) + f" {unit}"


def _ahead(decision: Decision) -> str:
    """By what factor it is better than the next."""
    others, unknown = decision.candidates[1:], len(decision.left_out)
    if not others:
        return f"; {counted(unknown, 'other')} cannot be judged" if unknown else "; no other server was measured"
    if not others[0].meets:
        what = f"serves {decision.question.target_rate:g} requests/s" if others[0].keeps else "keeps the limits"
        return f"; no other server {what} at a load that was measured"
    factor, second = _known(decision.ratio(others[0]), decision.candidates[0].capacity.unbounded), others[0].name
    per, what = (" a GPU", "GPUs") if decision.per_gpu else ("", "servers")
    return {
        "throughput_per_gpu": f": {factor} times the requests/s{per} of {second}",
        "cost": f"; a token of {second} costs {factor} times as much",
        "gpus": f"; {second} takes {factor} times the {what}",
        "latency": f"; {second} takes {factor} times as long",
    }[decision.question.objective]


def _target(best: Candidate, rate: float | None) -> str:
    """How many of the best serve the target."""
    if not rate:
        return ""
    servers = best.servers_for(rate)
    gpus = f", {_whole(servers * best.gpus)} GPUs" if best.gpus else ""
    many = "s" if servers[0] > 1 else ""
    return f" {rate:g} requests/s take {_whole(servers)} such server{many}{gpus}."


def _known(drawn: np.ndarray, unbounded: bool = False) -> str:
    """`23.7 (22.9 to 24.5)`; `(22.9 or more)` where more load may give more."""
    low, high = interval(drawn)
    to = "or more" if unbounded or not isfinite(high) else f"to {significant(high)}"
    return f"{significant(float(drawn[0]))} ({significant(low)} {to})"


def _load(of: Candidate, size: float) -> str:
    return points.sized(of.log.run.load.kind, float(f"{size:.4g}"))


def table(decision: Decision) -> str:
    """A row a candidate, the best first."""
    columns = list(COLUMNS)
    if not decision.per_gpu:
        columns[NEEDED] = replace(COLUMNS[NEEDED], head="servers for\nthe target")
    return tables.table(columns, [row(decision, i) for i in range(len(decision.candidates))])


def row(decision: Decision, number: int) -> list[str]:
    """Its cells, a column each."""
    of, target = decision.candidates[number], decision.question.target_rate
    gpus, found = of.gpus if decision.per_gpu and of.gpus else 0, of.capacity
    if not of.keeps:
        lowest = f"< {found.above:.4g}" if found.above else "-"
        return [of.name, lowest, "none", *[""] * (len(COLUMNS) - 4), "no load keeps the limits"]
    return [
        of.name,
        f"{'>= ' if found.at_least else ''}{found.size:.4g}",
        _known(found.rates, found.unbounded),
        significant(found.rate / gpus) if gpus else "",
        significant(float(of.tokens_per_s[0]) / gpus) if gpus else "",
        _whole(of.servers_for(target) * (gpus or 1)) if target else "",
        _known(of.dollars) if of.dollars is not None else "",
        significant(of.energy_j) if of.energy_j is not None else "",
        _took(of) if decision.question.objective == "latency" and of.meets else "",
        _against(decision, number),
    ]


def _whole(drawn: np.ndarray) -> str:
    low, high = interval(drawn)
    return f"{drawn[0]:.0f}" + ("" if low == high else f" ({low:.0f} to {high:.0f})")


def _against(decision: Decision, number: int) -> str:
    """`0.76 (0.72 to 0.81)`: its value over that of the best."""
    if not decision.candidates[number].meets:
        return "does not serve the target"
    if number == 0:
        return "best"
    of = decision.candidates[number]
    with np.errstate(divide="ignore"):
        share = _known(1 / decision.ratio(of), of.capacity.unbounded)
    return share if decision.beaten[number] else f"{ALIKE} {share}"


# How far to trust it.


def doubts(decision: Decision) -> Iterator[str]:
    """What the answer depends on, and what it leaves out."""
    best = decision.best
    if best:
        yield from map(lambda item: _other_limits(decision, *item), LOOSER.items())
        yield from _of_best(best)
    for each in decision.candidates:
        if each.left_out:
            kinds = ", ".join(f"{n} {why}{_remedy(why)}" for why, n in each.left_out.items())
            yield f"{each.name}: {counted(sum(each.left_out.values()), 'point')} left out: {kinds}."
    yield from (f"{name} left out: {why}." for name, why in decision.left_out.items())


def _remedy(why: str) -> str:
    """What to do about points that the machine is at fault for."""
    found = trust.OF_MACHINE.get(why)
    remedy = found.remedy if found else "a quieter machine" if why == "client-limited" else ""
    return f" ({remedy}, then --overwrite_results)" if remedy else ""


def _other_limits(decision: Decision, word: str, times: float) -> str:
    """Who wins where limits are tighter or looser."""
    found, best = with_limits(decision, times), decision.best
    words = f"With latency limits {abs(times - 1):.0%} {word}"
    if not found.best or not best:
        return f"{words} no server keeps them."
    serves = _rate(found.best.capacity)
    if found.best.name == best.name:
        return f"{words} it is still the best: {serves}."
    close = ", not distinguishably" if best.name in [each.name for each in found.rivals] else ""
    return f"{words} {found.best.name} is the best{close}: {serves}."


def _of_best(best: Candidate) -> Iterator[str]:
    """How well the best one was measured."""
    found = best.capacity
    deciding = [runs for runs in found.loads.points if runs[0].run.load.size in (found.below, found.above)]
    if found.at_least and found.below:
        yield f"No load above {_load(best, found.below)} was measured on it, so that it may serve more."
    if found.below and found.above:
        measured = [runs[0].run.load.size for runs in best.layout.points]
        between = f"{_load(best, found.below)} and {_load(best, found.above)}"
        if found.above / found.below > 1.5 and not any(found.below < size < found.above for size in measured):
            yield f"Its limit lies between {between}; nothing between was measured."
        above = next(runs for runs in found.loads.points if runs[0].run.load.size == found.above)
        if why := capacity.exceeded(above):
            yield f"At {_load(best, found.above)}: {why}."
    if any(len(runs) == 1 for runs in deciding) and "decide" not in best.log.options:
        yield "Loads that decide were measured once: what differs from run to run is not known (--runs 3)."


# What to type next.


def _to_type(decision: Decision) -> Iterator[str]:
    """The command that serves the best one, and the run that settles what is open."""
    best = decision.best
    if best and (commands := best.log.server_facts.commands):
        more = f"   (and {len(commands) - 1} more, a replica each)" if len(commands) > 1 else ""
        yield f"To serve it: {commands[0]}{more}"
    if command := settling(decision):
        yield f"To be sure:  {command}"


def settling(decision: Decision) -> str:
    """The command whose runs would settle what is open; "" where nothing is, or where nobody knows the command."""
    best, found = decision.best, decision.candidates
    settled = best and not decision.rivals and not best.capacity.at_least
    if not found or settled or decision.question.objective != OBJECTIVES[0]:  # which a race is for
        return ""
    if not best and all(each.log.run.load.size == 1 and not each.log.run.open_loop for each in found):
        return ""  # there is no lower load
    asked = [
        {name: v for name, v in each.log.options.items() if name not in (*SEARCHES, "num_clients")}
        for each in found
    ]
    if not asked[0] or any(options != asked[0] for options in asked):
        return ""
    return f"{command_of(asked[0])} --decide {shlex.quote(limits.joined(decision.question.limits))}"


# As JSON.


def document(decision: Decision) -> dict[str, Any]:
    """Everything of a study; what is not known is null."""
    best = decision.best
    return {
        "model": decision.study.model,
        "asked": decision.study.asked,
        "sla": limits.joined(decision.question.limits),
        "objective": decision.question.objective,
        "target_rate": decision.question.target_rate,
        "result": sentence(decision),
        "best": best and best.name,
        "not_distinguishable": [each.name for each in decision.rivals],
        "candidates": [_as_json(decision, i) for i in range(len(decision.candidates))],
        "left_out": decision.left_out,
        "notes": list(doubts(decision)),
        "to_serve": best.log.server_facts.commands if best else [],
        "to_be_sure": settling(decision),
    }


def _as_json(decision: Decision, number: int) -> dict[str, Any]:
    of, target = decision.candidates[number], decision.question.target_rate
    gpus, found = of.gpus, of.capacity
    numbers = {
        "requests_per_s": found.rates,
        "requests_per_s_per_gpu": found.rates / gpus if gpus else None,
        "output_tokens_per_s": of.tokens_per_s,
        "output_tokens_per_s_per_gpu": of.tokens_per_s / gpus if gpus else None,
        "gpus_for_target": of.servers_for(target) * gpus if target and gpus else None,
        "dollars_per_million_output_tokens": of.dollars,
        "mean_e2e_latency_s": 1 / of.value if decision.question.objective == "latency" and of.meets else None,
        "against_best": 1 / decision.ratio(of) if decision.best and of.meets else None,
    }
    return {
        "name": of.name,
        "gpus": gpus,
        "load": {"kind": of.log.run.load.kind, "size": found.size},
        "keeps_limits_at": found.below,
        "exceeds_limits_at": found.above,
        "at_least": found.at_least,
        "distinguishable": decision.beaten[number],
        **{name: _of_draws(drawn) for name, drawn in numbers.items()},
        "energy_per_output_token_j": of.energy_j,
        "left_out": of.left_out,
    }


def _of_draws(drawn: np.ndarray | None) -> dict[str, float | None] | None:
    if drawn is None:
        return None
    numbers = dict(zip(("value", "low", "high"), (float(drawn[0]), *interval(drawn)), strict=True))
    return {name: value if isfinite(value) else None for name, value in numbers.items()}


# The command.


def said(found: Sequence[Decision]) -> str:
    """In words; each under the name of its study, if there are several."""
    heads = [f"{each.study.model}, {each.study.asked}\n" if len(found) > 1 else "" for each in found]
    return "\n\n".join(head + text(each) for head, each in zip(heads, found, strict=True))


def read_limits(typed: str) -> tuple[Limit, ...]:
    return sla.goals(typed, "--sla")


def main() -> int:
    args = _parser().parse_args()
    question = Question(read_limits(args.sla), args.objective, args.target_rate)
    if args.objective == "gpus" and not args.target_rate:
        raise InputError("--objective gpus counts the GPUs that serve a rate; give it: --target_rate 20")
    found = passing(
        args.folder, args.filter, args.gpu_hour_price, lambda log: capacity.asked_of(log, *question.limits)
    )
    logs = [log for _, log in found]
    if args.check_floor is not None:
        logs = [altered(log, check_floor=args.check_floor) for log in logs]
    if not logs:
        raise no_logs(args.folder, filtered=bool(args.filter))
    priceless = next((log for log in logs if log.status == "ok" and cost.dollars_per_hour(log) is None), None)
    if args.objective == "cost" and priceless:
        raise InputError(f"--objective cost: {cost.why_unknown(priceless)}")
    decisions = of_logs(logs, question)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode([*map(document, decisions)]), indent=2).decode())
    else:
        print(said(decisions))
        servers = [layout.log for each in decisions for layout in each.study.layouts]
        for words in scores.of_logs(evaluation.read(args.folder), servers):
            print(tables.wrapped(f"{words}."))
    open_ = args.strict and any(each.rivals for each in decisions)
    return int(open_ or not all(each.best for each in decisions))


def _parser() -> argparse.ArgumentParser:
    parser = commandline.Parser(description=__doc__)
    commandline.add_folder(parser)
    add = parser.add_argument
    add("--sla", required=True, metavar="LIMITS", help='such as "ttft_p99<2s, tpot_p99<100ms", in quotes')
    rate = "requests/s that are to be served, by as many servers as it takes"
    add("--target_rate", type=commandline.Number(float, 1e-6), metavar="R", help=rate)
    add("--objective", choices=OBJECTIVES, default=OBJECTIVES[0], help=f"what is best [{OBJECTIVES[0]}]")
    floor = "least share of questions that are answered right under load [what the sweep was given]"
    add("--check_floor", type=commandline.share, metavar="SHARE", help=floor)
    cost.add_price(parser)
    add_filter(parser, "--filter")
    add(
        "--strict",
        action="store_true",
        help="exit status 1 also where others are not distinguishable from the best",
    )
    add("--json", action="store_true", help="everything, as JSON: an entry a study")
    return parser
