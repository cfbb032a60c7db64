"""The race of `--decide`, against the simulated servers of benchmarks/deciding.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from itertools import islice, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from msgspec.structs import replace

from servebench.analysis.sla import goals
from servebench.campaign import race
from servebench.log.config import Clients, RunConfig
from servebench.log.schema import Log, Quality
from servebench.plan.race import RaceSearch
from servebench.plan.strategies import History
from servebench.plan.sweep import ServerPlan
from servebench.show.candidates import Question, decided

LIMITS = goals("ttft_p90<1s")


def _simulation() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "deciding.py"
    spec = spec_from_file_location("deciding", path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules["deciding"] = module
    spec.loader.exec_module(module)
    return module


deciding = _simulation()
Step = tuple[int, int, int]  # server, clients, number of the run


def answer(number: int, slowness: float, run: RunConfig, noise: str = "steady") -> Log:
    """The log of a run on a server of eight places, always the same one."""
    rng = np.random.default_rng([number, int(run.load.size), run.repetition])
    server = deciding.Server(deciding.Shape("places", 8), slowness, 0.0)
    log: Log = deciding.log_of(number, server, run, rng, deciding.NOISES[noise])
    return log


def plan_of(servers: int) -> list[ServerPlan]:
    unused: Any = None
    first = deciding.asked(Clients(num_clients=1))
    search = RaceSearch([first], [1.0], lambda run, load: deciding.asked(load), LIMITS)
    return [ServerPlan(deciding.config(i), search, unused, {}, unused) for i in range(servers)]


def steps(
    plan: list[ServerPlan], slowness: list[float], noise: str = "steady", say: race.Say = str
) -> Iterator[Step]:
    """Each run of a race, as it is measured."""
    for each in race.in_rounds(plan, say):
        number = int(each.server.engine_args[1])
        while run := each.strategy.next(each.history):
            each.history.add(run, answer(number, slowness[number], run, noise))
            yield number, int(run.load.size), run.repetition


def raced(slowness: list[float], noise: str = "steady") -> tuple[list[Step], Any]:
    plan = plan_of(len(slowness))
    return list(steps(plan, slowness, noise)), race.standing(plan)[0]


def runs_of(number: int, found: list[Step]) -> int:
    return sum(step[0] == number for step in found)


def test_the_fastest_wins_and_the_slow_ones_are_measured_less() -> None:
    found, standing = raced([1.5, 1.0, 3.0])
    assert deciding.config(1) == standing.best.log.server and not standing.rivals
    assert runs_of(2, found) < runs_of(1, found)
    assert {number for number, *_ in found[-2:]} == {1}


def test_equal_servers_are_measured_until_they_are_known_to_be_alike() -> None:
    _, standing = raced([1.0, 1.0])
    assert not standing.rivals  # none is ahead by 5 %
    assert len(decided(standing.study, Question(LIMITS)).rivals) == 1  # but who is ahead is not said


def test_equal_servers_that_are_noisy_are_measured_to_the_last_round() -> None:
    found, _ = raced([1.0, 1.0], "noisy")
    most = max(number for *_, number in found) + 1
    assert most == 2 ** (race.ROUNDS - 2)
    assert abs(runs_of(0, found) - runs_of(1, found)) <= 2 * most


def test_loads_rise_until_one_exceeds_the_limits() -> None:
    found, standing = raced([1.0])
    loads = [clients for _, clients, number in found if number == 0]
    first = loads[: loads.index(max(loads)) + 1]
    assert first[0] == 1 and all(2 <= b / a <= 4 for a, b in pairwise(first))
    ends = standing.best.capacity
    assert ends.above / ends.below <= 1.25 or ends.above - ends.below <= 1 or ends.above >= 8


def test_an_interrupted_race_goes_on_where_it_was() -> None:
    slowness = [1.2, 1.0, 2.0]
    whole = list(steps(plan_of(3), slowness))
    for after in (1, 7, len(whole) - 1):
        plan = plan_of(3)
        begun = list(islice(steps(plan, slowness), after))
        kept = {(i, log.run.load.size, log.run.repetition) for i, each in enumerate(plan) for log in logs(each)}
        again = list(steps(plan_of(3), slowness))  # all its logs are read anew, in the order in which it asks
        assert begun == whole[:after] and kept == set(begun) and again == whole


def logs(plan: ServerPlan) -> list[Log]:
    return list(plan.history.logs.values())


def test_the_next_run_does_not_depend_on_the_order_of_the_logs() -> None:
    plan = plan_of(1)
    list(islice(steps(plan, [1.0]), 4))
    backwards = History()
    for log in reversed(logs(plan[0])):
        backwards.add(log.run, log)
    strategy = plan[0].strategy
    assert strategy.next(backwards) == strategy.next(plan[0].history)


def test_logs_of_other_requests_are_not_its_own() -> None:
    plan = plan_of(1)
    strategy = plan[0].strategy
    list(islice(steps(plan, [1.0]), 3))
    wanted = strategy.next(plan[0].history)
    other = replace(deciding.asked(Clients(num_clients=2)), seed=1)
    plan[0].history.add(other, answer(0, 5.0, other))
    assert strategy.next(plan[0].history) == wanted


def test_a_server_that_keeps_no_limit_ends_the_race() -> None:
    found, standing = raced([30.0, 40.0])
    assert standing.best is None and len(found) == 2


def test_rounds_are_told() -> None:
    said: list[str] = []
    list(steps(plan_of(2), [1.0, 3.0], say=said.append))
    assert said[0].startswith("round 1:") and "out" in " ".join(said)


def asked_where_the_client_is_the_limit(at: set[int]) -> list[tuple[int, int]]:
    """(clients, number of the run) of what one server is asked for, where it is the limit at these loads."""
    (plan,), history, found = plan_of(1), History(), []
    while run := plan.strategy.next(history):
        log = answer(0, 1.0, run)
        late = replace(log, quality=Quality(verdict="client-limited: late"))
        history.add(run, late if run.load.size in at else log)
        found.append((int(run.load.size), run.repetition))
    return found


def test_loads_that_say_nothing_are_tried_again_and_then_higher_ones() -> None:
    assert asked_where_the_client_is_the_limit({1})[:4] == [(1, 0), (1, 1), (4, 0), (16, 0)]
    everywhere = asked_where_the_client_is_the_limit({1, 4, 16, 64})
    assert everywhere == [(1, 0), (1, 1), (4, 0), (4, 1), (16, 0), (16, 1)], "and then it is given up"
