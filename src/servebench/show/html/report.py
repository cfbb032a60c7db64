"""All of a results folder as one HTML page that opens from disk and loads nothing.

    python -m servebench report results/

Every point in a table that can be sorted and filtered, all figures, warnings, failed points with the end of their
server's log, what each client says of itself, configuration, versions and server commands. The figures are those
of the plot scripts, `src/plot_*.py`, which are run for it.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from servebench.cli import commandline
from servebench.errors import no_logs
from servebench.figures import selection
from servebench.log import store
from servebench.log.identity import point_of
from servebench.log.schema import Log, model_name
from servebench.show import advice, spreadsheet
from servebench.show.html.page import Drawing, SearchResult, page
from servebench.show.html.table import Run

SCRIPTS = Path(__file__).parents[3]  # beside the package, in a checkout
ORDER = (*selection.CONFIGURATION, selection.LOAD, selection.REPETITION)


def parser() -> argparse.ArgumentParser:
    result = commandline.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = result.add_argument
    commandline.add_folder(result)
    add("-o", "--output", type=Path, metavar="FILE", help="the page [FOLDER/report.html]")
    most = "no more figures of one script [24]"
    add("--max_figures", type=commandline.COUNT, default=24, metavar="N", help=most)
    return result


def main() -> int:
    args = parser().parse_args()
    output = args.output or args.folder / "report.html"
    with TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        drawings = pool.map(partial(draw, args, Path(scratch)), sorted(SCRIPTS.glob("plot_*.py")))
        points = read(args.folder)
        if not points:
            raise no_logs(args.folder)
        output.write_text(page(args.folder, points, list(drawings), searches(args.folder)), encoding="utf-8")
    print(f"{output}: {len(points)} points")
    return 0


def read(folder: Path) -> list[list[Run]]:
    """The runs of every point of the folder, in the order of the table."""
    points: dict[tuple[Any, ...], list[Run]] = {}
    found = [entry for place in selection.folders(folder) for entry in selection.entries(place)]
    found.sort(key=lambda entry: (entry.path.parent.name, *(trait.of(entry.head) for trait in ORDER)))
    for path, log in store.read(entry.path for entry in found):
        run = run_of(str(path.relative_to(folder)), path.parent.name, log)
        points.setdefault((path.parent.name, *point_of(log)), []).append(run)
    return list(points.values())


def run_of(name: str, place: str, log: Log) -> Run:
    """What the report shows of one log, without its requests, which may be millions.

    The folder `place` stands for the backend, as in the figures: two folders may hold the same engine.
    """
    warnings = advice.of_point(log) if log.status == "ok" else []
    row = spreadsheet.row([log]) | {"backend": place, "model": model_name(log.server.model)}
    return Run(name, msgspec.structs.replace(log, results=[]), row, warnings)


def searches(folder: Path) -> list[SearchResult]:
    """What each search in the folder found, or in those of its backends."""
    found = []
    for path in sorted((*folder.glob("searches/*.json"), *folder.glob("*/searches/*.json"))):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=SearchResult))
        except (OSError, msgspec.MsgspecError) as error:
            print(f"left out: {path}: not what a search found: {error}", file=sys.stderr)
    return found


def draw(args: argparse.Namespace, scratch: Path, script: Path) -> Drawing:
    """Run a plot script; what it says and how it fails is shown in its place."""
    out, most = scratch / script.stem, str(args.max_figures)
    options = ["--format", "svg", "--theme", "auto", "--max_figures", most, "--out_dir", str(out)]
    command = [sys.executable, str(script), "--log_dir", str(args.folder), *options]
    ended = subprocess.run(command, capture_output=True, text=True)
    files = [Path(line) for line in ended.stdout.splitlines()]
    about = ast.get_docstring(ast.parse(script.read_text())) or script.stem
    return Drawing(script.name, about, {file.stem: file.read_text() for file in files}, ended.stderr)
