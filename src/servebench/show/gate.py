"""Do results keep to limits? A line for each limit, and the exit status for CI.

    servebench gate results/ --limits "ttft_p99<2s, error_rate<1%"
    servebench gate after/ --limits "ttft_p99<+5%, request_throughput>-5%" --baseline before/

Every point has to meet every limit; --filter num_clients=8 chooses points. A 95 % interval decides: it is within
the limit (pass), beyond it (fail), or on both sides of it (cannot tell).

    a percentile     from the requests of all runs together: Wilson's interval of the share that is within the
                     limit. Correlated requests count as the fewer independent ones that they are worth. A failed
                     request meets no limit. In an open loop TTFT and E2E latency count from the schedule.
    the error rate   Wilson's interval, from the requests that failed
    a mean, a rate   Student's interval of the runs' values; of a single run, of the means of its batches
    a change (+5%)   the ratio to the point of --baseline that was asked the same, as in servebench compare

A point that failed fails; an overloaded one fails limits of latency. Numbers that are not the server's own
(client-limited, buffered, cached) cannot be judged. A point that has not settled can fail, but not pass.
Exit status: 0 no limit fails, 1 one does (with --strict also if one cannot be judged), 2 bad input.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, inf, isfinite
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from servebench.analysis import answers, cost, filters, limits, metrics, samples, sla, stationarity, stats, trust
from servebench.analysis.cache import derived
from servebench.analysis.limits import Limit
from servebench.analysis.metrics import OfRequests
from servebench.analysis.stats import Interval
from servebench.cli import commandline
from servebench.errors import InputError, no_logs
from servebench.log import identity
from servebench.log.checks import Asked
from servebench.log.schema import Log
from servebench.show import matching, points, ratios, tables
from servebench.show.points import Runs

Word = Literal["pass", "FAIL", "cannot tell"]
SIGNS: dict[Word, tuple[str, str]] = {"pass": ("✓", "green"), "FAIL": ("✗", "red"), "cannot tell": ("?", "yellow")}
WIDEST = max(map(len, SIGNS))
NAMED = 2  # points of a line that many share
MOST = 20  # times as many requests, beyond which nobody will ask
Ratios = dict[tuple[str, str], ratios.Comparison]  # by the point of the results, and the metric's column


@dataclass(frozen=True)
class Finding:
    """What a limit says of one point. `low`, `high`: the interval of its value, infinite where it is not known."""

    point: str
    says: Word
    why: str = ""
    value: float | None = None
    low: float = -inf
    high: float = inf


@dataclass(frozen=True)
class Judged:
    """What a limit says of all points."""

    limit: Limit
    findings: list[Finding]

    @property
    def says(self) -> Word:
        said = {finding.says for finding in self.findings}
        return "FAIL" if "FAIL" in said else "cannot tell" if "cannot tell" in said else "pass"

    @property
    def worst(self) -> Finding | None:
        """The point that is nearest to the limit, or farthest beyond it."""
        known = [finding for finding in self.findings if finding.value is not None]
        return max(known, key=lambda f: f.value if self.limit.upper else -(f.value or 0), default=None)  # type: ignore[arg-type, return-value]


# One limit, one point.


def judge(limit: Limit, point: str, runs: Runs, against: ratios.Comparison | None = None) -> Finding:
    """`against`: the point beside that of the baseline, for a relative limit."""
    failures = [str(log.failure) for log in runs if log.status != "ok"]
    if failures:
        return Finding(point, "FAIL", f"the point failed: {failures[0]}")
    wrong = trust.wrong_answers(runs)
    if wrong and limit.metric.name not in answers.METRICS:
        return Finding(point, "FAIL", wrong)
    doubts = [trust.doubt(log, limit.column) for log in runs]
    good = [log for log, why in zip(runs, doubts, strict=True) if not why]
    if not good:
        return Finding(point, "cannot tell", next(filter(None, doubts), ""))
    if any(log.quality.overloaded for log in good) and isinstance(limit.metric, OfRequests):
        says: Word = "FAIL" if _bounds_the_worse(limit) else "cannot tell"
        return Finding(point, says, "overloaded: requests in flight kept growing, and latency with them")
    if limit.relative:
        return _relative(limit, point, against)
    found = _settled(limit, good, _of_values(limit, point, good))
    left_out = next(filter(None, doubts), "")
    if found.says != "cannot tell" or not left_out:
        return found
    return replace(found, why=f"{found.why}; {len(runs) - len(good)} of {len(runs)} runs left out: {left_out}")


def _bounds_the_worse(limit: Limit) -> bool:
    return limit.upper == (limit.metric.better == "less")


def _of_values(limit: Limit, point: str, runs: Runs) -> Finding:
    if limit.metric.name in SHARES:
        return _share(limit, point, runs)
    return _percentile(limit, point, runs) if limit.percentile is not None else _mean(limit, point, runs)


def _settled(limit: Limit, runs: Runs, found: Finding) -> Finding:
    """A point that has not settled may only fail."""
    if found.says == "FAIL" or limit.metric.name in SHARES or stationarity.stationary(runs):
        return found
    reason = next(why for log in runs if (why := stationarity.why_not_stationary(log)))
    why = f"not settled: {reason}; more --num_requests or a lower load"
    return replace(found, says="cannot tell", why=why)


def _by_interval(limit: Limit, point: str, value: float, low: float, high: float, help_: str) -> Finding:
    """The rule of all limits. `help_`: what would tell, where this does not."""
    near, far = (high, low) if limit.upper else (low, high)  # the end that has to be within, and the other one
    says: Word = "pass" if limit.admits(near) else "cannot tell" if limit.admits(far) else "FAIL"
    return Finding(point, says, help_ if says == "cannot tell" else "", value, low, high)


def _share(limit: Limit, point: str, runs: Runs) -> Finding:
    """Of requests or of questions, all runs together."""
    some, n = SHARES[limit.metric.name](runs)
    if not n:
        return Finding(point, "cannot tell", "no questions were asked; use --check")
    low, high = stats.wilson_interval(some, n)
    wanted, seen = (1 - limit.value, 1 - some / n) if limit.upper else (limit.value, some / n)
    why = f"{some:.4g} of {n} {OF_SHARES[limit.metric.name]}{_needed(wanted, seen, n)}"
    return _by_interval(limit, point, some / n, low, high, why)


def _questions(asked: Iterable[Asked]) -> tuple[float, int]:
    """(answered right, asked); a question of several runs counts once, by the share of its answers."""
    right = answers.right_of(asked)
    return sum(right.values()), len(right)


# Of each: (those that count, all of them), and what they are.
SHARES: dict[str, Callable[[Runs], tuple[float, int]]] = {
    "failed_share": lambda runs: samples.failed_of(*runs),
    "flawed_share": lambda runs: answers.flawed_of(*runs),
    "check_share": lambda runs: _questions(asked for log in runs for asked in log.checks),
    "check_share_alone": lambda runs: _questions(asked for log in runs for asked in log.checks_alone),
}
OF_SHARES = {
    "failed_share": "requests failed",
    "flawed_share": "answers are flawed",
    "check_share": "questions were answered right under load",
    "check_share_alone": "questions were answered right alone",
}


def _percentile(limit: Limit, point: str, runs: Runs) -> Finding:
    """Of all runs together; failed requests stand at the end that meets no limit."""
    of_runs = [sla.of_requests([log], limit) for log in runs]
    together = np.concatenate(of_runs)
    if not np.isfinite(together).any():
        return Finding(point, "cannot tell", _unknown(limit, runs))
    worth = sum(map(sla.worth, of_runs))
    share = (limit.percentile or 0) / 100
    low, high = stats.quantile_interval(together, share, worth)
    within = limit.admitted(together) / len(together)
    n = len(together)
    counted = f"{n} requests" if worth > 0.99 * n else f"{n} requests, worth {worth:.0f} independent ones"
    why = counted + _needed(sla.needed_share(limit) or 0, within, n, n / worth)
    return _by_interval(limit, point, sla.seen(runs, limit) or 0.0, low, high, why)


def _needed(share: float, seen: float, n: int, correlated: float = 1.0) -> str:
    """How many requests would tell that so large a share meets a limit, if it is as large as it was seen."""
    most = MOST * n
    requests = stats.Z95**2 * share * (1 - share) / (seen - share) ** 2 * correlated if seen > share else most
    if requests >= most:
        return "; too near the limit"
    digits = 10 ** (len(str(ceil(requests))) - 2)
    return f"; about {ceil(requests / digits) * digits} would tell"


def _mean(limit: Limit, point: str, runs: Runs) -> Finding:
    """Of a metric with one value a run: Student's interval of several runs, or of the batches of one."""
    of_runs = [v for log in runs if (v := _column(log, limit)) is not None]
    if not of_runs:
        return Finding(point, "cannot tell", _unknown(limit, runs))
    batches = metrics.batch_values(runs[0]).get(limit.column, np.empty(0)) if len(of_runs) == 1 else np.empty(0)
    found = stats.t_interval(batches.tolist() or of_runs)
    assert found
    low, high = (found.low, found.high) if found.known else (-inf, inf)
    why = "" if found.known else "one run gives no interval for it; use --runs 5"
    return _by_interval(limit, point, float(np.mean(of_runs)), low, high, why)


def _column(log: Log, limit: Limit) -> float | None:
    return metrics.values(log).get(limit.column)


def _unknown(limit: Limit, runs: Runs) -> str:
    """Why no request has such a value."""
    if limit.metric.of_tokens and not runs[0].run.stream:
        return "answers came whole, so token times are not known"
    why = limit.metric.why_unknown
    return why(runs[0]) if why else "no request has such a value"


def _relative(limit: Limit, point: str, row: ratios.Comparison | None) -> Finding:
    """By the ratio to the baseline."""
    if row is None:
        return Finding(point, "cannot tell", "the baseline has no such point")
    if row.ratio is None:
        return Finding(point, "cannot tell", "not known on both sides")
    if row.a == row.b == 0:  # as of requests that failed
        return Finding(point, "pass" if limit.admits(1) else "FAIL", "", 1, 1, 1)
    found: Interval | None = row.known
    if found is None or row.verdict.startswith("takes"):
        why = row.verdict.replace("A: ", "baseline ").replace("B: ", "results ")
        return Finding(point, "cannot tell", why, row.ratio)
    return _by_interval(limit, point, row.ratio, found.low, found.high, "more --runs would tell")


# All limits, all points.


def judged(
    wanted: Sequence[Limit], of_points: Sequence[Runs], baseline: Runs | None, across: str = ""
) -> list[Judged]:
    names = points.named(of_points, points.telling([runs[0] for runs in of_points]))
    beside = _beside(baseline, of_points, names, wanted, across) if baseline is not None else {}
    return [
        Judged(
            limit,
            [
                judge(limit, name, runs, beside.get((name, limit.column)))
                for name, runs in zip(names, of_points, strict=True)
            ],
        )
        for limit in wanted
    ]


def _beside(
    baseline: Runs, of_points: Sequence[Runs], names: Sequence[str], wanted: Sequence[Limit], across: str
) -> Ratios:
    """The comparisons with the baseline, by the names that points have here."""
    try:
        found = matching.matched(baseline, [log for runs in of_points for log in runs], across=across)
    except InputError as error:
        words = str(error).replace("--filter_a", "--filter").replace("--filter_b", "--filter")
        raise InputError(f"{words} (A is the baseline)") from None
    name_of = {identity.point_of(runs[0]): name for name, runs in zip(names, of_points, strict=True)}
    here = {pair.name: name_of[identity.point_of(pair.b[0])] for pair in found.pairs}
    rows = ratios.compare(found.pairs, limits=[limit for limit in wanted if limit.relative])
    return {(here[row.point], row.metric): row for row in rows}


# What is said.


def said(found: Judged) -> list[str]:
    """A line, and one for each point that fails; points that cannot be judged for one reason share a line."""
    limit, n = found.limit, len(found.findings)
    rest = [finding for finding in found.findings if finding.says != "pass"]
    same = sum(finding.says == found.says for finding in found.findings)
    others = f", {len(rest) - same} more cannot be judged" if found.says == "FAIL" and same < len(rest) else ""
    text = f"{limit} at {tables.counted(n, 'point') if same == n else f'{same} of {n} points'}{others}"
    if worst := found.worst:
        text += f", {f'worst at {worst.point}: ' if n > 1 else ''}{_value(limit, worst)}"
    lines = [tables.wrapped(f"{sign(found.says)} {text}", " " * 6)]
    why = {each.point: each.why if each.says == "cannot tell" else each.point for each in rest}
    alike = [[each for each in rest if why[each.point] == reason] for reason in dict.fromkeys(why.values())]
    return lines + [tables.wrapped(f"    {sign(same[0].says)} {_line(limit, same)}", " " * 8) for same in alike]


def _line(limit: Limit, same: Sequence[Finding]) -> str:
    """What is said of a point, or of several for the same reason."""
    names = [finding.point for finding in same]
    if more := len(same) - NAMED:
        names = names if more < 0 else [*names[:NAMED], f"{more} more"]
    value = _value(limit, same[0]) if len(same) == 1 and same[0].value is not None else ""
    return f"{'; '.join(names)}: {', '.join(filter(None, [value, same[0].why]))}"


def sign(says: Word) -> str:
    """A tick, a cross or a question mark; in a pipe words."""
    mark, colour = SIGNS[says]
    return tables.paint(mark, colour) if tables.on_terminal() else f"{says:{WIDEST}}"


def _value(limit: Limit, finding: Finding) -> str:
    """`812 ms (640 to 1210 ms)`."""
    assert finding.value is not None
    low, high = (_shown(limit, end) for end in (finding.low, finding.high))
    ends = {(False, True): f"up to {high}", (True, False): f"at least {low}", (False, False): "interval not known"}
    known = (isfinite(finding.low), isfinite(finding.high))
    unit = high.lstrip("-+0123456789.e")  # which is said once
    low = low.removesuffix(unit) if unit.startswith(" ") else low
    interval = "" if finding.low == finding.high else f" ({ends.get(known, f'{low} to {high}')})"
    return f"{_shown(limit, finding.value)}{interval}"


def _shown(limit: Limit, value: float) -> str:
    if not isfinite(value):
        return "not known"
    if limit.relative:
        return f"{value - 1:+.1%}"
    if limit.metric.name in limits.SHARES:
        return f"{value:.2%}"
    if limit.metric.unit == "_s":
        return tables.latency(value)
    return f"{tables.significant(value)} {limits.UNITS.get(limit.metric.unit, '')}".strip()


def verdict(found: Sequence[Judged], strict: bool) -> str:
    """The last sentence."""
    of_points = tables.counted(len(found[0].findings), "point")
    failed = [each for each in found if each.says == "FAIL"]
    unclear = [each for each in found if each.says == "cannot tell"]
    of = f"of {tables.counted(len(found), 'limit')}"
    if failed:
        rest = f", and {len(unclear)} cannot be judged" if unclear else ""
        return f"fails: {len(failed)} {of}{rest}"
    if unclear:
        failure = ", which --strict counts as a failure" if strict else " (exit status 0; 1 with --strict)"
        untold = [finding for each in unclear for finding in each.findings if finding.says == "cannot tell"]
        near = any(isfinite(finding.low) or isfinite(finding.high) for finding in untold)
        more = "; more requests (--num_requests) or runs (--runs) would tell more" if near else ""
        return f"cannot tell: {len(unclear)} {of}{failure}{more}"
    return f"passes: {tables.counted(len(found), 'limit')} at {of_points}"


def as_json(found: Sequence[Judged], words: str) -> str:
    """What is not known is null."""
    rows = [
        {
            "limit": str(each.limit),
            "unit": _unit(each.limit),
            "says": each.says,
            "points": [_finite(asdict(f)) for f in each.findings],
        }
        for each in found
    ]
    return msgspec.json.format(msgspec.json.encode({"verdict": words, "limits": rows})).decode()


def _unit(limit: Limit) -> str:
    """Of the values: a ratio to the baseline, seconds, a share, or a plain number."""
    if limit.relative:
        return "ratio"
    if limit.metric.name in limits.SHARES:
        return "share"
    return limits.UNITS.get(limit.metric.unit, "1/s" if limit.metric.unit else "")


def _finite(values: dict[str, object]) -> dict[str, object]:
    return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in values.items()}


# The command.


def read_limits(text: str) -> tuple[Limit, ...]:
    return limits.parse(text, "--limits", _no_gate)


def _no_gate(limit: Limit) -> str:
    """Why this cannot be asked of results."""
    if limit.metric.name == "failed_share" and (not limit.upper or (limit.value == 0 and limit.operator == "<")):
        return "an error rate needs an upper limit; write for example error_rate<1% or error_rate<=0%"
    if limit.of_every_request:
        name = limit.name
        return f"no sample tells of every request; write for example {name}_p99{limit.operator}{limit.typed}"
    return ""


@derived
def _prepare(log: Log, *of: Limit) -> None:
    """What will be asked of all logs, asked of one."""
    for limit in of:
        judge(limit, "", [log])
    if any(limit.relative for limit in of):
        ratios.prepare(log)


def load(folder: Path, of: Sequence[Limit], args: argparse.Namespace) -> Runs:
    found = filters.passing(folder, args.filter, args.gpu_hour_price, lambda log: _prepare(log, *of))
    logs = [log for _, log in found]
    if not logs:
        raise no_logs(folder, filtered=bool(args.filter))
    return logs


def main() -> int:
    args = _parser().parse_args()
    wanted = read_limits(args.limits)
    relative = next((limit for limit in wanted if limit.relative), None)
    if relative and not args.baseline:
        raise InputError(f"--limits: {relative} is a change; name the results to compare with: --baseline FOLDER")
    baseline = load(args.baseline, wanted, args) if relative else None
    logs = load(args.folder, wanted, args)
    found = judged(wanted, identity.by_point(logs), baseline, args.across)
    words = verdict(found, args.strict)
    lines = [*(line for each in found for line in said(each)), tables.wrapped(words)]
    print(as_json(found, words) if args.json else "\n".join(lines))
    told = {each.says for each in found}
    return int("FAIL" in told or (args.strict and "cannot tell" in told))


def _parser() -> argparse.ArgumentParser:
    parser = commandline.Parser(description=__doc__)
    commandline.add_folder(parser)
    add = parser.add_argument
    add("--limits", required=True, metavar="LIMITS", help='such as "ttft_p99<2s, error_rate<1%%", in quotes')
    add("--baseline", type=commandline.folder, metavar="FOLDER", help="results that +5%% and -5%% are relative to")
    matching.add_across(parser)
    filters.add_filter(parser, "--filter")
    cost.add_price(parser)
    add("--strict", action="store_true", help='"cannot tell" counts as a failure')
    add("--json", action="store_true", help="every limit at every point, as JSON")
    return parser
