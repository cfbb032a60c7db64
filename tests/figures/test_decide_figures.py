"""Figures of the best server: what is drawn of logs whose answer is known, and the words where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import ROOT, make_log, make_result, on_gpus, point
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from msgspec.structs import replace
from warm_python import python

from servebench.analysis import capacity
from servebench.analysis.sla import goals
from servebench.figures import curves, selection, styles
from servebench.log import store
from servebench.log.schema import Log
from servebench.show.candidates import Decision, Question, decided
from servebench.show.html import report
from servebench.show.layouts import studies

sys.path.insert(0, str(ROOT / "src"))

import plot_decide
import plot_sla_map

TTFT = 0.25  # of the latency; so is each gap


def server(backend: str, latencies_s: dict[int, float], **changes: object) -> list[Log]:
    """One that takes so long at so many clients."""
    return [on_gpus(point(backend, n, s, **changes), 100.0) for n, s in latencies_s.items()]


def group(*servers: list[Log]) -> curves.Group:
    found = [
        curves.Series(**{**vars_of(logs[0]), "points": curves.points_of(logs)})  # type: ignore[arg-type]
        for logs in servers
    ]
    return curves.Group("name", "title", found)


def vars_of(log: Log) -> dict[str, object]:
    style = styles.BACKENDS[log.server.backend]
    return {"label": style.label, "color": style.color, "marker": style.marker}


def decision(of: curves.Group, sla: str, **more: object) -> Decision:
    return decided(studies(of.logs)[0], Question(goals(sla, "--sla"), **more))  # type: ignore[arg-type]


def decide(of: curves.Group, sla: str, **more: object) -> Axes:
    _, ax = plt.subplots()
    found = decision(of, sla, **more)
    plot_decide.draw(ax, found, of)
    plot_decide.explain(ax, found)
    return ax


def rows(ax: Axes) -> list[tuple[str, str]]:
    """The name of each row, and what is said of it."""
    names = [label.get_text() for label in ax.get_yticklabels()]
    return list(zip(names, [text.get_text() for text in ax.texts], strict=True))


def explained(ax: Axes) -> list[str]:
    return [str(line.get_label()) for line in ax.lines if not len(line.get_xdata())]


def markers(ax: Axes) -> list[str]:
    return [str(line.get_marker()) for line in ax.lines if len(line.get_xdata())]


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


STEADY = {1: 1.0, 2: 1.0, 4: 4.0}  # 1 and 2 requests/s with a TTFT of 0.25 s, and 1 with one of 1 s
SLOW = {1: 2.0, 2: 2.0, 4: 8.0}


def test_rows_are_ranked_and_say_what_each_serves() -> None:
    of = group(server("fastgen", SLOW), server("vllm", STEADY), server("sglang", {1: 9.0, 2: 9.0}))
    ax = decide(of, "ttft_p50<500.1ms")
    assert rows(ax)[0][0] == "vLLM TP 1 x 1" and rows(ax)[0][1].endswith(", the best")
    (name, said), best = rows(ax)[1], float(rows(ax)[0][1].split(",")[0])
    assert name == "DeepSpeed-FastGen TP 1 x 1" and said.endswith(" of the best"), said
    assert best == pytest.approx(2, abs=0.2) and float(said.split(",")[0]) == pytest.approx(1, abs=0.1)
    dots = [line for line in ax.lines if len(line.get_xdata())]
    assert [line.get_ydata()[0] for line in dots] == [0, 1]
    assert [line.get_color() for line in dots] == ["#1555e0", "#bb2a1f"]
    assert str(dots[0].get_label()).startswith("vLLM TP 1 x 1 serves")
    assert "no load that keeps the limits: SGLang TP 1 x 1" in explained(ax)
    assert ax.get_xlabel() == "Requests/s a GPU within ttft_p50<500.1ms" and ax.yaxis_inverted()


def test_what_is_not_distinguishable_is_hollow() -> None:
    ax = decide(group(server("vllm", STEADY), server("sglang", STEADY)), "ttft_p50<500ms")
    first, second = (line for line in ax.lines if len(line.get_xdata()))
    assert rows(ax)[1][1].endswith(", not distinguishable")
    assert first.get_markerfacecolor() == first.get_color()
    assert second.get_markerfacecolor() == plt.rcParams["axes.facecolor"]
    assert "hollow: not distinguishable from the best" in explained(ax)


def test_who_may_serve_more_has_an_arrow() -> None:
    ax = decide(group(server("vllm", {1: 1.0, 2: 1.0, 4: 1.0}), server("fastgen", SLOW)), "ttft_p50<500ms")
    assert rows(ax)[0][1].startswith("at least ") and markers(ax) == ["o", ">", "D"]
    arrow = ax.lines[1]
    assert arrow.get_xdata()[0] == ax.get_xlim()[1]


def test_dollars_are_those_of_the_rate() -> None:
    """79 tokens in 10 s at $3.60 an hour, which is 0.1 cents a second."""
    priced = [replace(log, gpu_hour_price=3.6) for log in server("vllm", {1: 1.0, 2: 1.0})]
    of = group(priced)
    (dollars,) = plot_decide.values_of(decision(of, "ttft_p50<500ms", objective="cost"))
    assert dollars[0] == pytest.approx(0.001 / 7.9 * 1e6, rel=0.06)
    ax = decide(of, "ttft_p50<500ms", objective="cost")
    assert ax.get_xlabel().startswith("$ per million output tokens within")
    assert rows(ax)[0][1].startswith("at most ") and "<" in markers(ax)


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("plot_decide", ("--sla", "ttft<2s"), "write ttft_p99<2s"),
        (
            "plot_decide",
            ("--objective", "cost", "--sla", "ttft_p50<5s"),
            "no price is known; give --gpu_hour_price",
        ),
        ("plot_decide", ("--objective", "latency"), "'latency' is not one of throughput_per_gpu, cost"),
        ("plot_sla_map", ("--sla", "ttft_p99<2"), "the limit needs a unit"),
        ("plot_sla_map", ("--percentile", "100"), "'100' is not a number of at least 1 and at most 99.99"),
    ],
)
def test_bad_input_is_one_line(logs: Path, script: str, words: tuple[str, ...], said: str) -> None:
    ended = python(ROOT / f"src/{script}.py", "--log_dir", logs, *words, cwd=logs.parent)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1) and said in ended.stderr, ended.stderr


def test_no_server_keeps_the_limits(logs: Path) -> None:
    words = ("--log_dir", logs, "--sla", "ttft_p50<1ms")
    ended = python(ROOT / "src/plot_decide.py", *words, cwd=logs.parent)
    assert (ended.returncode, ended.stdout) == (0, "") and "No server keeps ttft_p50<1ms" in ended.stderr


# The map.


def mapped(of: curves.Group, percentile: float = 50) -> tuple[plot_sla_map.Map, list[np.ndarray], Decision]:
    wanted = plot_sla_map.axes_of((), percentile)
    spans = [plot_sla_map.span_s(of, limit, False) for limit in wanted]
    tightest = ", ".join(
        f"{stem}_p{percentile}<{span[0]}s" for stem, span in zip(("ttft", "tpot"), spans, strict=True)
    )
    found = decision(of, tightest)
    return plot_sla_map.mapped(found, spans), spans, found


@pytest.fixture
def crossing() -> curves.Group:
    """vLLM answers in 1 s but stays at 2 clients; FastGen takes 2 s and goes on to 16."""
    vllm = server("vllm", {1: 1.0, 2: 1.0, 4: 8.0})
    return group(vllm, server("fastgen", {1: 2.0, 8: 2.0, 16: 2.0}))


def test_the_winner_changes_with_the_limits(crossing: curves.Group) -> None:
    of, spans, found = mapped(crossing)
    assert [span[0] for span in spans] == pytest.approx([0.25 / 1.25] * 2)
    assert [span[-1] for span in spans] == pytest.approx([2 * 1.25] * 2)
    names = [each.log.server.backend for each in found.candidates]

    def winner(ttft_s: float, tpot_s: float) -> str:
        x, y = (int(np.searchsorted(span, s)) for span, s in zip(spans, (ttft_s, tpot_s), strict=True))
        number = of.winner[y, x]
        return names[number] if number >= 0 else ""

    assert winner(0.22, 2.0) == winner(2.0, 0.22) == "" and winner(0.3, 0.3) == winner(0.45, 2.0) == "vllm"
    assert winner(0.6, 0.6) == winner(1.0, 2.0) == "fastgen"
    assert not of.close[of.winner < 0].any()


def test_the_map_has_the_colours_of_its_winners(crossing: curves.Group) -> None:
    of, spans, found = mapped(crossing)
    _, ax = plt.subplots()
    plot_sla_map.draw(ax, of, spans, found, crossing)
    colors = {str(line.get_label()): line.get_color() for line in ax.lines if len(line.get_xdata())}
    assert set(colors) == {"vLLM TP 1 x 1", "DeepSpeed-FastGen TP 1 x 1"}
    assert tuple(colors["vLLM TP 1 x 1"]) == pytest.approx(to_rgb("#1555e0"))
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == (
        "log",
        "Limit of TTFT p50 (s)",
        "Limit of TPOT p50 (s)",
    )
    assert "no server keeps both at a load that was measured" in explained(ax)
    shown = [of.winner[y, x] >= 0 for y, x in product(plot_sla_map.PLACES, plot_sla_map.PLACES)]
    assert len(ax.texts) == sum(shown)


def test_servers_that_are_alike_are_hatched() -> None:
    alike = group(server("vllm", STEADY), server("sglang", STEADY))
    of, spans, found = mapped(alike)
    assert of.close[of.winner >= 0].all()
    _, ax = plt.subplots()
    plot_sla_map.draw(ax, of, spans, found, alike)
    assert "hatched: another is not distinguishable from it" in explained(ax)


def test_servers_of_one_engine_are_paler_one_by_one() -> None:
    of = group(server("vllm", STEADY) + server("vllm", SLOW, tp_size=2))
    first, second = plot_sla_map.colors(list(decision(of, "ttft_p50<5s").candidates), of)
    assert tuple(first) == pytest.approx(to_rgb("#1555e0")) and (second > first).all()


def test_the_axes_are_those_of_the_sla() -> None:
    asked = goals("error_rate<1%, tpot_p90<100ms", "--sla")
    assert [str(limit) for limit in plot_sla_map.axes_of(asked, 95)] == [
        "ttft_p95<1s",
        "tpot_p90<100ms",
        "error_rate<1%",
    ]


def test_answers_that_came_whole_have_no_map(results: Path) -> None:
    whole = [make_result(i, i, [0.9], event_tokens=[4], generated_tokens=4, streamed=False) for i in range(10)]
    store.save(make_log(whole, (0.0, 10.0), stream=False), results / "aml" / "m-clients1.json")
    ended = python(ROOT / "src/plot_sla_map.py", "--log_dir", results, cwd=results.parent)
    assert (ended.returncode, ended.stdout) == (0, "") and "came whole" in ended.stderr


# What they need of the capacity.


def test_limits_are_loosened_each_by_its_own() -> None:
    """TTFT and TPOT of 0.25 s at 2 clients, of 1 s at 4."""
    loads = decision(group(server("vllm", STEADY)), "ttft_p50<500ms, tpot_p50<500ms").candidates[0].capacity.loads
    assert capacity.capacity(loads, (4.0, 1.0)).above == capacity.capacity(loads, (1.0, 4.0)).above == 4
    assert capacity.capacity(loads, (4.0, 4.0)).above is None
    few = loads.fewer(100)
    assert few.excess.shape == (2, 3, 101) and (few.rates[:, 0] == loads.rates[:, 0]).all()


def test_what_cannot_be_sustained_is_kept_by_no_limit() -> None:
    overloaded = [replace(log, quality=replace(log.quality, overloaded=True)) for log in server("vllm", {4: 1.0})]
    of = group(server("vllm", {1: 1.0, 2: 1.0}) + overloaded)
    loads = decision(of, "ttft_p50<300ms").candidates[0].capacity.loads
    assert capacity.capacity(loads, 1000.0).above == 4


def test_what_had_not_settled_counts_only_where_it_exceeds() -> None:
    loads = decision(group(server("vllm", STEADY)), "ttft_p50<500ms").candidates[0].capacity.loads
    loads = capacity.replace(loads, settled=np.array([True, True, False]))
    assert loads.within(1.0).sizes.tolist() == [1, 2, 4] and loads.within(4.0).sizes.tolist() == [1, 2]


# The report, and points that failed.


def test_the_report_passes_its_limits_on(logs: Path, tmp_path: Path) -> None:
    script = tmp_path / "plot_said.py"
    script.write_text('"""Said: all words."""\nimport sys\n"--sla" in sys.argv and sys.exit(" ".join(sys.argv))\n')
    args = report.parser().parse_args([str(logs), "--limits", "ttft_p99<2s"])
    assert "--sla ttft_p99<2s" in report.draw(args, tmp_path, script, "ttft_p99<2s").said
    script.write_text('"""Said: all words."""\nimport sys\nsys.exit(" ".join(sys.argv))\n')
    assert "--sla" not in report.draw(args, tmp_path, script, "ttft_p99<2s").said


def test_a_point_that_failed_is_read_where_it_is_asked_for(logs: Path) -> None:
    log = replace(point("vllm", 8, 1.0), status="failed", failure="ended")
    store.save(log, logs / "vllm" / "failed-clients8.json")
    args = plot_decide.plot_parser(None, "x").parse_args(["--log_dir", str(logs)])
    counts = [len(selection.chosen(args, failed)[logs / "vllm"]) for failed in (False, True)]
    assert counts == [9, 10]
