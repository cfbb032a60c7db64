"""The lower part of the report: warnings, failed points, every number of each run, versions and commands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import msgspec
from msgspec.structs import asdict

from servebench.cli.declare import command_of
from servebench.log.config import fields_of
from servebench.log.schema import Log
from servebench.log.telemetry import Machine, Telemetry
from servebench.show.html.read import Point, Run
from servebench.show.spreadsheet import OF_SERVER
from servebench.show.terminal import quality_line

EMPTY: tuple[Any, ...] = (None, "", (), [], {})
OF_RUN = ("workload_sha256", "workload_remark", "num_workers")  # facts of a client that are not those of its host
Labels = Mapping[int, str]  # of points, by their number


def warnings(points: Sequence[Point], labels: Labels) -> str:
    """Each warning once, with the points that have it; those that differ in numbers alone are one."""
    found: dict[str, list[tuple[Point, str]]] = {}
    for point in points:
        for text in dict.fromkeys(word for run in point.runs for word in run.warnings):
            found.setdefault(re.sub(r"\d[\d.,]*", "N", text), []).append((point, text))
    most_first = sorted(found.values(), key=len, reverse=True)
    return (
        f"<ul class=warnings>{''.join(_warning(same, labels) for same in most_first)}</ul>" if found else "None."
    )


def _warning(same: list[tuple[Point, str]], labels: Labels) -> str:
    numbers = dict.fromkeys(point.number for point, _ in same)
    _, first = same[0]
    if len(numbers) == 1:
        return f"<li>{link(same[0][0], labels)}: {escape(first)}</li>"
    rows = " ".join(map(str, numbers))
    link_to_all = f'<a href="#row-{same[0][0].number}" data-rows="{rows}">{len(numbers)} points</a>'
    each = "".join(f"<li>{link(point, labels)}: {escape(text)}</li>" for point, text in same)
    such_as = "" if len({text for _, text in same}) == 1 else "such as: "
    inside = f"<details><summary>each of them</summary><ul>{each}</ul></details>"
    return f"<li>{link_to_all}: {such_as}{escape(first)}{inside}</li>"


def link(point: Point, labels: Labels) -> str:
    """Leads to the row of a point."""
    return f'<a href="#row-{point.number}" data-rows="{point.number}">{escape(labels[point.number])}</a>'


def failed(points: Sequence[Point], labels: Labels) -> str:
    """Each run that failed, why, and the end of its server's log."""
    found = [(point, run) for point in points for run in point.runs if run.log.status != "ok"]
    return "".join(f"<h3>{link(point, labels)}</h3>{_failure(run.log)}" for point, run in found)


def _failure(log: Log) -> str:
    tail = log.server_facts.log_tail
    return f"<p>{escape(log.failure or '')}</p>" + (f"<pre>{escape(tail)}</pre>" if tail else "")


def point(of: Point, labels: Labels) -> str:
    """Every number of a point, behind a click."""
    name = f"{escape(labels[of.number])} <small>{escape(of.runs[0].name)}</small>"
    inside = "".join(map(_run, of.runs))
    return f'<details id="point-{of.number}" class=point><summary>{name}</summary>{inside}</details>\n'


def _run(run: Run) -> str:
    log = run.log
    said = "".join(f"<p class=warning>{escape(word)}</p>" for word in run.warnings)
    lists = {
        "Numbers": {name: value for name, value in run.row.items() if name not in OF_SERVER},
        "Client": log.client | asdict(log.quality),
        "Load": fields_of(log.run),
        "Server": asdict(log.server)
        | asdict(log.server_facts)
        | {"log_tail": "", "configuration": "", "variables": ""},
        "Engine": log.server_facts.configuration | log.server_facts.variables,
        "Machine": _machine(log.machine) if log.machine else {},
        "Meanwhile": _meanwhile(log.telemetry) if log.telemetry else {},
    }
    known = {title: values for title, values in lists.items() if any(v not in EMPTY for v in values.values())}
    inside = "".join(f"<div><h4>{title}</h4>{_list(values)}</div>" for title, values in known.items())
    head = f"<h3>{escape(run.name)}</h3><p>{escape(quality_line(log.quality))}</p>{said}"
    return f"{head}<div class=lists>{inside}</div>" + ("" if log.status == "ok" else _failure(log))


def _machine(machine: Machine) -> dict[str, Any]:
    """A line for each GPU."""
    return asdict(machine) | {"gpus": ""} | {f"GPU {gpu.index}": _known(gpu) for gpu in machine.gpus}


def _meanwhile(seen: Telemetry) -> dict[str, Any]:
    """What host, GPUs and engines did: a line for each."""
    of_gpus = {f"GPU {gpu.index}": _known(gpu) for gpu in seen.gpus}
    of_engines = {f"replica {engine.server}": _known(engine) for engine in seen.engines}
    return {
        "host": _known(seen.host) if seen.host else "",
        **of_gpus,
        **of_engines,
        "remarks": "; ".join(seen.remarks),
    }


def _known(fields: msgspec.Struct) -> str:
    values = ((name, value) for name, value in asdict(fields).items() if value not in EMPTY)
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values
    )


def _list(values: Mapping[str, Any]) -> str:
    """Names and values, empty ones left out."""
    texts = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in values.items() if v not in EMPTY}
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in texts.items())
    return f"<dl>{''.join(rows)}</dl>"


def versions(points: Sequence[Point]) -> str:
    """Each engine, client and server command once, with the number of its runs."""
    logs = [run.log for point in points for run in point.runs]
    texts = {
        "Engines": [log.server_facts.engine for log in logs],
        "Clients": [_client(log) for log in logs],
        "Commands": [command_of(log.options) for log in logs],
        "Server commands": [command for log in logs for command in log.server_facts.commands],
    }
    return "".join(f"<h3>{title}</h3>{_counted(of_runs)}" for title, of_runs in texts.items())


def _client(log: Log) -> str:
    return ", ".join(f"{name} {value}" for name, value in log.client.items() if name not in OF_RUN)


def _counted(texts: Iterable[str]) -> str:
    counts = sorted(Counter(filter(None, texts)).items())
    rows = [[str(n), f"<code>{escape(text)}</code>"] for text, n in counts]
    return list_table(rows, ("runs", "")) or "<p>Unknown.</p>"


def list_table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    """A table of cells of HTML; "" without rows."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table class=list>{f'<tr>{titles}</tr>' if titles else ''}{body}</table>" if body else ""
