"""The plot scripts: what they draw (data, not pixels), and that each runs as the README says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import ROOT, make_log, make_result

from servebench import figures, records
from servebench.records import Log

sys.path.insert(0, str(ROOT / "src"))

import plot_effective_throughput
import plot_latency_percentile
import plot_repl_scale
import plot_th_lat
import plot_tp_sizes


def point(backend: str, clients: int, latency_s: float, **changes: object) -> Log:
    """Requests of this latency, four tokens each, back to back from every client over 10 s."""
    results = [
        make_result(i, client * 0.01 + i * latency_s, [latency_s * f for f in (0.25, 0.5, 0.75, 1.0)])
        for client in range(clients)
        for i in range(int(10 / latency_s))
    ]
    return make_log(results, (0.0, 10.0), backend=backend, num_clients=clients, **changes)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Two backends, clients 1 2 4, tp 1 and 2, replicas 1 and 2, in a results folder."""
    for backend, base in (("vllm", 1.0), ("fastgen", 0.5)):
        for clients in (4, 1, 2):
            for sizes in ({}, {"tp_size": 2}, {"num_replicas": 2}):
                log = point(backend, clients, base * (1 + clients / 4), **sizes)
                records.save(log, tmp_path / "results" / backend / records.log_name(log.server, log.run))
    return tmp_path / "results"


def series(*logs: Log) -> list[figures.Series]:
    return [figures.Series("vllm", logs, "#0072B2")]


def test_throughput_latency_is_joined_in_the_order_of_load() -> None:
    fold_back = [point("vllm", 1, 1.0), point("vllm", 2, 1.25), point("vllm", 4, 5.0)]
    _, ax = plt.subplots()
    plot_th_lat.draw(ax, series(*fold_back), "blog")
    (line,) = ax.lines
    assert list(line.get_xdata()) == pytest.approx([1.0, 1.6, 0.8])
    assert list(line.get_ydata()) == pytest.approx([1.0, 1.25, 5.0])
    assert [text.get_text() for text in ax.texts] == ["1", "2", "4"]


def test_a_point_limited_by_its_client_is_hollow() -> None:
    _, ax = plt.subplots()
    bad = point("vllm", 2, 1.25, verdict="client-limited: late")
    plot_th_lat.draw(ax, series(point("vllm", 1, 1.0), bad), "blog")
    curve, hollow = ax.lines
    assert hollow.get_markerfacecolor() == "white"
    assert list(hollow.get_xdata()) == [curve.get_xdata()[1]]


def test_the_failed_share_stands_at_its_point() -> None:
    log = make_log([make_result(0, 1, [1.0]), make_result(1, 1, [], error="HTTP 500")], (0, 10))
    _, ax = plt.subplots()
    plot_th_lat.draw(ax, series(log), "window")
    assert "50% failed" in [text.get_text() for text in ax.texts]


def test_effective_throughput_falls_where_the_sla_is_missed() -> None:
    # Gaps of a quarter of the latency: 0.25 s meet 3 tokens/s (0.33 s), 1.25 s do not.
    _, ax = plt.subplots()
    met = plot_effective_throughput.sla_of("ema", 100, 3, 16)
    plot_effective_throughput.draw(ax, series(point("vllm", 1, 1.0), point("vllm", 4, 5.0)), met)
    assert list(ax.lines[0].get_ydata()) == pytest.approx([1.0, 0.0])


def test_token_latency_percentiles_are_those_of_the_gaps() -> None:
    log = make_log([make_result(i, i, [0.5, 0.6, 0.8]) for i in range(3)], (0, 10))
    gaps = plot_latency_percentile.token_latencies_s(log, skip_head_token_num=1, skip_request_num=1)
    assert gaps == pytest.approx([0.1, 0.2, 0.1, 0.2])
    assert plot_latency_percentile.token_latencies_s(log, 2, 1) == pytest.approx([0.2, 0.2])


def test_replica_scaling_shows_perfect_scaling_beside_it() -> None:
    _, ax = plt.subplots()
    plot_repl_scale.draw(ax, series(point("vllm", 1, 1.0), point("vllm", 2, 1.0, num_replicas=2)))
    measured, perfect = ax.lines
    assert list(measured.get_xdata()) == [1, 2]
    assert list(perfect.get_ydata()) == pytest.approx([measured.get_ydata()[0], 2 * measured.get_ydata()[0]])


def test_tp_sizes_have_a_line_style_each() -> None:
    folders = {"vllm": [point("vllm", c, 1.0, tp_size=tp) for tp in (1, 2) for c in (1, 2)]}
    curves = plot_tp_sizes.by_tp_size(folders, plot_tp_sizes.family(folders["vllm"][0]))
    assert [(c.label, c.linestyle, len(c.logs)) for c in curves] == [("vllm TP 1", "-", 2), ("vllm TP 2", "--", 2)]


@pytest.mark.parametrize(
    ("script", "folder", "figures_drawn"),
    [
        ("plot_th_lat", "throughput_latency", 3),
        ("plot_effective_throughput", "goodtput", 6),
        ("plot_latency_percentile", "percentile_token_latency", 9),
        ("plot_repl_scale", "repl_scale", 7),
        ("plot_tp_sizes", "tp_sizes", 2),
    ],
)
def test_scripts_run_as_the_readme_says(logs: Path, script: str, folder: str, figures_drawn: int) -> None:
    command = [
        sys.executable,
        str(ROOT / f"src/{script}.py"),
        "--backend",
        "vllm",
        "fastgen",
        "--log_dir",
        "results/",
    ]
    subprocess.run(command, cwd=logs.parent, check=True, capture_output=True)
    drawn = list((logs.parent / "plots" / folder).glob("*.png"))
    assert len(drawn) == figures_drawn and all(path.stat().st_size > 10_000 for path in drawn)


def test_data_dirs_with_a_plot_config(logs: Path, tmp_path: Path) -> None:
    (logs / "vllm/plot_config.yaml").write_text("label: Ours\ncolor: '#123456'\nx_max: 9\n")
    parser = figures.parser(None, "x")
    folders = figures.chosen(parser.parse_args(["--data_dirs", str(logs / "vllm"), str(logs / "fastgen")]))
    ours, theirs = figures.curves(folders, lambda log: True)
    assert (ours.label, ours.color, theirs.label) == ("Ours", "#123456", "fastgen")
    _, ax = plt.subplots()
    figures.limit_axes(ax, folders)
    assert ax.get_xlim() == (0, 9)


def test_a_backend_without_logs_is_named(logs: Path) -> None:
    command = [sys.executable, str(ROOT / "src/plot_th_lat.py"), "--backend", "aml", "--log_dir", str(logs)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "aml" in ended.stderr and ended.stderr.count("\n") == 1


@pytest.fixture(autouse=True)
def close_figures():  # type: ignore[no-untyped-def]
    yield
    plt.close("all")


def test_answers_that_came_whole_have_no_token_times_to_draw(tmp_path: Path) -> None:
    whole = [make_result(i, float(i), [0.9], event_tokens=[4], generated_tokens=4) for i in range(10)]
    log = make_log(whole, (0.0, 10.0), backend="aml", num_clients=1, stream=False)
    records.save(log, tmp_path / "results" / "aml" / "m-clients1.json")
    _, ax = plt.subplots()
    plot_effective_throughput.draw(ax, series(log), lambda log: np.ones(10, dtype=bool))
    assert not len(ax.lines[0].get_xdata())
    said = {}
    for script in ("th_lat", "latency_percentile"):
        command = [sys.executable, ROOT / f"src/plot_{script}.py", "--log_dir", tmp_path / "results"]
        done = subprocess.run([*command, "--out_dir", tmp_path], capture_output=True, text=True)
        said[script] = done.stdout + done.stderr
        assert done.returncode == 0, said
    assert ".png" in said["th_lat"] and "no times between tokens" in said["latency_percentile"]
