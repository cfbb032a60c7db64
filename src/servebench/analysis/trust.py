"""Which numbers of a log may decide: one place that every reader asks.

A number that something else than the server made is shown, but it meets no limit, ends no search and wins no
comparison: that of a failed point, of a client that was the limit, of a host whose cores others took, of GPUs that
were slowed down or shared, of tokens that something held back on their way, of prompts that a cache held already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from servebench.analysis import answers, metrics, samples, stats
from servebench.analysis.cache import derived
from servebench.log.config import Dataset
from servebench.log.result import Result
from servebench.log.schema import Log

FASTEST_S = 1e-4  # a token: no server generates faster for one request
MIN_TOKENS = 4  # of an answer that tells whether its tokens came one by one
FAILED_SHARE = 0.01  # of the requests, above which those that are left decide nothing
REFUSE_CACHED = 0.1  # of the prompt tokens, from which on a point is not what was asked for
MANY_CPU = 0.2  # of all cores, that other programs wanted while a point was measured
A_CORE, NO_CPU_LEFT = 0.5, 0.05  # cores that others wanted, where no larger share of all was idle
STEAL = 0.05  # of all cores, that other virtual machines took
THROTTLED, CAPPED = 0.05, 0.2  # of the window: too hot or short of power; at a power limit that was lowered
HOT = {"thermal": "its temperature", "hardware": "its power supply or hardware"}
LOWERED = 0.98  # of the default power limit
SHARED = 0.05  # of the window, in which others had processes on a GPU


class Doubt(NamedTuple):
    """Why some metrics of a log decide nothing."""

    kind: str
    mark: str  # beside a number
    words: str  # in a sentence
    of_tokens: bool = False  # it is about metrics that ask when tokens came, and no others

    def about(self, metric: str) -> bool:
        if metric in answers.METRICS:  # whatever else happened, an answer is as good as it is
            return self.kind == "failed"
        return not self.of_tokens or metrics.named(metric).of_tokens


def doubt(log: Log, metric: str) -> str | None:
    """Why this metric of the log decides nothing; None if it may. `metric` is a column, or what it begins with."""
    return next((found.words for found in doubts(log) if found.about(metric)), None)


def doubts(log: Log) -> Iterator[Doubt]:
    """Every doubt there is about a log."""
    if log.status != "ok":
        yield Doubt("failed", "point failed", "the point failed")
    if log.quality.verdict.startswith("client-limited"):
        yield Doubt("client-limited", "client-limited", "the client was the limit")
    elif buffered(log):
        yield Doubt("buffered", "buffered", "its tokens came all at once", of_tokens=True)
    for kind, of_machine in OF_MACHINE.items():
        if why := of_machine.why(log):
            yield Doubt(kind, kind, why)
    if why := answers.broken(log):
        yield Doubt("broken answers", "answers: broken", why)
    cached = cached_share(log)
    if cached > REFUSE_CACHED:
        yield Doubt("cached", f"{cached:.0%} cached", f"{cached:.0%} of its prompt tokens were in a cache")


def host_contended(log: Log) -> str | None:
    """Did others want the cores that server and client needed? Who, and how much of them.

    A program that always waits for a core behind an engine's threads makes these wait, however little it runs.
    """
    host, cores = log.telemetry and log.telemetry.host, int(log.client.get("cores") or 0)
    if host and host.steal_share > STEAL:
        return f"other virtual machines took {host.steal_share:.0%} of this one's cores"
    wanted = host.others_wanted_share if host else None
    others = (log.quality.others_cpu_share or 0.0) if wanted is None else wanted
    if others > MANY_CPU or (host and others * cores > A_CORE and host.idle_share < NO_CPU_LEFT):
        who = f" ({', '.join(host.busiest_others)})" if host and host.busiest_others else ""
        much = f"{others * cores:.1f} of {cores} cores" if cores else f"{others:.0%} of all cores"
        return f"other programs{who} wanted {much}"
    return None


def gpu_throttled(log: Log) -> str | None:
    """Was a GPU slowed down by heat, by its hardware, or by a power limit below its default?

    At its default limit a GPU does what it always does under such a load, so that decides.
    """
    for gpu in log.telemetry.gpus if log.telemetry else ():
        for reason, words in HOT.items():
            if (share := gpu.throttled.get(reason, 0.0)) > THROTTLED:
                return f"GPU {gpu.index} was slowed down by {words} {share:.0%} of the window"
        capped, limit = gpu.throttled.get("power_cap", 0.0), _lowered_limit(log, gpu.index)
        if capped > CAPPED and limit:
            return f"GPU {gpu.index} was at a power limit of {limit} {capped:.0%} of the window"
    return None


def _lowered_limit(log: Log, index: int) -> str:
    """A power limit below the default, in words; "" for the default one, or an unknown one."""
    for gpu in log.machine.gpus if log.machine else ():
        limit, default = gpu.power_limit_w, gpu.default_power_limit_w
        if gpu.index == index and limit and default and limit < LOWERED * default:
            return f"{limit:.0f} W, below the default of {default:.0f} W,"
    return ""


def gpu_shared(log: Log) -> str | None:
    """Were processes of others on a GPU of the server?"""
    for gpu in log.telemetry.gpus if log.telemetry else ():
        if (gpu.shared_share or 0.0) > SHARED:
            who = f" ({', '.join(gpu.sharing)})" if gpu.sharing else ""
            return f"other processes{who} were on GPU {gpu.index} {gpu.shared_share:.0%} of the window"
    return None


class OfMachine(NamedTuple):
    """A mark that the machine is at fault for."""

    why: Callable[[Log], str | None]
    what: str
    remedy: str


OF_MACHINE = {
    "host-contended": OfMachine(host_contended, "others took the cores", "close other programs"),
    "gpu-throttled": OfMachine(gpu_throttled, "a GPU was slowed down", "cool it or restore its power limit"),
    "gpu-shared": OfMachine(gpu_shared, "others used a GPU", "end their programs or give other --gpus"),
}


def of_point(runs: Sequence[Log], metric: str = "") -> Doubt | None:
    """The doubt about this metric ("": about any) that most runs of a point share; of fewer runs it is none."""
    about = [found for log in runs for found in doubts(log) if not metric or found.about(metric)]
    counts = Counter(found.kind for found in about)
    of_most = (found for found in about if stats.majority(counts[found.kind], len(runs)))
    of_questions = (found for found in _of_questions(runs) if not metric or found.about(metric))
    return next(chain(of_most, of_questions), None)


def _of_questions(runs: Sequence[Log]) -> Iterator[Doubt]:
    """The doubt about a point whose questions, of all runs together, were answered wrongly too often."""
    if why := answers.wrong(runs):
        yield Doubt("worse answers", f"answers: {why}", f"its answers are {why}")


def wrong_answers(runs: Sequence[Log]) -> str:
    """Why the answers of a point are worth nothing; "" if nothing is known against them.

    Then its load is more than its server can serve.
    """
    broken = [why for log in runs if (why := answers.broken(log))]
    if stats.majority(len(broken), len(runs)):
        return broken[0]
    return next((found.words for found in _of_questions(runs)), "")


def marks(runs: Sequence[Log]) -> list[str]:
    """What stands beside the numbers of a point: each kind of doubt, and in how many runs if not in most."""
    of_kind: dict[str, list[Doubt]] = {}
    for found in (found for log in runs for found in doubts(log)):
        of_kind.setdefault(found.kind, []).append(found)
    of_runs = [in_runs(same[0].mark, len(same), len(runs)) for same in of_kind.values()]
    return of_runs + [found.mark for found in _of_questions(runs)]


def in_runs(words: str, some: int, of: int) -> str:
    """Words about some runs of a point; without their number if these are more than half of its runs."""
    return words if stats.majority(some, of) else f"{some} of {of} runs {words}"


@derived
def buffered(log: Log) -> bool:
    """Did something between server and client hold events back, so that an answer's tokens came all at once?

    Asked of streamed answers of several events, of the median one. A client that is late does the same to itself;
    its verdict says so.
    """
    if not log.run.stream:
        return False
    several = [(r, sum(r.event_tokens)) for r in samples.succeeded(log) if len(r.event_ns) > 1]
    pace_s = [_pace_s(r, tokens) for r, tokens in several if tokens >= MIN_TOKENS]
    return bool(pace_s) and float(np.median(pace_s)) < FASTEST_S


def _pace_s(r: Result, tokens: int) -> float:
    """Time per token after the first event, by the tokens of all its events (hidden ones are in none)."""
    return (r.event_ns[-1] - r.event_ns[0]) / 1e9 / max(1, tokens - r.event_tokens[0])


@derived
def cached_share(log: Log) -> float:
    """Share of the prompt tokens that a prefix cache held, although nothing but a chat template is shared.

    As the server tells of each answer, else by the engine's counters over all that was sent (where requests that
    it put aside and took up again count as found too, so not of an overload).
    """
    run, done = log.run, samples.succeeded(log)
    asked = sum(r.prompt_tokens for r in done)
    if isinstance(run.requests, Dataset) or run.requests.shared_prefix or not asked:
        return 0.0
    reported = sum(r.cached_tokens or 0 for r in done)
    counted = 0.0 if log.quality.overloaded else (log.cache_hit_rate or 0.0) * asked
    template = sum(
        max(0, r.prompt_tokens - r.asked_prompt_tokens) for r in done if r.asked_prompt_tokens is not None
    )
    return max(0.0, max(reported, counted) - template) / asked


def stand_in(log: Log) -> bool:
    """Is it the stand-in for FastGen that engines/fastgen-cpu.sh installs? DeepSpeed is not in it."""
    facts = log.server_facts
    on_cpu = facts.engine.endswith("+cpu") or any("--cpu-engine" in command for command in facts.commands)
    return log.server.backend == "fastgen" and on_cpu
