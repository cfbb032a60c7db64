"""What --x, --y and --by choose, from the command line; and where ticks stand."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from conftest import ROOT, point
from matplotlib.axes import Axes
from warm_python import python

from servebench.figures import axes, curves, page, plotting, selection, theme, ticks
from servebench.log import schema, store


def draw(script: str, log_dir: Path, *words: object) -> tuple[int, list[str], str]:
    """Run a script beside the results: (exit status, names of the files it wrote, stderr)."""
    ended = python(ROOT / f"src/{script}.py", "--log_dir", log_dir, *words, cwd=log_dir.parent)
    return ended.returncode, [Path(line).name for line in ended.stdout.splitlines()], ended.stderr


def groups(logs: Path, *words: str) -> list[curves.Group]:
    parser = page.plot_parser(None, "x", x="load", y="ttft_p99", by=True)
    return list(curves.groups(parser.parse_args(["--log_dir", str(logs), *words]), selection.CONFIGURATION))


@pytest.fixture(autouse=True)
def close_figures():  # type: ignore[no-untyped-def]
    yield
    plt.close("all")


def test_all_layouts_of_all_engines_are_in_one_chart(logs: Path) -> None:
    (group,) = groups(logs, "--by", "layout")
    assert [(curve.label, len(curve.points)) for curve in group.series] == [
        (f"{engine} TP {layout}", 3)
        for engine in ("DeepSpeed-FastGen", "vLLM")
        for layout in ("1 x 1", "1 x 2", "2 x 1")
    ]
    assert group.title == "meta-llama/Llama-2-7b-hf\nbatch 768, prompt 2600, generation 60 tokens"
    by_layout = [(curve.fillstyle, curve.linestyle) for curve in group.series]
    assert by_layout[:3] == by_layout[3:] and len(set(by_layout)) == 3  # a layout looks alike for both


def test_a_value_that_one_engine_lacks_does_not_shift_the_others(logs: Path) -> None:
    for path in (logs / "vllm").glob("*-tp1-*"):
        path.unlink()
    (group,) = groups(logs, "--by", "tp_size", "--filter", "num_replicas=1")
    looks = {curve.label: curve.linestyle for curve in group.series}
    assert looks["vLLM TP 2"] == looks["DeepSpeed-FastGen TP 2"] != looks["DeepSpeed-FastGen TP 1"]


def test_any_setting_makes_curves(logs: Path) -> None:
    log = point("vllm", 2, 2.0, temperature=0.5)
    store.save(log, logs / "vllm" / "cool-clients2.json")
    (group,) = groups(logs, "--by", "temperature", "--backend", "vllm", "--filter", "tp_size=1", "num_replicas=1")
    assert [curve.label for curve in group.series] == ["vLLM temperature 0.5", "vLLM temperature 1.0"]


def test_a_setting_on_the_axis_has_a_figure_for_each_load_or_a_curve(logs: Path) -> None:
    same = ("--x", "tp_size", "--filter", "num_replicas=1", "--backend", "vllm")
    assert [group.name.rpartition("-")[2] for group in groups(logs, *same)] == ["clients1", "clients2", "clients4"]
    (group,) = groups(logs, *same, "--by", "load")
    assert [curve.label for curve in group.series] == ["vLLM clients 1", "vLLM clients 2", "vLLM clients 4"]


def test_chosen_axes_are_drawn_named_and_kept_apart(logs: Path) -> None:
    words = ("--x", "gpus", "--y", "ttft_p99_s", "--by", "tp_size", "--filter", "num_clients=2")
    code, (file,), said = draw("plot_th_lat", logs, *words, "--format", "svg")
    assert code == 0 and file.endswith("gen60-clients2-x_gpus-y_ttft_p99-by_tp_size.svg"), said
    assert "alone has" not in said
    code, (file,), said = draw("plot_pareto", logs, "--x", "ttft_p99", "--by", "layout")
    assert code == 0 and file.endswith("gen60-x_ttft_p99-by_layout.png"), said
    code, (file,), said = draw(
        "plot_load_percentiles", logs, "--y", "e2e_latency", "itl", "--percentiles", 95, "--by", "layout"
    )
    assert code == 0 and file.endswith("-y_e2e_latency-itl-by_layout.png"), said


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("plot_th_lat", ("--x", "ttft_p9"), "no 'ttft_p9' here: did you mean ttft_p9"),
        ("plot_th_lat", ("--y", "zzz"), "no 'zzz' here; give ttft_p99, request_throughput, load or tp_size"),
        (
            "plot_th_lat",
            ("--y", "ttft"),
            "'ttft' is several columns; give ttft_mean, ttft_p50, ttft_p90, ttft_p95 or ttft_p99",
        ),
        ("plot_th_lat", ("--by", "layuot"), "no 'layuot' here: did you mean layout?"),
        ("plot_load_percentiles", ("--y", "ttfs"), "no 'ttfs' here: did you mean ttft?"),
        ("plot_pareto", ("--x", "load"), "--x load: neither more nor less of it is better; give"),
    ],
)
def test_unknown_names_are_one_line(logs: Path, script: str, words: tuple[str, ...], said: str) -> None:
    code, files, err = draw(script, logs, *words)
    assert (code, files, err.count("\n")) == (2, [], 1) and said in err


def test_labels_of_axes_come_from_the_registry() -> None:
    names = (
        "ttft_p99",
        "e2e_latency_mean_s",
        "request_throughput",
        "interactivity_p50",
        "e2e_latency_from_schedule_p50",
    )
    assert [axes.column_label(axes.quantity(name).column) for name in names] == [
        "TTFT p99 (s)",
        "Mean E2E latency (s)",
        "Throughput (requests/s)",
        "Tokens/s per user p50",
        "E2E from schedule p50 (s)",
    ]
    assert axes.quantity("e2e_p99").column == "e2e_latency_p99_s" and axes.latency("e2e").stem == "e2e_latency"
    assert axes.quantity("e2e_latency_from_schedule_p99").column == "e2e_latency_from_schedule_p99_s"
    assert axes.quantity("error_rate").column == "failed_share"
    assert axes.quantity("dollars").column == "dollars_per_million_output_tokens"
    for column in ("dollars_per_million_input_tokens", "dollars_per_million_output_tokens"):
        assert axes.quantity(column).column == column  # a short name begins both
    assert axes.quantity("energy_per_request").column == "energy_per_request_j"
    assert all(axes.quantity(name).column == column for name, column in axes.columns().items())


def over_load(loads: list[int], latency_s: float = 1.0) -> Axes:
    """A finished figure of latency over these loads."""
    (series,) = [curves.Series("vllm", "k", points=curves.points_of(point("vllm", n, latency_s) for n in loads))]
    with theme.style("light"):
        figure, ax = plt.subplots()
        plotting.draw_quantities(ax, [series], axes.LOAD, axes.quantity("e2e_latency_mean"))
        page.finish(figure, "a title")
    return ax


def labels_of(ax: Axes, which: str) -> list[str]:
    axis = ax.xaxis if which == "x" else ax.yaxis
    return [tick.label1.get_text() for tick in axis.get_major_ticks() if tick.label1.get_text()]


def test_ticks_stand_at_the_loads() -> None:
    ax = over_load([8, 16, 32])
    assert labels_of(ax, "x") == ["8", "16", "32"] and ax.get_xscale() == "linear" and ax.get_xlim()[0] == 0
    ax = over_load([1, 2, 4, 8, 64])
    assert labels_of(ax, "x") == ["1", "2", "4", "8", "64"] and ax.get_xscale() == "log"


def test_loads_that_lie_close_are_thinned_from_the_largest_down() -> None:
    ax = over_load(list(range(90, 121)))
    found = [int(word) for word in labels_of(ax, "x")]
    assert found[-1] == 120 and 1 < len(found) < 20 and set(found) <= set(range(90, 121))


def test_times_below_a_second_are_in_ms() -> None:
    ax = over_load([1, 2], latency_s=0.5)
    assert ax.get_ylabel() == "Mean E2E latency (ms)" and labels_of(ax, "y")[:2] == ["0", "100"]
    ax = over_load([1, 2], latency_s=2.0)
    assert ax.get_ylabel() == "Mean E2E latency (s)" and labels_of(ax, "y")[-1] == "2"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.8, 1200, ["1", "10", "100", "1000"]),
        (0.02, 0.045, ["0.02", "0.03"]),
        (2.1, 2.9, ["2.2", "2.4"]),
        (0.04, 3, ["0.05", "0.1", "0.2", "0.5", "1", "2"]),
    ],
)
def test_an_axis_of_powers_of_ten_has_plain_numbers_and_more_than_one(
    low: float, high: float, expected: list[str]
) -> None:
    figure, ax = plt.subplots()
    ax.set(yscale="log", ylim=(low, high))
    ticks.finish(ax)
    figure.draw_without_rendering()
    found = labels_of(ax, "y")
    assert set(expected) <= set(found) and len(found) >= 3 and "$" not in "".join(found)


def test_rates_and_clients_name_their_axis(logs: Path) -> None:
    for rate in (0.5, 8.0):
        log = point("vllm", 1, 1.0, request_rate=rate)
        store.save(log, logs / "vllm" / schema.log_name(log.server, log.run))
    same = ("--backend", "vllm", "--filter", "tp_size=1", "num_replicas=1")
    assert [axes.LOAD.label(group.log) for group in groups(logs, *same)] == [
        "Clients",
        "Request rate (requests/s)",
    ]
