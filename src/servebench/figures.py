"""What the plot scripts share: their options, choosing and grouping logs, one style, saving.

A figure is drawn from logs alone; this module imports no engine, no server and no load client.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import yaml
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from servebench import metrics
from servebench.records import Log, LogError, load, model_label

STYLE = Path(__file__).with_name("servebench.mplstyle")
COLORS = {
    "fastgen": "#D55E00",
    "vllm": "#0072B2",
    "llamacpp": "#009E73",
    "aml": "#CC79A7",
    "openai": "#E69F00",
    "sglang": "#56B4E9",
}
SPARE_COLORS = ("#000000", "#56B4E9", "#999999", "#F0E442")
MARKERS = {"fastgen": "D", "vllm": "o", "llamacpp": "s", "aml": "^", "openai": "v", "sglang": "P"}


@dataclass(frozen=True)
class Series:
    """One curve: its logs in the order of load, and its look."""

    label: str
    logs: tuple[Log, ...]
    color: str
    marker: str = "o"
    linestyle: str = "-"

    def points(
        self, x: Callable[[Log], float | None], y: Callable[[Log], float | None]
    ) -> list[tuple[Log, Any, Any]]:
        """(log, x, y) of the logs that have both."""
        values = [(log, x(log), y(log)) for log in self.logs]
        return [(log, a, b) for log, a, b in values if a is not None and b is not None]


def parser(doc: str | None, folder: str) -> argparse.ArgumentParser:
    """The options that every plot script has."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = result.add_argument
    add("--backend", nargs="+", metavar="NAME", help="folders under --log_dir to draw [all of them]")
    add("--log_dir", type=Path, default=Path("results"), metavar="DIR", help="root of the logs [results]")
    look = "folders of logs, a curve each; plot_config.yaml in them may set label, color, marker, linestyle, x_max"
    add("--data_dirs", nargs="+", type=Path, metavar="DIR", help=look)
    add("--model_name", "--model", metavar="NAME", help="only this model [all]")
    add(
        "--out_dir",
        type=Path,
        default=Path("plots") / folder,
        metavar="DIR",
        help="where figures go [%(default)s]",
    )
    add("--format", nargs="+", choices=["png", "svg", "pdf"], default=["png"], help="kinds of files [png]")
    return result


# Choosing logs.


def chosen(args: argparse.Namespace) -> dict[str, list[Log]]:
    """Logs of measured points, by the folder they lie in. Ends with one line if there is none."""
    folders = args.data_dirs or _backend_folders(args)
    found = {str(folder): [log for log in _logs(folder) if _wanted(log, args.model_name)] for folder in folders}
    missing = [folder for folder, logs in found.items() if not logs]
    if missing:
        print(f"no logs to draw in {', '.join(missing)}; measure first or correct --log_dir", file=sys.stderr)
    if len(missing) == len(found):
        sys.exit(1)
    return {folder: logs for folder, logs in found.items() if logs}


def _backend_folders(args: argparse.Namespace) -> list[Path]:
    names = args.backend or sorted(path.name for path in args.log_dir.glob("*") if path.is_dir())
    return [args.log_dir / name for name in names] or [args.log_dir]


def _logs(folder: Path) -> Iterable[Log]:
    """Every log of the folder; files that are none are named and left out."""
    for path in sorted(folder.glob("*.json")):
        try:
            log = load(path)
        except LogError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if log.status == "ok":
            yield log


def _wanted(log: Log, model: str | None) -> bool:
    return model is None or model_label(model) == model_label(log.server.model)


# Grouping them.


def group(logs: Iterable[Log], key: Callable[[Log], Any]) -> dict[Any, list[Log]]:
    """Logs by key, keys in order."""
    groups: dict[Any, list[Log]] = {}
    for log in logs:
        groups.setdefault(key(log), []).append(log)
    return dict(sorted(groups.items()))


def configuration(log: Log) -> tuple[Any, ...]:
    """What the curves of one figure have in common."""
    server, run = log.server, log.run
    sizes = (server.tp_size, server.max_ragged_batch_size, server.num_replicas)
    return (model_label(server.model), *sizes, run.mean_prompt_length, run.mean_max_new_tokens)


def figure_name(key: tuple[Any, ...]) -> str:
    model, tp_size, batch, replicas, prompt, generated = key
    return f"{model}-tp{tp_size}-bs{batch}-replicas{replicas}-prompt{prompt}-gen{generated}"


def figure_title(key: tuple[Any, ...]) -> str:
    model, tp_size, _, replicas, prompt, generated = key
    copies = f", {replicas} replicas" if replicas > 1 else ""
    return f"{model}, TP {tp_size}{copies}\nprompt {prompt}, generation {generated} tokens"


def curves(folders: dict[str, list[Log]], keep: Callable[[Log], bool]) -> list[Series]:
    """One curve a folder, from its logs that are to be kept."""
    spare = cycle(SPARE_COLORS)
    result = []
    for folder, logs in folders.items():
        kept = sorted(filter(keep, logs), key=lambda log: log.run.num_clients)
        name = Path(folder).name
        look = Series(name, tuple(kept), COLORS.get(name) or next(spare), MARKERS.get(name, "o"))
        result.append(replace(look, **_look(Path(folder), ("label", "color", "marker", "linestyle"))))
    return [series for series in result if series.logs]


def _look(folder: Path, keys: Iterable[str]) -> dict[str, Any]:
    """Those settings of the folder's plot_config.yaml (not its polyfit_degree: points are joined, not fitted)."""
    file = folder / "plot_config.yaml"
    config = yaml.safe_load(file.read_text()) if file.exists() else None
    return {key: config[key] for key in keys if key in config} if isinstance(config, dict) else {}


def limit_axes(ax: Axes, folders: Iterable[str]) -> None:
    """The largest x_max and y_max of the plot_config.yaml files; both axes start at 0."""
    limits = [_look(Path(folder), ("x_max", "y_max")) for folder in folders]
    for name, setter in (("x_max", ax.set_xlim), ("y_max", ax.set_ylim)):
        known = [limit[name] for limit in limits if name in limit]
        setter(0, max(known) if known else None)


# Drawing.


def whole_numbers(axis: Axis) -> None:
    """Ticks for what is counted: clients, replicas."""
    axis.set_major_locator(MaxNLocator(integer=True))


def trusted(log: Log) -> bool:
    return not log.quality.verdict.startswith("client-limited")


def draw_curve(
    ax: Axes, series: Series, x: Callable[[Log], float | None], y: Callable[[Log], float | None]
) -> list[tuple[Log, Any, Any]]:
    """A curve joined in the order of load, untrusted points hollow. Returns what was drawn."""
    points = series.points(x, y)
    xs, ys = [p[1] for p in points], [p[2] for p in points]
    style = {"color": series.color, "marker": series.marker, "linestyle": series.linestyle}
    ax.plot(xs, ys, label=series.label, **style)  # type: ignore[arg-type]
    hollow = [(a, b) for log, a, b in points if not trusted(log)]
    if hollow:
        ax.plot(*zip(*hollow, strict=True), series.marker, color=series.color, markerfacecolor="white", zorder=3)
    for log, a, b in points:
        failed = metrics.failed_share(log)
        if failed:
            ax.annotate(f"{failed:.0%} failed", (a, b), (4, -11), textcoords="offset points", fontsize=8)
    return points


def note_hollow(figure: Figure, all_series: Iterable[Series]) -> None:
    """Say what hollow points are, when there are any."""
    if any(not trusted(log) for series in all_series for log in series.logs):
        figure.text(0.99, 0.005, "hollow: limited by the client", ha="right", fontsize=8, color="#555555")


def style() -> None:
    plt.style.use(str(STYLE))


def save(figure: Figure, args: argparse.Namespace, name: str) -> None:
    """Write the figure and say where."""
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for kind in args.format:
        path = args.out_dir / f"{name}.{kind}"
        figure.savefig(path, metadata={"Date": None} if kind == "svg" else None)
        print(path)
    plt.close(figure)
