"""All of a results folder as one HTML page that opens from disk and loads nothing.

    servebench report results/
    servebench report results/ --limits "ttft_p99<2s, tpot_p99<100ms"

First a box for limits. Within limits, which server is the best and how sure that is, as `servebench decide` says
it; without, the best layout of each study and what is wrong with it. Then one row per layout, every point in a
table to sort and filter, all figures, warnings, failed points with the end of their server's log, what each client
says of itself, versions and server commands. The plot scripts, `src/plot_*.py`, are run for the figures.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

from servebench.analysis import cost, limits
from servebench.analysis.limits import Limit
from servebench.analysis.metrics import OfRequests
from servebench.cli import commandline
from servebench.errors import no_logs
from servebench.show.html import decision
from servebench.show.html.page import Drawing, page
from servebench.show.html.read import entries, read, units
from servebench.show.tables import counted
from servebench.show.verdict import searches

SCRIPTS = Path(__file__).parents[3]  # beside the package, in a checkout
AT_ONCE = 2  # plot scripts: each holds the requests of a figure in memory


def parser() -> argparse.ArgumentParser:
    result = commandline.Parser(description=__doc__)
    add = result.add_argument
    commandline.add_folder(result)
    add("-o", "--output", type=commandline.new_file, metavar="FILE", help="the page [FOLDER/report.html]")
    what = 'what a load has to meet, such as "ttft_p99<2s, tpot_p99<100ms"; the reader may change it in the page'
    add("--limits", metavar='"..."', help=f"{what} [those of the sweep, if it had any]")
    cost.add_price(result)
    most = "most figures of one plot script [24]"
    add("--max_figures", type=commandline.COUNT, default=24, metavar="N", help=most)
    return result


def main() -> int:
    args = parser().parse_args()
    wanted = limits.joined(limits.parse(args.limits, refuse=_unknown)) if args.limits else ""
    output = args.output or args.folder / "report.html"
    found = entries(args.folder)
    if not found:
        raise no_logs(args.folder)
    if args.limits is None:
        of_sweep = decision.of_sweep([entry.head for entry in found])
        wanted = "" if any(map(_unknown, decision.judged(of_sweep))) else of_sweep
    scripts = sorted(SCRIPTS.glob("plot_*.py"))
    with TemporaryDirectory() as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
        within = decision.judged(wanted)
        drawings = [pool.submit(draw, args, Path(scratch), script, limits.joined(within)) for script in scripts]
        points = list(read(args.folder, found, args.gpu_hour_price, within))
        for number, _ in enumerate(as_completed(drawings), 1):
            progress(number, len(scripts))
        drawn = [each.result() for each in drawings]
    if not points:  # none of their files could be read to the end
        raise no_logs(args.folder)
    output.write_text(page(args.folder, points, drawn, searches(args.folder), wanted), encoding="utf-8")
    print(f"{output}: {counted(len(points), 'point')}")
    return 0


def _unknown(limit: Limit) -> str:
    """Why the page, which has the numbers of points but not their requests, cannot judge it."""
    if limit.relative:
        return "a report has no baseline; servebench gate compares with one"
    if limit.name in units():
        return ""
    statistics = limit.metric.statistics if isinstance(limit.metric, OfRequests) else ()
    known = ", ".join(f"{limits.short(limit.metric)}_{each}" for each in statistics)
    return f"a report knows {known}; servebench gate judges others"


def progress(number: int, of: int) -> None:
    """One line, which a terminal sees change."""
    again, last = sys.stderr.isatty(), number == of
    if again or last:
        words = f"figures: {number} of {of}"
        print("\r" * again + words, end="\n" * last, file=sys.stderr, flush=True)


def draw(args: argparse.Namespace, scratch: Path, script: Path, within: str = "") -> Drawing:
    """Run a plot script; what it says and how it fails is shown in its place. `within`: limits to decide by."""
    out, most = scratch / script.stem, str(args.max_figures)
    options = ["--format", "svg", "--theme", "auto", "--max_figures", most, "--out_dir", str(out)]
    options += [] if args.gpu_hour_price is None else [f"--{cost.OPTION}", str(args.gpu_hour_price)]
    source = script.read_text()
    options += ["--sla", within] if within and '"--sla"' in source else []
    command = [sys.executable, str(script), "--log_dir", str(args.folder), *options]
    ended = subprocess.run(command, capture_output=True, text=True)
    files = [Path(line) for line in ended.stdout.splitlines()]
    about = ast.get_docstring(ast.parse(source)) or script.stem
    return Drawing(script.name, about, {file.stem: file.read_text() for file in files}, ended.stderr)
