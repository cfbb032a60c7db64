"""Scores of servers in words (log/evaluation.py), and which of two servers answers worse."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from math import hypot
from operator import itemgetter
from statistics import NormalDist

from servebench.log.evaluation import Evaluation, Score, Task, merged, of_server
from servebench.log.identity import fingerprint
from servebench.log.schema import Log
from servebench.show import tables
from servebench.show.layouts import server_name

LEVEL = 0.95
COLUMNS = [tables.Column(head, left=True, cut=True) for head in ("task", "metric", "server")]
COLUMNS += [tables.Column(head) for head in ("value", "samples")]


def table(evaluations: Iterable[Evaluation]) -> str:
    """A row for each score, those of a metric together."""
    rows: list[tuple[str, ...]] = [
        (name, metric.removesuffix(",none"), server_name(each.server), words(score), str(task.samples or ""))
        for each in evaluations
        for name, task in each.tasks.items()
        for metric, score in task.metrics.items()
    ]
    return tables.table(COLUMNS, sorted(rows, key=itemgetter(0, 1))) if rows else ""


def lines(evaluations: Iterable[Evaluation]) -> list[str]:
    """A line for each server that was evaluated: the main score of each task."""
    return [f"{server_name(each.server)} scores {_main_scores(each)}" for each in merged(evaluations)]


def of_logs(evaluations: Iterable[Evaluation], logs: Iterable[Log]) -> list[str]:
    """The scores of the servers of these logs, and which of two answers worse."""
    known = merged(evaluations)
    found = {fingerprint(each.identity): each for log in logs if known and (each := of_server(known, log))}
    worse_ones = (worse(a, b) for a, b in combinations(found.values(), 2))
    return [*lines(found.values()), *filter(None, worse_ones)]


def _main_scores(evaluation: Evaluation) -> str:
    limit = evaluation.asked.get("limit")
    scores = ", ".join(f"{words(main(task))} at {name}" for name, task in evaluation.tasks.items())
    return scores + (f" (--limit {limit})" if limit else "")


def words(score: Score) -> str:
    """`0.453 ±0.014`: with its standard error."""
    return f"{score.value:.3f}" + ("" if score.stderr is None else f" ±{score.stderr:.3f}")


def main(task: Task) -> Score:
    return next(iter(task.metrics.values()))


def worse(a: Evaluation, b: Evaluation) -> str | None:
    """Which of the two answers worse, and at what, where that is more than chance; None if nowhere.

    Two-sided tests of the main scores of the tasks that both have, 95 % for all together (Bonferroni). Both had
    the same questions, so their standard errors are on the safe side.
    """
    both = [name for name in a.tasks if name in b.tasks] if a.asked == b.asked else []
    z = NormalDist().inv_cdf(1 - (1 - LEVEL) / 2 / max(1, len(both)))
    return "; ".join(said for name in both if (said := _worse_at(name, a, b, z))) or None


def _worse_at(name: str, a: Evaluation, b: Evaluation, z: float) -> str:
    of_a, of_b = main(a.tasks[name]), main(b.tasks[name])
    errors = _error(a.tasks[name]), _error(b.tasks[name])
    ahead = (of_b.value - of_a.value) * (1 if of_a.higher_is_better else -1)  # b of a
    loser, low, high = (a, of_a, of_b) if ahead > 0 else (b, of_b, of_a)
    apart = None not in errors and abs(ahead) > z * hypot(*filter(None, errors))
    return f"{server_name(loser.server)} is worse at {name}: {words(low)} against {words(high)}" if apart else ""


def _error(task: Task) -> float | None:
    """Of the main score. Where all answers are alike it comes out as 0; then as if one of two more were not."""
    stderr = main(task).stderr
    return stderr or (None if stderr is None or not task.samples else 1 / (task.samples + 2))
