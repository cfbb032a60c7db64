"""The HTML of the report: what was read and drawn, as one page. Every text of a log is escaped.

The page's frame, look and behaviour are report.html, report.css and report.js beside this file.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec.structs import asdict

from servebench import __version__
from servebench.log.config import fields_of
from servebench.log.schema import Log
from servebench.plan.strategies import LoadResult
from servebench.show.html.table import CONFIGURATION, Run, Runs, common, table
from servebench.show.terminal import quality_line

HERE = Path(__file__)
OPEN_FIGURES = 12  # a section with more is opened by a click
EMPTY: tuple[Any, ...] = (None, "", (), [], {})
NOTES = 3  # lines of a script's stderr that are shown


@dataclass(frozen=True)
class Drawing:
    """The figures of one plot script (SVG by name), its docstring, and its stderr."""

    script: str
    about: str
    figures: dict[str, str]
    said: str


class SearchResult(msgspec.Struct):
    """What a search found: the fields that the report shows of the file that campaign/loop.py wrote.

    A Verdict has more, but its server and run may be an older version's.
    """

    words: str
    unit: str
    loads: list[LoadResult]


def page(folder: Path, points: list[Runs], drawings: list[Drawing], searches: list[SearchResult]) -> str:
    """The whole page."""
    style, script = (HERE.with_name(f"report.{kind}").read_text() for kind in ("css", "js"))
    # Scripts that draw few figures come first, since each shows much; those without a figure come last.
    drawings = sorted(drawings, key=lambda drawing: len(drawing.figures) or float("inf"))
    return Template(HERE.with_name("report.html").read_text()).substitute(
        folder=escape(folder.resolve().name),
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        style=style,
        script=script,
        facts=_facts(points),
        common=common(points),
        table=table(points),
        searches="".join(map(_search, searches)) or "<p>None.</p>",
        figures="".join(map(_drawing, drawings)),
        warnings=_warnings(points),
        failed=_failed(points),
        points="".join(_point(number, runs) for number, runs in enumerate(points)),
        versions=_versions(points),
    )


def _hash(text: str) -> str:
    """A source that a content security policy allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _facts(points: list[Runs]) -> str:
    runs = [run for point in points for run in point]
    requests, failed = (sum(int(run.row[name] or 0) for run in runs) for name in ("requests", "failed"))
    started = sorted(run.log.started_at[:10] for run in runs)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    words = [f"{len(points):,} points", f"{len(runs):,} runs", f"{requests:,} requests", f"{failed:,} failed"]
    words += [f"measured {' to '.join(dict.fromkeys((started[0], started[-1])))}", f"written {now}"]
    return " · ".join(map(escape, [*words, f"ServeBench {__version__}"]))


def _search(search: SearchResult) -> str:
    """Its words; a click shows every load that it tried."""
    inside = _list_table(map(_searched_load, search.loads), (escape(search.unit), "says", "seen"))
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


def _warnings(points: list[Runs]) -> str:
    found = [(number, run, word) for number, runs in enumerate(points) for run in runs for word in run.warnings]
    return _list_table([_link(number, run), escape(word)] for number, run, word in found) or "<p>None.</p>"


def _failed(points: list[Runs]) -> str:
    found = [(number, run) for number, runs in enumerate(points) for run in runs if run.log.status != "ok"]
    return "".join(f"<h3>{_link(number, run)}</h3>{_failure(run.log)}" for number, run in found) or "<p>None.</p>"


def _failure(log: Log) -> str:
    tail = log.server_facts.log_tail
    return f"<p>{escape(log.failure or '')}</p>" + (f"<pre>{escape(tail)}</pre>" if tail else "")


def _link(number: int, run: Run) -> str:
    return f'<a href="#point-{number}">{escape(run.name.removesuffix(".json"))}</a>'


def _point(number: int, runs: Runs) -> str:
    inside = "".join(map(_run, runs))
    name = escape(runs[0].name.removesuffix(".json"))
    return f'<details id="point-{number}" class=point><summary>{name}</summary>{inside}</details>\n'


def _run(run: Run) -> str:
    log = run.log
    warnings = "".join(f"<p class=warning>{escape(word)}</p>" for word in run.warnings)
    lists = {
        "Numbers": {name: value for name, value in run.row.items() if name not in CONFIGURATION},
        "Client": log.client | asdict(log.quality),
        "Load": fields_of(log.run),
        "Server": asdict(log.server) | asdict(log.server_facts) | {"log_tail": ""},
    }
    inside = "".join(f"<div><h4>{title}</h4>{_list(values)}</div>" for title, values in lists.items())
    head = f"<h3>{escape(run.name)}</h3><p>{escape(quality_line(log.quality))}</p>{warnings}"
    return f"{head}<div class=lists>{inside}</div>" + ("" if log.status == "ok" else _failure(log))


def _list(values: dict[str, Any]) -> str:
    """Names and values, empty ones left out."""
    texts = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in values.items() if v not in EMPTY}
    rows = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in texts.items())
    return f"<dl>{''.join(rows)}</dl>"


def _versions(points: list[Runs]) -> str:
    """Each engine, client and server command once, with the number of its runs."""
    logs = [run.log for runs in points for run in runs]
    texts = {
        "Engines": [log.server_facts.engine for log in logs],
        "Clients": [", ".join(f"{name} {value}" for name, value in log.client.items()) for log in logs],
        "Server commands": [command for log in logs for command in log.server_facts.commands],
    }
    return "".join(f"<h3>{title}</h3>{_counted(of_runs)}" for title, of_runs in texts.items())


def _counted(texts: Iterable[str]) -> str:
    counts = sorted(Counter(filter(None, texts)).items())
    rows = [[str(n), f"<code>{escape(text)}</code>"] for text, n in counts]
    return _list_table(rows, ("runs", "")) or "<p>Unknown.</p>"


def _list_table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    """A table of cells of HTML; "" without rows."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table class=list>{f'<tr>{titles}</tr>' if titles else ''}{body}</table>" if body else ""
