"""All logs of a folder as a table for spreadsheets: `python -m servebench spreadsheet results/`.

It writes summary.csv there: one row per point, failed ones too; units are in the names. A cell is empty where a
log says nothing. A point of several runs has their means and, if it has settled, 95 % intervals of the main
metrics (_low, _high).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from servebench.analysis import cost, filters, metrics, power, samples, sla, stationarity, throughput, trust
from servebench.analysis.cache import derived
from servebench.analysis.sla import Sla
from servebench.cli import commandline
from servebench.errors import no_logs
from servebench.log import identity
from servebench.log.config import fields_of, non_default_fields
from servebench.log.schema import Log
from servebench.show import layouts
from servebench.show.tables import counted

OF_SERVER = ("backend", "model", "tp_size", "num_replicas", "max_ragged_batch_size")
Cell = str | int | float | None


def row(runs: list[Log], slas: Sequence[Sla] = ()) -> dict[str, Cell]:
    """A point by column name: sums of counts and means of metrics over its runs, those that failed left out."""
    good = [log for log in runs if log.status == "ok"] or runs[:1]
    return _asked(runs[0]) | _counted(good) | _metrics(good, slas) | _trusted(good) | _origin(runs[0])


def _asked(log: Log) -> dict[str, Cell]:
    run, asked = log.run, fields_of(log.run)
    return {name: getattr(log.server, name) for name in OF_SERVER} | {
        "mean_prompt_length": run.requests.mean_prompt_length,
        "mean_max_new_tokens": run.requests.mean_max_new_tokens,
        "num_clients": asked.get("num_clients"),
        "request_rate_per_s": asked.get("request_rate"),
        "trace_speed": asked.get("trace_speed"),
        "scenario": asked.get("scenario"),
        "dataset": asked.get("dataset"),
        "probe_rate_per_s": run.probe_rate or None,
        "api": run.api,
        "stream": int(run.stream),
        "temperature": run.temperature,
        "variant": log.server.variant or None,
        "engine_args": " ".join(log.server.engine_args) or None,
        "engine_env": " ".join(log.server.engine_env) or None,
    }


def _counted(runs: list[Log]) -> dict[str, Cell]:
    failed, requests = samples.failed_of(*runs)
    reasons = [why for log in runs if (why := stationarity.why_not_stationary(log))]
    return {
        "status": runs[0].status,
        "runs": len(runs),
        "requests": requests,
        "failed": failed,
        "retries": sum(map(samples.retries, runs)),
        "window_s": sum(throughput.window_s(log) or 0 for log in runs),
        "effective_samples": round(sum(map(stationarity.effective_samples, runs))),
        "not_stationary": None if stationarity.stationary(runs) else reasons[0],
    }


def _metrics(runs: list[Log], slas: Sequence[Sla]) -> dict[str, Cell]:
    per_run = [metrics.values(log) | sla.values(log, slas) for log in runs]
    known = metrics.intervals(per_run, stationarity.stationary(runs))
    cells: dict[str, Cell] = {name: known[name].mean if name in known else None for name in per_run[0]}
    for name in metrics.HEADLINES:
        interval = known[name] if name in known and known[name].known else None
        cells |= {f"{name}_low": interval and interval.low, f"{name}_high": interval and interval.high}
    return cells


def _trusted(runs: list[Log]) -> dict[str, Cell]:
    return {
        "client": client([log.quality.verdict for log in runs]),
        "decides_nothing": ", ".join(trust.marks(runs)) or None,
        "cached_share": max(map(trust.cached_share, runs)) or None,
        "overloaded": int(any(log.quality.overloaded for log in runs)),
        "energy": _energy(runs),
    }


def _energy(runs: Sequence[Log]) -> str | None:
    """The verdict on the energy of all runs: the first that is not ok; None where no GPU is known."""
    worst = next((verdict for verdict in map(power.energy_verdict, runs) if verdict != "ok"), "ok")
    return None if worst == "unknown" else worst


def _origin(log: Log) -> dict[str, Cell]:
    return {
        "engine": log.server_facts.engine,
        "stand_in": int(trust.stand_in(log)),
        "start_s": None if layouts.start_kind(log) is None else log.server_facts.start_s,
        "start": layouts.start_kind(log) or None,
        "gpu_hour_price": log.gpu_hour_price,
        "started_at": log.started_at,
        "log": f"{log.server.engine}/{log.file_name}",
    }


def client(verdicts: Sequence[str]) -> str:
    """The client's verdict on most runs of a point, and how many runs differ."""
    bad = [verdict for verdict in verdicts if verdict != "ok"]
    if not bad:
        return "ok"
    words = trust.in_runs(bad[0], len(bad), len(verdicts))
    return words if words == bad[0] else f"ok, but {words}"


@derived
def _prepare(log: Log, *slas: Sla) -> None:
    """What is asked of the runs of a point, asked of each."""
    row([log], slas)


def write(folder: Path, slas: Sequence[Sla] = (), price: float | None = None) -> tuple[Path, int]:
    """Write FOLDER/summary.csv from the logs in it. Returns (the file, its points)."""
    logs = (log for _, log in filters.passing(folder, (), price, lambda log: _prepare(log, *slas)))
    points = (sorted(runs, key=lambda log: log.run.repetition) for _, runs in groupby(logs, identity.point_of))
    rows = [_with_unusual_settings(row(runs, slas), runs[0]) for runs in points]
    if not rows:
        raise no_logs(folder)
    file = folder / "summary.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, dict.fromkeys(name for cells in rows for name in cells))
        writer.writeheader()
        writer.writerows(rows)
    return file, len(rows)


def _with_unusual_settings(cells: dict[str, Cell], log: Log) -> dict[str, Cell]:
    """And what else was asked for that is not the default, by the names of the options."""
    shown = {*cells, *(name.removesuffix("_per_s") for name in cells), "repetition"}
    more = {
        name: v
        for name, v in (non_default_fields(log.server) | non_default_fields(log.run)).items()
        if name not in shown
    }
    return cells | {name: value if isinstance(value, Cell) else str(value) for name, value in more.items()}


def main() -> None:
    parser = commandline.Parser(description=__doc__)
    commandline.add_folder(parser)
    of_sla = "as in servebench summary; adds columns"
    parser.add_argument("--sla", nargs="+", default=[], metavar="SLA", help=of_sla)
    cost.add_price(parser)
    args = parser.parse_args()
    file, points = write(args.folder, [sla.parse(name) for name in args.sla], args.gpu_hour_price)
    print(f"{file}: {counted(points, 'point')}")
