"""What `--x`, `--y` and `--by` choose: a metric of the registry, the load, or a setting."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from servebench.analysis import filters, limits, metrics
from servebench.analysis.metrics import OfPoint, OfRequests
from servebench.cli.nearest import did_you_mean
from servebench.figures import selection
from servebench.figures.selection import Trait
from servebench.log.schema import Log

Coordinate = str | Callable[[Log], float | None]  # a column of the registry, as `ttft_p99_s`, or a function


@dataclass(frozen=True)
class Quantity:
    """What an axis shows."""

    name: str  # as it is typed
    of: Coordinate
    label: Callable[[Log], str]  # with the unit; that of a load depends on its kind
    column: str = ""  # of the registry
    better: Literal["more", "less"] | None = None
    fields: tuple[str, ...] = ()  # the settings that it shows: its values are few, and ticks stand at them


LOAD = Quantity("load", selection.load_size, selection.load_axis, fields=selection.LOAD_FIELDS)
NUMBERS = {  # settings that an axis may show
    "tp_size": (selection.TP_SIZE, "Tensor parallel size"),
    "num_replicas": (selection.REPLICAS, "Replicas"),
    "gpus": (selection.GPUS, "GPUs"),  # of one TP size, or of several with `--by tp_size`
    "max_ragged_batch_size": (selection.BATCH, "Largest batch (requests)"),
    "mean_prompt_length": (selection.PROMPT, "Mean prompt length (tokens)"),
    "mean_max_new_tokens": (selection.GENERATION, "Mean generation length (tokens)"),
}
TRAITS = {  # what curves may differ in; every other setting of a log may be named too
    "layout": selection.LAYOUT,
    "load": selection.LOAD,
    "model": selection.MODEL,
    **{name: trait for name, (trait, _) in NUMBERS.items() if name != "gpus"},  # layouts of as many would mix
    **dict.fromkeys(selection.LOAD_FIELDS, selection.LOAD),
}


def columns() -> dict[str, str]:
    """Every column of the registry, by its name without the unit: `ttft_p99` -> `ttft_p99_s`."""
    names = [
        [metric.name] if isinstance(metric, OfPoint) else map(metric.column, metric.statistics)
        for metric in metrics.METRICS
    ]
    return {column.removesuffix(metrics.named(column).unit): column for of_one in names for column in of_one}


def quantity(text: str) -> Quantity:
    """An argparse type: a column with or without its unit, `load`, or a setting that is a number."""
    known, name = columns(), _in_full(text)
    if name in known or name in known.values():
        return _of_column(known.get(name, name))
    if text in ("load", *selection.LOAD_FIELDS):
        return LOAD
    if text in NUMBERS:
        trait, label = NUMBERS[text]
        return Quantity(text, lambda log: float(trait.of(log)), lambda log: label, fields=trait.fields)
    if of_requests := {metric.stem: metric for metric in metrics.OF_REQUESTS.values()}.get(name):
        *names, last = (f"{text}_{statistic}" for statistic in of_requests.statistics)
        raise ArgumentTypeError(f"{text!r} is several columns; give {', '.join(names)} or {last}")
    raise _unknown(text, ("load", *known, *NUMBERS), "ttft_p99, request_throughput, load or tp_size")


def _of_column(column: str) -> Quantity:
    metric, label = metrics.named(column), column_label(column)
    return Quantity(column.removesuffix(metric.unit), column, lambda log: label, column, metric.better)


def column_label(column: str) -> str:
    """As an axis is labelled: `TTFT p99 (s)`, `Mean TTFT (s)`, `Throughput (requests/s)`."""
    metric = metrics.named(column)
    words = metric.axis or metric.label + " (s)" * (metric.unit == "_s")
    words = words[:1].upper() + words[1:]
    statistic = column.removesuffix(metric.unit).removeprefix(metric.stem).lstrip("_")
    if statistic in ("", "mean"):
        return f"Mean {words}" if statistic else words
    name, bracket, unit = words.partition(" (")
    return f"{name} {statistic}{bracket}{unit}"


def latency(text: str) -> OfRequests:
    """An argparse type: a metric of which a run has percentiles, without its unit: `ttft`."""
    known, name = (
        {metric.stem: metric for metric in metrics.OF_REQUESTS.values()},
        _in_full(text).removesuffix("_s"),
    )
    if name not in known:
        raise _unknown(text, known, "ttft, tpot or e2e_latency")
    return known[name]


def _in_full(text: str) -> str:
    """`e2e_latency_p99` for `e2e_p99`, as limits are written."""
    for stem, short in limits.SHORT.items():
        if f"{text}_".startswith(f"{short}_") and not text.startswith(stem) and text not in metrics.OF_POINT:
            return stem + text.removeprefix(short)
    return text


def trait(text: str) -> Trait:
    """An argparse type: `layout`, `load`, or a setting, a curve for each of its values."""
    if text in TRAITS:
        return TRAITS[text]._replace(name=text)
    if text not in filters.FIELDS:
        raise _unknown(text, (*TRAITS, *filters.FIELDS), "layout, tp_size, num_replicas or another setting")
    return Trait(lambda log: _sortable(log, text), "", text + " {0[2]}", (text,), text)


def _sortable(log: Log, name: str) -> tuple[bool, float, str]:
    """The value of a setting so that numbers come in their order, before words."""
    value: Any = log.server_facts.engine if name == "engine" else log.fields[name]
    words = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    number = float(value) if isinstance(value, int | float) else 0.0
    return not isinstance(value, int | float), number, words or "none"


def _unknown(text: str, known: Collection[str], such_as: str) -> ArgumentTypeError:
    return ArgumentTypeError(f"no {text!r} here{did_you_mean(text, known, most=1) or f'; give {such_as}'}")
