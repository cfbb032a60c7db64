"""How much load can this machine measure, and how exactly?

    ./servebench calibrate --num_clients 1 64 1000

The client puts its load on the reference server, which records when every event really left. The client's
TTFT and ITL are then compared with that record. Both run on this machine, so the server takes its share of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import matplotlib.pyplot as plt
import msgspec
import numpy as np
from matplotlib.axes import Axes
from tabulate import tabulate

from servebench.analysis import latency
from servebench.cli import live
from servebench.cli.commandline import COUNT, Parser
from servebench.cli.signals import ends_on_signals
from servebench.figures import theme, ticks
from servebench.load.fleet import Outcome, default_workers, run_load
from servebench.load.sharding import Target
from servebench.log.config import Clients, RunConfig, Synthetic
from servebench.log.result import Result
from servebench.log.schema import Quality
from servebench.plan import defaults
from servebench.reference.behaviour import RequestRecord
from servebench.workload import Request, Workload

NUM_CLIENTS = (1, 16, 64, 256, 500, 1000)
TTFT_S, GAP_S, TOKENS = 0.05, 0.01, 100
TOLERANCE = 0.01
STATISTICS = {  # from latency.timing_statistics: what a table or a figure calls it
    f"{metric}_{which}_s": f"{metric.upper()} {which}"
    for metric in ("ttft", "itl")
    for which in ("mean", "p50", "p99")
}
DRAWN = {  # of these statistics the curve's colour and marker
    "ttft_mean_s": ("#0072B2", "o"),
    "ttft_p99_s": ("#56B4E9", "s"),
    "itl_p50_s": ("#009E73", "^"),
    "itl_p99_s": ("#D55E00", "D"),
}


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """One load on the reference server. `true` and `measured` have the STATISTICS, in s."""

    num_clients: int
    gap_s: float
    requests: int
    failed: int
    events_per_s: float
    true: dict[str, float]
    measured: dict[str, float]
    quality: Quality

    def error_s(self, statistic: str) -> float:
        return self.measured[statistic] - self.true[statistic]

    def relative_error(self, statistic: str) -> float:
        return abs(self.error_s(statistic)) / self.true[statistic]

    @property
    def error(self) -> float:
        """The largest relative error of all statistics."""
        return max(map(self.relative_error, STATISTICS))


def main() -> int:
    """Measure, print a table, draw a figure, keep the numbers. Returns the exit status."""
    args = _parser().parse_args()
    with ends_on_signals():
        rows: list[Calibration] = []
        for clients in sorted(args.num_clients):
            live.show(f"{len(rows)} of {len(args.num_clients)} loads", f"{clients} clients")
            rows.append(calibrate_point(clients, args.num_requests, args.num_workers))
        live.clear()
    print(table(rows))
    print(conclusion(rows))
    folder = args.out_json_dir / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calibration.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    with theme.style("light"):
        figure, ax = plt.subplots()
        draw(ax, rows)
        figure.legend(loc="outside lower center", ncols=5)
        figure.savefig(folder / "calibration.png")
    print(f"numbers and figure are in {folder}/")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    usual = " ".join(map(str, NUM_CLIENTS))
    add("--num_clients", nargs="+", type=COUNT, default=NUM_CLIENTS, metavar="N", help=f"loads to try [{usual}]")
    add("--num_requests", type=COUNT, metavar="N", help="requests of each load [4 x clients + 32]")
    add("--num_workers", type=COUNT, metavar="N", help="client processes [by cores and clients]")
    add("--out_json_dir", type=Path, default=Path("results"), metavar="DIR", help="where numbers go [results]")
    return parser


def calibrate_point(clients: int, requests: int | None = None, workers: int | None = None) -> Calibration:
    """Put this load on a reference server and hold the client against its record."""
    run = RunConfig(
        load=Clients(num_clients=clients),
        requests=Synthetic(mean_prompt_length=8, mean_max_new_tokens=TOKENS),
        num_requests=requests or defaults.num_requests(clients),
    )
    request = Request("word " * 8, 8, TOKENS)
    workload = Workload([request] * run.num_requests, [request] * (4 * clients))
    with tempfile.TemporaryDirectory() as folder, reference_server(Path(folder), GAP_S) as (url, records):
        target = Target([f"{url}/v1/completions"], {}, completion_body, lambda: None)
        outcome = run_load(run, workload, target, Path(folder) / "parts", workers or default_workers(run.load))
        truth = {int(record.request_id.rpartition("-")[2]): record for record in records()}
    return compare(clients, GAP_S, outcome, truth)


def completion_body(request: Request) -> bytes:
    return msgspec.json.encode({"prompt": request.prompt, "max_tokens": request.max_new_tokens, "stream": True})


@contextmanager
def reference_server(
    folder: Path, gap_s: float, *more: str
) -> Iterator[tuple[str, Callable[[], list[RequestRecord]]]]:
    """Start one; yields its URL, and a function that ends it and returns its records, which go to `folder`.

    `more` are further options. One that is already given here is replaced.
    """
    options = ["--port", "0", "--ttft", TTFT_S, "--gap", gap_s, "--record", folder / "truth", *more]
    command = [sys.executable, "-m", "servebench", "reference-server", *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout

    def records() -> list[RequestRecord]:
        process.terminate()
        process.wait(60)
        files = [path.read_bytes() for path in folder.glob("truth.*")]
        return [record for file in files for record in msgspec.json.decode(file, type=list[RequestRecord])]

    try:
        yield process.stdout.readline().strip(), records
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def compare(clients: int, gap_s: float, outcome: Outcome, truth: dict[int, RequestRecord]) -> Calibration:
    """The same requests, as the client and as the server saw them."""
    measured = [r for r in outcome.results if r.phase == "measured"]
    done = [r for r in measured if r.error is None]
    start, end = outcome.window_ns or (0, 1)
    in_window = sum(int(np.sum((start < at) & (at <= end))) for at in map(_events_ns, outcome.results))
    sent_ns = [[t - record.arrived_ns for t in record.events_ns] for record in (truth[r.id] for r in done)]
    return Calibration(
        num_clients=clients,
        gap_s=gap_s,
        requests=len(measured),
        failed=len(measured) - len(done),
        events_per_s=in_window / ((end - start) / 1e9),
        true=latency.timing_statistics(sent_ns),
        measured=latency.timing_statistics([r.event_ns for r in done]),
        quality=outcome.quality,
    )


def _events_ns(r: Result) -> np.ndarray:
    """When its events arrived, by the clock. Shape (events,)."""
    return np.array(r.event_ns, dtype=np.int64) + r.sent_ns


def table(rows: list[Calibration]) -> str:
    """True -> measured in ms, a row a load."""
    return tabulate([_cells(row) for row in rows], "keys", disable_numparse=True, stralign="right")


def _cells(row: Calibration) -> dict[str, str]:
    quality, true, measured = row.quality, row.true, row.measured
    achieved = quality.achieved_concurrency / quality.asked_concurrency if quality.asked_concurrency else 0
    return {
        "clients": str(row.num_clients),
        "events/s": f"{row.events_per_s:.0f}",
        **{f"{w} (ms)": f"{true[k] * 1e3:.3f} -> {measured[k] * 1e3:.3f}" for k, w in STATISTICS.items()},
        "largest error": f"{row.error:.2%}",
        "merged": f"{quality.merged_share:.2%}",
        "us CPU/event": "-" if quality.cpu_per_event_s is None else f"{quality.cpu_per_event_s * 1e6:.1f}",
        "concurrency": f"{achieved:.1%}",
        "failed": f"{row.failed}/{row.requests}",
        "client": quality.verdict.partition(":")[0],
    }


def conclusion(rows: list[Calibration]) -> str:
    """The largest load up to which every load was measured within the tolerance."""
    good = list(takewhile(_is_exact, rows))
    if not good:
        return f"no load here was measured with an error below {TOLERANCE:.0%}; free a core and calibrate again"
    largest, more = good[-1], "" if len(good) < len(rows) else " or more (no larger one was tried)"
    load = f"{largest.num_clients} clients, {largest.events_per_s:.0f} events/s"
    return f"this machine measures {load}{more} with an error below {TOLERANCE:.0%}"


def _is_exact(row: Calibration) -> bool:
    return row.error <= TOLERANCE and not row.failed and row.quality.verdict == "ok"


def draw(ax: Axes, rows: list[Calibration]) -> None:
    """Relative error of each statistic against clients; hollow where the client itself says it is the limit."""
    clients = np.array([row.num_clients for row in rows])
    limited = np.array([row.quality.verdict != "ok" for row in rows])
    for name, (color, marker) in DRAWN.items():
        errors = np.array([max(row.relative_error(name) * 100, 1e-4) for row in rows])
        ax.plot(clients, errors, color=color, marker=marker, label=STATISTICS[name])
        ax.plot(clients[limited], errors[limited], marker, color=color, markerfacecolor="white", zorder=3)
    ax.axhline(TOLERANCE * 100, color="#999999", linestyle=":", label="tolerance")
    ticks.at_values(ax.xaxis, [row.num_clients for row in rows])
    ax.set(yscale="log", xlabel="Clients", ylabel="Error of the measured value (%)")
    ticks.finish(ax)
    ax.set_title(f"Client against the reference server: TTFT {TTFT_S * 1e3:g} ms, gap {rows[0].gap_s * 1e3:g} ms")
