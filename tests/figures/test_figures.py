"""The plot scripts: what each draws from logs (data, not pixels)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import ROOT, make_log, make_result, on_gpus, point
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from msgspec.structs import replace

from servebench.analysis import metrics
from servebench.figures import curves, plotting
from servebench.figures.axes import quantity
from servebench.log import telemetry
from servebench.log.schema import Log

sys.path.insert(0, str(ROOT / "src"))

import plot_cdf
import plot_effective_throughput
import plot_latency_percentile
import plot_load_percentiles
import plot_pareto
import plot_repl_scale
import plot_timeline
import plot_tp_sizes

PARETO = quantity(plot_pareto.PER_USER), quantity(plot_pareto.PER_GPU)


def series(*logs: Log) -> list[curves.Series]:
    return [curves.Series("vllm", "#0072B2", points=curves.points_of(logs))]


def throughput_latency(ax: Axes, all_series: list[curves.Series], throughput: str) -> None:
    """As plot_th_lat.py draws it."""
    x = quantity(f"{throughput}_throughput")
    plotting.draw_quantities(ax, all_series, x, quantity("e2e_latency_mean"))


def effective(rate: float) -> partial[float | None]:
    """Throughput that meets FastGen's SLAs, by the moving average."""
    return partial(plot_effective_throughput.effective, kind="ema", prompt_rate=100, rate=rate, span=16)


def drawn(ax: Axes) -> list[Line2D]:
    """Lines with data; those without are entries of the legend."""
    return [line for line in ax.lines if len(line.get_xdata())]


def explained(ax: Axes) -> list[str]:
    return [str(line.get_label()) for line in ax.lines if not len(line.get_xdata())]


def bars(ax: Axes) -> list[list[list[float]]]:
    """Error bars as [from, to] points, those of x first."""
    return [
        segment.tolist() for container in ax.containers for part in container[2] for segment in part.get_segments()
    ]


@pytest.fixture(autouse=True)
def close_figures():  # type: ignore[no-untyped-def]
    yield
    plt.close("all")


def test_throughput_latency_is_joined_in_the_order_of_load() -> None:
    fold_back = [point("vllm", 1, 1.0), point("vllm", 4, 5.0), point("vllm", 2, 1.25)]
    _, ax = plt.subplots()
    throughput_latency(ax, series(*fold_back), "blog")
    (line,) = drawn(ax)
    assert list(line.get_xdata()) == pytest.approx([1.0, 1.6, 0.8])
    assert list(line.get_ydata()) == pytest.approx([1.0, 1.25, 5.0])
    assert [text.get_text() for text in ax.texts] == ["1", "2", "4"]


def test_runs_of_a_point_are_one_point_at_their_mean_with_an_interval() -> None:
    # Latencies 1.0 and 1.25 s: mean 1.125, half width t(1) x s / sqrt 2 = 12.706 x 0.125 = 1.58825.
    # Clients / latency: 2.0 and 1.6 requests/s: mean 1.8, half width 12.706 x 0.2 = 2.5412.
    runs = [point("vllm", 2, latency, repetition=i, num_requests=20) for i, latency in enumerate((1.0, 1.25))]
    _, ax = plt.subplots()
    throughput_latency(ax, series(*runs), "blog")
    (line,) = drawn(ax)
    assert (list(line.get_xdata()), list(line.get_ydata())) == (pytest.approx([1.8]), pytest.approx([1.125]))
    sideways, upright = bars(ax)
    assert [x for x, _ in sideways] == pytest.approx([1.8 - 2.5412, 1.8 + 2.5412])
    assert [y for _, y in upright] == pytest.approx([1.125 - 1.58825, 1.125 + 1.58825])
    assert "95 % interval over runs" in explained(ax)


def test_single_runs_have_no_bars() -> None:
    _, ax = plt.subplots()
    throughput_latency(ax, series(point("vllm", 1, 1.0), point("vllm", 2, 1.0)), "blog")
    assert bars(ax) == [] and "95 % interval over runs" not in explained(ax)


def test_a_point_limited_by_its_client_is_hollow() -> None:
    _, ax = plt.subplots()
    bad = point("vllm", 2, 1.25, verdict="client-limited: late")
    throughput_latency(ax, series(point("vllm", 1, 1.0), bad), "blog")
    curve, hollow = drawn(ax)
    assert hollow.get_markerfacecolor() == plt.rcParams["axes.facecolor"]
    assert list(hollow.get_xdata()) == [curve.get_xdata()[1]]
    assert "hollow: the client was the bottleneck" in explained(ax)


def test_runs_that_are_not_stationary_have_no_bars() -> None:
    growing = [make_result(i, float(i), [0.5 + i, 1.0 + i]) for i in range(200)]
    runs = [make_log(growing, (0.0, 200.0), num_clients=1, repetition=i) for i in range(3)]
    _, ax = plt.subplots()
    throughput_latency(ax, series(*runs), "request")
    assert bars(ax) == [] and "95 % interval over runs" not in explained(ax)


def test_one_run_of_several_limited_by_its_client_is_not_hollow() -> None:
    verdicts = ["ok", "client-limited: late", "ok"]
    runs = [point("vllm", 1, 1.0, repetition=i, verdict=verdict) for i, verdict in enumerate(verdicts)]
    _, ax = plt.subplots()
    throughput_latency(ax, series(*runs), "blog")
    assert len(drawn(ax)) == 1


def test_buffered_points_are_left_out_of_times_of_tokens_and_of_no_others() -> None:
    at_once = [make_result(i, i, [0.5, 0.5, 0.5, 0.5]) for i in range(10)]
    log = make_log(at_once, (0, 10), num_clients=1)
    _, (first, second) = plt.subplots(1, 2)
    throughput_latency(first, series(log), "blog")
    plot_load_percentiles.draw(second, series(log), metrics.OF_REQUESTS["ttft_s"])
    assert len(drawn(first)) == 1 and drawn(second) == []
    assert "vllm at 1: buffered, left out" in explained(second)


def test_buffered_points_do_not_spoil_the_scale_of_the_others() -> None:
    """Times of 1e-6 s beside those of 0.25 s, and users that would see 1e6 tokens/s."""
    at_once = [make_result(i, i, [0.5, 0.500001, 0.500002, 0.500003]) for i in range(10)]
    logs = [make_log(at_once, (0, 10), num_clients=2), point("vllm", 1, 1.0)]
    for verdict in ("ok", "client-limited: it read too late"):
        logs[0] = make_log(at_once, (0, 10), num_clients=2, verdict=verdict)
        _, (percentiles, pareto) = plt.subplots(1, 2)
        plot_load_percentiles.draw(percentiles, series(*logs), metrics.OF_REQUESTS["tpot_s"])
        plot_pareto.draw(pareto, series(*logs), *PARETO)
        assert percentiles.get_yscale() == "linear" and percentiles.get_ylim()[1] > 0.2
        assert pareto.get_xlim()[1] < 10
        assert "vllm at 2: buffered, left out" in explained(pareto)


def test_the_last_and_the_highest_point_do_not_lie_on_the_edge() -> None:
    _, ax = plt.subplots()
    throughput_latency(
        ax, series(point("vllm", 1, 1.0), point("vllm", 1, 1.0)), "blog"
    )  # also where there is but one
    assert (ax.get_xlim()[0], ax.get_ylim()[0]) == (0, 0) and ax.get_xlim()[1] > 1.02 < ax.get_ylim()[1]


def test_panels_of_slas_have_room_for_the_highest_of_them_whatever_their_order() -> None:
    figure = plt.figure()
    all_series = series(point("vllm", 1, 1.0), point("vllm", 2, 1.0))
    plot_effective_throughput.panels(figure, all_series, {rate: effective(rate).keywords for rate in (8.0, 1.0)})
    reached = max(max(line.get_ydata()) for ax in figure.axes for line in drawn(ax))
    assert reached > 1.5 and all(ax.get_ylim()[1] > reached for ax in figure.axes)


def test_an_overload_stands_at_its_point() -> None:
    log = make_log([make_result(0, 1, [1.0])], (0, 10), request_rate=4.0, overloaded=True)
    _, ax = plt.subplots()
    throughput_latency(ax, series(log), "request")
    assert [text.get_text() for text in ax.texts] == ["4, overloaded"]


def test_answers_that_begin_with_reasoning_have_a_panel_for_their_first_token() -> None:
    thinking = make_log([make_result(i, i, [0.1, 0.5, 0.9], first_answer_event=1) for i in range(20)], (0.0, 20.0))
    assert plot_load_percentiles.thinks_first(series(thinking))
    assert not plot_load_percentiles.thinks_first(series(point("vllm", 1, 1.0)))
    _, ax = plt.subplots()
    plot_load_percentiles.draw(ax, series(thinking), metrics.OF_REQUESTS["time_to_first_answer_token_s"])
    assert all(line.get_ydata()[0] == pytest.approx(0.5) for line in drawn(ax))


def test_a_point_in_doubt_beats_none() -> None:
    logs = [point("vllm", 1, 1.0), point("vllm", 8, 0.5, verdict="client-limited: late")]
    _, ax = plt.subplots()
    plot_pareto.draw(ax, series(*logs), *PARETO)
    best, hollow = drawn(ax)
    assert list(best.get_xdata()) == pytest.approx([4]) and list(hollow.get_xdata()) == pytest.approx([8])
    assert hollow.get_linestyle() == "None"


def test_limits_of_a_folder_cut_its_own_points_and_not_the_axes() -> None:
    (one,) = series(*(point("vllm", n, 1.0) for n in (1, 2, 4)))
    (other,) = series(*(point("fastgen", n, 1.0) for n in (1, 2, 4)))
    _, ax = plt.subplots()
    throughput_latency(ax, [replace(one, x_max=2.5), other], "blog")
    cut, whole = drawn(ax)
    assert (list(cut.get_xdata()), list(whole.get_xdata())) == (pytest.approx([1, 2]), pytest.approx([1, 2, 4]))
    assert ax.get_xlim()[1] > 4


def test_labels_have_the_hue_of_their_curve() -> None:
    _, ax = plt.subplots()
    throughput_latency(ax, series(point("vllm", 1, 1.0)), "blog")
    red, green, blue = to_rgb(ax.texts[0].get_color())
    assert blue > green > red  # as #0072B2


def test_tp_sizes_show_the_originals_relation() -> None:
    # 1.9 and 3.7 requests/s (19 and 37 end within the 10 s) x 104 tokens x 7e9 x 2 / 2 GPUs.
    logs = [point("vllm", clients, 1.0, tp_size=2) for clients in (2, 4)]
    _, axes = plt.subplots(1, 3)
    plot_tp_sizes.draw(list(axes), series(*logs))
    (line,) = drawn(axes[2])
    assert list(line.get_xdata()) == pytest.approx([1.3832, 2.6936])
    assert list(line.get_ydata()) == pytest.approx([1.0, 1.0])
    assert [text.get_text() for text in axes[2].texts] == ["2", "4"]


def test_the_failed_share_stands_at_its_point() -> None:
    log = make_log([make_result(0, 1, [1.0]), make_result(1, 1, [], error="HTTP 500")], (0, 10))
    _, ax = plt.subplots()
    throughput_latency(ax, series(log), "request")
    assert [text.get_text() for text in ax.texts] == ["1, 50% failed"]


def test_effective_throughput_falls_where_the_sla_is_missed() -> None:
    # Gaps of a quarter of the latency: 0.25 s meet 3 tokens/s (0.33 s), 1.25 s do not.
    _, ax = plt.subplots()
    plot_effective_throughput.draw(ax, series(point("vllm", 1, 1.0), point("vllm", 4, 5.0)), effective(3))
    assert list(ax.lines[0].get_ydata()) == pytest.approx([1.0, 0.0])


def test_answers_that_came_whole_have_no_token_times_to_draw(tmp_path: Path) -> None:
    whole = [
        make_result(i, float(i), [0.9], event_tokens=[4], generated_tokens=4, streamed=False) for i in range(10)
    ]
    log = make_log(whole, (0.0, 10.0), num_clients=1, stream=False)
    _, ax = plt.subplots()
    plot_effective_throughput.draw(ax, series(log), effective(3))
    gaps = partial(plot_latency_percentile.token_latencies_s, skip_head_token_num=1, skip_request_num=1)
    plot_latency_percentile.draw(ax, series(log), gaps)
    assert drawn(ax) == [] and not ax.patches
    assert explained(ax) == ["vllm: whole answers, no token times"] * 2


def test_an_empty_panel_says_why(tmp_path: Path) -> None:
    whole = [
        make_result(i, float(i), [0.9], event_tokens=[4], generated_tokens=4, streamed=False) for i in range(10)
    ]
    log = make_log(whole, (0.0, 10.0), num_clients=1, stream=False)
    _, (empty, full) = plt.subplots(1, 2)
    plot_load_percentiles.draw(empty, series(log), metrics.OF_REQUESTS["ttft_s"])
    plot_load_percentiles.draw(full, series(log), metrics.OF_REQUESTS["e2e_latency_s"])
    for ax in (empty, full):
        plotting.explain_empty(ax)
    assert [text.get_text().replace("\n", " ") for text in empty.texts] == ["vllm: whole answers, no token times"]
    assert not full.texts and not len(empty.get_xticks()) and len(full.get_xticks())


def test_an_sla_that_nothing_meets_says_how_near_the_fastest_came() -> None:
    # 100 prompt tokens in 0.25 and 0.5 s: 400 and 200 tokens/s. Gaps of 0.25 and 0.5 s: 4 and 2 tokens/s.
    figure = plt.figure(layout="constrained")
    all_series = series(point("vllm", 1, 1.0), point("vllm", 2, 2.0))
    asked = {"kind": "cum", "span": 16}
    slas = {1: asked | {"rate": 1, "prompt_rate": 100}, 2: asked | {"rate": 2, "prompt_rate": 512}}
    plot_effective_throughput.panels(figure, all_series, slas | {9: asked | {"rate": 9, "prompt_rate": 512}})
    said = [" ".join(text.get_text().split()) for ax in figure.axes for text in ax.texts]
    prompt = "no request met it: the fastest prompt ran at 400 tokens/s"
    assert said == [prompt, f"{prompt} and the fastest generation ran at 4 tokens/s"]


def test_token_latency_percentiles_are_those_of_the_gaps() -> None:
    log = make_log([make_result(i, i, [0.5, 0.6, 0.8]) for i in range(3)], (0, 10))
    gaps = plot_latency_percentile.token_latencies_s(log, skip_head_token_num=1, skip_request_num=1)
    assert gaps == pytest.approx([0.1, 0.2, 0.1, 0.2])
    assert plot_latency_percentile.token_latencies_s(log, 2, 1) == pytest.approx([0.2, 0.2])


def test_token_latency_bars_are_hatched_where_the_gaps_are_too_few() -> None:
    # 26 requests, the first left out, 3 gaps each: 75 gaps carry P50 (11) and P90 (64), not P95 (130).
    results = [make_result(i, i, [0.5, 0.6, 0.7, 0.8]) for i in range(26)]
    gaps = partial(plot_latency_percentile.token_latencies_s, skip_head_token_num=1, skip_request_num=1)
    _, ax = plt.subplots()
    plot_latency_percentile.draw(ax, series(make_log(results, (0, 30))), gaps)
    assert [bar.get_height() for bar in ax.patches[:3]] == pytest.approx([0.1, 0.1, 0.1])
    assert [bar.get_hatch() for bar in ax.patches[:3]] == ["", "", "//"]


def test_replica_scaling_shows_perfect_scaling_beside_it() -> None:
    _, ax = plt.subplots()
    plot_repl_scale.draw(ax, series(point("vllm", 1, 1.0), point("vllm", 2, 1.0, num_replicas=2)))
    measured, perfect = drawn(ax)
    assert list(measured.get_xdata()) == [1, 2]
    assert list(perfect.get_ydata()) == pytest.approx([measured.get_ydata()[0], 2 * measured.get_ydata()[0]])


def test_pareto_joins_the_points_that_no_other_beats_both_ways() -> None:
    # Four tokens a request in gaps of L/4: a user sees 4/L tokens/s. Output tokens/s a GPU over the 10 s window:
    # L=1, 1 client: 40 tokens, 4.0 on 1 GPU; L=2, 4 clients: 8.0 on 1; L=2, 2 clients on 2 GPUs: 2.0, beaten.
    logs = [point("vllm", 1, 1.0), point("vllm", 4, 2.0), point("vllm", 2, 2.0, tp_size=2)]
    _, ax = plt.subplots()
    plot_pareto.draw(ax, series(*logs), *PARETO)
    beaten, best = drawn(ax)
    assert (list(best.get_xdata()), list(best.get_ydata())) == (
        pytest.approx([2, 4]),
        pytest.approx([8, 4], rel=0.05),
    )
    assert (list(beaten.get_xdata()), list(beaten.get_ydata())) == (
        pytest.approx([2]),
        pytest.approx([2], rel=0.05),
    )
    assert [text.get_text() for text in ax.texts] == ["TP1×1, 4", "TP1×1, 1"]


def test_percentiles_that_the_requests_do_not_carry_are_crossed() -> None:
    # 70 requests with TTFT 0.1 .. 7.0 s: they carry P50 (11) and P90 (64), not P99 (662).
    # Their percentiles q lie at 0.1 + 6.9 q: P50 3.55, P90 6.31, P99 6.931.
    log = make_log([make_result(i, i, [0.1 + 0.1 * i, 9.0]) for i in range(70)], (0, 100), num_clients=7)
    _, ax = plt.subplots()
    plot_load_percentiles.draw(ax, series(log), metrics.OF_REQUESTS["ttft_s"], (50, 90, 99))
    p99, crossed, p90, p50 = drawn(ax)
    assert [line.get_ydata()[0] for line in (p99, p90, p50)] == pytest.approx([6.931, 6.31, 3.55])
    assert (crossed.get_marker(), list(crossed.get_ydata())) == ("x", list(p99.get_ydata()))
    assert {"p99", "p90", "p50", "too few requests for a reliable percentile"} == set(explained(ax))


def test_a_distribution_ends_at_the_share_that_succeeded() -> None:
    results = [make_result(i, i, [float(i + 1)]) for i in range(3)] + [make_result(3, 3, [], error="HTTP 500")]
    _, ax = plt.subplots()
    plot_cdf.draw(ax, series(make_log(results, (0, 10))), metrics.OF_REQUESTS["e2e_latency_s"])
    (line,) = drawn(ax)
    assert list(line.get_xdata()) == [1, 1, 2, 3]
    assert list(line.get_ydata()) == pytest.approx([0, 0.25, 0.5, 0.75])
    assert line.get_label() == "vllm, 25% failed"


SAMPLES = telemetry.Series(
    start_ns=9_000_000_000,  # a second before the first request
    every_ns=2_000_000_000,
    bins=3,
    columns={
        "engine0.running": [1.0, 2.0, None],
        "engine1.running": [1.0],
        "engine0.kv_cache_usage": [0.2, 0.4, 0.6],
        "engine1.kv_cache_usage": [0.4, 0.4, 0.4],
        "gpu0.power_w": [100.0, 200.0, 300.0],
        "gpu1.power_w": [50.0],
        "host.client": [0.1],
    },
)


def test_samples_are_summed_or_averaged_on_the_clock_of_the_requests() -> None:
    log = make_log([make_result(0, 10.0, [0.5, 5.0])], (11.0, 14.0))
    with_samples = replace(log, series=SAMPLES)
    figure = plt.figure()
    all_series = [*series(with_samples), *series(log)]
    plot_timeline.columns(figure, all_series)
    rows = np.reshape(np.array(figure.axes, dtype=object), (5, 2))
    assert [ax.get_ylabel() for ax in rows[2:, 0]] == ["In the engine", "KV cache (%)", "Power (W)"]
    found = [[p.get_data() for p in ax.patches if isinstance(p, StepPatch)] for ax in rows[2:, 0]]
    assert [len(of_panel) for of_panel in found] == [1, 1, 1]  # no column says how many wait
    running, usage, power = (of_panel[0] for of_panel in found)
    assert list(running.edges) == list(power.edges) == [-1, 1, 3, 5]
    assert list(running.values[:2]) == [2, 3] and np.isnan(running.values[2])
    assert list(usage.values) == pytest.approx([30, 40, 50]) and list(power.values) == [150, 250, 350]
    assert all(ax.get_xlim() == (0, 5) for ax in rows.flat)
    assert rows[3, 0].get_ylim() == (0, 100) and rows[4, 0].get_ylim()[0] == 0
    assert all(len([p for p in ax.patches if not isinstance(p, StepPatch)]) == 2 for ax in rows.flat)  # shades
    assert [[text.get_text() for text in ax.texts] for ax in rows[2:, 1]] == [["no samples"]] * 3


def test_a_timeline_grows_with_its_panels() -> None:
    log = make_log([make_result(0, 10.0, [0.5, 5.0])], (11.0, 14.0))
    heights = []
    for samples in (None, SAMPLES):
        figure = plt.figure()
        plot_timeline.columns(figure, series(replace(log, series=samples)))
        heights.append((len(figure.axes), figure.get_figheight()))
    assert heights == [(2, 5.6), (5, pytest.approx(5.6 + 3 * 1.3))]


@pytest.mark.parametrize(
    ("y", "label"),
    [
        ("dollars", "Cost ($ per million output tokens)"),
        ("energy_per_output_token", "Energy per output token (J)"),
        ("tokens_per_joule", "Output tokens per joule (tokens/J)"),
    ],
)
def test_a_frontier_of_cost_and_energy(y: str, label: str) -> None:
    """Of two servers as fast, the one whose GPUs draw less and are fewer beats the other."""
    frugal, lavish = on_gpus(point("vllm", 2, 1.0), 300.0), on_gpus(point("vllm", 2, 1.0, tp_size=2), 300.0, 300.0)
    logs = [replace(log, gpu_hour_price=2.0) for log in (lavish, frugal)]
    (curve,) = series(*logs)
    x, cost = quantity("interactivity_p50"), quantity(y)
    found = plot_pareto.frontier(curve.plot_points(x.of, cost.of), x, cost)
    assert [p.point.log.server.tp_size for p in found] == [1] and cost.label(frugal) == label


def test_a_curve_without_energy_says_so() -> None:
    ax = plt.figure().subplots()
    x, y = quantity("ttft_p50"), quantity("tokens_per_joule")
    plotting.draw_quantities(ax, series(point("vllm", 2, 1.0)), x, y)
    assert "vllm: no output tokens/J in its logs" in [line.get_label() for line in ax.lines]


def test_a_timeline_has_every_request_and_shades_ramp_and_drain() -> None:
    results = [
        make_result(0, 10.0, [0.5, 2.0], phase="warmup"),
        make_result(1, 11.0, [1.0, 3.0]),
        make_result(2, 12.0, [0.5], error="reset"),
    ]
    _, axes = plt.subplots(2)
    plot_timeline.draw(tuple(axes), make_log(results, (11.5, 13.0)))
    waiting, generating, failed = (
        [[(float(x), float(y)) for x, y in line] for line in lines.get_segments()] for lines in axes[0].collections
    )
    assert waiting == [[(0, 0), (0.5, 0)], [(1, 1), (2, 1)], [(2, 2), (2.5, 2)]]
    assert generating == [[(0.5, 0), (2, 0)], [(2, 1), (4, 1)], [(2.5, 2), (2.5, 2)]]
    assert failed == [[(2, 2), (2.5, 2)]]
    (cross,) = drawn(axes[0])
    assert (cross.get_marker(), cross.get_xdata()[0], cross.get_ydata()[0]) == ("x", 2.5, 2)
    (running,) = drawn(axes[1])
    assert list(running.get_xdata()) == [0, 1, 2, 2, 2.5, 4]
    assert list(running.get_ydata()) == [1, 2, 1, 2, 1, 0]
    ramp, drain = axes[0].patches
    assert (ramp.get_x(), ramp.get_width()) == (0, 1.5)
    assert (drain.get_x(), drain.get_width()) == (3.0, 1.0)
