"""Which server to run: every server of a study as a candidate, what it serves within limits, and their ranks.

The objective is what a candidate is ranked by:

    throughput_per_gpu   requests/s a GPU at its capacity; requests/s where the GPUs are not known
    cost                 output tokens for a dollar there, which takes --gpu_hour_price
    gpus                 the fewest GPUs whose servers together serve --target_rate
    latency              the mean E2E latency at --target_rate, or at its lowest load

A candidate is behind the best one if it is in all but 2.5 % of the draws of both (capacity.py), shared among
all candidates and looks: of two, if the 95 % interval of their ratio leaves 1 out. Otherwise the two are not
distinguishable. In a race one counts as behind, too, that is not better by more than a margin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from servebench.analysis import answers, capacity, cost, machines, power, throughput
from servebench.analysis.capacity import Capacity, Loads
from servebench.analysis.limits import Limit
from servebench.log.identity import point_of
from servebench.log.schema import Log
from servebench.show import layouts, matching
from servebench.show.layouts import Layout, Study

OBJECTIVES = ("throughput_per_gpu", "cost", "gpus", "latency")
LEVEL = 0.025  # of being wrong about who is behind, shared among all who are held against the best
MANY = 32  # servers, from where on half of the draws have to do
LOOSER = {"tighter": 0.8, "looser": 1.25}  # limits, to see whether the winner depends on them
Judged = tuple[Layout, Loads, dict[str, int]]  # a server, its loads, and how many points say nothing, by why
OF_LOAD = ("num_clients", "request_rate", "trace_speed", "num_requests", "warmup", "seed", "stop_when_overloaded")


@dataclass(frozen=True)
class Question:
    """What a server is wanted for."""

    limits: tuple[Limit, ...]
    objective: str = "throughput_per_gpu"
    target_rate: float | None = None  # requests/s of all servers together
    times: float = 1.0  # the limits of latencies are multiplied by it
    looks: int = 1  # how often one asks: in a race, which may still learn whether --check_floor is kept
    margin: float = 1.0  # a server that is at most so much better counts as no better


@dataclass(frozen=True)
class Candidate:
    """A server, and what it does within the limits."""

    layout: Layout
    capacity: Capacity
    gpus: int | None  # None: not known
    value: np.ndarray  # by which it is ranked, more is better: the estimate, then draws
    left_out: dict[str, int]  # points that say nothing, by why

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def log(self) -> Log:
        return self.layout.log

    @property
    def ends(self) -> tuple[float, float]:
        """The 95 % interval of its value; without an upper end where more load may give more."""
        low, high = capacity.interval(self.value)
        return low, inf if self.capacity.unbounded else high

    @property
    def keeps(self) -> bool:
        """Does any load keep the limits?"""
        return self.capacity.rate > 0

    @property
    def meets(self) -> bool:
        """Does it do what is asked: keep the limits, and serve the target rate where its latency there counts?"""
        return bool(self.value[0] > 0)

    def at_capacity(self, of_log: Callable[[Log], float | None]) -> float | None:
        """A number of it at its capacity; at its lowest load if none keeps the limits."""
        return self.capacity.loads.at(self.capacity.size, of_log)

    @property
    def tokens_per_s(self) -> np.ndarray:
        """Output tokens/s at its capacity: the estimate, then draws."""
        return np.asarray(self.capacity.rates * (self.at_capacity(tokens_a_request) or 0.0))

    @property
    def dollars(self) -> np.ndarray | None:
        """$ per million output tokens at its capacity; None where price or GPUs are not known."""
        hourly = cost.dollars_per_hour(self.log)
        with np.errstate(divide="ignore"):
            return None if hourly is None else hourly / 3600 / self.tokens_per_s * 1e6

    @property
    def energy_j(self) -> float | None:
        """J per output token at its capacity."""
        return self.at_capacity(power.energy_per_output_token)

    def servers_for(self, rate: float) -> np.ndarray:
        """How many of it serve this rate together; infinite of one that keeps the limits at no load."""
        return np.asarray(np.ceil(rate / np.maximum(self.capacity.rates, 1e-12) - 1e-9))


@dataclass(frozen=True)
class Decision:
    """The candidates of a study, the best first. `beaten`: of each, whether it is known to be behind the best."""

    study: Study
    question: Question
    per_gpu: bool
    candidates: Sequence[Candidate]
    beaten: Sequence[bool]
    left_out: dict[str, str]  # servers that are no candidates, and why

    @property
    def best(self) -> Candidate | None:
        return next((each for each in self.candidates[:1] if each.meets), None)

    @property
    def rivals(self) -> list[Candidate]:
        """Those that are not distinguishable from the best."""
        others = zip(self.candidates[1:], self.beaten[1:], strict=True)
        return [each for each, beaten in others if not beaten] if self.best else []

    def ratio(self, to: Candidate) -> np.ndarray:
        """By what factor the best is better: the estimate, then draws."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.nan_to_num(self.candidates[0].value / to.value, nan=1.0, posinf=np.inf))


def tokens_a_request(log: Log) -> float | None:
    """Output tokens over requests, both of the window."""
    tokens, requests = throughput.output_token_throughput(log), throughput.request_throughput(log)
    return tokens / requests if tokens and requests else None


def of_logs(logs: Iterable[Log], question: Question) -> list[Decision]:
    """A decision for each study of these logs, failed ones too."""
    return [decided(study, question) for study in layouts.studies(once(logs), with_failed=True)]


def once(logs: Iterable[Log]) -> list[Log]:
    """Without copies: a log that lies in two folders is no second run."""
    known = {(log.server.engine, *point_of(log), log.run.repetition, log.started_at): log for log in logs}
    return list(known.values())


def decided(study: Study, question: Question) -> Decision:
    """Every server of a study that can be held against the others, ranked."""
    same, left_out = alike(study.layouts)
    noises = capacity.noises_of([runs for layout in same for runs in layout.points], question.limits)
    draws = capacity.DRAWS if len(same) <= MANY else capacity.DRAWS // 2
    judged: list[Judged] = []
    for seed, layout in enumerate(same):
        whys = Counter(capacity.why_left_out(runs, question.limits) for runs in layout.points)
        loads = capacity.loads_of(layout.points, question.limits, noises, seed, draws)
        if question.looks == 1 and (why := answers.floor_unknown([log for runs in layout.points for log in runs])):
            left_out[layout.name] = why
        elif loads and whys.pop("", 0):
            judged.append((layout, loads, whys))
        else:
            kinds = ", ".join(f"{n} {why or 'failed'}" for why, n in whys.most_common())
            left_out[layout.name] = f"no point counts: {kinds}"
    return _ranked(study, question, judged, left_out)


def with_limits(decision: Decision, times: float) -> Decision:
    """The same with the limits of latencies multiplied."""
    judged = [(each.layout, each.capacity.loads, each.left_out) for each in decision.candidates]
    return _ranked(decision.study, replace(decision.question, times=times), judged, decision.left_out)


def _ranked(study: Study, question: Question, judged: Sequence[Judged], left_out: dict[str, str]) -> Decision:
    per_gpu = all(throughput.known_gpus(layout.log) for layout, *_ in judged)
    found = [_candidate(*each, question, per_gpu, seed) for seed, each in enumerate(judged)]
    found.sort(key=lambda each: (each.value[0], each.capacity.rate), reverse=True)
    level = LEVEL / max(1, len(found) - 1) / question.looks
    beaten = [
        surely_less(each.value / question.margin, each.capacity.open, found[0].value, level) for each in found
    ]
    return Decision(study, question, per_gpu, found, beaten, left_out)


def surely_less(value: np.ndarray, may_grow: np.ndarray, than: np.ndarray, level: float) -> bool:
    """Is a value below another in all but this share of the draws? Not in those where more load may give more."""
    return bool(((value >= than) | may_grow)[1:].mean() < level)


def _candidate(
    layout: Layout, loads: Loads, left_out: dict[str, int], question: Question, per_gpu: bool, seed: int
) -> Candidate:
    gpus, reached = throughput.known_gpus(layout.log), capacity.capacity(loads, question.times, seed)
    found = Candidate(layout, reached, gpus, reached.rates, left_out)
    return replace(found, value=_value(found, question, (gpus or 1) if per_gpu else 1))


def _value(of: Candidate, question: Question, gpus: int) -> np.ndarray:
    """What it is ranked by, more is better: the estimate, then draws."""
    if question.objective == "cost" and of.dollars is not None:
        with np.errstate(divide="ignore"):  # no $ where more load may always give more
            return np.asarray(1 / of.dollars)
    if question.objective == "gpus" and question.target_rate:
        return 1 / (of.servers_for(question.target_rate) * gpus)
    if question.objective == "latency":
        return of.capacity.promptness(question.target_rate)
    return of.capacity.rates / gpus


def alike(found: Sequence[Layout]) -> tuple[list[Layout], dict[str, str]]:
    """(those that were asked the same on like machines, as most were; why the others are left out)."""
    of_work: dict[str, list[Layout]] = {}
    for layout in found:
        of_work.setdefault(str(_work(layout.log)), []).append(layout)
    most = max(of_work.values(), key=len)
    apart = {each.name: _unlike_work(each.log, most[0].log) for same in of_work.values() for each in same}
    for each in most[1:]:
        if sides := machines.unlike([most[0].log], [each.log]):
            apart[each.name] = f"measured on {sides[1]}, not {sides[0]}"
    return [each for each in most if not apart[each.name]], {name: why for name, why in apart.items() if why}


def _work(log: Log) -> dict[str, object]:
    return {name: value for name, value in matching.work(log).items() if name not in OF_LOAD}


def _unlike_work(log: Log, other: Log) -> str:
    """In which settings of its requests a server was measured otherwise; "" if in none."""
    asked, wanted = _work(log), _work(other)
    differ = [f"{name} {asked[name]}, not {wanted[name]}" for name in asked if asked[name] != wanted[name]]
    return f"asked something else: {'; '.join(differ)}" if differ else ""
