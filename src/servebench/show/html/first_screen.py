"""The first screen of a study: limits, the decision within them or the best layout, a chart, a row a layout.

report.js chooses again when the reader types limits; it takes all numbers from the rows of the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from servebench.analysis import metrics
from servebench.analysis.stats import Interval, ratio_of_means
from servebench.show.html.chart import chart, styles_of, swatch
from servebench.show.html.groups import RATE, Group, by_gpu, value, warnings, words
from servebench.show.html.table import Column, columns
from servebench.show.tables import counted

COUNTED = ("client-limited", "host-contended", "overloaded", "failed", "not settled", "buffered")
IF_ANY = (
    *("answers: broken", "answers: worse", "answers: below"),
    *("gpu-throttled", "gpu-shared", "cached", "stand-in", "client unknown"),
)
SHOWN = (
    *("load", RATE, "per_gpu", "ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "e2e_latency_p99_s"),
    *metrics.COSTS,
)


def first_screen(groups: Sequence[Group], points_id: str, decided: Sequence[str] = ("", "")) -> str:
    """The groups come the best first. `decided`: HTML of the decision, which replaces the result within limits."""
    per_gpu = by_gpu(groups)
    drawn = chart(groups, per_gpu)
    right = f'<figure class="overview">{drawn}</figure>' if drawn else ""
    decision, trust = decided
    left = f"<div>{_result(groups, per_gpu)}{trust}{_counts(groups, points_id)}</div>"
    table = _layouts(groups, per_gpu)
    return (
        f'{LIMITS}{decision}<div class="screen">{left}{right}</div>'
        f'<h3 class="measured">Each layout at its best measured load<span class="within"></span></h3>'
        f'<div class="scroll"><table class="layouts">{table}</table></div>'
    )


# The result.


def _result(groups: Sequence[Group], per_gpu: bool) -> str:
    best, second = groups[0], groups[1] if len(groups) > 1 else None
    name, says = best.layout.name, "No point can be trusted; the column trust says why."
    doubts: list[str] = []
    if best.best:
        says, doubts = words(best, best.best), warnings(best, best.best) + _more_in_all(groups)
    else:
        name = "No best layout."
    rest, known = _ahead(best, second, per_gpu) if second else ("", "")
    more = "".join(f"<li>{escape(each)}</li>" for each in doubts)
    basis = f"Best {'layout' if second else 'load'}, by requests/s{' a GPU' if per_gpu else ''}"
    return (
        f'<div class="result" aria-live="polite"><h3>{basis}</h3>'
        f'<p class="name">{escape(name)}</p><p class="says">{says}</p>'
        f'<p><span class="next{known}">{escape(rest)}</span></p><ul class="doubts">{more}</ul>{HINT}</div>'
    )


def _ahead(best: Group, second: Group, per_gpu: bool) -> tuple[str, str]:
    """(how far it is before the next, " known" where an interval over runs says so)."""
    first, next_one = value(best, per_gpu), value(second, per_gpu)
    if not next_one:
        return "", ""
    name = f"the next, {second.layout.name}"
    if interval := _ratio(best, second, per_gpu):
        if interval.low <= 1:
            return f"Not distinguishable from {name}.", " known"
        return f"{100 * (interval.low - 1):.0f} to {interval.high - 1:.0%} more than {name}.", " known"
    percent = f"{first / next_one - 1:.0%}"
    return f"{'About as much as' if percent == '0%' else f'{percent} more than'} {name}", ""


def _ratio(best: Group, second: Group, per_gpu: bool) -> Interval | None:
    """Requests/s of the best / those of the second, by their runs."""
    points = [point for point in (second.best, best.best) if point]
    if len(points) < 2 or any("not settled" in mark for point in points for mark in point.marks):
        return None
    rates = [
        [float(rate) / (group.gpus or 1 if per_gpu else 1) for run in point.measured if (rate := run.row[RATE])]
        for group, point in zip((second, best), points, strict=True)
    ]
    return ratio_of_means(*rates)


def _more_in_all(groups: Sequence[Group]) -> list[str]:
    """The layout with the most requests/s, where that is not the best a GPU."""
    most = max(groups, key=lambda group: value(group, per_gpu=False))
    return [f"More requests/s in all, on more GPUs: {most.layout.name}."] if most is not groups[0] else []


# The box and the counts.

HINT = """
<p class="hint note">With limits such as <code>ttft_p99&lt;2s, tpot_p99&lt;100ms</code>, above or after
<code>--limits</code>, the page says which server to run within an SLA, and how sure that is.</p>
"""
LIMITS = """
<p class="limits needs-js"><label>Limits <input class="typed" spellcheck="false" autocomplete="off"
placeholder="ttft_p99&lt;2s, tpot_p99&lt;100ms" title="Separated by commas: ttft, tpot, e2e or itl with
_p50, _p90, _p95, _p99 or _mean, then &lt; and a time in s or ms; error_rate&lt;1%; request_throughput&gt;5.
Each layout is then shown at the load with the most requests/s that is within all of them.
What is not known or not trusted is within no limit. At a fixed request rate, latencies count from the schedule.">
</label><output class="error"></output></p>
"""


def _counts(groups: Sequence[Group], points_id: str) -> str:
    """How many points have each fault; a click keeps only them in the table of points."""
    marks = [", ".join(point.marks) for group in groups for point in group.points]
    found = {word: sum(word in text for text in marks) for word in (*COUNTED, *IF_ANY)}
    parts = [
        f'<a href="#{points_id}" data-word="{word}">{n} {word}</a>' if n else f"<span>0 {word}</span>"
        for word, n in found.items()
        if n or word in COUNTED
    ]
    points = counted(len(marks), "point")
    return f'<p class="counts">{points}: {" · ".join(parts)}</p>'


# One row a layout.


def _layouts(groups: Sequence[Group], per_gpu: bool) -> str:
    shown = [column for column in columns(groups) if column.key in SHOWN]
    if any(column.key == "ttft_p99_s" for column in shown):
        shown = [column for column in shown if not column.key.startswith("e2e")]
    load, *rest = shown
    best = load._replace(head="best load", tip="The load with the most requests/s, of those that can be trusted.")
    plain = (
        ("layout", "words", "Engine, TP size x replicas, and the settings in which layouts differ."),
        *([("GPUs", "", "TP size x replicas.")] if any(group.gpus for group in groups) else []),
    )
    of_best = f"Derived: requests/s{' a GPU' if per_gpu else ''} / those of the best layout."
    heads = [f'<th scope="col" class="{kind}" title="{escape(tip)}">{name}</th>' for name, kind, tip in plain]
    heads += [column.th(column.title()) for column in (best, *rest)]
    heads += [f'<th scope="col" class="derived" title="{of_best}">against<small>the best</small></th>']
    heads += ['<th scope="col" class="words" title="What is wrong with the point.">trust</th>']
    most = value(groups[0], per_gpu)
    rows = [
        _layout(i, group, shown, value(group, per_gpu) / most if most else 0.0, per_gpu, style)
        for i, (group, style) in enumerate(zip(groups, map(swatch, styles_of(groups)), strict=True))
    ]
    return f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _layout(number: int, group: Group, shown: Sequence[Column], share: float, per_gpu: bool, style: str) -> str:
    known = any(column.key == "per_gpu" for column in shown)
    gpus = f"<td>{group.gpus or '-'}</td>" if known else ""
    best = group.best
    cells = "".join(column.td(best) if best else '<td data-value="">-</td>' for column in shown)
    trust = ", ".join(best.marks) or "ok" if best else "no point can be trusted"
    return (
        f'<tr data-layout="{number}" data-gpus="{(group.gpus or 1) if per_gpu else 1}">'
        f'<th scope="row" class="words">{style}<span>{escape(group.layout.name)}</span></th>{gpus}{cells}'
        f'<td class="derived">{ratio(share)}</td><td class="words">{escape(trust)}</td></tr>\n'
    )


def ratio(share: float) -> str:
    return "best" if share == 1 else f"{share:.2f}" if share else "-"
