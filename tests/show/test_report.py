"""The report: what stands on the page, and how it behaves in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path

import msgspec
import pytest
from conftest import ROOT, make_log, make_result, point
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from warm_python import python

from servebench.cli import commandline
from servebench.log import schema, store
from servebench.log.schema import Log
from servebench.show import spreadsheet
from servebench.show.html import page as html_page
from servebench.show.html import report, table

EVIL = "</pre><script>document.title = 'owned'</script><img src=x onerror='document.title=1'>&amp;\""
SWITCHES = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync window-size=1400,1000"
)


def save(log: Log, results: Path) -> None:
    store.save(log, results / log.server.backend / schema.log_name(log.server, log.run))


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
    save(msgspec.structs.replace(log, server_facts=facts), results)
    output = results.parent / "page.html"
    done = python("-m", "servebench", "report", results, "-o", output)
    assert done.returncode == 0 and done.stdout == f"{output}: 3 points\n", done.stderr
    return output


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
    browser.get(page.as_uri())
    return browser


def column(opened: webdriver.Chrome, number: int) -> list[str]:
    """The cells of a column that can be seen, from top to bottom."""
    cells = opened.find_elements(By.CSS_SELECTOR, f"#table tbody td:nth-child({number + 1})")
    return [cell.text for cell in cells if cell.is_displayed()]


def heads(opened: webdriver.Chrome) -> list[WebElement]:
    return opened.find_elements(By.CSS_SELECTOR, "#table thead button")


def number_of(opened: webdriver.Chrome, head: str) -> int:
    return [button.text.replace("\n", " ") for button in heads(opened)].index(head)


def keep(opened: webdriver.Chrome, head: str, words: str) -> list[str]:
    """Filter a column; the loads that are left."""
    box = opened.find_elements(By.CSS_SELECTOR, "#table thead input")[number_of(opened, head)]
    box.clear()
    box.send_keys(words)
    return column(opened, number_of(opened, "load"))


def test_every_point_is_a_row_and_runs_share_one(opened: webdriver.Chrome) -> None:
    assert column(opened, number_of(opened, "backend")) == ["llamacpp", "vllm", "vllm"]
    assert column(opened, number_of(opened, "runs")) == ["3", "1", "1"]
    assert column(opened, number_of(opened, "failed")) == ["0/23", "1/9", "point failed"]
    # E2E P50 of the runs: 1.0, 1.25, 2.0 s: mean 1.4167, s 0.5204, half width t(2) s / sqrt 3 = 4.303 x 0.3005.
    # 5 and more requests a run are fewer than the 11 that a P50 needs.
    assert column(opened, number_of(opened, "E2E P50 (s)")) == ["1.42~ ±1.29", "1.00~", "-"]


def test_a_click_sorts_by_number_and_another_turns_it_round(opened: webdriver.Chrome) -> None:
    load = number_of(opened, "load")
    heads(opened)[load].click()
    assert column(opened, load) == ["1", "2", "16"]
    heads(opened)[load].click()
    assert column(opened, load) == ["16", "2", "1"]
    assert heads(opened)[load].find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    heads(opened)[number_of(opened, "E2E P50 (s)")].click()
    assert column(opened, load) == ["2", "1", "16"]  # the point without a number comes last


@pytest.mark.parametrize(
    ("head", "words", "left"),
    [
        ("backend", "VLLM", ["2", "16"]),
        ("load", "1", ["1"]),
        ("load", "> 1", ["2", "16"]),
        ("load", "<=2", ["1", "2"]),
        ("E2E P50 (s)", ">0", ["1", "2"]),
        ("client", "limited", ["2"]),
        ("backend", "sglang", []),
    ],
)
def test_boxes_filter(opened: webdriver.Chrome, head: str, words: str, left: list[str]) -> None:
    assert keep(opened, head, words) == left
    assert opened.find_element(By.ID, "shown").text == f"{len(left)} of 3 points."


def test_filters_of_two_columns_add_up(opened: webdriver.Chrome) -> None:
    keep(opened, "backend", "vllm")
    assert keep(opened, "load", "<10") == ["2"]


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
    assert opened.title == "results - ServeBench"
    assert opened.find_elements(By.CSS_SELECTOR, "[onerror], img[src=x]") == []
    assert f"oom {EVIL}" in opened.find_element(By.CSS_SELECTOR, "#failed pre").text
    assert f"ended {EVIL}" in opened.find_element(By.ID, "failed").text
    assert f"client-limited: {EVIL}" in opened.find_element(By.ID, "warnings").text
    assert f"vllm serve '{EVIL}'" in opened.find_element(By.ID, "versions").text


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


@pytest.mark.parametrize(("scheme", "paper"), [("light", [255, 255, 255]), ("dark", [0x15, 0x18, 0x1D])])
def test_page_and_figures_follow_the_reader(opened: webdriver.Chrome, scheme: str, paper: list[int]) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
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


def test_a_point_opens_by_its_link(opened: webdriver.Chrome) -> None:
    opened.find_element(By.LINK_TEXT, "llamacpp").click()
    inside = opened.find_element(By.ID, "point-0").text
    assert inside.count("lag p50") == 3 and "num_clients" in inside and "clients1-run2.json" in inside


@pytest.mark.parametrize("width", [500, 1400])
def test_the_page_is_no_wider_than_the_window(opened: webdriver.Chrome, width: int) -> None:
    opened.set_window_size(width, 1000)
    assert opened.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_folders_of_the_same_settings_are_not_runs_of_one_point(results: Path) -> None:
    for folder in ("before", "after"):
        store.save(point("vllm", 1, 1.0), results / folder / "m-clients1.json")
    points = report.read(results)
    assert [[run.name for run in runs] for runs in points] == [
        ["after/m-clients1.json"],
        ["before/m-clients1.json"],
    ]
    assert [runs[0].row["backend"] for runs in points] == ["after", "before"]


def test_a_folder_without_logs_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "SCRIPTS", tmp_path)  # has none, which would be started before the logs are read
    for folder, said in ((tmp_path, "no logs in"), (tmp_path / "x", "is not a folder")):
        monkeypatch.setattr("sys.argv", ["servebench report", str(folder)])
        with pytest.raises(SystemExit) as ended:
            commandline.run(report.main)
        err = capsys.readouterr().err
        assert ended.value.code == 2 and said in err and err.count("\n") == 1


def test_what_searches_found_stands_on_the_page(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looked = [
        {"load": n, "runs": 1, "says": says, "seen": {"ttft_p99": 0.5 * n}} for n, says in ((4, "meets"), (8, ""))
    ]
    found = {"searched": "ttft_p99<2s", "words": f"vllm: {EVIL}", "unit": "clients", "best": 4, "loads": looked}
    place = logs / "vllm" / "searches"
    place.mkdir()
    (place / "a.json").write_bytes(msgspec.json.encode(found))
    (place / "b.json").write_text("{}")
    (only,) = report.searches(logs)
    assert f"left out: {place / 'b.json'}" in capsys.readouterr().err
    page = html_page.page(logs, report.read(logs), [], [only])
    assert escape(f"vllm: {EVIL}") in page and "<td>4</td><td>meets</td><td>ttft_p99 2</td>" in page


def test_a_dataset_has_no_prompt_length_in_the_table() -> None:
    log = point("vllm", 1, 1.0, dataset="chats.json", dataset_sha256="ab")
    points = [runs_of(log), runs_of(point("vllm", 1, 1.0))]
    assert '<td data-value="">-</td>' in table.table(points)


def test_a_script_that_fails_is_said_in_its_place(logs: Path, tmp_path: Path) -> None:
    script = tmp_path / "plot_broken.py"
    script.write_text('"""Broken: on purpose."""\nraise SystemExit("no <ink>")\n')
    args = report.parser().parse_args([str(logs)])
    drawing = report.draw(args, tmp_path, script)
    assert (drawing.script, drawing.figures, drawing.said) == ("plot_broken.py", {}, "no <ink>\n")


def test_what_is_offered_and_an_overload_are_told_apart() -> None:
    runs = []
    for scenario in ("", "D(2600,60)"):
        log = make_log([make_result(0, 0, [1.0])], (0, 10), request_rate=1.0, overloaded=True, scenario=scenario)
        runs.append([table.Run("x", log, spreadsheet.row([log]), [])])
    page = table.table(runs)
    assert "<button>scenario</button>" in page and "<button>dataset</button>" not in page
    assert page.count("ok, overloaded") == 2 and page.count("D(2600,60)") == 1
    assert "dataset" not in table.common(runs) and "prompt 2600" in table.common(runs)


def runs_of(*logs: Log) -> list[table.Run]:
    return [report.run_of(f"vllm/{i}.json", "vllm", log) for i, log in enumerate(logs)]


def test_what_is_not_stationary_has_no_interval_in_the_table() -> None:
    growing = [make_result(i, float(i), [0.5 + i, 1.0 + i]) for i in range(200)]
    drifting = [make_log(growing, (0.0, 200.0), num_clients=1, repetition=i) for i in range(3)]
    steady = [point("vllm", 1, 1.0, repetition=i) for i in range(3)]
    assert "?" in table.table([runs_of(*drifting)]) and "±" not in table.table([runs_of(*drifting)])
    assert "±" in table.table([runs_of(*steady)])


def test_doubts_have_a_column() -> None:
    limited = [point("vllm", 1, 1.0, repetition=i, verdict=v) for i, v in enumerate(("ok", "client-limited: x"))]
    at_once = make_log([make_result(i, i, [0.5] * 4) for i in range(20)], (0.0, 20.0), num_clients=2)
    text = table.table([runs_of(*limited), runs_of(at_once)])
    assert "decides nothing" in text and ">1 of 2 runs client-limited<" in text and ">buffered<" in text
    assert "ok, but 1 of 2 runs client-limited" in text


def test_the_first_answer_token_has_a_column_where_it_is_not_the_first() -> None:
    thinking = make_log([make_result(i, i, [0.1, 0.5, 0.9], first_answer_event=1) for i in range(20)], (0.0, 20.0))
    assert "first answer token P50 (s)" in table.table([runs_of(thinking)])
    assert "first answer token" not in table.table([runs_of(point("vllm", 1, 1.0))])


def test_points_of_one_load_are_told_apart_by_their_settings() -> None:
    points = [runs_of(point("vllm", 1, 1.0)), runs_of(point("vllm", 1, 1.0, stream=False))]
    text = table.table(points)
    assert "<button>stream</button>" in text and ">True</td>" in text and ">False</td>" in text
    assert "stream" not in table.table(points[:1])
