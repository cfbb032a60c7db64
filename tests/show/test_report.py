"""The report: what stands on the page, and how it behaves in a real browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from html import escape
from itertools import chain, product
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import ROOT, make_log, make_result, on_gpus, point
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from warm_python import python

from servebench.analysis import limits, metrics, trust
from servebench.cli import commandline
from servebench.log import schema, store
from servebench.log.result import Result
from servebench.log.schema import Log
from servebench.log.telemetry import Gpu, Machine
from servebench.log.unread import Unread
from servebench.show import decide, layouts, verdict
from servebench.show.candidates import Decision, Question
from servebench.show.html import chart, decision, details, first_screen, groups, read, report, table
from servebench.show.html import page as html_page

EVIL = "</pre><script>document.title = 'owned'</script><img src=x onerror='document.title=1'>&amp;\""
SWITCHES = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync hide-scrollbars window-size=1400,1000"
)
WIDTHS = (420, 1400, 1900)


def save(log: Log, results: Path) -> None:
    store.save(log, results / log.server.backend / schema.log_name(log.server, log.run))


def slowing(backend: str, clients: int, base_s: float, **changes: object) -> Log:
    """As `point`, of a server that takes longer the more clients there are, and hardly more from four on."""
    return point(backend, clients, base_s * (1 + clients / 8), num_requests=10 * clients, **changes)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of llamacpp at 1 client in three runs, of vllm at 2 with a failed request and at 16, a point that failed."""
    results = tmp_path_factory.mktemp("report") / "results"
    for repetition, latency in enumerate((1.0, 1.25, 2.0)):
        runs = {"repetition": repetition, "num_requests": 10}
        save(point("llamacpp", 1, latency, **runs), results)
    requests = [make_result(i, i, [0.5, 1.0]) for i in range(8)] + [
        make_result(9, 8, [], error=f"HTTP 500 {EVIL}")
    ]
    save(make_log(requests, (0, 10), num_clients=2, verdict=f"client-limited: {EVIL}"), results)
    log = msgspec.structs.replace(make_log([], None, num_clients=16), status="failed", failure=f"ended {EVIL}")
    facts = schema.ServerFacts(
        urls=[], commands=[f"vllm serve '{EVIL}'"], engine="vLLM 1.2.3", log_tail=f"oom {EVIL}"
    )
    options = {"backend": "vllm", "num_clients": ["2", "16"], "stream": False}
    save(msgspec.structs.replace(log, server_facts=facts, options=options), results)
    output = results.parent / "page.html"
    done = python("-m", "servebench", "report", results, "-o", output)
    assert done.returncode == 0 and done.stdout == f"{output}: 3 points\n", done.stderr
    scripts = len(list((ROOT / "src").glob("plot_*.py")))
    assert done.stderr == f"figures: {scripts} of {scripts}\n"
    return output


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layouts of two engines at four loads; some points are client-limited, overloaded, buffered or failed."""
    results = tmp_path_factory.mktemp("study") / "results"
    for backend, base in (("vllm", 0.4), ("fastgen", 0.5)):
        for sizes in ({}, {"tp_size": 2}, {"num_replicas": 2}):
            for clients in (1, 2, 4, 8):
                faster = base / (1.7 if "tp_size" in sizes else 1.9 if sizes else 1)
                save(slowing(backend, clients, faster, **sizes), results)
    save(slowing("vllm", 32, 0.2, verdict="client-limited: the load processes"), results)
    save(slowing("vllm", 64, 0.2, overloaded=True), results)
    at_once = [make_result(i, i * 0.1, [0.05] * 4) for i in range(100)]
    save(make_log(at_once, (0.0, 10.0), backend="fastgen", num_clients=16), results)
    failed = make_log([], None, backend="fastgen", num_clients=32)
    save(msgspec.structs.replace(failed, status="failed", failure="it ended"), results)
    return write(results)


def write(results: Path, limits: str = "") -> Path:
    """The page of these logs, without figures."""
    output = results.parent / "page.html"
    output.write_text(html_page.page(results, points_of(results, limits), [], [], limits))
    return output


def points_of(results: Path, limits: str = "") -> list[read.Point]:
    return list(read.read(results, read.entries(results), within=decision.judged(limits)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.fail("no chromium with chromedriver here; run scripts/setup_browser.sh")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for switch in (*SWITCHES.split(), f"user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def opened(browser: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    return seen(browser, page)


@pytest.fixture
def studied(browser: webdriver.Chrome, study: Path) -> webdriver.Chrome:
    return seen(browser, study)


def seen(
    browser: webdriver.Chrome, page: Path, width: int = 1400, scheme: str = "light", media: str = ""
) -> webdriver.Chrome:
    """The browser with the page open, as a reader with such a window and such a taste sees it."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [feature]})
    browser.get(page.as_uri())
    return browser


def texts(opened: webdriver.Chrome, selector: str) -> list[str]:
    """Of the elements that can be seen."""
    found = opened.find_elements(By.CSS_SELECTOR, selector)
    return [" ".join(element.text.split()) for element in found if element.is_displayed()]


def heads(opened: webdriver.Chrome) -> list[WebElement]:
    return opened.find_elements(By.CSS_SELECTOR, ".points thead button")


def number_of(opened: webdriver.Chrome, head: str) -> int:
    return [" ".join(button.text.split()) for button in heads(opened)].index(head)


def column(opened: webdriver.Chrome, head: str) -> list[str]:
    """The cells of a column that can be seen, from top to bottom."""
    return texts(opened, f".points tbody tr:not(.group) td:nth-child({number_of(opened, head) + 1})")


def keep(opened: webdriver.Chrome, head: str, words: str) -> list[str]:
    """Filter a column; the loads that are left."""
    box = opened.find_elements(By.CSS_SELECTOR, ".points thead input")[number_of(opened, head)]
    box.clear()
    box.send_keys(words)
    return column(opened, "load clients")


# The title and the first screen.


def test_the_title_is_what_was_studied(opened: webdriver.Chrome, page: Path) -> None:
    assert texts(opened, "h1") == [
        "Llama-2-7b-hf · prompt 2600, generation 60 tokens, by clients · llama.cpp, vLLM 1.2.3"
    ]
    assert texts(opened, "header > p")[0].startswith(
        "results/ · measured 2026-11-24 · 3 points · 5 runs · 32 requests"
    )
    assert opened.title.endswith("vLLM 1.2.3 - ServeBench")


def test_hardware_stands_in_the_title_as_far_as_the_logs_know() -> None:
    def title(**environment: object) -> str:
        log = msgspec.structs.replace(
            point("vllm", 1, 1.0), identity={"environment": environment} if environment else {}
        )
        found = [read.point(0, "vllm", {"a": log})]
        return html_page.page(Path("x"), found, [], []).partition("<h1>")[2].partition("</h1>")[0]

    assert title(gpus=["A100"] * 8, host="node7 x86_64 64 cores").endswith(" · vLLM · 8 x A100")
    assert title(host="x86_64 2 cores").endswith(" · vLLM · 2 cores")
    assert title().endswith(" · vLLM")


def test_the_details_of_a_point_have_its_machine_and_its_engine() -> None:
    machine = Machine(cpu="EPYC", cores=64, gpus=[Gpu(index=3, name="A100", power_limit_w=400.0)])
    plain = point("vllm", 1, 1.0)
    facts = msgspec.structs.replace(plain.server_facts, configuration={"max_num_seqs": 128}, gpus=[3])
    log = msgspec.structs.replace(plain, machine=machine, server_facts=facts)
    known, unknown = (details.point(read.point(0, "vllm", {"a": each}), {0: "one"}) for each in (log, plain))
    for row in (
        "cpu</dt><dd>EPYC",
        "GPU 3</dt><dd>index 3, name A100, power_limit_w 400",
        "max_num_seqs</dt><dd>128",
    ):
        assert row in known
    assert "governor" not in known and "<h4>Machine</h4>" not in unknown and "<h4>Engine</h4>" not in unknown


def best_of(study: Path, limits: dict[str, float]) -> dict[str, tuple[str, str]]:
    """(load, share of the best) of each layout, from the logs alone: most requests/s a GPU within the limits."""
    chosen: dict[str, tuple[float, float, int]] = {}
    (only,) = layouts.studies(log for _, log in store.load_folder(study.parent / "results"))
    for layout in only.layouts:
        for (log,) in layout.points:
            values = metrics.values(log)
            bad = log.quality.overloaded or any(trust.doubt(log, name) for name in ("request_throughput", *limits))
            times = [value if value is not None else 9.9 for value in map(values.get, limits)]
            within = all(seconds < most for seconds, most in zip(times, limits.values(), strict=True))
            rate = (values["request_throughput_per_s"] or 0) / layout.gpus
            if within and not bad and rate > chosen.get(layout.name, (0.0, 0.0, 0))[0]:
                chosen[layout.name] = rate, log.run.load.size, layout.gpus
    most = max((rate for rate, *_ in chosen.values()), default=1.0)
    none = {layout.name: ("-", "-") for layout in only.layouts}
    return none | {
        name: (f"{load:g}", "best" if rate == most else f"{rate / most:.2f}")
        for name, (rate, load, _) in chosen.items()
    }


def shown_layouts(opened: webdriver.Chrome) -> dict[str, tuple[str, str]]:
    """(best load, share of the best) of each row."""
    rows = opened.find_elements(By.CSS_SELECTOR, ".layouts tbody tr")
    cells = [
        [" ".join(cell.text.split()) for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in rows
    ]
    return {name: (load, share) for name, _, load, *_, share, _ in cells}


def type_limits(opened: webdriver.Chrome, text: str) -> None:
    box = opened.find_element(By.CSS_SELECTOR, ".typed")
    box.clear()
    box.send_keys(text)


def test_a_row_a_layout_shows_its_best_point(studied: webdriver.Chrome, study: Path) -> None:
    rows = shown_layouts(studied)
    assert rows == best_of(study, {}) and len(rows) == 6
    assert next(iter(rows.values()))[1] == "best"
    head = " ".join(texts(studied, ".layouts thead th"))
    assert head == (
        "layout GPUs best load clients req/s req/s a GPU TTFT p50 ms TTFT p99 ms TPOT p50 ms TPOT p99 ms "
        "against the best trust"
    )


@pytest.mark.parametrize(
    ("typed", "limits"),
    [
        ("ttft_p99<100ms", {"ttft_p99_s": 0.1}),
        ("ttft_p99 < 0.13s , tpot_p99<=120ms", {"ttft_p99_s": 0.13, "tpot_p99_s": 0.120000001}),
        ("tpot_p50<60ms", {"tpot_p50_s": 0.06}),
        ("e2e_p99<400 ms", {"e2e_latency_p99_s": 0.4}),
        ("ttft_p99<1ms", {"ttft_p99_s": 0.001}),
        ("error_rate<1%", {"failed_share": 0.01}),
    ],
)
def test_limits_choose_again(studied: webdriver.Chrome, study: Path, typed: str, limits: dict[str, float]) -> None:
    type_limits(studied, typed)
    wanted = best_of(study, limits)
    assert shown_layouts(studied) == wanted
    assert texts(studied, ".within") == [f"within {', '.join(map(str.strip, typed.split(',')))}"]
    assert texts(studied, ".result, .error") == []


def test_limits_change_what_the_page_says(studied: webdriver.Chrome, study: Path) -> None:
    before = texts(studied, ".result p, .result li, .layouts td, .decision")
    type_limits(studied, "ttft_p99<100ms")
    assert texts(studied, ".result p, .result li, .layouts td, .decision") != before
    assert texts(studied, ".chart .limit text") == ["ttft_p99<100ms"]
    missed = len(studied.find_elements(By.CSS_SELECTOR, ".chart a.missed"))
    assert 0 < missed < len(studied.find_elements(By.CSS_SELECTOR, ".chart a"))
    type_limits(studied, " ")
    assert texts(studied, ".result p, .result li, .layouts td, .decision") == before
    assert studied.find_elements(By.CSS_SELECTOR, ".chart a.missed") == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("ttft_p99<2", "write ttft_p99<2s or ttft_p99<2ms"),
        ("ttft<2s", "write ttft_p50, _p90, _p95, _p99 or _mean"),
        ("ttft99<2s", "no metric ttft99: write for example ttft_p99"),
        ("ttft_p99 2s", 'cannot read "ttft_p99 2s"'),
        ("speed>3", "no metric speed"),
        ("ttft_p99<+5%", "needs a baseline: servebench gate"),
    ],
)
def test_a_limit_that_cannot_be_read_is_said_and_changes_nothing(
    studied: webdriver.Chrome, typed: str, said: str
) -> None:
    type_limits(studied, "tpot_p99<90ms")
    before = shown_layouts(studied)
    studied.find_element(By.CSS_SELECTOR, ".typed").send_keys(f", {typed}")
    assert said in texts(studied, ".error")[0] and shown_layouts(studied) == before


def test_limits_given_on_the_command_line_stand_in_the_box(
    browser: webdriver.Chrome, study: Path, tmp_path: Path
) -> None:
    shutil.copytree(study.parent / "results", tmp_path / "results")
    opened = seen(browser, write(tmp_path / "results", "ttft_p99<100ms"))
    assert opened.find_element(By.CSS_SELECTOR, ".typed").get_attribute("value") == "ttft_p99<100ms"
    assert shown_layouts(opened) == best_of(study, {"ttft_p99_s": 0.1})


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("ttft_p99<2", "the limit needs a unit: write ttft_p99<2s or ttft_p99<2ms"),
        ("tpot_p50<9ms, ttft_p99<+5%", "a report has no baseline; servebench gate compares with one"),
        (
            "ttft<2s",
            "a report knows ttft_mean, ttft_p50, ttft_p90, ttft_p95, ttft_p99; servebench gate judges others",
        ),
        ("ttft_p99.9<2s", "a report knows ttft_mean, "),
    ],
)
def test_limits_that_the_page_cannot_judge_are_one_line(logs: Path, typed: str, said: str) -> None:
    done = python("-m", "servebench", "report", logs, "--limits", typed)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_the_page_reads_every_limit_that_the_command_line_reads(studied: webdriver.Chrome) -> None:
    for typed in (
        "TTFT_p99_s < 2 s",
        "tpot_p50<=.04s",
        "e2e_latency_mean<10s",
        "failed_share<0.01",
        "error_rate>=0%",
    ):
        (limit,) = limits.parse(typed)
        for text in (typed, str(limit)):
            read_as = "const [limit] = readLimits(arguments[0]); return [limit.name, limit.value]"
            assert studied.execute_script(read_as, text) == [limit.name, pytest.approx(limit.value)]


def test_the_first_screen_is_seen_without_scrolling(studied: webdriver.Chrome) -> None:
    for selector in (".result", ".hint", ".limits", ".counts", ".overview", ".layouts"):
        box = studied.find_element(By.CSS_SELECTOR, selector).rect
        assert box["y"] + box["height"] <= 900, selector


def test_what_is_wrong_with_the_best_point_stands_below_it() -> None:
    loads = [read.point(i, "vllm", {"a": slowing("vllm", n, 1.0)}) for i, n in enumerate((1, 2))]
    loads.append(read.point(2, "vllm", {"a": slowing("vllm", 4, 1.0, overloaded=True)}))
    ((_, (group,)),) = groups.studies(loads)
    assert group.best is loads[1]
    said = groups.warnings(group, loads[1])
    assert said[0].startswith("Too few requests for a reliable p99: ") and said[1].startswith("Measured once")
    assert said[2] == "No higher load can be trusted (overloaded)."
    assert groups.warnings(group._replace(points=loads[:2]), loads[1])[2].startswith("No higher load was measured")


def test_a_point_that_nothing_is_known_of_is_never_the_best() -> None:
    bad = [read.point(0, "vllm", {"a": slowing("vllm", 1, 1.0, verdict="client-limited: x")})]
    ((_, found),) = groups.studies(bad)
    assert found[0].best is None and bad[0].rate is None and bad[0].numbers == {}
    assert "No point can be trusted" in html_page.page(Path("x"), bad, [], [])


def test_the_layout_with_most_requests_is_named_where_another_is_best_a_gpu(
    browser: webdriver.Chrome, results: Path
) -> None:
    save(point("vllm", 4, 1.0), results)
    save(point("vllm", 6, 1.0, tp_size=2), results)
    opened = seen(browser, write(results))
    words = "More requests/s in all, on more GPUs: vLLM TP 2 x 1."
    assert texts(opened, ".result .name") == ["vLLM TP 1 x 1"] and words in texts(opened, ".doubts li")


def test_limits_of_energy_and_cost_choose_in_the_page(results: Path, browser: webdriver.Chrome) -> None:
    for clients, watts in ((1, 100.0), (2, 400.0)):
        log = on_gpus(slowing("vllm", clients, 1.0), watts)
        save(msgspec.structs.replace(log, gpu_hour_price=2.0), results)
    opened = seen(browser, write(results))
    assert shown_layouts(opened)["vLLM TP 1 x 1"][0] == "2"
    for typed in ("energy_per_output_token<40J", "dollars>130", "gpu_power_w<200W"):
        type_limits(opened, typed)
        assert shown_layouts(opened)["vLLM TP 1 x 1"][0] == "1", typed
        assert texts(opened, ".sentence")[0].startswith("The page decides by p50") and not texts(
            opened, ".candidates"
        )
    type_limits(opened, "energy_per_output_token<40")
    assert texts(opened, ".error")[0].endswith("write energy_per_output_token<40J")


def test_layouts_whose_gpus_are_not_known_are_compared_by_their_requests(results: Path) -> None:
    for n in (1, 2):
        save(point("openai", 1, 1.0, urls=("http://a:1",) * n, num_replicas=n), results)
    ((_, found),) = groups.studies(points_of(results))
    assert not groups.by_gpu(found) and [column.key for column in table.columns(found)].count("per_gpu") == 0


def test_buffered_times_meet_no_limit_on_tokens() -> None:
    at_once = make_log([make_result(i, i, [0.5] * 4) for i in range(20)], (0.0, 20.0), num_clients=2)
    found = read.point(0, "vllm", {"a": at_once})
    assert found.rate and "ttft_p99" not in found.numbers and "e2e_p99" in found.numbers
    assert found.marks == ["buffered"]


def test_in_an_open_loop_limits_count_from_the_schedule() -> None:
    late = [make_result(i, i + 0.5, [0.25, 0.5], scheduled_ns=round(i * 1e9)) for i in range(20)]
    found = read.point(0, "vllm", {"a": make_log(late, (0.0, 20.0), request_rate=1.0)})
    assert found.numbers["ttft_p50"] == pytest.approx(0.75) and found.mean("ttft_p50_s") == pytest.approx(0.25)


@pytest.mark.parametrize(("low", "high"), [(0.026, 0.036), (0.08, 4.0), (0.001, 100.0), (0.9, 1.1)])
def test_an_axis_has_a_few_round_ticks(low: float, high: float) -> None:
    found = chart.log_ticks(low, high)
    assert 3 <= len(found) <= 8 and all(low <= value <= high for value in found)
    assert 4 <= len(chart.ticks(high)) <= 9


# The decision within limits.

SLA = "ttft_p99<150ms,tpot_p99<130ms"


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six servers in two runs at four loads, with a price and energy; some requests fail, a run has failed."""
    results = tmp_path_factory.mktemp("raced") / "results"
    for backend, base in (("vllm", 0.4), ("sglang", 0.41)):
        for sizes in ({}, {"tp_size": 2}, {"num_replicas": 2}):
            for clients, repetition in product((1, 2, 4, 8), (0, 1)):
                faster = (base + repetition / 100) / (1.9 if sizes else 1)
                log = slowing(backend, clients, faster, repetition=repetition, **sizes)
                log = msgspec.structs.replace(on_gpus(log, *[300.0] * log.server.workers), gpu_hour_price=2.5)
                if clients == 8 and backend == "sglang":
                    log.results[3] = msgspec.structs.replace(log.results[3], error="HTTP 500")
                save(log, results)
    failed = make_log([], None, backend="sglang", num_clients=8, repetition=2)
    save(msgspec.structs.replace(failed, status="failed", failure="it ended"), results)
    return results


def decided(results: Path, limits: str) -> Decision:
    """As `servebench decide` does."""
    (only,) = decide.of_logs([log for _, log in store.load_folder(results)], Question(decide.read_limits(limits)))
    return only


def shown_candidates(opened: webdriver.Chrome) -> list[list[str]]:
    """The cells of each row by the columns of `servebench decide`, those that it shows."""
    keys = [head.get_attribute("data-key") for head in opened.find_elements(By.CSS_SELECTOR, ".candidates th")]
    rows = opened.find_elements(By.CSS_SELECTOR, ".candidates tbody tr")
    cells = [
        dict(zip(keys, [cell.text for cell in row.find_elements(By.TAG_NAME, "td")], strict=True)) for row in rows
    ]
    return [[row.get(key, "") for key in decision.KEYS] for row in cells]


def test_the_first_screen_says_what_decide_says(browser: webdriver.Chrome, raced: Path) -> None:
    opened, found = seen(browser, write(raced, SLA)), decided(raced, SLA)
    assert texts(opened, ".sentence") == [decide.sentence(found)]
    assert shown_candidates(opened) == [decide.row(found, i) for i in range(len(found.candidates))]
    assert texts(opened, ".trust li") == list(decide.doubts(found))
    assert texts(opened, ".result") == [] and opened.get_log("browser") == []
    rivals = opened.find_elements(By.CSS_SELECTOR, ".candidates .rival td:first-child")
    assert [cell.text for cell in rivals] == [each.name for each in (found.best, *found.rivals) if each]
    drawn = opened.find_elements(By.CSS_SELECTOR, ".candidates .interval")
    assert len(drawn) == sum(each.meets for each in found.candidates)


def test_the_decision_can_be_read_without_scripts(browser: webdriver.Chrome, raced: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened = seen(browser, write(raced, SLA))
        assert texts(opened, ".sentence") == [decide.sentence(decided(raced, SLA))]
        assert len(shown_candidates(opened)) == 6 and texts(opened, ".result, .exactly") == []
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("typed", [SLA, "ttft_p99<80ms", "e2e_p90<300ms, error_rate<20%", "ttft_p50<10s"])
def test_the_page_decides_as_decide_does(browser: webdriver.Chrome, raced: Path, typed: str) -> None:
    opened, found = seen(browser, write(raced)), decided(raced, typed)
    assert texts(opened, ".result .name") and texts(opened, ".decision") == []
    type_limits(opened, typed)
    wanted = {each.name: each for each in found.candidates}
    rows = {cells[0]: dict(zip(decision.KEYS, cells, strict=True)) for cells in shown_candidates(opened)}
    assert rows.keys() == wanted.keys()
    for number, each in enumerate(found.candidates):
        ours, theirs = rows[each.name], dict(zip(decision.KEYS, decide.row(found, number), strict=True))
        for key in ("load", "per_gpu", "tokens", "energy"):  # of no draws
            assert ours[key] == theirs[key], (each.name, key)
    judge = f"return studies[0].decision.judge(readLimits('{typed}')).map((e) => [e.name, e.ends, !!e.close])"
    close = [each.name for each in (found.best, *found.rivals) if each]
    for name, ends, is_close in opened.execute_script(judge):
        estimate, low, high = (np.inf if end is None else end for end in ends)
        value = wanted[name].value
        wanted_low, wanted_high = wanted[name].ends
        assert estimate == pytest.approx(value[0], rel=1e-3) and is_close == (name in close)
        assert low == pytest.approx(min(wanted_low, value[0]), rel=0.2, abs=0.1)
        assert high == pytest.approx(wanted_high, rel=0.2, abs=0.1)
    begins = decide.sentence(found).partition(" requests/s")[0].split(" (")[0]
    assert texts(opened, ".sentence")[0].startswith(begins)
    assert texts(opened, ".exactly")[0].endswith(f'--sla "{typed.replace(",", ", ").replace("  ", " ")}"')


def test_limits_that_are_changed_and_changed_back(browser: webdriver.Chrome, raced: Path) -> None:
    opened = seen(browser, write(raced, SLA))
    before = texts(opened, ".decision, .trust")
    lines = opened.find_element(By.CSS_SELECTOR, ".interval").get_attribute("outerHTML")
    type_limits(opened, "ttft_p99<100ms")
    assert texts(opened, ".decision, .trust") != before and texts(opened, ".trust li") == []
    assert opened.find_element(By.CSS_SELECTOR, ".interval").get_attribute("outerHTML") != lines
    opened.find_element(By.CSS_SELECTOR, ".typed").send_keys(", tpot_p99 is what")
    assert "cannot read" in texts(opened, ".error")[0] and "ttft_p99<100ms" in texts(opened, ".sentence")[0]
    type_limits(opened, "ttft_p99<1ms")
    assert texts(opened, ".sentence") == ["No server keeps ttft_p99<1ms at any load that was measured."]
    assert {cells[2] for cells in shown_candidates(opened)} == {"none"}
    type_limits(opened, "ttft_p99 < 0.15s, tpot_p99<130ms")
    assert texts(opened, ".decision, .trust") == before
    type_limits(opened, " ")
    assert texts(opened, ".decision, .trust") == [] and texts(opened, ".result .name") != []


def test_nobody_keeps_the_limits(browser: webdriver.Chrome, raced: Path) -> None:
    opened = seen(browser, write(raced, "ttft_p99<1ms"))
    assert texts(opened, ".sentence") == [decide.sentence(decided(raced, "ttft_p99<1ms"))]
    assert texts(opened, ".sentence")[0].startswith("No server keeps") and texts(opened, ".interval") == []


def test_each_study_has_its_own_decision(browser: webdriver.Chrome, results: Path) -> None:
    for length in (128, 2600):
        for clients in (1, 2):
            save(slowing("vllm", clients, length / 2600, mean_prompt_length=length), results)
    said = texts(seen(browser, write(results, "ttft_p99<200ms")), ".sentence")
    assert len(said) == 2 and said[0].startswith("vLLM TP 1 x 1 serves") and said[1].startswith("No server keeps")


def test_points_that_all_failed_decide_nothing(browser: webdriver.Chrome, results: Path) -> None:
    failed = make_log([], None, num_clients=4)
    save(msgspec.structs.replace(failed, status="failed", failure="it ended"), results)
    for opened in (seen(browser, write(results, "ttft_p99<2s")), seen(browser, write(results))):
        type_limits(opened, "ttft_p99<2s")
        assert texts(opened, ".sentence") == ["No server can be judged: no point of the folder counts."]


def test_no_requests_stay_in_memory(raced: Path) -> None:
    for point_ in points_of(raced, SLA):
        for run in point_.runs:
            assert isinstance(run.log.results, Unread), "they are read when they are needed, and forgotten"
            lists = [each for each in run.log.__dict__["memory"].values() if isinstance(each, list)]
            assert not [each for each in chain(*lists) if isinstance(each, Result)]


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ([{"decide": "ttft_p99 < 2s"}, {}], "ttft_p99<2s"),
        ([{"find_max": "ttft_p99<2s"}, {"sla": "tpot_p99<9ms"}], "tpot_p99<9ms"),
        ([{"sla": "fastgen-4"}, {"num_clients": ["1"]}], ""),
    ],
)
def test_the_limits_of_a_sweep_are_those_of_its_report(options: list[dict[str, object]], limits: str) -> None:
    logs = [
        msgspec.structs.replace(point("vllm", 1, 1.0), options=each, started_at=f"2026-11-2{i}")
        for i, each in enumerate(options)
    ]
    assert decision.of_sweep(logs) == limits


# Counts, warnings and their rows.


def test_counts_lead_to_their_rows(studied: webdriver.Chrome, study: Path) -> None:
    unsettled = sum("not settled" in found.marks for found in points_of(study.parent / "results"))
    faults = (
        f"1 client-limited · 0 host-contended · 1 overloaded · 1 failed · {unsettled} not settled · 1 buffered"
    )
    assert texts(studied, ".counts") == [f"28 points: {faults}"]
    for word, load in (("client-limited", "32"), ("overloaded", "64"), ("failed", "32"), ("buffered", "16")):
        studied.find_element(By.CSS_SELECTOR, f".counts a[data-word='{word}']").click()
        assert column(studied, "load clients") == [load], word
        assert word in column(studied, "trust")[0]
        assert texts(studied, ".shown") == ["1 of 28 points."]


def test_a_warning_leads_to_its_rows_even_if_they_are_folded_or_filtered(studied: webdriver.Chrome) -> None:
    studied.find_element(By.CSS_SELECTOR, ".points .group button").click()
    keep(studied, "load clients", "99")
    link = studied.find_element(By.CSS_SELECTOR, ".warnings a[data-rows]")
    numbers = str(link.get_attribute("data-rows")).split()
    assert link.text == f"{len(numbers)} points" and len(numbers) > 2
    link.click()
    marked = studied.find_elements(By.CSS_SELECTOR, ".points .marked")
    assert {row.get_attribute("id") for row in marked} == {f"row-{n}" for n in numbers}
    assert all(row.is_displayed() for row in marked)
    at = studied.execute_script("return document.querySelector('.marked').getBoundingClientRect().y")
    assert 0 < at < 900


def test_warnings_that_differ_in_numbers_alone_are_one() -> None:
    found = [read.point(i, "vllm", {"a": slowing("vllm", n, 4.0)}) for i, n in enumerate((1, 2))]
    text = details.warnings(found, {0: "one", 1: "two"})
    assert text.count(" too few even for a median") == 3 and ">2 points</a>: such as: " in text
    assert details.warnings([], {}) == "None."


def test_a_link_to_a_row_marks_it(studied: webdriver.Chrome) -> None:
    studied.execute_script("location.hash = '#row-3'")
    assert [row.get_attribute("id") for row in studied.find_elements(By.CSS_SELECTOR, ".marked")] == ["row-3"]


# The table of points.


def test_every_point_is_a_row_and_runs_share_one(opened: webdriver.Chrome) -> None:
    assert texts(opened, ".points .group") == [
        "llama.cpp TP 1 x 1 1 point, 1 GPU",
        "vLLM TP 1 x 1 2 points, 1 GPU",
    ]
    assert column(opened, "runs") == ["3", "1", "1"]
    assert column(opened, "failed of requests") == ["0/23", "1/9", "-"]
    assert column(opened, "trust") == ["ok", "client-limited, 11% failed", "point failed"]
    # E2E P50 of the runs: 1.0, 1.25, 2.0 s: mean 1.4167, s 0.5204, half width t(2) s / sqrt 3 = 4.303 x 0.3005.
    # 5 and more requests a run are fewer than the 11 that a P50 needs.
    assert column(opened, "E2E p50 ms") == ["1417~ ±1293", "1000~", "-"]


def test_a_click_sorts_the_rows_of_each_layout_and_another_turns_them_round(opened: webdriver.Chrome) -> None:
    load = number_of(opened, "load clients")
    heads(opened)[load].click()
    assert column(opened, "load clients") == ["1", "2", "16"]
    heads(opened)[load].click()
    assert column(opened, "load clients") == ["16", "2", "1"]
    assert heads(opened)[load].find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    heads(opened)[number_of(opened, "E2E p50 ms")].click()
    assert column(opened, "load clients") == ["2", "16", "1"]  # in a layout what has no number comes last


@pytest.mark.parametrize(
    ("head", "words", "left"),
    [
        ("load clients", "1", ["1"]),
        ("load clients", "> 1", ["2", "16"]),
        ("load clients", "<=2", ["1", "2"]),
        ("E2E p50 ms", ">1000", ["1"]),
        ("trust", "LIMITED", ["2"]),
        ("trust", "sglang", []),
    ],
)
def test_boxes_filter(opened: webdriver.Chrome, head: str, words: str, left: list[str]) -> None:
    assert keep(opened, head, words) == left
    assert opened.find_element(By.CSS_SELECTOR, ".shown").text == f"{len(left)} of 3 points."


def test_filters_of_two_columns_add_up(opened: webdriver.Chrome) -> None:
    keep(opened, "trust", "failed")
    assert keep(opened, "load clients", "<10") == ["2"]


def test_a_layout_folds(opened: webdriver.Chrome) -> None:
    opened.find_elements(By.CSS_SELECTOR, ".points .group button")[1].click()
    assert column(opened, "load clients") == ["1"]
    opened.find_elements(By.CSS_SELECTOR, ".points .group button")[1].click()
    assert column(opened, "load clients") == ["1", "2", "16"]


def test_a_point_opens_by_its_link(opened: webdriver.Chrome) -> None:
    opened.find_element(By.CSS_SELECTOR, ".points tbody a").click()
    inside = opened.find_element(By.ID, "point-0").text
    assert inside.count("lag p50") == 3 and "num_clients" in inside and "clients1-run2.json" in inside


# The page as a whole.


def test_nothing_comes_from_outside_and_nothing_is_blocked(opened: webdriver.Chrome) -> None:
    loaded = opened.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert not [name for name in loaded if not name.startswith("data:")]
    assert opened.get_log("browser") == []
    named = opened.execute_script(
        "return [...document.querySelectorAll('[src], [href], [srcset], [data], link, base, iframe')]"
        ".map((element) => element.getAttribute('src') ?? element.getAttribute('href'))"
    )
    assert named and all(str(name).startswith(("data:image/svg+xml,", "#")) for name in named)
    policy = opened.find_element(By.CSS_SELECTOR, "meta[http-equiv]").get_attribute("content")
    assert policy and policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy


def test_texts_of_logs_stay_texts(opened: webdriver.Chrome) -> None:
    assert opened.find_elements(By.CSS_SELECTOR, "[onerror], img[src=x]") == []
    assert f"oom {EVIL}" in opened.find_element(By.CSS_SELECTOR, "#failed pre").text
    assert f"ended {EVIL}" in opened.find_element(By.ID, "failed").text
    assert f"client-limited: {EVIL}" in opened.find_element(By.ID, "warnings").text
    told = opened.find_element(By.ID, "versions").text
    assert f"vllm serve '{EVIL}'" in told
    assert "python run_benchmark.py --backend=vllm --num_clients 2 16 --no_stream" in told


def test_every_script_has_its_figures_and_the_browser_draws_them(opened: webdriver.Chrome) -> None:
    sections = opened.find_elements(By.CSS_SELECTOR, "#figures > details")
    assert {section.get_attribute("id") for section in sections} == {
        p.name for p in (ROOT / "src").glob("plot_*.py")
    }
    images = opened.find_elements(By.CSS_SELECTOR, "#figures img")
    assert len(images) >= 8
    for image in images:
        opened.execute_script("arguments[0].loading = 'eager'; return arguments[0].decode()", image)
        assert opened.execute_script("return arguments[0].naturalWidth", image) > 400


@pytest.mark.parametrize(
    ("scheme", "media", "paper"),
    [
        ("light", "", [255, 255, 255]),
        ("dark", "", [0x15, 0x18, 0x1D]),
        ("dark", "print", [255, 255, 255]),
    ],
)
def test_page_and_figures_follow_the_reader(
    browser: webdriver.Chrome, page: Path, scheme: str, media: str, paper: list[int]
) -> None:
    opened = seen(browser, page, scheme=scheme, media=media)
    assert (
        opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        == f"rgb({paper[0]}, {paper[1]}, {paper[2]})"
    )
    corner = opened.execute_script(
        "const image = document.querySelector('#figures img'), canvas = document.createElement('canvas');"
        "const context = canvas.getContext('2d');"
        "return image.decode().then(() => { context.drawImage(image, 0, 0);"
        "return [...context.getImageData(2, 2, 1, 1).data].slice(0, 3); })"
    )
    assert corner == paper


# The words of the page, each with its colour on the nearest paper behind it (WCAG's contrast).
CONTRASTS = """
const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const parts = (css) => css.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const paper = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
const low = [];
for (const e of document.querySelectorAll("body *")) {
  const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!words || !e.getClientRects().length || e.closest("script, title")) continue;
  const style = getComputedStyle(e), ink = e.closest("svg") ? style.fill : style.color;
  const [a, b] = [light(parts(ink)), light(paper(e))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) low.push(e.tagName + "." + e.className + " " + e.textContent.slice(0, 40));
}
return low;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper(browser: webdriver.Chrome, study: Path, scheme: str) -> None:
    opened = seen(browser, study, scheme=scheme)
    type_limits(opened, "ttft_p99<100ms")
    opened.find_element(By.CSS_SELECTOR, ".warnings a").click()
    assert opened.execute_script(CONTRASTS) == []


@pytest.mark.parametrize("media", ["", "print"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_the_window_and_cuts_no_words(
    browser: webdriver.Chrome, study: Path, page: Path, width: int, media: str
) -> None:
    for each in (study, page):
        opened = seen(browser, each, 1047 if media else width, media=media)  # a landscape page of A4
        assert opened.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        cut = "return [...document.querySelectorAll('th, td, h1, h2, h3, p, li, a, summary')].filter((e) =>"
        cut += "e.clientWidth && e.scrollWidth > e.clientWidth + 1).map((e) => e.outerHTML.slice(0, 200))"
        assert opened.execute_script(cut) == []
        wide = "return [...document.querySelectorAll('.scroll')].every((e) => e.scrollWidth <= e.clientWidth + 1)"
        assert opened.execute_script(wide) or (width < 1400 and not media), "a table has no room"


def test_figures_stand_in_two_columns_where_there_is_room(browser: webdriver.Chrome, page: Path) -> None:
    for width, columns in ((420, 1), (1400, 2), (1900, 2)):
        opened = seen(browser, page, width)
        images = opened.find_elements(By.CSS_SELECTOR, "#figures img")
        assert len({image.rect["x"] for image in images if image.is_displayed()}) == columns


def test_paper_has_no_boxes_to_type_in(browser: webdriver.Chrome, study: Path) -> None:
    opened = seen(browser, study, media="print")
    assert not [box for box in opened.find_elements(By.CSS_SELECTOR, "input, nav a") if box.is_displayed()]
    assert len(column(opened, "load clients")) == 28


def test_it_can_be_read_without_scripts(browser: webdriver.Chrome, study: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened = seen(browser, study)
        assert len(texts(opened, ".points tbody tr:not(.group)")) == 28 and texts(opened, "input") == []
        assert shown_layouts(opened) == best_of(study, {})
        assert texts(opened, ".result .name") == [next(iter(best_of(study, {}) and shown_layouts(opened)))]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_several_studies_have_a_section_each(browser: webdriver.Chrome, results: Path) -> None:
    for length in (128, 2600):
        for clients in (1, 2):
            save(point("vllm", clients, 1.0, mean_prompt_length=length), results)
    opened = seen(browser, write(results))
    assert texts(opened, "h1") == ["Llama-2-7b-hf · 2 studies · vLLM"]
    names = [f"Prompt {length}, generation 60 tokens, by clients" for length in (128, 2600)]
    assert texts(opened, "nav a")[:2] == names == texts(opened, "section[id^=study] > h2")
    boxes = opened.find_elements(By.CSS_SELECTOR, ".typed")
    boxes[1].send_keys("ttft_p99<1ms")
    assert texts(opened, ".result .name") == ["vLLM TP 1 x 1"]
    assert texts(opened, ".sentence") == ["No server keeps ttft_p99<1ms at any load that was measured."]


# What is read and run.


def test_folders_of_the_same_settings_are_not_runs_of_one_point(results: Path) -> None:
    for folder in ("before", "after"):
        store.save(point("vllm", 1, 1.0), results / folder / "m-clients1.json")
    points = points_of(results)
    assert [[run.name for run in found.runs] for found in points] == [
        ["after/m-clients1.json"],
        ["before/m-clients1.json"],
    ]
    ((_, found),) = groups.studies(points)
    assert [group.layout.name for group in found] == ["after TP 1 x 1", "before TP 1 x 1"]


def test_a_folder_without_folders_is_named_by_its_engine(results: Path) -> None:
    store.save(point("vllm", 1, 1.0), results / "m-clients1.json")
    ((_, (group,)),) = groups.studies(points_of(results))
    assert group.layout.name == "vLLM TP 1 x 1"


def test_a_folder_without_logs_is_one_line_before_any_script_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "draw", lambda *words: pytest.fail("a script was started"))
    for folder, said in ((tmp_path, "no logs in"), (tmp_path / "x", "is not a folder")):
        monkeypatch.setattr("sys.argv", ["servebench report", str(folder)])
        with pytest.raises(SystemExit) as ended:
            commandline.run(report.main)
        err = capsys.readouterr().err
        assert ended.value.code == 2 and said in err and err.count("\n") == 1


def test_progress_is_one_line_that_a_terminal_sees_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for terminal, wanted in ((True, "\rfigures: 1 of 2\rfigures: 2 of 2\n"), (False, "figures: 2 of 2\n")):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        report.progress(1, 2)
        report.progress(2, 2)
        assert capsys.readouterr().err == wanted


def test_what_searches_found_stands_on_the_page(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looked = [
        {"load": n, "runs": 1, "says": says, "seen": {"ttft_p99": 0.5 * n}} for n, says in ((4, "meets"), (8, ""))
    ]
    found = {"searched": "ttft_p99<2s", "words": f"vllm: {EVIL}", "unit": "clients", "best": 4, "loads": looked}
    place = logs / "vllm" / "searches"
    place.mkdir()
    (place / "a.json").write_bytes(msgspec.json.encode(found))
    (place / "b.json").write_text("{}")
    (only,) = verdict.searches(logs)
    assert f"left out: {place / 'b.json'}" in capsys.readouterr().err
    page = html_page.page(logs, points_of(logs), [], [only])
    assert escape(f"vllm: {EVIL}") in page and "<td>4</td><td>meets</td><td>ttft_p99 2</td>" in page
    assert 'id="searches"' not in html_page.page(logs, points_of(logs), [], [])


def test_a_script_that_fails_is_said_in_its_place(logs: Path, tmp_path: Path) -> None:
    script = tmp_path / "plot_broken.py"
    script.write_text('"""Broken: on purpose."""\nraise SystemExit("no <ink>")\n')
    args = report.parser().parse_args([str(logs)])
    drawing = report.draw(args, tmp_path, script)
    assert (drawing.script, drawing.figures, drawing.said) == ("plot_broken.py", {}, "no <ink>\n")


# Cells.


def table_of(*points: list[Log]) -> str:
    made = [
        read.point(i, "vllm", {f"vllm/{j}.json": log for j, log in enumerate(runs)})
        for i, runs in enumerate(points)
    ]
    ((_, found),) = groups.studies(made)
    return table.table(found).partition("</thead>")[2]


def test_what_is_not_settled_has_no_interval_in_the_table() -> None:
    growing = [make_result(i, float(i), [0.5 + i, 1.0 + i]) for i in range(200)]
    drifting = [make_log(growing, (0.0, 200.0), num_clients=1, repetition=i) for i in range(3)]
    steady = [point("vllm", 1, 1.0, repetition=i) for i in range(3)]
    text = table_of(drifting)
    assert "?</td>" in text and "±" not in text and "not settled" in text
    assert "±" in table_of(steady)


def test_a_run_that_failed_is_in_no_mean() -> None:
    good = [point("vllm", 1, latency, repetition=i) for i, latency in enumerate((1.0, 1.0))]
    failed = msgspec.structs.replace(point("vllm", 1, 5.0, repetition=2), status="failed", failure="it ended")
    text = table_of([*good, failed])
    assert ">1 of 3 runs point failed<" in text and ">1000~ <small>±0.0</small><" in text


def test_doubts_have_a_column() -> None:
    limited = [point("vllm", 1, 1.0, repetition=i, verdict=v) for i, v in enumerate(("ok", "client-limited: x"))]
    at_once = make_log([make_result(i, i, [0.5] * 4) for i in range(20)], (0.0, 20.0), num_clients=2)
    text = table_of(limited, [at_once])
    assert ">1 of 2 runs client-limited<" in text and ">buffered<" in text


def test_the_first_answer_token_has_a_column_where_it_is_not_the_first() -> None:
    thinking = make_log([make_result(i, i, [0.1, 0.5, 0.9], first_answer_event=1) for i in range(20)], (0.0, 20.0))
    for log, wanted in ((thinking, True), (point("vllm", 1, 1.0), False)):
        ((_, found),) = groups.studies([read.point(0, "vllm", {"a": log})])
        assert ("first answer token p50" in [column.head for column in table.columns(found)]) == wanted


@pytest.mark.parametrize(
    ("slower", "words"),
    [
        ([1.30, 1.31, 1.29], "more than the next, llama.cpp"),
        ([1.3, 0.8, 1.1], "Not distinguishable from the next"),
    ],
)
def test_how_far_ahead_the_best_layout_is_has_an_interval(slower: list[float], words: str) -> None:
    sides = {"vllm": [1.0, 1.01, 0.99], "llamacpp": slower}
    points = []
    for i, (backend, seconds) in enumerate(sides.items()):
        runs = {f"{backend}/{j}.json": point(backend, 4, s, repetition=j) for j, s in enumerate(seconds)}
        points.append(read.point(i, backend, runs))
    ((_, found),) = groups.studies(points)
    text = first_screen.first_screen(found, "points")
    assert words in text and 'class="next known"' in text


def test_points_of_one_load_are_told_apart_by_their_settings() -> None:
    text = table_of([point("vllm", 1, 1.0)], [point("vllm", 1, 1.0, stream=False)])
    assert "vLLM TP 1 x 1, stream True" in text and "vLLM TP 1 x 1, stream False" in text
    assert "stream" not in table_of([point("vllm", 1, 1.0)])


def test_clients_of_different_workloads_are_one_row() -> None:
    logs = [
        msgspec.structs.replace(point("vllm", n, 1.0), client={"host": "a", "workload_sha256": str(n)})
        for n in (1, 2)
    ]
    found = [read.point(i, "vllm", {"a": log}) for i, log in enumerate(logs)]
    assert "<td>2</td><td><code>host a</code></td>" in details.versions(found)
