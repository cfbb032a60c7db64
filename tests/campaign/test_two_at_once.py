"""Two benchmarks at a time, and what ends one midway: nothing measured is lost, nothing half measured is ok."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import errors, make_result, ours, run_config
from real_engines import wait_for

from servebench.analysis import samples
from servebench.campaign.measure import why_failed
from servebench.errors import InputError, ServerFailed
from servebench.log import schema, store
from servebench.log.schema import Log, Quality

Benchmark = Callable[..., tuple[int, str, str]]
Driver = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def attached(tokenizer_dir: Path) -> Callable[[str], list[object]]:
    """The words that measure the server at a URL."""

    def words(url: str) -> list[object]:
        where = ["--backend", "openai", "--openai_api_url", url, "--tokenizer", tokenizer_dir, "--model", "m"]
        return [*where, "--mean_prompt_length", 8, "--mean_max_new_tokens", 4, "--num_workers", 1]

    return words


def logs(folder: Path) -> dict[int, Log]:
    """By number of clients."""
    found = [store.load(path) for path in folder.glob("*/*clients*.json")]
    return {log.run.load.num_clients: log for log in found}


def measuring(results: Path) -> bool:
    return any("servebench.load.worker" in line for line in ours(results))


@pytest.mark.parametrize("clients", [2, 3])
def test_a_second_benchmark_in_a_folder_is_refused_in_a_line(
    benchmark: Benchmark,
    driver: Driver,
    reference: Callable[..., str],
    attached: Callable[[str], list[object]],
    results: Path,
    clients: int,
) -> None:
    """The same point and another one alike: loads beside each other would measure each other."""
    words = attached(reference("--ttft", "0.05", "--gap", "0.02"))
    first = driver(*words, "--num_clients", 2, "--num_requests", 40)
    wait_for(lambda: measuring(results))
    code, _, err = benchmark(*words, "--num_clients", clients, "--num_requests", 40)
    assert code == 2 and err.count("\n") == 1, err
    assert f"another benchmark (process {first.pid} since" in err and "--out_json_dir" in err
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert [len(samples.succeeded(log)) for log in logs(results).values()] == [40]
    code, _, err = benchmark(*words, "--num_clients", clients, "--num_requests", 40)
    assert code == 0, err
    assert set(logs(results)) == {2, clients}


def test_a_killed_benchmark_frees_its_folder(
    benchmark: Benchmark,
    driver: Driver,
    reference: Callable[..., str],
    attached: Callable[[str], list[object]],
    results: Path,
) -> None:
    words = [*attached(reference("--ttft", "0.02", "--gap", "0.01")), "--num_clients", 2, "--num_requests", 40]
    first = driver(*words)
    wait_for(lambda: measuring(results))
    first.kill()
    first.wait(10)
    code, _, err = benchmark(*words)
    assert code == 0, err
    assert len(samples.succeeded(logs(results)[2])) == 40
    assert not list(results.glob("*/*.parts")), "what the killed one left"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_half_measured_is_not_left(
    driver: Driver,
    reference: Callable[..., str],
    attached: Callable[[str], list[object]],
    results: Path,
    number: signal.Signals,
) -> None:
    words = attached(reference("--ttft", "0.05", "--gap", "0.02"))
    first = driver(*words, "--num_clients", 2, "--num_requests", 1000)
    wait_for(lambda: measuring(results))
    time.sleep(0.5)
    first.send_signal(number)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 128 + number and "Traceback" not in err
    assert not ours(results) and [path.name for path in results.glob("*/*")] == [".lock"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_ends_a_pair_ends_its_driver(
    reference: Callable[..., str],
    attached: Callable[[str], list[object]],
    results: Path,
    number: signal.Signals,
) -> None:
    own = [f"--out_json_dir {results / side}" for side in "ab"]
    words = [*own, *attached(reference("--ttft", "0.05", "--gap", "0.02")), "--num_clients", 2]
    command = [sys.executable, "-m", "servebench", "paired", *map(str, words), "--num_requests", "1000"]
    pair = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: measuring(results))
    pair.send_signal(number)
    _, err = pair.communicate(timeout=60)  # to the end of all that write to it
    assert "Traceback" not in err and not ours(results)


def test_a_log_of_an_older_version_stays_and_is_said(
    benchmark: Benchmark, reference: Callable[..., str], attached: Callable[[str], list[object]], results: Path
) -> None:
    """Its name has no digits, since nobody noted what its point depends on."""
    words = [*attached(reference("--ttft", "0.01", "--gap", "0")), "--num_clients", 2, "--num_requests", 12]
    assert "older version" not in benchmark(*words)[1]
    (path,) = results.glob("*/*.json")
    log = store.load(path)
    old = path.with_name(schema.log_name(log.server, log.run))
    path.rename(old)
    before = old.read_bytes()
    code, out, _ = benchmark(*words)
    assert code == 0 and "note: 1 point has a log of an older version" in out
    assert old.read_bytes() == before and path.exists()
    assert "older version" not in benchmark(*words)[1]


@pytest.fixture
def doomed() -> Iterator[Callable[..., tuple[str, subprocess.Popen[str]]]]:
    """A reference server that a test may kill: (URL, process)."""
    running = []

    def start(*options: str) -> tuple[str, subprocess.Popen[str]]:
        command = [sys.executable, "-m", "servebench", "reference-server", "--port", "0", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        running.append(process)
        assert process.stdout
        return process.stdout.readline().strip(), process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_running_server_that_is_killed_midway_fails_the_point_and_ends_the_rest(
    benchmark: Benchmark,
    driver: Driver,
    doomed: Callable[..., tuple[str, subprocess.Popen[str]]],
    attached: Callable[[str], list[object]],
    results: Path,
) -> None:
    url, server = doomed("--ttft", "0.05", "--gap", "0.02")
    words = [*attached(url), "--num_clients", 2, 1, "--num_requests", 60]
    first = driver(*words)
    wait_for(lambda: measuring(results))
    time.sleep(1.5)
    os.killpg(server.pid, signal.SIGKILL)
    server.wait(10)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 1 and "Traceback" not in err
    died, never = logs(results)[2], logs(results)[1]
    assert died.status == "failed" and "of 60 requests failed (more than --max_failed_share 0.05)" in str(
        died.failure
    )
    assert samples.succeeded(died) and errors(died), "what came before is kept"
    assert never.status == "failed" and "nothing answers at" in str(never.failure)
    assert "0 points measured, 2 failed" in out
    port = url.rpartition(":")[2]
    again, _ = doomed("--ttft", "0.01", "--gap", "0.001", "--port", port)
    assert again == url
    code, out, err = benchmark(*words)
    assert code == 0, err
    assert "2 points measured, 0 failed" in out


@pytest.mark.parametrize(("most", "code", "status"), [("0.2", 1, "failed"), ("60%", 0, "ok")])
def test_failed_requests_are_said_and_their_share_decides(
    benchmark: Benchmark,
    reference: Callable[..., str],
    attached: Callable[[str], list[object]],
    results: Path,
    most: str,
    code: int,
    status: str,
) -> None:
    """Every third request is answered with HTTP 503."""
    words = [*attached(reference("--ttft", "0.01", "--gap", "0.001", "--fault", "status", "--fault_every", "3"))]
    words += ["--num_clients", 1, "--num_requests", 40, "--max_failed_share", most]
    ended, out, err = benchmark(*words)
    assert ended == code, err
    log = logs(results)[1]
    assert log.status == status and 12 <= len(errors(log)) <= 14 and len(samples.measured(log)) == 40
    said = (
        "1 point measured (1 with failed requests), 0 failed" if status == "ok" else "0 points measured, 1 failed"
    )
    assert said in out


@pytest.fixture
def small_disk(results: Path) -> Iterator[None]:
    """The results lie on a disk of 256 KiB."""
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(results)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a small disk, which only root can")
    yield
    subprocess.run(["umount", "-l", str(results)], check=True)


def test_a_full_disk_keeps_what_was_measured_and_is_said_in_a_line(
    benchmark: Benchmark,
    reference: Callable[..., str],
    attached: Callable[[str], list[object]],
    small_disk: None,
    results: Path,
) -> None:
    words = [*attached(reference("--ttft", "0.002", "--gap", "0.0001")), "--num_clients", 1]
    assert benchmark(*words, "--num_requests", 20)[0] == 0
    good = {path: path.read_bytes() for path in results.glob("*/*.json")}
    code, out, err = benchmark(*words, "--num_requests", 2000)
    assert code == 1 and "Traceback" not in err + out, err
    assert "No space left on device" in err
    assert "1 failed" in out
    assert all(path.read_bytes() == data for path, data in good.items())
    assert not list(results.glob("*/*.tmp*")) and not list(results.glob("*/*.parts"))
    assert benchmark(*words, "--num_requests", 20)[0] == 0


def test_a_point_whose_requests_were_all_written_is_good_without_its_lag_file(
    benchmark: Benchmark,
    reference: Callable[..., str],
    attached: Callable[[str], list[object]],
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that is full when load processes write their last files: Path.write_bytes fails in them."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(
        "import pathlib, sys\n"
        "def full(path, data):\n"
        "    raise OSError(28, 'No space left on device', str(path))\n"
        "if 'servebench.load.worker' in sys.orig_argv:\n"
        "    pathlib.Path.write_bytes = full\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    words = [*attached(reference("--ttft", "0.01", "--gap", "0.001")), "--num_clients", 1, "--num_requests", 12]
    code, _, err = benchmark(*words)
    assert code == 0 and "Traceback" not in err, err
    log = logs(results)[1]
    assert log.status == "ok" and len(samples.succeeded(log)) == 12
    assert log.quality.verdict.startswith("unknown: the disk is full")


def test_a_folder_has_one_writer_and_two_backends_have_two(results: Path) -> None:
    refused = pytest.raises(InputError, match=f"another benchmark .process {os.getpid()} since")
    with store.sole_writer(results / "vllm"), store.sole_writer(results / "llamacpp"), refused:
        store.sole_writer(results / "vllm").__enter__()
    with store.sole_writer(results / "vllm"):
        pass


def dead() -> None:
    raise ServerFailed("the server was killed by SIGKILL")


@pytest.mark.parametrize(
    ("good", "bad", "asked", "check", "why"),
    [
        (10, 0, 10, dead, None),  # it died after the last answer
        (9, 1, 10, dead, "the server was killed by SIGKILL"),
        (6, 0, 10, lambda: None, "only 6 of 10 requests came back"),
        (0, 10, 10, lambda: None, "every request failed, the first with: HTTP 500"),
        (19, 1, 20, lambda: None, None),
        (18, 2, 20, lambda: None, "2 of 20 requests failed (more than --max_failed_share 0.05)"),
    ],
)
def test_what_a_point_is_failed_for(
    good: int, bad: int, asked: int, check: Callable[[], None], why: str | None
) -> None:
    results = [make_result(i, 0.0, [0.1]) for i in range(good)]
    results += [make_result(good + i, 0.0, [], error="HTTP 500") for i in range(bad)]
    said = why_failed(run_config(num_requests=asked), results, Quality(), 0.05, check)
    assert said is None if why is None else why in str(said)


def test_requests_that_we_cut_off_ourselves_fail_no_overloaded_point() -> None:
    results = [make_result(0, 0.0, [0.1])]
    cut = {"error": "cut off: the point was stopped", "finish_reason": "cancelled"}
    results += [make_result(i, 0.0, [], **cut) for i in range(1, 5)]
    for overloaded, failed in ((True, False), (False, True)):
        quality = Quality(overloaded=overloaded)
        why = why_failed(run_config(num_requests=10), results, quality, 0.05, lambda: None)
        assert bool(why) is failed
