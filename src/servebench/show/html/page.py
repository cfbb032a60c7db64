"""The HTML of the report: what was read and drawn, as one page. Every text of a log is escaped.

The page's frame, look and behaviour are report.html, report.css and report.js beside this file.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

import msgspec

from servebench import __version__
from servebench.analysis.limits import Limit
from servebench.log.schema import Log, engine_name
from servebench.log.store import numbers_by_size
from servebench.plan.strategies import LoadResult
from servebench.show import candidates, layouts
from servebench.show.candidates import Question
from servebench.show.html import details
from servebench.show.html.decision import decision, judged
from servebench.show.html.first_screen import first_screen
from servebench.show.html.groups import Group, load_words, studies
from servebench.show.html.read import Point, units
from servebench.show.html.table import table
from servebench.show.layouts import Study
from servebench.show.tables import counted
from servebench.show.verdict import SearchResult

HERE = Path(__file__)
OPEN_FIGURES = 12  # a script with more is opened by a click
NOTES = 3  # lines of a script's stderr that are shown
CORES = re.compile(r"\d+ cores")


@dataclass(frozen=True)
class Drawing:
    """The figures of one plot script (SVG by name), its docstring, and its stderr."""

    script: str
    about: str
    figures: Mapping[str, str]
    said: str


def page(
    folder: Path,
    points: Sequence[Point],
    drawings: Sequence[Drawing],
    searches: Sequence[SearchResult],
    limits: str = "",
) -> str:
    """The whole page. `limits` stand in the box that the reader may change."""
    style, script = (HERE.with_name(f"report.{kind}").read_text() for kind in ("css", "js"))
    found = studies(points)
    decisions = _decisions(folder, points, judged(limits))
    parts = list(_parts(points, found, drawings, searches, decisions))
    title = " · ".join(_title(points, [study for study, _ in found]))
    return Template(HERE.with_name("report.html").read_text()).substitute(
        title=escape(title),
        limits=escape(limits),
        names=escape(msgspec.json.encode(units()).decode()),
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        style=style,
        script=script,
        facts=_facts(folder, points),
        links=" ".join(f'<a href="#{name}">{escape(words)}</a>' for name, words, _ in parts),
        parts="\n".join(f'<section id="{name}">{inside}</section>' for name, _, inside in parts),
    )


def _decisions(folder: Path, points: Sequence[Point], within: tuple[Limit, ...]) -> dict[str, tuple[str, ...]]:
    """HTML of each study that can be decided, by its name."""
    runs = sorted((run for point in points for run in point.runs), key=lambda run: numbers_by_size(run.name))
    found: dict[str, tuple[str, ...]] = {}
    for study in layouts.studies(candidates.once(run.log for run in runs), with_failed=True):
        decided = candidates.decided(study, Question(within)) if within else None
        found[f"{study.model}, {study.asked}"] = decision(study, decided, str(folder))
    return found


def _hash(text: str) -> str:
    """A source that a content security policy allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# What the page is about.


def _title(points: Sequence[Point], found: Sequence[Study]) -> Iterator[str]:
    """Model, what was asked, engines and versions, and what they ran on, as far as the logs know."""
    logs = [run.log for point in points for run in point.runs]
    yield ", ".join(dict.fromkeys(_short(study.model) for study in found))
    yield found[0].asked if len(found) == 1 else f"{len(found)} studies"
    engines = dict.fromkeys(map(_engine, logs))
    yield ", ".join(name for name in engines if not any(other.startswith(f"{name} ") for other in engines))
    yield from filter(None, [", ".join(filter(None, dict.fromkeys(map(_hardware, logs))))])


def _short(model: str) -> str:
    return model.rpartition("/")[2]


def _engine(log: Log) -> str:
    """`vLLM 0.33`: the package and version that a log knows, by the name that people write."""
    _, _, version = log.server_facts.engine.rpartition(" ")
    name = engine_name(log.server.engine)
    return f"{name} {version}" if version[:1].isdigit() else name


def _hardware(log: Log) -> str:
    """`8 x NVIDIA H100 80GB HBM3`, or the cores of a host without GPUs; "" of a server that others started."""
    environment = log.identity.get("environment", {})
    if log.server.urls or not environment:
        return ""
    gpus = Counter(environment.get("gpus", []))
    named = [f"{n} x {name}" for name, n in gpus.items()]
    return ", ".join(named or CORES.findall(environment.get("host", "")))


def _facts(folder: Path, points: Sequence[Point]) -> str:
    runs = [run for point in points for run in point.runs]
    requests, failed = (sum(int(run.row[name] or 0) for run in runs) for name in ("requests", "failed"))
    started = sorted(run.log.started_at[:10] for run in runs)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    words = [f"{folder.resolve().name}/", f"measured {' to '.join(dict.fromkeys((started[0], started[-1])))}"]
    words += [
        counted(len(points), "point"),
        counted(len(runs), "run"),
        f"{requests:,} requests, {failed:,} failed",
    ]
    return " · ".join(map(escape, [*words, f"written {now} by ServeBench {__version__}"]))


# Its parts.


def _parts(
    points: Sequence[Point],
    found: Sequence[tuple[Study, Sequence[Group]]],
    drawings: Sequence[Drawing],
    searches: Sequence[SearchResult],
    decisions: Mapping[str, tuple[str, ...]],
) -> Iterator[tuple[str, str, str]]:
    """(id, words of the link to it, HTML) of each section."""
    several = len({study.model for study, _ in found}) > 1
    for number, (study, groups) in enumerate(found):
        name = f"{_short(study.model)}, {study.asked}" if several else study.asked[:1].upper() + study.asked[1:]
        link, head = (name, name) if len(found) > 1 else ("Best layout and points", "")
        yield f"study-{number}", link, _study(number, groups, head, decisions[f"{study.model}, {study.asked}"])
    labels = {
        point.number: f"{group.layout.name}, {load_words(point)}"
        for _, groups in found
        for group in groups
        for point in group.points
    }
    if searches:
        yield "searches", "Searches", "<h2>Searches</h2>" + "".join(map(_search, searches))
    if drawings:
        # Scripts that draw few figures come first, since each shows much; those without a figure come last.
        drawn = [drawing for drawing in drawings if drawing.figures or drawing.said]
        few_first = sorted(drawn, key=lambda drawing: len(drawing.figures) or float("inf"))
        yield "figures", "Figures", f"<h2>Figures</h2>{''.join(map(_drawing, few_first))}"
    yield "warnings", "Warnings", f"<h2>Warnings</h2>{details.warnings(points, labels)}"
    if failed := details.failed(points, labels):
        yield "failed", "Failed points", f"<h2>Failed points</h2>{failed}"
    every = "".join(details.point(point, labels) for point in points)
    yield "numbers", "Every number", f"<h2>Every number</h2>{EVERY_NUMBER}{every}"
    yield "versions", "Versions", f"<h2>Versions and commands</h2>{details.versions(points)}"


EVERY_NUMBER = "<p class=note>What was asked, what the client says of itself, and every number of each run.</p>"
HOW_TO_READ = """
<p class="note"><output class="shown"></output> Grey numbers are worked out from the measured ones beside them.
± is the 95 % interval over runs. ~ too few requests for a reliable percentile. ? not settled, so no interval.
<span class="needs-js">Click a column to sort, a layout to fold it. Filter with a word, a number, or such as
&lt;100.</span></p>
"""


def _study(number: int, groups: Sequence[Group], name: str, decided: Sequence[str]) -> str:
    head = f"<h2>{escape(name)}</h2>" if name else ""
    points = f'<div class="scroll"><table class="points">{table(groups)}</table></div>'
    screen = first_screen(groups, f"points-{number}", decided)
    return f'{head}{screen}<h3 id="points-{number}">Points</h3>{HOW_TO_READ}{points}'


def _search(search: SearchResult) -> str:
    """Its words; a click shows every load that it tried."""
    inside = details.list_table(map(_searched_load, search.loads), (escape(search.unit), "says", "seen"))
    return f"<details><summary><strong>{escape(search.words)}</strong></summary>{inside}</details>"


def _searched_load(load: LoadResult) -> list[str]:
    seen = ", ".join(f"{k} {'unknown' if v is None else f'{v:.4g}'}" for k, v in load.seen.items())
    return [f"{load.load:g}", escape(", ".join(filter(None, (load.says, load.why)))), escape(seen)]


def _drawing(drawing: Drawing) -> str:
    title, _, about = " ".join(drawing.about.partition("\n\n")[0].split()).partition(": ")
    figures = "".join(_figure(name, svg) for name, svg in drawing.figures.items())
    said = [line for line in drawing.said.splitlines() if not line.startswith("left out:")]
    if len(said) > NOTES + 1:
        said[NOTES:] = [f"and {len(said) - NOTES} lines more"]
    notes = "".join(f"<p class=note>{escape(line)}</p>" for line in said)
    is_open = " open" if len(drawing.figures) <= OPEN_FIGURES else ""
    head = f"<summary><h3>{escape(title)}</h3> {len(drawing.figures)}</summary>"
    what = f"<p>{escape(about[:1].upper() + about[1:])} <code>{escape(drawing.script)}</code></p>"
    inside = f"{head}{what}{notes}<div class=figures>{figures}</div>"
    return f'<details{is_open} id="{escape(drawing.script)}">{inside}</details>'


def _figure(name: str, svg: str) -> str:
    data = quote(" ".join(svg.split()), safe=" '()*+,-./:;=?@[]^_{|}~!$")
    image = f'<img loading="lazy" alt="{escape(name)}" src="data:image/svg+xml,{data}">'
    return f"<figure>{image}<figcaption>{escape(name)}</figcaption></figure>"
