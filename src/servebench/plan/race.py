"""One server's part in a race for the best one (`--decide`): which run it asks for next, by its own logs.

    round 0   coarsely: from the lowest load up, in steps of 4 or 2, until a load exceeds the limits
    round 1   the gap between the highest load that keeps them and the lowest that does not is halved until closed
    later     both of these loads again, so that after round n each has 2^(n-1) runs

`campaign/race.py` says which servers take part in a round. Loads are judged by their estimates (capacity.py), so a
server's next run follows from its own logs alone, and an interrupted race goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from servebench.analysis import capacity
from servebench.analysis.capacity import Capacity, Noises
from servebench.analysis.limits import Limit
from servebench.log.config import RunConfig
from servebench.log.schema import Log
from servebench.plan.strategies import Grid, History, Search, rounded

ROUNDS = 4  # at most: 4 runs of the two loads that decide
CLOSE = 1.25  # loads of which the ratio is smaller are not told apart further
LEVEL = 1.03  # likewise requests/s at two loads
WELL_WITHIN = np.log(1 / 4)  # of the limits, from where on a step of 4 is taken
LOST = 3  # loads that say nothing, after which a server is given up
UNKNOWN = 2  # runs of a load that say nothing, after which it is given up


@dataclass(frozen=True)
class RaceSearch(Search):
    """Up to this round."""

    limits: tuple[Limit, ...]
    round: int = 0

    def next(self, history: History) -> RunConfig | None:
        """By the logs that are there, in whichever order they came: no step before is gone through again."""
        for first in self.runs:
            measured: dict[float, list[Log]] = {}
            for log in history.logs.values():
                size, number = log.run.load.size, log.run.repetition
                if history.of(self._at(first, size, number)) is log:  # not one of another kind of requests
                    measured.setdefault(size, []).append(log)
            if step := self._step(first, measured):
                return self._at(first, *step)
        return None

    def _step(self, first: RunConfig, measured: dict[float, list[Log]]) -> tuple[float, int] | None:
        """(the load, the number of its run) that comes next."""
        lowest = float(min(self.loads))
        if not measured:
            return lowest, 0
        for load, runs in measured.items():
            if len(runs) < UNKNOWN and self._says_nothing(runs):
                return load, len(runs)
        known = capacity.loads_of(list(measured.values()), self.limits, Noises(), draws=1)
        if not known:
            return self._elsewhere(first, measured)
        found = capacity.capacity(known)
        untried = self._further(first, found, set(measured))
        if not untried and self.round:
            untried = self._halved(first, found)
        if untried and untried not in measured:
            return untried, 0
        ends = [end for end in (found.below, found.above) if end]
        wanted = 2 ** (self.round - 1) if self.round else 1
        return next(((end, len(measured[end])) for end in ends if len(measured[end]) < wanted), None)

    def _elsewhere(self, first: RunConfig, measured: dict[float, list[Log]]) -> tuple[float, int] | None:
        """The next load where none so far says anything: at a few requests the client may seem to be the limit."""
        load = rounded(min(4 * max(measured), self._highest_load()), first.open_loop)
        failed = any(runs[-1].status != "ok" for runs in measured.values())
        return None if failed or load in measured or len(measured) >= LOST else (load, 0)

    def _says_nothing(self, runs: list[Log]) -> bool:
        """Of a load that may say something when it is measured again: others took the cores, say."""
        return runs[-1].status == "ok" and bool(capacity.why_left_out(runs, self.limits))

    def _further(self, first: RunConfig, found: Capacity, tried: set[float]) -> float | None:
        """A load beyond those that are known, where all of these keep the limits, or none."""
        if found.below is None:
            load = max(self._lowest_load(first), (found.above or 0) / 2)
            return None if load == found.above else rounded(load, first.open_loop)
        if found.above is not None:
            return None
        if beyond := [load for load in tried if load > found.below]:  # they say nothing
            apart = min(beyond) / found.below > CLOSE
            return rounded((min(beyond) * found.below) ** 0.5, first.open_loop) if apart else None
        worst = float(found.loads.excess[:, -1, 0].max())
        load = min(found.below * (4 if worst < WELL_WITHIN else 2), self._highest_load())
        return None if load == found.below or self._saturated(found) else rounded(load, first.open_loop)

    def _saturated(self, found: Capacity) -> bool:
        """Did the last two steps up give nothing more?"""
        rates = found.loads.rates[-3:, 0]
        return len(rates) == 3 and rates.max() < LEVEL * rates[0]

    def _halved(self, first: RunConfig, found: Capacity) -> float | None:
        low, high = found.below, found.above
        if low is None or high is None:
            return None
        apart = high / low > CLOSE and (first.open_loop or high - low > 1)
        ends = [float(found.loads.rates[list(found.loads.sizes).index(load), 0]) for load in (low, high)]
        alike = max(ends) < LEVEL * min(ends) and not first.open_loop
        return rounded((low * high) ** 0.5, first.open_loop) if apart and not alike else None

    verdicts = Grid.verdicts  # none: what it is among the others is not said of a server alone
