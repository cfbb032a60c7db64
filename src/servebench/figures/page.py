"""The page of every figure: options of the script, size and theme, title and legend, saving.

A script says what the logs of one of its figures have in common, and draws:

    for group in curves.groups(args, selection.CONFIGURATION):
        with page(args, group) as figure:
            draw(figure.subplots(), group.series)

A figure is drawn from logs alone; this package imports no engine, no server and no load client.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any, TypeGuard

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from servebench.analysis.metrics import OfRequests
from servebench.cli.commandline import COUNT, Parser
from servebench.errors import InputError
from servebench.figures import axes, labels, selection, theme, ticks
from servebench.figures.curves import Group
from servebench.figures.plotting import LEFT_OUT, explain_empty

LETTERS_PER_INCH = 12  # of a title; those of a legend are smaller, and stand behind their line
INSIDE = 0.98  # share of the page's width that is between its margins
FORMATS: dict[str, dict[str, Any]] = {  # how each is saved
    "png": {"pil_kwargs": {"compress_level": 1}},  # half the time for a third more bytes
    "svg": {"metadata": dict.fromkeys(("Date", "Creator", "Format", "Type"))},  # the same figure is the same file
    "pdf": {},
}


def plot_parser(
    doc: str | None, name: str, every_load: bool = False, x: str = "", y: str = "", by: bool = False
) -> argparse.ArgumentParser:
    """The options of every plot script, and those of scripts that draw one load, or whose axes or curves can be
    chosen: `x` and `y` are what the axes usually show. Figures go to plots/NAME.
    """
    parser = Parser(description=doc)
    parser.set_defaults(parser=parser)
    selection.add_options(parser)
    add = parser.add_argument
    out = Path("plots") / name
    add("--out_dir", type=Path, default=out, metavar="DIR", help="where figures go [%(default)s]")
    add("--format", nargs="+", choices=list(FORMATS), default=["png"], help="kinds of files [png]")
    follow = "colours of the page; auto: an SVG that follows its reader's choice [light]"
    add("--theme", choices=theme.THEMES, default="light", help=follow)
    add("--title", metavar="TEXT", help="title of the figure [what its logs have in common]")
    add("--max_figures", type=COUNT, metavar="N", help="draw no more than the first N [all]")
    if every_load:
        what = "one figure per load [only the highest load; --filter chooses another]"
        add("--every_load", action="store_true", help=what)
    if x and y:
        kinds = "a metric (ttft_p99, throughput_per_gpu, ...), load, or a setting that is a number"
        for option, usual in (("--x", x), ("--y", y)):
            what = f"{kinds} [{usual}]"
            add(option, type=axes.quantity, default=axes.quantity(usual), metavar="NAME", help=what)
    if by:
        what = "a curve for each value: layout (TP x replicas), load, or any setting; all in one figure [none]"
        add("--by", type=axes.trait, metavar="NAME", help=what)
    return parser


def chosen(args: argparse.Namespace) -> dict[str, str]:
    """Of --x, --y and --by those that were given, by name."""
    names = {}
    for option in ("x", "y", "by"):
        value: Any = getattr(args, option, None)
        if value and value != args.parser.get_default(option):
            parts = value if isinstance(value, list) else [value]
            names[option] = "-".join(part.stem if isinstance(part, OfRequests) else part.name for part in parts)
    return names


@contextmanager
def page(args: argparse.Namespace, group: Group, suffix: str = "") -> Iterator[Figure]:
    """A figure to draw on. It is then finished and saved, unless nothing was drawn on it."""
    if args.theme == "auto" and set(args.format) != {"svg"}:
        raise InputError("--theme auto is for files that can follow their reader; add --format svg")
    name = "-".join([group.name + suffix, *(f"{option}_{value}" for option, value in chosen(args).items())])
    with theme.style(args.theme):
        figure = plt.figure()
        yield figure
        if all(map(_is_explanation, _legend_handles(figure))):
            print(f"nothing to draw: {name}", file=sys.stderr)
        else:
            finish(figure, args.title or f"{subject(args, group)}{group.title}")
            save(figure, args, name, [series.color for series in group.series])
        lines = [line for ax in figure.axes for line in ax.lines if line.get_gid() == LEFT_OUT]
        for words in dict.fromkeys(str(line.get_label()) for line in lines):
            print(f"{name}: {words}", file=sys.stderr)
        plt.close(figure)


def subject(args: argparse.Namespace, group: Group) -> str:
    """What the figure shows, before what its logs have in common: the axes, or as the script's help begins."""
    if hasattr(args, "x") and chosen(args).keys() & {"x", "y"}:
        x, y = (q.label(group.log).partition(" (")[0] for q in (args.x, args.y))
        return f"{y} against {x[:1].lower() + x[1:] if x[1:2].islower() else x}: "
    words, colon, _ = (args.parser.description or "").partition(":")
    return f"{words}: " if colon else ""


def finish(figure: Figure, title: str) -> None:
    """Add what every figure has: title, a legend that covers nothing, ticks and labels in free places."""
    for ax in figure.axes:
        ticks.finish(ax)
        explain_empty(ax)
    _add_title_and_legends(figure, title)
    lay_out(figure)
    labelled = [ax for ax in figure.axes if labels.of(ax)]
    for ax in labelled:
        labels.place(ax)
    if labelled:
        lay_out(figure)  # a label that moved or went away may leave room
    figure.set_layout_engine("none")  # it is laid out; saving would draw everything once more to find that


def lay_out(figure: Figure) -> None:
    """Give the axes their places, which drawing would do too, at twice the time."""
    engine = figure.get_layout_engine()
    assert engine is not None, "the style sheets (theme.py) choose one"
    engine.execute(figure)


def _add_title_and_legends(figure: Figure, title: str) -> None:
    """Title and curves stand above the axes as one legend, which keeps its place free, as a title beside one would
    not; what marks mean, and what is left out, stands below."""
    handles = _legend_handles(figure)
    notes = [handle for handle in handles if _is_explanation(handle) and handle.get_linestyle() == "None"]
    curves = [handle for handle in handles if handle not in notes]
    title = "\n".join(fill(line, _letters(figure), break_on_hyphens=False) for line in title.splitlines())
    style = {"title": title, "title_fontsize": 11, "alignment": "left", "handlelength": 3.2}
    _add_legend(figure, curves, loc="outside upper left", **style)
    if notes:
        grey = plt.rcParams["xtick.color"]
        _add_legend(figure, notes, loc="outside lower left", handlelength=1.0, labelcolor=grey)


def _letters(figure: Figure) -> int:
    return int(LETTERS_PER_INCH * figure.get_figwidth())


def _add_legend(figure: Figure, handles: Sequence[Artist], **style: Any) -> None:
    """In as many columns as the figure has room for, to be read row by row."""
    for columns in range(max(1, min(4, len(handles))), 0, -1):
        by_rows = [handle for column in range(columns) for handle in handles[column::columns]]
        names = [fill(str(handle.get_label()), _letters(figure), break_on_hyphens=False) for handle in by_rows]
        legend = figure.legend(by_rows, names, ncols=columns, **style)
        if legend.get_window_extent().width <= INSIDE * figure.bbox.width or columns == 1:
            return
        legend.remove()


def _legend_handles(figure: Figure) -> list[Artist]:
    """What the axes name, once each: curves first, then explanations."""
    found: dict[str, Artist] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return sorted(found.values(), key=_is_explanation)


def _is_explanation(handle: Artist) -> TypeGuard[Line2D]:
    return isinstance(handle, Line2D) and not len(handle.get_xdata())  # type: ignore[arg-type]


def save(figure: Figure, args: argparse.Namespace, name: str, colors: Iterable[str]) -> None:
    """Write the figure in each format and print where."""
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for kind in args.format:
        path = args.out_dir / f"{name}.{kind}"
        figure.savefig(path, **FORMATS[kind])
        if args.theme == "auto":
            path.write_text(theme.follow_reader(path.read_text(), colors))
        print(path)
