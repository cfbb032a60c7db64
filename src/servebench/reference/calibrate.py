"""How much load can this machine measure, and how exactly?

    servebench calibrate --num_clients 1 64 1000

The client puts its load on the reference server, which records when every event really left. What the client then
says of TTFT and ITL is held against that record. Both run on this machine, so the server takes its share of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from servebench.analysis import latency
from servebench.cli.commandline import COUNT, Parser
from servebench.cli.signals import ends_on_signals
from servebench.load.fleet import Outcome, default_workers, run_load
from servebench.load.sharding import Target
from servebench.log.config import Clients, Synthetic
from servebench.log.schema import Quality, Result, RunConfig
from servebench.plan import defaults
from servebench.workload import Request, Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_CLIENTS = (1, 16, 64, 256, 500, 1000)
TTFT_S, GAP_S, TOKENS = 0.05, 0.01, 100
TOLERANCE = 0.01
STATISTICS = ("ttft_mean_s", "ttft_p50_s", "ttft_p99_s", "itl_mean_s", "itl_p50_s", "itl_p99_s")


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

    @property
    def error(self) -> float:
        """The largest relative error of all statistics."""
        return max(abs(self.error_s(name)) / self.true[name] for name in STATISTICS)


class Sent(NamedTuple):
    """The server's record of a request: its X-Request-Id, the kernel stamp of its arrival; of its events the time
    before each was sent (ns) and the tokens in it."""

    request_id: str
    arrived_ns: int
    events_ns: list[int]
    event_tokens: list[int]
    tokens: int
    reasoning_tokens: int
    first_answer_event: int | None


def main() -> int:
    """Measure, print a table, draw a figure, keep the numbers. Returns the exit status."""
    args = _parser().parse_args()
    with ends_on_signals():
        rows = []
        for clients in tqdm(sorted(args.num_clients), desc="loads", disable=None):
            rows.append(calibrate_point(clients, GAP_S, args.num_requests, args.num_workers))
    print(table(rows))
    print(conclusion(rows))
    folder = args.out_json_dir / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calibration.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    draw_figure(rows, folder / "calibration.png")
    print(f"numbers and figure are in {folder}/")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    usual = " ".join(map(str, NUM_CLIENTS))
    add("--num_clients", nargs="+", type=COUNT, default=NUM_CLIENTS, metavar="N", help=f"loads to try [{usual}]")
    add("--num_requests", type=COUNT, metavar="N", help="requests of each load [4 x clients + 32]")
    add("--num_workers", type=COUNT, metavar="N", help="client processes [by cores and clients]")
    add("--out_json_dir", type=Path, default=Path("results"), metavar="DIR", help="where numbers go [results]")
    return parser


def calibrate_point(
    clients: int, gap_s: float = GAP_S, requests: int | None = None, workers: int | None = None
) -> Calibration:
    """Put this load on a reference server and hold the client against its record."""
    run = RunConfig(
        load=Clients(num_clients=clients),
        requests=Synthetic(mean_prompt_length=8, mean_max_new_tokens=TOKENS),
        num_requests=requests or defaults.num_requests(clients),
    )
    ask = Request("word " * 8, 8, TOKENS)
    workload = Workload([ask] * run.num_requests, [ask] * (4 * clients))
    with tempfile.TemporaryDirectory() as folder, reference_server(Path(folder), gap_s) as (url, records):
        target = Target([f"{url}/v1/completions"], {}, completion_body, lambda: None)
        outcome = run_load(run, workload, target, Path(folder) / "parts", workers or default_workers(clients))
        truth = {int(sent.request_id.rpartition("-")[2]): sent for sent in records()}
    return compare(clients, gap_s, outcome, truth)


def completion_body(ask: Request) -> bytes:
    return msgspec.json.encode({"prompt": ask.prompt, "max_tokens": ask.max_new_tokens, "stream": True})


@contextmanager
def reference_server(folder: Path, gap_s: float, *more: str) -> Iterator[tuple[str, Callable[[], list[Sent]]]]:
    """Yields its URL, and a function that ends it and gives its record. Of its options the last word counts."""
    options = ["--port", "0", "--ttft", TTFT_S, "--gap", gap_s, "--record", folder / "truth", *more]
    command = [sys.executable, "-m", "servebench", "reference-server", *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout

    def records() -> list[Sent]:
        process.terminate()
        process.wait(60)
        return [Sent(*row) for path in folder.glob("truth.*") for row in msgspec.json.decode(path.read_bytes())]

    try:
        yield process.stdout.readline().strip(), records
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def compare(clients: int, gap_s: float, outcome: Outcome, truth: dict[int, Sent]) -> Calibration:
    """The same requests, as the client and as the server saw them."""
    counted = [r for r in outcome.results if r.phase == "measured"]
    done = [r for r in counted if r.error is None]
    start, end = outcome.window_ns or (0, 1)
    in_window = sum(int(np.sum((start < at) & (at <= end))) for at in map(_arrivals, outcome.results))
    return Calibration(
        num_clients=clients,
        gap_s=gap_s,
        requests=len(counted),
        failed=len(counted) - len(done),
        events_per_s=in_window / ((end - start) / 1e9),
        true=latency.timing_statistics(
            [[t - sent.arrived_ns for t in sent.events_ns] for sent in (truth[r.id] for r in done)]
        ),
        measured=latency.timing_statistics([r.event_ns for r in done]),
        quality=outcome.quality,
    )


def _arrivals(r: Result) -> np.ndarray:
    return np.array(r.event_ns, dtype=np.int64) + r.sent_ns


def table(rows: list[Calibration]) -> str:
    """True -> measured in ms, a row a load."""
    header = ["clients", "events/s", *(f"{_title(name)} (ms)" for name in STATISTICS)]
    header += ["largest error", "merged", "us CPU/event", "concurrency", "failed", "client"]
    return tabulate([_row(row) for row in rows], header, disable_numparse=True, stralign="right")


def _row(row: Calibration) -> list[str]:
    pairs = [f"{row.true[name] * 1e3:.3f} -> {row.measured[name] * 1e3:.3f}" for name in STATISTICS]
    quality = row.quality
    achieved = quality.achieved_concurrency / quality.asked_concurrency if quality.asked_concurrency else 0
    cpu = "-" if quality.cpu_per_event_s is None else f"{quality.cpu_per_event_s * 1e6:.1f}"
    end = [f"{row.error:.2%}", f"{quality.merged_share:.2%}", cpu, f"{achieved:.1%}"]
    verdict = quality.verdict.partition(":")[0]
    return [str(row.num_clients), f"{row.events_per_s:.0f}", *pairs, *end, f"{row.failed}/{row.requests}", verdict]


def conclusion(rows: list[Calibration]) -> str:
    """The largest load up to which every load was measured within the tolerance."""
    good = []
    for row in rows:
        if row.error > TOLERANCE or row.failed or row.quality.verdict != "ok":
            break
        good.append(row)
    if not good:
        return f"no load here was measured with an error below {TOLERANCE:.0%}; free a core and calibrate again"
    most, more = good[-1], "" if len(good) < len(rows) else " or more (no larger one was tried)"
    load = f"{most.num_clients} clients, {most.events_per_s:.0f} events/s"
    return f"this machine measures {load}{more} with an error below {TOLERANCE:.0%}"


def draw_figure(rows: list[Calibration], path: Path) -> None:
    import matplotlib.pyplot as plt  # takes a second, which no other start of the driver should wait for

    from servebench.figures import theme

    with theme.style("light"):
        figure, ax = plt.subplots()
        draw(ax, rows)
        figure.savefig(path)
        plt.close(figure)


def _title(statistic: str) -> str:
    """`itl_p99_s` -> `ITL p99`."""
    metric, which, _ = statistic.split("_")
    return f"{metric.upper()} {which}"


def draw(ax: Axes, rows: list[Calibration]) -> None:
    """Relative error of each statistic against clients; hollow where the client itself says it is the limit."""
    clients = [row.num_clients for row in rows]
    looks = {"ttft_mean_s": ("#0072B2", "o"), "ttft_p99_s": ("#56B4E9", "s"), "itl_p50_s": ("#009E73", "^")}
    looks["itl_p99_s"] = ("#D55E00", "D")
    for name, (color, marker) in looks.items():
        errors = [max(abs(row.error_s(name)) / row.true[name] * 100, 1e-4) for row in rows]
        ax.plot(clients, errors, color=color, marker=marker, label=_title(name))
        bad = [(c, e) for c, e, row in zip(clients, errors, rows, strict=True) if row.quality.verdict != "ok"]
        if bad:
            ax.plot(*zip(*bad, strict=True), marker, color=color, markerfacecolor="white", zorder=3)
    ax.axhline(TOLERANCE * 100, color="#999999", linestyle=":", label="tolerance")
    ax.set(xscale="log", yscale="log", xlabel="Clients", ylabel="Error of the measured value (%)")
    ax.set_title(f"Client against the reference server: TTFT {TTFT_S * 1e3:g} ms, gap {rows[0].gap_s * 1e3:g} ms")
    ax.legend(frameon=True, framealpha=1, edgecolor="none")  # no line goes through its words
