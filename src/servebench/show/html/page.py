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
from servebench.log.schema import Log
from servebench.show.html.table import CONFIGURATION, Reading, Runs, common, table
from servebench.show.terminal import quality_line

HERE = Path(__file__)
OPEN_FIGURES = 12  # a section with more is opened by a click


@dataclass(frozen=True)
class Drawing:
    """The figures of one plot script (SVG by name), its docstring, and what it said on stderr."""

    script: str
    about: str
    figures: dict[str, str]
    said: str


class Looked(msgspec.Struct):
    """What a search saw at one load."""

    load: float
    says: str
    why: str = ""
    seen: dict[str, float | None] = {}


class Found(msgspec.Struct):
    """What a search found, of that which search.py keeps."""

    words: str
    unit: str
    loads: list[Looked]


def page(folder: Path, points: list[Runs], drawn: list[Drawing], searches: list[Found]) -> str:
    """The whole page."""
    style, script = (HERE.with_name(f"report.{kind}").read_text() for kind in ("css", "js"))
    return Template(HERE.with_name("report.html").read_text()).substitute(
        folder=escape(folder.resolve().name),
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        style=style,
        script=script,
        facts=_facts(points),
        common=common(points),
        table=table(points),
        searches="".join(map(_search, searches)) or "<p>None.</p>",
        figures="".join(map(_drawing, sorted(drawn, key=_worth))),
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
    counted, failed = (sum(int(run.row[name] or 0) for run in runs) for name in ("requests", "failed"))
    started = sorted(run.log.started_at[:10] for run in runs)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    words = [f"{len(points):,} points", f"{len(runs):,} runs", f"{counted:,} requests", f"{failed:,} failed"]
    words += [f"measured {' to '.join(dict.fromkeys((started[0], started[-1])))}", f"written {now}"]
    return " · ".join(map(escape, [*words, f"ServeBench {__version__}"]))


def _search(found: Found) -> str:
    """Its words; a click shows every load that it looked at."""
    head = f"<tr><th>{escape(found.unit)}</th><th>says</th><th>seen</th></tr>"
    inside = f"<table class=list>{head}{''.join(map(_looked, found.loads))}</table>"
    return f"<details><summary><strong>{escape(found.words)}</strong></summary>{inside}</details>"


def _looked(looked: Looked) -> str:
    seen = ", ".join(f"{k} {'unknown' if v is None else f'{v:.4g}'}" for k, v in looked.seen.items())
    cells = (f"{looked.load:g}", ", ".join(filter(None, (looked.says, looked.why))), seen)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _worth(drawing: Drawing) -> float:
    """The figures that say most at once come first: those of scripts that need few."""
    return len(drawing.figures) or float("inf")


def _drawing(drawing: Drawing) -> str:
    title, _, about = " ".join(drawing.about.partition("\n\n")[0].split()).partition(": ")
    figures = "".join(_figure(name, svg) for name, svg in drawing.figures.items())
    said = [line for line in drawing.said.splitlines() if not line.startswith("left out:")]
    more = [f"and {len(said) - 3} lines more"] if len(said) > 4 else said[3:]
    notes = "".join(f"<p class=note>{escape(line)}</p>" for line in [*said[:3], *more])
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
    rows = "".join(f"<tr><td>{_link(number, run)}</td><td>{escape(word)}</td></tr>" for number, run, word in found)
    return f"<table class=list>{rows}</table>" if rows else "<p>None.</p>"


def _failed(points: list[Runs]) -> str:
    found = [(number, run) for number, runs in enumerate(points) for run in runs if run.log.status != "ok"]
    return "".join(f"<h3>{_link(number, run)}</h3>{_failure(run.log)}" for number, run in found) or "<p>None.</p>"


def _failure(log: Log) -> str:
    tail = log.server_facts.log_tail
    return f"<p>{escape(log.failure or '')}</p>" + (f"<pre>{escape(tail)}</pre>" if tail else "")


def _link(number: int, run: Reading) -> str:
    return f'<a href="#point-{number}">{escape(run.name.removesuffix(".json"))}</a>'


def _point(number: int, runs: Runs) -> str:
    inside = "".join(_run(run) for run in runs)
    name = escape(runs[0].name.removesuffix(".json"))
    return f'<details id="point-{number}" class=point><summary>{name}</summary>{inside}</details>\n'


def _run(run: Reading) -> str:
    log = run.log
    said = "".join(f"<p class=warning>{escape(word)}</p>" for word in run.warnings)
    tables = {
        "Numbers": {name: value for name, value in run.row.items() if name not in CONFIGURATION},
        "Client": log.client | asdict(log.quality),
        "Load": asdict(log.run),
        "Server": asdict(log.server) | asdict(log.server_facts) | {"log_tail": ""},
    }
    inside = "".join(f"<div><h4>{title}</h4>{_list(values.items())}</div>" for title, values in tables.items())
    head = f"<h3>{escape(run.name)}</h3><p>{escape(quality_line(log.quality))}</p>{said}"
    return f"{head}<div class=lists>{inside}</div>" + ("" if log.status == "ok" else _failure(log))


def _list(values: Iterable[tuple[str, Any]]) -> str:
    """Names and values, those that say nothing left out."""
    said = [(name, f"{value:.6g}" if isinstance(value, float) else value) for name, value in values]
    rows = (f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in said if v not in (None, "", (), [], {}))
    return f"<dl>{''.join(rows)}</dl>"


def _versions(points: list[Runs]) -> str:
    """Each engine, client and server command once, with the number of its runs."""
    logs = [run.log for runs in points for run in runs]
    engines = _counted(log.server_facts.engine for log in logs)
    clients = _counted(", ".join(f"{name} {value}" for name, value in log.client.items()) for log in logs)
    commands = _counted(command for log in logs for command in log.server_facts.commands)
    return f"<h3>Engines</h3>{engines}<h3>Clients</h3>{clients}<h3>Server commands</h3>{commands}"


def _counted(texts: Iterable[str]) -> str:
    counts = sorted(Counter(filter(None, texts)).items())
    rows = "".join(f"<tr><td>{n}</td><td><code>{escape(text)}</code></td></tr>" for text, n in counts)
    return f"<table class=list><tr><th>runs</th><th></th></tr>{rows}</table>" if rows else "<p>Unknown.</p>"
