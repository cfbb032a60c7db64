#!/usr/bin/env python3
"""Does `--decide` name the best server, and how sure is it? A simulation of servers whose capacity is known.

    .venv/bin/python benchmarks/deciding.py                                        # all settings; half an hour
    .venv/bin/python benchmarks/deciding.py --kind places --gap 0 0.1 --campaigns 50
    .venv/bin/python benchmarks/deciding.py --grid --runs 3 1                       # decide on a sweep
    .venv/bin/python benchmarks/deciding.py --open_loop

A campaign is eight servers. The second is behind the best by --gap (0: a tie), the others by 8 to 45 % more. There
are two kinds: `places` serve a request each and take lognormal times; `batching` gives every sequence of a batch a
token in each pass and begins one prompt a pass. Every run is as a whole slower or faster by a lognormal factor.
NOISES says by how much the times of requests spread, and those of runs.

The truth: of each number of clients (or rate) the percentiles and requests/s of a very long run, and of these the
highest load within the limits. Prints for each setting in how many campaigns

    good        the server that is named is within 5 % of the best
    sure        it is said to be ahead of all others
    wrong       ... although another is as good or better
    winner      the 95 % interval of the winner's requests/s holds the truth
    left        likewise, of all servers that are not distinguishable at the end (--grid: of all servers)
    below       ... in how many it lies below the truth
    width       the median of half its width
    of-x3       requests (median) as a share of those of a full grid of --runs 3; of-x1: of --runs 1
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from heapq import heappop, heappush
from itertools import product
from math import inf
from typing import Any, NamedTuple, cast

import numpy as np

from servebench.analysis import capacity, quality, sla
from servebench.campaign import race
from servebench.log.config import Clients, Rate, RunConfig, ServerConfig
from servebench.log.result import Result
from servebench.log.schema import Log, Quality, ServerFacts
from servebench.plan import defaults
from servebench.plan.race import RaceSearch
from servebench.plan.sweep import ServerPlan
from servebench.show import layouts
from servebench.show.candidates import Candidate, Decision, Question, decided
from servebench.show.progress import requests_about

SERVERS = 8
BEHIND = (0.08, 0.15, 0.22, 0.3, 0.37, 0.45)  # the others, beyond the second
GRID = defaults.NUM_CLIENTS
MOST = 64  # clients
LONG = 40_000  # requests of a run that tells the truth
ANSWER = 60  # tokens
BASE_RATE = 2.0  # requests/s, where a search by rates begins
HEADERS = ["kind", "noise", "gap", "how", "good", "sure", "wrong", "winner", "left"]
HEADERS += ["below", "width", "of-x3", "of-x1"]
SLAS = {"places": "ttft_p99<1s", "batching": "ttft_p99<250ms"}


class Noise(NamedTuple):
    requests: float  # spread of their times and lengths, as a share
    runs: float  # likewise of whole runs


NOISES = {"noisy": Noise(0.5, 0.03), "steady": Noise(0.15, 0.005)}


class Times(NamedTuple):
    """Of requests in the order of sending; s, and tokens. Shapes (n,)."""

    sent: np.ndarray
    first: np.ndarray
    last: np.ndarray
    tokens: np.ndarray


class Shape(NamedTuple):
    """A server, but for how fast it is."""

    kind: str
    places: int
    sequence_s: float = 0.0  # batching: what each sequence adds to a pass
    prompt_s: float = 0.0  # and what a prompt adds


SHAPES = {
    "places": [Shape("places", 6), Shape("places", 10), Shape("places", 16)],
    "batching": [
        Shape("batching", 32, 0.001, 0.04),
        Shape("batching", 16, 0.0005, 0.06),
        Shape("batching", 48, 0.002, 0.02),
    ],
}
PASS_S, SERVICE_S, PREFILL = 0.02, 1.0, 0.1  # a pass; a request of `places`, and the share before its first token


def lognormal(rng: np.random.Generator, spread: float, n: int) -> np.ndarray:
    width = np.sqrt(np.log1p(spread**2))
    return np.asarray(rng.lognormal(-(width**2) / 2, width, n))


# The servers. `ready` are times at which requests are sent: in a closed loop those of the clients, each of which
# sends again when it was answered.


def serve_places(
    shape: Shape, rng: np.random.Generator, noise: Noise, ready: list[float], n: int, closed: bool
) -> Times:
    services = (SERVICE_S * lognormal(rng, noise.requests, n)).tolist()
    free, sent, begun = [0.0] * shape.places, [], []
    for service in services:
        at = heappop(ready)
        begin = max(at, heappop(free))
        end = begin + service
        heappush(free, end)
        if closed:
            heappush(ready, end)
        sent.append(at)
        begun.append(begin)
    began, took = np.array(begun), np.array(services)
    return Times(np.array(sent), began + PREFILL * took, began + took, np.full(n, ANSWER))


def serve_batching(
    shape: Shape, rng: np.random.Generator, noise: Noise, ready: list[float], n: int, closed: bool
) -> Times:
    prompts = (shape.prompt_s * lognormal(rng, noise.requests, n)).tolist()
    answers = np.maximum(2, np.rint(ANSWER * lognormal(rng, noise.requests, n))).astype(int)
    tokens, now, passed, started = answers.tolist(), 0.0, 0, 0
    waiting, running = deque[float](), list[tuple[int, int]]()  # (its last pass, its number)
    sent, first, last = [0.0] * n, [0.0] * n, [0.0] * n
    while True:
        while ready and ready[0] <= now:
            waiting.append(heappop(ready))
        if waiting and len(running) < shape.places and started < n:
            heappush(running, (passed + tokens[started], started))
            sent[started] = waiting.popleft()
            now += PASS_S + shape.sequence_s * len(running) + prompts[started]
            first[started] = now
            started, passed = started + 1, passed + 1
        elif running:
            each_s = PASS_S + shape.sequence_s * len(running)
            passes = running[0][0] - passed
            if ready and len(running) < shape.places and started < n:
                passes = min(passes, int((ready[0] - now) / each_s) + 1)
            now, passed = now + passes * each_s, passed + passes
        elif ready and started < n:
            now = ready[0]
        else:
            return Times(np.array(sent), np.array(first), np.array(last), answers)
        while running and running[0][0] == passed:
            number = heappop(running)[1]
            last[number] = now
            if closed:
                heappush(ready, now)


SERVE: dict[str, Callable[..., Times]] = {"places": serve_places, "batching": serve_batching}


def closed(shape: Shape, rng: np.random.Generator, noise: Noise, clients: int, n: int) -> Times:
    return SERVE[shape.kind](shape, rng, noise, [0.0] * clients, n, True)


def opened(shape: Shape, rng: np.random.Generator, noise: Noise, rate: float, n: int, exactly: int = 0) -> Times:
    """Poisson arrivals. So many of the first ones come at exactly the rate, after a tenth of them."""
    gaps = rng.exponential(1 / rate, n)
    if exactly:
        of_window = slice(exactly // 10, exactly // 10 + exactly)
        gaps[of_window] *= exactly / rate / gaps[of_window].sum()
    return SERVE[shape.kind](shape, rng, noise, np.cumsum(gaps).tolist(), n, False)


# The truth.


class Truth(NamedTuple):
    """Of a shape at speed 1, by load. Shapes (loads,), (limits, loads)."""

    sizes: np.ndarray
    rates: np.ndarray
    values: np.ndarray


@cache
def truth(shape: Shape, noise: Noise, sla_text: str, open_loop: bool) -> Truth:
    rng, limits = np.random.default_rng(7), sla.goals(sla_text)
    top = closed(shape, rng, noise, 4 * shape.places, 10_000).last
    most = 9000 / np.sort(top)[9000]
    sizes = most * np.linspace(0.3, 0.99, 40) if open_loop else np.arange(1.0, MOST + 1)
    rates, values = [], []
    for size in sizes:
        found = (
            opened(shape, rng, noise, size, 2 * LONG) if open_loop else closed(shape, rng, noise, int(size), LONG)
        )
        cut = slice(LONG // 20, None)
        last = np.sort(found.last)
        rates.append(size if open_loop else 0.8 * LONG / (last[int(0.9 * LONG)] - last[int(0.1 * LONG)]))
        ttft, e2e = (found.first - found.sent)[cut], (found.last - found.sent)[cut]
        of = {"ttft": ttft, "tpot": (e2e - ttft) / (found.tokens[cut] - 1), "e2e_latency": e2e}
        values.append([np.percentile(of[limit.metric.stem], limit.percentile or 0) for limit in limits])
    return Truth(sizes, np.array(rates), np.maximum.accumulate(np.array(values).T, axis=1))


def true_capacity(known: Truth, sla_text: str, slowness: float, open_loop: bool) -> float:
    """Requests/s at the highest load within the limits; 0 if there is none."""
    limits_s = np.array([limit.value for limit in sla.goals(sla_text)]) / slowness
    excess = np.log(known.values / limits_s[:, None]).max(axis=0)
    over = np.flatnonzero(excess > 0)
    if not len(over) or over[0] == 0:
        return 0.0
    high = int(over[0])
    if open_loop:  # between two rates in a straight line
        return float(np.interp(0, excess[high - 1 : high + 1], known.rates[high - 1 : high + 1]) / slowness)
    return float(known.rates[high - 1] / slowness)


class Server(NamedTuple):
    shape: Shape
    slowness: float  # that all its times are multiplied by
    capacity: float  # requests/s


@cache
def servers(kind: str, noise: Noise, gap: float, sla_text: str, open_loop: bool) -> list[Server]:
    """Whose capacities lie as far apart as asked, the best first."""
    behind = [1.0, 1 / (1 + gap), *(1 / (1 + gap + more) for more in BEHIND)]
    top, found = 0.0, []
    for number, share in enumerate(behind):
        shape = SHAPES[kind][number % len(SHAPES[kind])]
        known = truth(shape, noise, sla_text, open_loop)
        speeds = np.geomspace(0.4, 4, 2000)
        reached = np.array([true_capacity(known, sla_text, speed, open_loop) for speed in speeds])
        usual = int(np.abs(speeds - 0.8).argmin())
        top = top or reached[usual]
        nearest = usual if number == 0 else int(np.abs(reached - share * top).argmin())
        found.append(Server(shape, float(speeds[nearest]), float(reached[nearest])))
    return found


# Runs and their logs.


def asked(load: Clients | Rate, repetition: int = 0) -> RunConfig:
    """As plan/sweep.with_load."""
    if isinstance(load, Clients):
        return RunConfig(load=load, num_requests=defaults.num_requests(load.num_clients), repetition=repetition)
    n = defaults.num_arrivals(load.request_rate)
    return RunConfig(load=load, num_requests=n, warmup=-(-n // 10), repetition=repetition)


def log_of(number: int, server: Server, run: RunConfig, rng: np.random.Generator, noise: Noise) -> Log:
    """Of a run on the simulated server."""
    slow, n = server.slowness * np.exp(rng.normal(0, noise.runs)), run.num_requests
    if isinstance(run.load, Clients):
        clients = run.load.num_clients
        found = closed(server.shape, rng, noise, clients, n + 7 * clients + 40)
        start, at = 0.0, 0
        if run.warmup:
            start = float(found.last[:clients].max())
            at = int(np.searchsorted(found.sent, start))
        end = float(found.last[at : at + n].max())
    else:
        rate, at = run.load.size * slow, run.warmup
        found = opened(server.shape, rng, noise, rate, at + 2 * n, n)
        start, end = float(found.sent[at]), float(found.sent[at]) + n / rate
    sent = np.rint(found.sent * slow * 1e9).astype(np.int64)
    columns = (
        sent,
        np.rint((found.first - found.sent) * slow * 1e9),
        np.rint((found.last - found.sent) * slow * 1e9),
    )
    rows = zip(*(column.astype(int).tolist() for column in columns), found.tokens.tolist(), strict=True)
    scheduled = run.open_loop
    results = [
        Result(
            id=i,
            phase="warmup" if i < at else "measured" if i < at + n else "cooldown",
            client=0,
            prompt_tokens=100,
            max_new_tokens=tokens,
            generated_tokens=tokens,
            token_source="usage",
            scheduled_ns=sent_ns if scheduled else None,
            sent_ns=sent_ns,
            event_ns=(first_ns, last_ns),
            event_tokens=(1, tokens - 1),
        )
        for i, (sent_ns, first_ns, last_ns, tokens) in enumerate(rows)
        if scheduled or sent_ns <= end * slow * 1e9
    ]
    window = round(start * slow * 1e9), round(end * slow * 1e9)
    overloaded = scheduled and quality.growing(quality.outstanding(results, window), n)
    return Log(
        status="ok",
        started_at="2026-11-24T00:00:00+00:00",
        fingerprint="",
        server=config(number),
        run=run,
        server_facts=ServerFacts(urls=[], engine="simulated"),
        client={},
        window_ns=window,
        quality=Quality(verdict="ok", overloaded=bool(overloaded)),
        results=results,
    )


def config(number: int) -> ServerConfig:
    return ServerConfig(backend="vllm", model="m/m", engine_args=("--server", str(number)))


# Campaigns.


class Setting(NamedTuple):
    kind: str
    noise: Noise
    gap: float
    sla: str
    open_loop: bool


class Known(NamedTuple):
    """What a campaign says of a server, and its true capacity: requests/s."""

    said: float
    low: float
    high: float
    true: float

    @property
    def holds(self) -> bool:
        return not (self.below or self.above)

    @property
    def below(self) -> bool:
        """Does the interval lie below the truth?"""
        return self.high < self.true * 0.9999

    @property
    def above(self) -> bool:
        return self.low > self.true * 1.0001


class Outcome(NamedTuple):
    winner: Known
    sure: bool
    requests: int
    left: list[Known]


def outcome(
    decision: Decision, found: Sequence[Server], requests: int, candidates: Sequence[Candidate]
) -> Outcome:
    def known(of: Candidate) -> Known:
        true = found[int(of.log.server.engine_args[1])].capacity
        low, high = capacity.interval(of.capacity.rates)
        return Known(of.capacity.rate, low, inf if of.capacity.unbounded else high, true)

    return Outcome(known(decision.candidates[0]), not decision.rivals, requests, list(map(known, candidates)))


def raced(setting: Setting, seed: int) -> Outcome:
    """A race of simulated servers."""
    rng = np.random.default_rng([11, seed])
    first: Clients | Rate = Rate(request_rate=BASE_RATE) if setting.open_loop else Clients(num_clients=1)
    limits = sla.goals(setting.sla)
    search = RaceSearch([asked(first)], [first.size], lambda run, load: asked(cast(Any, load)), limits)
    found = servers(*setting)
    unused: Any = None
    plan = [ServerPlan(config(i), search, unused, {}, unused) for i in range(len(found))]
    requests = 0
    for each in race.in_rounds(plan, lambda words: None):
        number = int(each.server.engine_args[1])
        while run := each.strategy.next(each.history):
            each.history.add(run, log_of(number, found[number], run, rng, setting.noise))
            requests += requests_about(run)
    logs = [log for each in plan for log in each.history.logs.values()]
    decision = decided(layouts.studies(logs)[0], Question(limits))
    return outcome(decision, found, requests, [decision.candidates[0], *decision.rivals])


def grid_runs(server: Server, setting: Setting, runs: int) -> Iterator[RunConfig]:
    """The default numbers of clients and as many more as it takes; of rates, shares of what the server reaches."""
    known = truth(server.shape, setting.noise, setting.sla, setting.open_loop)
    top = known.rates.max() / server.slowness
    sizes = [float(size) for size in GRID]
    while not setting.open_loop and sizes[-1] < MOST and _keeps(known, setting.sla, server.slowness, sizes[-1]):
        sizes.append(sizes[-1] + 4)
    if setting.open_loop:
        sizes = [float(f"{top * share:.4g}") for share in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)]
    for size in sizes:
        load: Clients | Rate = Rate(request_rate=size) if setting.open_loop else Clients(num_clients=int(size))
        yield from (asked(load, repetition) for repetition in range(runs))


def _keeps(known: Truth, sla_text: str, slowness: float, size: float) -> bool:
    limits_s = [limit.value / slowness for limit in sla.goals(sla_text)]
    return bool((known.values[:, int(size) - 1] <= limits_s).all())


def swept(setting: Setting, runs: int, seed: int) -> Outcome:
    """A full grid."""
    rng = np.random.default_rng([12, seed])
    found = servers(*setting)
    logs = [
        log_of(number, server, run, rng, setting.noise)
        for number, server in enumerate(found)
        for run in grid_runs(server, setting, runs)
    ]
    decision = decided(layouts.studies(logs)[0], Question(sla.goals(setting.sla)))
    return outcome(decision, found, sum(requests_about(log.run) for log in logs), decision.candidates)


def row(setting: Setting, outcomes: Sequence[Outcome]) -> list[str]:
    """What is printed of a setting."""
    found = servers(*setting)
    best = max(server.capacity for server in found)
    behind = np.array([each.winner.true / best for each in outcomes])
    sure = np.array([each.sure for each in outcomes])
    wrong = sure & (behind < 0.9999) if setting.gap else sure
    left = [known for each in outcomes for known in each.left]
    width = np.median([(known.high - known.low) / 2 / max(known.said, 1e-9) for known in left])
    grid = sum(requests_about(run) for server in found for run in grid_runs(server, setting, 3))
    share = np.median([each.requests for each in outcomes]) / grid
    winner = np.mean([each.winner.holds for each in outcomes])
    sides = (np.mean([known.holds for known in left]), np.mean([known.below for known in left]))
    shares = [np.mean(behind > 1 / 1.05), sure.mean(), wrong.mean(), winner, *sides]
    return [*(f"{value:.1%}" for value in shares), f"{width:.0%}", f"{share:.0%}", f"{3 * share:.0%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=200)
    parser.add_argument("--kind", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--noise", nargs="+", choices=list(NOISES), default=list(NOISES))
    parser.add_argument("--gap", type=float, nargs="+", default=[0, 0.02, 0.1, 0.3], help="0: a tie")
    parser.add_argument("--sla", help="another one than each kind's own")
    parser.add_argument("--grid", action="store_true", help="decide on a full grid instead of a race")
    parser.add_argument("--runs", type=int, nargs="+", default=[3, 1], help="of each point of the grid")
    parser.add_argument("--open_loop", action="store_true", help="request rates instead of clients")
    args = parser.parse_args()
    print(" | ".join(HEADERS))
    for kind, noise, gap in product(args.kind, args.noise, args.gap):
        setting = Setting(kind, NOISES[noise], gap, args.sla or SLAS[kind], args.open_loop)
        for runs in args.runs if args.grid else [0]:
            campaign = partial(swept, setting, runs) if runs else partial(raced, setting)
            how = f"grid x {runs}" if runs else "race"
            cells = row(setting, list(map(campaign, range(args.campaigns))))
            print(kind, noise, f"{gap:.0%}", how, *cells, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
