"""Limits as they are typed, read in one place: `ttft_p99<2s, error_rate<1%`.

    ttft_p99<2s    tpot_p50<=40ms    e2e_mean<10s    a percentile or the mean of a latency, in s or ms
    ttft<2s                                          the latency of every request
    error_rate<1%                                    a share, in % (0.01 will do)
    energy_per_output_token<2J   gpu_power<300W      energy and power, with their unit
    dollars<0.5                                      $ per million output tokens
    request_throughput>5                             a rate or a count, without a unit
    ttft_p99<+5%   request_throughput>-5%            against a baseline

--sla, --find_max and `servebench gate` read them; commas separate several. The names are the columns of
summary.csv without their unit, and any percentile will do (ttft_p99.9). `e2e` is short for e2e_latency,
error_rate is failed_share, and dollars is dollars_per_million_output_tokens. What cannot be read is quoted, with
what to write instead.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from servebench.analysis import metrics
from servebench.analysis.metrics import Metric, OfRequests
from servebench.cli.nearest import did_you_mean
from servebench.errors import InputError

OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SHORT = {  # names in limits that columns do not have
    "e2e_latency": "e2e",
    "failed_share": "error_rate",
    "dollars_per_million_output_tokens": "dollars",
}
MEANT = {"throughput": "request_throughput", "latency": "e2e_p99", "errors": "error_rate"}
SHARES = ("failed_share", "flawed_share", "check_share", "check_share_alone", "gpu_idle_share")
UNITS = {"_s": "s", "_j": "J", "_w": "W"}  # that a limit of such a metric needs
EXAMPLE = "ttft_p99<2s"
PART = re.compile(r"(?P<name>[^<>=]*?)\s*(?P<operator>[<>=]+)\s*(?P<value>.*)")
VALUE = re.compile(r"(?P<sign>[+-]?)(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>[^\d\s]*)")
Refuse = Callable[["Limit"], str]  # why a limit, well written, makes no sense in this place; "" if it does


@dataclass(frozen=True)
class Limit:
    """A bound of a number of a point, or of each of its requests."""

    metric: Metric
    statistic: str  # "p99" or "mean"; "" for every request, and for metrics that have none
    operator: str  # a key of OPERATORS
    value: float  # s, a share, or a plain number; of a relative limit the ratio to the baseline
    typed: str  # the value as a reader knows it: `2s`, `100ms`, `1%`, `+5%`
    relative: bool = False  # to a baseline

    def __str__(self) -> str:
        """As it is typed, without spaces: part of the names of results, so that it stays the same for ever."""
        return f"{self.name}{self.operator}{self.typed}"

    @property
    def name(self) -> str:
        """`ttft_p99`."""
        return "_".join(filter(None, (short(self.metric), self.statistic)))

    @property
    def column(self) -> str:
        """The column of summary.csv: `ttft_p99_s`. Only some percentiles have one."""
        if isinstance(self.metric, OfRequests) and self.statistic:
            return self.metric.column(self.statistic)
        return self.metric.name

    @property
    def upper(self) -> bool:
        return self.operator.startswith("<")

    @property
    def of_every_request(self) -> bool:
        return isinstance(self.metric, OfRequests) and not self.statistic

    @property
    def percentile(self) -> float | None:
        """99.0 of `ttft_p99`."""
        return float(self.statistic[1:]) if self.statistic.startswith("p") else None

    def admits(self, value: float) -> bool:
        """Is this value within the limit?"""
        return bool(OPERATORS[self.operator](value, self.value))

    def admitted(self, values: np.ndarray) -> int:
        """How many of these values are."""
        return int(OPERATORS[self.operator](values, self.value).sum())


def parse(text: str, option: str = "--limits", refuse: Refuse = lambda limit: "") -> tuple[Limit, ...]:
    """Raises InputError, which names the option and quotes the part that cannot be read."""
    parts = [part.strip() for part in text.split(",")]
    return tuple(_parse_one(part, text, option, refuse) for part in parts)


def joined(limits: tuple[Limit, ...]) -> str:
    """The canonical text of them all."""
    return ",".join(map(str, limits))


def column_of(name: str) -> str:
    """The column of a metric's name, in which the unit may be left out. Raises ValueError."""
    metric, statistic = _named(name)
    return Limit(metric, statistic, "<", 0, "").column


def short(metric: Metric) -> str:
    return SHORT.get(metric.stem, metric.stem)


def _parse_one(part: str, text: str, option: str, refuse: Refuse) -> Limit:
    try:
        limit = _read(part)
        if fault := refuse(limit):
            raise ValueError(fault)
    except ValueError as error:
        where = f'{option} "{text}"' if part == text else f'{option}: in "{text}" the part "{part}"'
        raise InputError(f"{where}: {error}") from None
    return limit


def _read(part: str) -> Limit:
    """Raises ValueError with the fault, and what to write."""
    if not part:
        raise ValueError(f"it is empty; write a limit such as {EXAMPLE}, and a comma only between two")
    found = PART.fullmatch(part)
    if not found:
        raise ValueError(_without_operator(part))
    metric, statistic = _named(found["name"])
    name = "_".join(filter(None, (short(metric), statistic)))
    if re.search("[<>=]", found["value"]):
        raise ValueError("there are two limits in it; put a comma between them")
    number = VALUE.fullmatch(found["value"])
    if not number:
        example = _example(metric, name)
        raise ValueError(f"{found['value']!r} is not a number with a unit; write for example {example}")
    if found["operator"] not in OPERATORS:
        wanted = f"{name}{'>' if metric.better == 'more' else '<'}{_written(metric, found['value'])}"
        raise ValueError(f"{found['operator']} is not one of < <= > >=; write {wanted}")
    value, typed = _value(metric, f"{name}{found['operator']}", **number.groupdict())
    relative = bool(number["sign"])
    if relative and isinstance(metric, OfRequests) and not statistic:
        raise ValueError(f"a change needs a percentile or the mean; write {name}_p99<{typed}")
    return Limit(metric, statistic, found["operator"], value, typed, relative)


def _without_operator(part: str) -> str:
    name, *rest = part.split()
    try:
        metric, statistic = _named(name)
    except ValueError:
        return f"there is no < or > in it; write a limit such as {EXAMPLE}"
    value = "".join(rest)
    full = "_".join(filter(None, (short(metric), statistic)))
    if VALUE.fullmatch(value):
        return f"there is no < or > in it; write {full}<{_written(metric, value)}"
    return (
        f"there is no < or > in it; write for example {_example(metric, full)}, "
        "in quotes: the shell takes an unquoted <"
    )


def _example(metric: Metric, name: str) -> str:
    """A limit that could be written of this metric."""
    sign = ">" if metric.better == "more" else "<"
    value = "1%" if metric.name in SHARES else _written(metric, "2") if metric.unit in UNITS else "5"
    return f"{name}{sign}{value}"


def _written(metric: Metric, value: str) -> str:
    """A value with the unit that the metric needs."""
    return value + UNITS.get(metric.unit, "") if value[-1:].isdigit() else value


def _named(name: str) -> tuple[Metric, str]:
    """(the metric, the statistic). Raises ValueError if there is none of this name."""
    asked = name.lower()
    for metric in metrics.METRICS:
        for stem in {metric.stem, short(metric)}:
            of_it = re.fullmatch(rf"{stem}(?:_(mean|p\d+(?:\.\d+)?))?(?:{metric.unit})?", asked)
            if of_it and (isinstance(metric, OfRequests) or not of_it[1]):
                return metric, _statistic(of_it[1] or "", short(metric))
    near = f": did you mean {MEANT[asked]}?" if asked in MEANT else did_you_mean(asked, _names(), most=1)
    examples = "; write for example ttft_p99, tpot_p50, e2e_mean, error_rate, request_throughput"
    raise ValueError(f"no metric {name}{near or examples}")


def _statistic(typed: str, name: str) -> str:
    """`p99.90` -> `p99.9`. Raises ValueError for p0 and p100."""
    if not typed.startswith("p"):
        return typed
    percent = float(typed[1:])
    if not 0 < percent < 100:
        raise ValueError(f"{typed} is not a percentile between 0 and 100; {name}<2s limits every request")
    return f"p{percent:.12g}"


def _names() -> list[str]:
    names = []
    for metric in metrics.METRICS:
        statistics = metric.statistics if isinstance(metric, OfRequests) else ()
        names += [short(metric), metric.stem, *(f"{short(metric)}_{statistic}" for statistic in statistics)]
    return names


def _value(metric: Metric, before: str, sign: str, number: str, unit: str) -> tuple[float, str]:
    """(the value, its canonical text). Raises ValueError for a unit that is missing or wrong."""
    amount, plain = float(number), f"{float(number):.12g}"
    if sign:
        if unit != "%":
            raise ValueError(f"{sign} stands before a change in %; write {before}{sign}{plain}%")
        if sign == "-" and amount >= 100:
            raise ValueError(f"nothing is {plain}% less than a baseline; write for example {before}-5%")
        return 1 + float(f"{sign}{number}") / 100, f"{sign}{plain}%"
    if metric.unit == "_s":
        return _time(before, amount, plain, unit)
    if metric.name in SHARES:
        return _share(before, amount, plain, unit)
    if needed := UNITS.get(metric.unit):
        if unit != needed:
            fault = f"the unit {unit} is not known" if unit else "the limit needs a unit"
            raise ValueError(f"{fault}: write {before}{plain}{needed}")
        return amount, f"{plain}{needed}"
    if unit:
        raise ValueError(f"{metric.stem} takes no unit; write {before}{plain}")
    return amount, plain


def _time(before: str, amount: float, plain: str, unit: str) -> tuple[float, str]:
    if unit == "%":
        raise ValueError(f"a time has no %; write {before}2s, or {before}+{plain}% against a baseline")
    if unit not in ("s", "ms"):
        fault = f"the unit {unit} is not known" if unit else "the limit needs a unit"
        raise ValueError(f"{fault}: write {before}{plain}s or {before}{plain}ms")
    if not amount:
        raise ValueError(f"no time is below 0; write for example {before}2s")
    return amount / (1000 if unit == "ms" else 1), f"{plain}{unit}"


def _share(before: str, amount: float, plain: str, unit: str) -> tuple[float, str]:
    if unit not in ("", "%"):
        raise ValueError(f"the unit {unit} is not known: write {before}{plain}%")
    share = amount / 100 if unit else amount
    if share > 1:
        raise ValueError(
            f"a share is at most 100%; write {before}{plain}%" if not unit else "a share is at most 100%"
        )
    return share, f"{share * 100:.12g}%"
