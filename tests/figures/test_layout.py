"""Every figure, from logs that are hard to draw, on both pages: nothing overlaps, nothing leaves the page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import combinations, product
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from conftest import A100, ROOT, make_log, make_result, point
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from msgspec.structs import replace

from servebench.figures import page
from servebench.log import schema, store
from servebench.log.schema import Log

SCRIPTS = sorted(path.stem for path in (ROOT / "src").glob("plot_*.py"))
MORE = {  # options that give other figures of the same script
    "plot_th_lat": ("--by", "layout", "--x", "load", "--y", "ttft_p99"),
    "plot_pareto": ("--by", "layout", "--x", "ttft_p99"),
    "plot_load_percentiles": ("--y", "ttft", "itl", "e2e_latency", "--percentiles", "50", "90", "95", "99"),
    "plot_cdf": ("--by", "layout"),
    "plot_effective_throughput": ("--sla_prompt_tokens_per_sec", "99999"),
    "plot_latency_percentile": ("--by", "layout"),
    "plot_decide": ("--sla", "ttft_p50<300ms", "--objective", "cost", "--gpu_hour_price", "2.5"),
    "plot_sla_map": ("--sla", "ttft_p90<300ms, tpot_p90<1s", "--theme", "dark"),
}


def whole(clients: int) -> Log:
    results = [make_result(i, i, [0.9], event_tokens=[4], generated_tokens=4, streamed=False) for i in range(20)]
    return make_log(results, (0.0, 20.0), backend="aml", num_clients=clients, stream=False)


def many_engines() -> Iterator[Log]:
    """Loads over two decades, loads close to each other, whole answers, failures, layouts, doubts."""
    for backend, base in (("vllm", 0.9), ("sglang", 1.1), ("fastgen", 1.3), ("llamacpp", 2.5), ("openai", 3.0)):
        for clients in (1, 2, 4, 8, 16, 32, 64, 128):
            yield point(backend, clients, base * (1 + clients / 60))
    yield from (whole(clients) for clients in (1, 8, 64))
    for clients in (8, 9, 10, 12, 16, 17):
        yield point("vllm", clients, 0.8, tp_size=2, num_replicas=4)
    failing = [make_result(i, i, [0.4, 0.8] if i % 3 else [], error=None if i % 3 else "reset") for i in range(40)]
    yield make_log(failing, (0.0, 40.0), backend="openai", num_clients=12, verdict="client-limited: late")


def fast() -> Iterator[Log]:
    """Milliseconds, in three runs, over a narrow range of loads, under long settings."""
    for repetition, clients in product(range(3), (8, 16, 32)):
        same = {"repetition": repetition, "num_requests": 512}
        yield point("vllm", clients, 0.5 + clients / 1e3 + repetition / 1e2, **same)
        words = ("--enable-chunked-prefill", "--max-num-batched-tokens", "8192")
        yield point("sglang", clients, 0.513, engine_args=words, **same)
        yield point("sglang", clients, 0.841, **same)


def one_point() -> Iterator[Log]:
    yield point("vllm", 7, 0.35, dataset="/data/a_file_of_conversations.json", dataset_sha256="ab")


def whole_answers() -> Iterator[Log]:
    yield from map(whole, (8, 16, 32))


@pytest.fixture(scope="module", params=[many_engines, fast, one_point, whole_answers])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded") / "results"
    logs: Callable[[], Iterator[Log]] = request.param
    for number, log in enumerate(logs()):
        store.save(
            replace(log, machine=A100),
            root / log.server.backend / f"log{number}-{schema.log_name(log.server, log.run)}",
        )
    return root


def drawn_by(script: str, monkeypatch: pytest.MonkeyPatch, *words: object) -> list[Figure]:
    """The figures of a script, which runs in this process."""
    figures: list[Figure] = []
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "src"))
        patch.setattr(sys, "argv", [script, *map(str, words)])
        patch.setattr(plt, "close", figures.append)
        patch.setattr(page, "save", lambda *_: None)  # which draws once more
        __import__(script).main()
    plt.close("all")
    return [figure for figure in figures if figure.legends]  # one without was not saved: it had nothing to show


def tick_labels(axis: Axis) -> list[Text]:
    """Those that are shown."""
    low, high = sorted(axis.get_view_interval())
    shown = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1 for tick in shown if tick.label1.get_visible() and tick.label1.get_text()]


def around_data(figure: Figure) -> list[tuple[str, Bbox]]:
    """All words that have a place of their own, and the legends."""
    texts: list[Text] = [*figure.texts]
    for ax in figure.axes:
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label, *tick_labels(ax.xaxis), *tick_labels(ax.yaxis)]
    boxes = [
        (text.get_text(), text.get_window_extent()) for text in texts if text.get_visible() and text.get_text()
    ]
    return boxes + [("legend", legend.get_window_extent()) for legend in figure.legends]


def overlap(a: Bbox, b: Bbox, slack: float = 1.0) -> bool:
    """By more than a pixel: extents are rounded up to whole ones."""
    apart = a.x1 - slack <= b.x0 or b.x1 - slack <= a.x0 or a.y1 - slack <= b.y0 or b.y1 - slack <= a.y0
    return not apart


@pytest.mark.parametrize(("script", "more"), [(s, ()) for s in SCRIPTS] + list(MORE.items()))
def test_nothing_overlaps_and_nothing_leaves_the_page(
    recorded: Path, script: str, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--log_dir", recorded, "--out_dir", recorded.parent, "--max_figures", 2, *more)
    for figure in drawn_by(script, monkeypatch, *words):
        figure.draw_without_rendering()
        boxes = around_data(figure)
        for (a, box_a), (b, box_b) in combinations(boxes, 2):
            assert not overlap(box_a, box_b), f"{a!r} on {b!r}"
        inside = [(text.get_text(), text.get_window_extent()) for ax in figure.axes for text in ax.texts]
        for words_of, box in [*boxes, *((t, b) for t, b in inside if t)]:
            assert box.x0 > -1 and box.y0 > -1, f"{words_of!r} leaves the page"
            assert box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1, f"{words_of!r} leaves the page"


def test_the_check_sees_an_overlap() -> None:
    figure, ax = plt.subplots()
    ax.set(xlim=(0, 100), xticks=[50, 51], xticklabels=["fifty", "fifty-one"])
    a, b = (text.get_window_extent() for text in tick_labels(ax.xaxis))
    assert overlap(a, b)
    plt.close(figure)
