"""The plot scripts as a user runs them: options, bad input, which files they write, and how every page looks."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import msgspec
import numpy as np
import pytest
from conftest import ROOT, make_log, make_result, point
from matplotlib.figure import Figure
from matplotlib.text import Text
from warm_python import python

import plot_timeline
from servebench.figures import curves, labels, page, selection, theme
from servebench.log import schema, store

SCRIPTS = sorted(path.stem for path in (ROOT / "src").glob("plot_*.py"))

NEEDS = {
    "plot_decide": ("--sla", "ttft_p50<2s")
}  # to have something to draw: the usual limits are for faster servers


def draw(script: str, log_dir: Path, *options: object) -> tuple[int, list[str], str]:
    """Run a script beside the results: (exit status, files it wrote, stderr)."""
    ended = python(ROOT / f"src/{script}.py", "--log_dir", log_dir, *options, cwd=log_dir.parent)
    return ended.returncode, ended.stdout.splitlines(), ended.stderr


def options(logs: Path, *words: object) -> argparse.Namespace:
    return page.plot_parser(None, "x").parse_args(["--log_dir", str(logs), *map(str, words)])


@pytest.mark.parametrize(
    ("script", "folder", "figures_drawn"),
    [
        ("plot_th_lat", "throughput_latency", 3),
        ("plot_effective_throughput", "goodput", 6),
        ("plot_latency_percentile", "percentile_token_latency", 9),
        ("plot_repl_scale", "repl_scale", 2),  # 1 and 2 clients a replica were measured with 1 and with 2 replicas
        ("plot_tp_sizes", "tp_sizes", 2),
        ("plot_pareto", "pareto", 1),
        ("plot_load_percentiles", "load_percentiles", 3),
        ("plot_cdf", "cdf", 3),
        ("plot_timeline", "timeline", 3),
        ("plot_decide", "decide", 1),
        ("plot_sla_map", "sla_map", 1),
        ("plot_roofline", "roofline", 1),
    ],
)
def test_scripts_run_as_the_readme_says(logs: Path, script: str, folder: str, figures_drawn: int) -> None:
    code, files, said = draw(script, logs, "--backend", "vllm", "fastgen", *NEEDS.get(script, ()))
    assert code == 0, said
    drawn = list((logs.parent / "plots" / folder).glob("*.png"))
    assert len(files) == len(drawn) == figures_drawn and all(path.stat().st_size > 10_000 for path in drawn)


def test_files_of_every_format_and_theme(logs: Path) -> None:
    few = ("--filter", "tp_size=1", "num_replicas=1", "--out_dir", logs.parent)
    code, files, said = draw("plot_th_lat", logs, *few, "--format", "png", "svg", "pdf", "--theme", "dark")
    assert code == 0 and [Path(file).suffix for file in files] == [".png", ".svg", ".pdf"], said
    paper = plt.imread(files[0])[2, 2]  # #15181d
    assert [round(float(channel) * 255) for channel in paper[:3]] == [0x15, 0x18, 0x1D]


def test_a_theme_that_follows_its_reader(logs: Path) -> None:
    few = ("--filter", "tp_size=1", "num_replicas=1", "--out_dir", logs.parent, "--theme", "auto")
    code, (file,), _ = draw("plot_th_lat", logs, *few, "--format", "svg")
    svg = Path(file).read_text()
    _, media, night = svg.partition("@media(prefers-color-scheme:dark)")
    assert code == 0 and media and "--cffffff:#15181d;" in night
    assert "fill: var(--cffffff)" in svg and "fill: #ffffff" not in svg
    # Words beside vLLM's curve (#1555e0): half way to #1f2328 by day, to #e6e8eb by night.
    assert "fill: var(--c1a3c84)" in svg and "--c1a3c84:#7e9ee5;" in night
    code, _, said = draw("plot_th_lat", logs, *few)
    assert (code, said.count("\n")) == (2, 1) and "add --format svg" in said


def test_filter_takes_any_field_of_the_server_or_the_run(logs: Path) -> None:
    found = selection.chosen(
        options(logs, "--filter", "tp_size=2", "num_clients=1", "num_clients=4", "stream=true")
    )
    kept = [(e.head.server.tp_size, e.head.run.load.num_clients) for e in found[logs / "vllm"]]
    assert kept == [(2, 1), (2, 4)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--filter", "tp=1"), "there is no field tp: did you mean tp_size?"),
        (("--filter", "tp_size=one"), "'tp_size=one': Expected `int`"),
        (("--log_dir", "nowhere"), "nowhere is not a folder"),
        (("--data_dirs", "nowhere"), "nowhere is not a folder"),
        (("--max_figures", "0"), "'0' is not a whole number of at least 1"),
        (("--theme", "pink"), "'pink' is not one of light, dark, auto"),
    ],
)
def test_bad_input_is_one_line(logs: Path, words: tuple[str, ...], said: str) -> None:
    code, files, err = draw("plot_th_lat", logs, *words)
    assert (code, files, err.count("\n")) == (2, [], 1) and said in err


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("color: mauvish", "color 'mauvish' is not a colour"),
        ("linestyle: wavy", "linestyle 'wavy' is not one of - -- : -."),
        ("marker: Q", "marker 'Q' is not a marker"),
        ("x_max: far", "Expected `float"),
        ("- a\n- b", "Expected `object`, got `array`"),
        ("label: [", "correct it"),
    ],
)
def test_a_bad_plot_config_is_one_line(logs: Path, config: str, said: str) -> None:
    (logs / "vllm/plot_config.yaml").write_text(config)
    code, _, err = draw("plot_th_lat", logs)
    assert (code, err.count("\n")) == (2, 1) and said in err and "vllm/plot_config.yaml" in err


@pytest.mark.parametrize(
    ("words", "said"), [(("--backend", "aml"), "correct --log_dir"), (("--filter", "seed=9"), "correct --filter")]
)
def test_nothing_to_draw_is_said_in_one_line(logs: Path, words: tuple[str, ...], said: str) -> None:
    code, _, err = draw("plot_th_lat", logs, *words)
    assert (code, err.count("\n")) == (1, 1) and "no logs to draw" in err and said in err


def test_one_number_of_replicas_is_no_scaling(logs: Path) -> None:
    code, files, said = draw("plot_repl_scale", logs, "--filter", "num_replicas=1")
    assert (code, files) == (0, []) and said == (
        "nothing to draw: no logs that differ only in replicas; measure more\n"
    )


def test_a_log_that_was_cut_off_is_named_and_left_out(logs: Path) -> None:
    cut = next((logs / "vllm").glob("*tp1*replicas1*clients1.json"))
    cut.write_bytes(cut.read_bytes()[:-200])
    code, files, said = draw("plot_th_lat", logs, "--filter", "tp_size=1", "num_replicas=1")
    assert code == 0 and len(files) == 1 and said.startswith(f"left out: {cut}") and said.count("\n") == 2
    assert said.endswith("DeepSpeed-FastGen alone has 1 clients\n")


def test_data_dirs_need_no_log_dir(logs: Path) -> None:
    script, folder = ROOT / "src/plot_pareto.py", logs / "vllm"
    assert python(script, "--data_dirs", folder, "--out_dir", ".", cwd=folder).returncode == 0


def test_points_without_times_between_tokens_are_named(results: Path) -> None:
    whole = [
        make_result(i, float(i), [0.9], event_tokens=[4], generated_tokens=4, streamed=False) for i in range(10)
    ]
    store.save(make_log(whole, (0.0, 10.0), stream=False), results / "aml" / "m-clients1.json")
    code, files, said = draw("plot_latency_percentile", results)
    assert (code, files) == (0, []) and said.startswith("nothing to draw: meta-llama_Llama-2-7b-hf-tp1")


def test_data_dirs_with_a_plot_config(logs: Path) -> None:
    (logs / "vllm/plot_config.yaml").write_text("label: Ours\ncolor: '#123456'\nx_max: 9\npolyfit_degree: 3\n")
    args = options(logs, "--data_dirs", logs / "vllm", logs / "fastgen", "--filter", "tp_size=1", "num_replicas=1")
    (group,) = curves.groups(args, selection.CONFIGURATION)
    ours, theirs = group.series
    assert (ours.label, ours.color, ours.x_max, theirs.label) == ("Ours", "#123456", 9, "DeepSpeed-FastGen")


def test_settings_that_differ_make_curves_of_their_own(logs: Path) -> None:
    """Whole answers beside streamed ones, and another argument of the engine: a curve each, that says so."""
    for clients in (1, 4):
        log = point("vllm", clients, 2.0, stream=False)
        store.save(log, logs / "vllm" / f"whole-clients{clients}.json")
    log = point("vllm", 2, 2.0, engine_args=("--enforce-eager",))
    store.save(log, logs / "vllm" / "eager-clients2.json")
    args = options(logs, "--backend", "vllm", "--filter", "tp_size=1", "num_replicas=1")
    (group,) = curves.groups(args, selection.CONFIGURATION)
    assert [(curve.label, len(curve.points)) for curve in group.series] == [
        ("vLLM, no engine_args, stream True", 3),
        ("vLLM, no engine_args, stream False", 2),
        ("vLLM, enforce-eager, stream True", 1),
    ]
    assert {curve.marker for curve in group.series} == {"o"}  # one engine
    looks = [(curve.color, curve.fillstyle, curve.linestyle) for curve in group.series]
    assert all(len(set(look)) == 3 for look in zip(*looks, strict=True))


def test_what_only_load_and_length_of_a_run_tell_apart_is_one_curve(logs: Path) -> None:
    log = point("vllm", 16, 2.0, seed=7, warmup=3, request_timeout=9.0)
    store.save(log, logs / "vllm" / "more-clients16.json")
    args = options(logs, "--backend", "vllm", "--filter", "tp_size=1", "num_replicas=1")
    (group,) = curves.groups(args, selection.CONFIGURATION)
    assert [(curve.label, len(curve.points)) for curve in group.series] == [("vLLM", 4)]


def test_curves_that_were_not_asked_alike_are_named(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = point("aml", 1, 2.0, temperature=0.0, api="score")
    store.save(log, logs / "aml" / schema.log_name(log.server, log.run))
    args = options(logs, "--backend", "aml", "vllm", "--filter", "tp_size=1", "num_replicas=1")
    list(curves.groups(args, selection.CONFIGURATION))
    said = capsys.readouterr().err
    assert "not measured alike: temperature 0.0 (Azure ML); temperature 1.0 (vLLM)" in said and "api" not in said


def test_the_stand_in_of_fastgen_is_not_drawn_as_fastgen(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (logs / "fastgen").glob("*.json"):
        facts = schema.ServerFacts(urls=[], engine="deepspeed-mii 0.3.3+cpu")
        store.save(msgspec.structs.replace(store.load(path), server_facts=facts), path)
    args = options(logs, "--backend", "fastgen", "--filter", "tp_size=1", "num_replicas=1")
    (group,) = curves.groups(args, selection.CONFIGURATION)
    assert [curve.label for curve in group.series] == ["FastGen stand-in (CPU)"]
    assert "says nothing about DeepSpeed-FastGen" in capsys.readouterr().err


def test_a_single_load_and_loads_of_one_backend_alone_are_named(logs: Path) -> None:
    same = ("--filter", "tp_size=1", "num_replicas=1")
    _, _, said = draw("plot_th_lat", logs, *same, "num_clients=2")
    assert said.count("\n") == 1 and said.endswith("a single load makes no curve; measure more loads\n")
    for path in (logs / "vllm").glob("*clients[24].json"):
        path.unlink()
    _, _, said = draw("plot_th_lat", logs, *same)
    assert said.count("\n") == 1 and said.endswith("DeepSpeed-FastGen alone has 2, 4 clients\n")


def test_who_lacks_the_one_load_that_is_drawn_is_named(logs: Path) -> None:
    for path in (logs / "vllm").glob("*clients4.json"):
        path.unlink()
    same = ("--filter", "tp_size=1", "num_replicas=1")
    _, _, said = draw("plot_cdf", logs, *same)
    assert said.count("\n") == 1 and said.endswith("-clients4: vLLM: no logs at this load\n")


def test_clients_a_replica_that_nobody_measured_are_said(logs: Path) -> None:
    code, files, said = draw("plot_repl_scale", logs, "--clients_per_replica", "3")
    assert (code, files, said.count("\n")) == (0, [], 1) and "has none of 1, 2, which were measured" in said


def test_a_dataset_has_no_prompt_length_of_ours(logs: Path) -> None:
    for clients in (1, 2):
        log = point("vllm", clients, 1.0, dataset="/data/chats.json", dataset_sha256="ab")
        store.save(log, logs / "vllm" / schema.log_name(log.server, log.run))
    groups = curves.groups(options(logs, "--filter", "dataset=/data/chats.json"), selection.CONFIGURATION)
    (group,) = groups
    assert group.name == "meta-llama_Llama-2-7b-hf-tp1-bs768-replicas1-gen60-chats"
    assert group.title.endswith("replicas 1, generation 60 tokens, chats")


def test_a_folder_without_logs_is_no_backend(logs: Path) -> None:
    (logs / "calibration").mkdir()
    (logs / "calibration" / "calibration.json").write_text("[]")
    code, files, said = draw("plot_th_lat", logs)
    assert (code, len(files), said) == (0, 3, "")
    code, _, said = draw("plot_th_lat", logs, "--backend", "calibration", "vllm")
    assert code == 0 and "no logs to draw in" in said and "calibration" in said


def test_a_model_is_written_as_people_write_it(logs: Path) -> None:
    (group,) = curves.groups(options(logs, "--filter", "tp_size=2"), selection.CONFIGURATION)
    assert group.title.startswith("meta-llama/Llama-2-7b-hf\nTP 2,")
    assert group.name.startswith("meta-llama_Llama-2-7b-hf-tp2-")


def test_why_a_backend_has_no_curve_is_said(logs: Path) -> None:
    whole = [make_result(i, float(i), [0.9], event_tokens=[4], generated_tokens=4) for i in range(10)]
    for clients in (1, 2, 4):
        log = make_log(whole, (0.0, 10.0), backend="aml", num_clients=clients, stream=False)
        store.save(log, logs / "aml" / f"m-clients{clients}.json")
    few = ("--filter", "tp_size=1", "num_replicas=1")
    code, files, said = draw("plot_effective_throughput", logs, *few)
    assert (code, len(files)) == (0, 2) and said.count("Azure ML: whole answers, no token times\n") == 2


def test_folders_of_one_name_have_looks_of_their_own(logs: Path) -> None:
    (logs / "vllm").rename(logs / "fastgen" / "fastgen")
    args = options(logs, "--data_dirs", logs / "fastgen", logs / "fastgen" / "fastgen", "--filter", "tp_size=2")
    (group,) = curves.groups(args, selection.CONFIGURATION)
    first, second = group.series
    assert first.label != second.label and first.color != second.color and first.marker != second.marker


def test_runs_are_one_point_unless_their_settings_differ() -> None:
    runs = [point("vllm", 1, 1.0, repetition=i) for i in range(3)]
    other = point("vllm", 1, 1.0, repetition=3, temperature=0.5)
    assert [len(p.runs) for p in curves.points_of([*runs, other])] == [3, 1]


def test_tp_sizes_have_a_line_style_each(logs: Path) -> None:
    args = options(logs, "--backend", "vllm", "--filter", "num_replicas=1")
    (group,) = curves.groups(args, (selection.MODEL,), curve_by=selection.TP_SIZE)
    found = [(curve.label, curve.linestyle, len(curve.points)) for curve in group.series]
    first, second = group.series
    assert first.marker == second.marker and first.fillstyle != second.fillstyle
    assert found == [("vLLM TP 1", "-", 3), ("vLLM TP 2", "--", 3)]


def test_no_more_figures_than_asked_for(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(curves.groups(options(logs, "--max_figures", 2), selection.CONFIGURATION))
    assert [group.series[0].points[0].log.server.num_replicas for group in found] == [1, 2]
    assert "the first 2 of 3 figures" in capsys.readouterr().err


# How a page looks.


def crowded() -> Figure:
    """A curve with 40 points in a corner, and one that failed in their midst."""
    figure, ax = plt.subplots()
    ax.plot([0, *np.linspace(9, 9.2, 40), 10], [0, *np.linspace(9, 9.2, 40), 10], label="crowd")
    for i in range(40):
        labels.add(ax, f"{i}", (9 + i / 200, 9 + i / 200), labels.WARNING if i == 20 else labels.LABEL)
    return figure


def shown(figure: Figure) -> list[Text]:
    return [text for ax in figure.axes for text in ax.texts if text.get_visible()]


def test_labels_do_not_touch_and_those_without_a_place_go_away() -> None:
    with theme.style("light"):
        figure = crowded()
        page.finish(figure, "a title")
    boxes = [text.get_window_extent() for text in shown(figure)]
    assert 1 < len(boxes) < 40
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert "20" in [text.get_text() for text in shown(figure)]


def test_title_and_legend_cover_no_data(logs: Path) -> None:
    with theme.style("light"):
        figure = crowded()
        page.finish(figure, "a title\nof two lines")
    (legend,) = figure.legends
    axes = figure.axes[0].get_window_extent()
    assert legend.get_title().get_text() == "a title\nof two lines"
    assert legend.get_window_extent().y0 >= axes.y1 and legend.get_window_extent().x1 <= figure.bbox.x1
    plt.close(figure)


def test_long_titles_and_labels_stay_on_the_page() -> None:
    label = f"vLLM, {'engine_args --enable-chunked-prefill, ' * 4}stream True"
    with theme.style("light"):
        figure, ax = plt.subplots()
        ax.plot([0, 1], [0, 1], label=label)
        page.finish(figure, f"a/model\n{'batch 768, ' * 12}")
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert legend.get_texts()[0].get_text().replace("\n", " ") == label
    plt.close(figure)


def test_titles_of_timelines_do_not_touch() -> None:
    log = point("vllm", 1, 1.0)
    names = [f"vLLM, fp6 {i}, engine_args --enforce-eager, stream True" for i in range(5)]
    with theme.style("light"):
        figure = plt.figure()
        plot_timeline.columns(figure, [curves.Series(name, "k", points=curves.points_of([log])) for name in names])
        figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in figure.axes[:5]]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    plt.close(figure)


@pytest.mark.parametrize("script", SCRIPTS)
def test_text_is_readable_at_the_width_of_a_blog(logs: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 pt are 10.7 px; on a figure W in wide shown at 800 px they take 0.96 W pt."""
    monkeypatch.syspath_prepend(str(ROOT / "src"))
    few = [
        "--filter",
        "num_clients=1",
        "num_clients=2",
        "--max_figures",
        "1",
        "--out_dir",
        str(logs.parent),
        *NEEDS.get(script, ()),
    ]
    monkeypatch.setattr(sys, "argv", [script, "--log_dir", str(logs), *few])
    drawn: list[Figure] = []
    monkeypatch.setattr(plt, "close", drawn.append)
    __import__(script).main()
    monkeypatch.undo()
    for figure in drawn:
        sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert min(sizes) >= 8 and min(sizes) >= 0.96 * figure.get_figwidth()
    plt.close("all")
    assert drawn


def test_clients_and_rates_have_figures_of_their_own(logs: Path) -> None:
    for rate in (0.5, 4.0):
        log = point("vllm", 1, 1.0, request_rate=rate)
        store.save(log, logs / "vllm" / schema.log_name(log.server, log.run))
    same = ("--backend", "vllm", "--filter", "tp_size=1", "num_replicas=1")
    _, files, _ = draw("plot_load_percentiles", logs, *same)
    assert [Path(file).stem.rpartition("gen60")[2] for file in files] == ["", "-rate"]
    _, of_rates = curves.groups(options(logs, *same), selection.CONFIGURATION)
    assert selection.load_axis(of_rates.log) == "Request rate (requests/s)"
    assert [selection.load_size(p.log) for p in of_rates.series[0].points] == [0.5, 4]


def test_a_timeline_shows_what_was_in_flight_to_the_end() -> None:
    """Sent at 0, 1, 2, 3 s: one ended after 1 s, one failed after 2.5 s, two were cut off, one without a token."""
    results = [
        make_result(0, 0.0, [0.5, 1.0]),
        make_result(1, 1.0, [], error="no end", ended_ns=2_500_000_000),
        make_result(2, 2.0, [0.5], phase="cooldown", finish_reason="cancelled", ended_ns=3_000_000_000),
        make_result(3, 3.0, [], phase="cooldown", finish_reason="cancelled"),  # as in logs without ended_ns
    ]
    spans = plot_timeline.spans(make_log(results, (0.0, 5.0)))
    assert list(zip(spans.first, spans.last, strict=True)) == [(0.5, 1.0), (3.5, 3.5), (2.5, 5.0), (5.0, 5.0)]
    at, running = plot_timeline.running(spans)
    assert (at.tolist(), running.tolist()) == ([0.0, 1.0, 1.0, 2.0, 3.0, 3.5], [1, 0, 1, 2, 3, 2])


def commands_of_the_documentation() -> list[list[str]]:
    text = (ROOT / "docs/figures.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", commands_of_the_documentation(), ids=" ".join)
def test_commands_of_the_documentation_draw(logs: Path, command: list[str]) -> None:
    interpreter, script, *words = command
    assert interpreter == "python"
    ended = python(ROOT / script, *words, "--max_figures", 1, cwd=logs.parent)
    assert ended.returncode == 0 and ended.stdout.strip(), ended.stderr
    assert not re.search("error|nothing to draw", ended.stderr), ended.stderr


def test_the_documentation_names_every_script_and_its_folder() -> None:
    text = (ROOT / "docs/figures.md").read_text()
    for script in SCRIPTS:
        (folder,) = re.findall(r'plot_parser\(__doc__, "(\w+)"', (ROOT / f"src/{script}.py").read_text())
        assert f"| `{script}.py` | `{folder}` |" in text
