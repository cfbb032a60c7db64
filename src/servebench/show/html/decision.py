"""The decision of a study on its first screen: the answer, the servers and their intervals, how far to trust it.

report.js decides again within limits that the reader types, from what `servers` says of each load.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite, log
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from servebench.analysis import capacity, cost, limits, power, samples, throughput, trust
from servebench.analysis.capacity import Loads
from servebench.analysis.limits import Limit
from servebench.errors import InputError
from servebench.log import evaluation
from servebench.log.schema import Log
from servebench.show import answers, candidates, decide, points, scores
from servebench.show.candidates import Candidate, Decision
from servebench.show.layouts import Layout, Study
from servebench.show.tables import significant

SEARCHES = ("decide", "find_max", "sla")  # options that say what a sweep was for
# What the page can decide by, in groups whose values are known of the same points.
TYPED = [limits.parse(",".join(f"{name}_p{q}<1s" for q in (50, 90, 95, 99))) for name in ("ttft", "tpot", "e2e")]
TYPED += [limits.parse("error_rate<50%")]
LEVELS = (0, 0.005, 0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975, 0.995, 1)  # of the draws, that the page gets
EVERY_MAY_FAIL = limits.parse("error_rate<=100%")
DRAWS = 1000
KEYS = ("server", "load", "rate", "per_gpu", "tokens", "target", "dollars", "energy", "took", "against")
ORDER = ("server", "gpus", "load", "rate", "per_gpu", "plot", "against", "tokens", "dollars", "energy")
WORDS = ("server", "against")
WIDTH, HEIGHT = 240, 20  # of the line that an interval is


def judged(text: str) -> tuple[Limit, ...]:
    """Limits, if a load can be judged by each of them."""
    try:
        return decide.read_limits(text) if text else ()
    except InputError:
        return ()


def of_sweep(logs: Iterable[Log]) -> str:
    """What the latest sweep that was for limits was for, as it is typed; "" if none was."""
    for run in sorted(logs, key=lambda run: run.started_at, reverse=True):
        for name in SEARCHES:
            if found := judged(str(run.options.get(name) or "")):
                return limits.joined(found)
    return ""


def decision(study: Study, found: Decision | None, folder: str) -> tuple[str, str]:
    """(answer and table, how far to trust it and what to type). Without limits both wait for those typed."""
    of = servers(study)
    said, serve, sure, rows, doubts = "", "", "", "", ""
    if found:
        said, sure = decide.sentence(found), decide.settling(found)
        serve = _serving(found.best.log.server_facts.commands) if found.best else ""
        rows = "".join(_row(found, i, _columns(of)) for i in range(len(found.candidates)))
        doubts = "".join(f"<li>{escape(words)}</li>" for words in decide.doubts(found))
    table = f'<table class="candidates">{_head(of, found)}<tbody>{rows}</tbody></table>'
    top = (
        f'<div class="decision" data-servers="{escape(msgspec.json.encode(of).decode())}">'
        f'<p class="sentence" aria-live="polite">{escape(said)}</p><div class="scroll">{table}</div></div>'
    )
    command = f'<code>servebench decide {escape(shlex.quote(folder))} --sla "<span></span>"</code>'
    exactly = f'<p class="exactly" hidden>Worked out in the page. Exactly, and how far to trust it: {command}</p>'
    scored = scores.of_logs(evaluation.read(Path(folder)), [layout.log for layout in study.layouts])
    right = _right(study, scored)
    trust = f"<h3>How far to trust it</h3><ul>{doubts}</ul>" if doubts else ""
    top += f"<h3>Are the answers right?</h3>{right}" if right else ""
    return top, f'<div class="trust">{trust}{_pre("To serve it", serve)}{_pre("To be sure", sure)}{exactly}</div>'


def _right(study: Study, scored: Sequence[str]) -> str:
    """What came of questions, a row a server, and what else is known of answers."""
    found = answers.rows(study.layouts)
    shown = [i for i, _ in enumerate(answers.COLUMNS) if any(row[i] for row in found)]
    kind = {i: ' class="words"' * answers.COLUMNS[i].left for i in shown}
    heads = "".join(f"<th scope=col{kind[i]}>{escape(answers.COLUMNS[i].head)}</th>" for i in shown)
    cells = ("".join(f"<td{kind[i]}>{escape(row[i])}</td>" for i in shown) for row in found)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    head = f'<table class="answers"><thead><tr>{heads}</tr></thead>'
    table = f'<div class="scroll">{head}<tbody>{body}</tbody></table></div>'
    said = "".join(f"<li>{escape(words)}</li>" for words in (*answers.remarks(study.layouts), *scored))
    return (table if found else "") + (f"<ul>{said}</ul>" if said else "")


def _pre(head: str, command: str) -> str:
    return f"<h3>{head}</h3><pre>{escape(command)}</pre>" if command else ""


def _serving(commands: Sequence[str]) -> str:
    more = f"\n# and {len(commands) - 1} more, a replica each" if len(commands) > 1 else ""
    return commands[0] + more if commands else ""


# The table.


def _columns(of: Sequence[dict[str, Any]]) -> list[str]:
    """Those of which something is known, whatever the limits; `plot` is the line of the interval."""
    gpus, priced = any(each["gpus"] for each in of), any(each["hourly"] for each in of)
    energy = any(load["energy"] for each in of for load in each["loads"])
    shown = {"gpus": gpus, "per_gpu": gpus, "tokens": gpus, "dollars": priced, "energy": energy}
    return [key for key in ORDER if shown.get(key, True)]


def _head(of: Sequence[dict[str, Any]], found: Decision | None) -> str:
    titles = dict(zip(KEYS, (column.head for column in decide.COLUMNS), strict=True)) | {"gpus": "GPUs"}
    per = " a GPU" if (found.per_gpu if found else all(each["gpus"] for each in of)) else ""
    titles |= {"plot": f"req/s{per}\n0 to {significant(_most(found))}"}
    cells = []
    for key in _columns(of):
        first, _, second = titles[key].partition("\n")
        kind = ' class="words"' if key in WORDS else ""
        cells.append(f'<th scope="col" data-key="{key}"{kind}>{escape(first)}<small>{escape(second)}</small></th>')
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def _row(found: Decision, number: int, columns: Sequence[str]) -> str:
    of, best = found.candidates[number], found.candidates[0]
    cells = dict(zip(KEYS, decide.row(found, number), strict=True)) | {"gpus": str(of.gpus or "-")}
    html = {key: escape(text) for key, text in cells.items()}
    html["plot"] = _line(of, best, _most(found)) if of.meets else ""
    inside = "".join(f'<td class="{"words" if key in WORDS else key}">{html[key]}</td>' for key in columns)
    close = of.meets and not found.beaten[number]
    return f'<tr class="{"rival" if close else ""}">{inside}</tr>'


def _most(found: Decision | None) -> float:
    """The right end of all lines."""
    ends = [end for each in (found.candidates if found else ()) for end in (each.value[0], *each.ends)]
    return max((float(end) for end in ends if isfinite(end)), default=0.0) or 1.0


def _line(of: Candidate, best: Candidate, most: float) -> str:
    """The interval of a server before that of the best; with an arrow if it has no end."""

    def at(number: float) -> float:
        return round(4 + (WIDTH - 8) * min(1.0, number / most), 1) if isfinite(number) else WIDTH

    (low, high), (from_, to) = of.ends, best.ends
    arrow = "" if isfinite(high) else "l-5-4m5 4l-5 4"
    return (
        f'<svg class="interval" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">'
        f'<rect x="{at(from_)}" width="{at(to) - at(from_):.1f}" height="{HEIGHT}"/>'
        f'<path d="M{at(low)} 10H{at(high)}{arrow}"/><circle cx="{at(float(of.value[0]))}" cy="10" r="4"/></svg>'
    )


# For report.js.


def servers(study: Study) -> list[dict[str, Any]]:
    """Every server that can be held against the others, and what is known of each of its loads."""
    alike, _ = candidates.alike(study.layouts)
    every = [runs for layout in alike for runs in layout.points]
    found = [_server(layout) for layout in alike]
    loads: list[dict[int, dict[str, Any]]] = [{} for _ in alike]  # by the point's first log
    for group in TYPED:
        noises = capacity.noises_of(every, group)
        for seed, layout in enumerate(alike):
            own = capacity.loads_of(layout.points, group, noises, seed, DRAWS)
            if not own:
                continue
            for i, runs in enumerate(own.points):
                load = loads[seed].setdefault(id(runs[0]), _load(own, i))
                for limit, excess in zip(group, own.excess[:, i], strict=True):
                    share = limit.metric.name == "failed_share"
                    values = (excess + 1) * limit.value if share else excess + log(limit.value)
                    load["values"][limit.name] = _quantiles(values)
    for each, of_layout in zip(found, loads, strict=True):
        each["loads"] = sorted(of_layout.values(), key=lambda load: load["size"])
    return found


def _server(layout: Layout) -> dict[str, Any]:
    log = layout.log
    return {
        "name": layout.name,
        "gpus": throughput.known_gpus(log),
        "hourly": cost.dollars_per_hour(log),
        "unit": points.LOADS[log.run.load.kind],
    }


def _load(own: Loads, number: int) -> dict[str, Any]:
    """A load of a server. Its values by the names of limits are added later."""
    size, runs = float(own.sizes[number]), own.points[number]
    return {
        "size": size,
        "rate": _quantiles(own.rates[number]),
        "weight": float(own.weights[number]),
        "settled": bool(own.settled[number]),
        "wrong": bool(trust.wrong_answers(runs)),
        "overloaded": bool(capacity.exceeded(runs, EVERY_MAY_FAIL)),
        "failed": samples.failed_share(*runs),
        "open": own.open_loop,
        "tokens": own.at(size, candidates.tokens_a_request),
        "energy": own.at(size, power.energy_per_output_token),
        "values": {},
    }


def _quantiles(drawn: np.ndarray) -> list[float]:
    """The estimate, then the draws at LEVELS."""
    return [round(float(each), 5) for each in (drawn[0], *np.quantile(drawn[1:], LEVELS))]
