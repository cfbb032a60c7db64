"""The load client against the reference server: what it measures, and what it does when the server misbehaves."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from conftest import errors, make_result

from servebench.analysis import latency, samples
from servebench.load import read_loop
from servebench.load.client import Client
from servebench.load.fleet import read_parts
from servebench.load.http import Http1
from servebench.load.route import Route
from servebench.load.wire import Endpoint, Segment
from servebench.log import store
from servebench.log.schema import Log

Benchmark = Callable[..., tuple[int, str, str]]


@pytest.fixture
def load(
    benchmark: Benchmark, reference: Callable[..., str], tokenizer_dir: Path, tmp_path: Path
) -> Callable[..., Log]:
    """Start a reference server with server options, put a small load on it, give the log."""

    def run(
        server: str, *arguments: object, clients: int = 4, requests: int = 20, status: int = 0, name: str = ""
    ) -> Log:
        url = reference("--ttft", "0.02", "--gap", "0.002", *server.split())
        url = f"http://{name}:{url.rpartition(':')[2]}" if name else url
        lengths = ["--mean_prompt_length", "16", "--mean_max_new_tokens", "10", "--max_new_tokens_var", "0"]
        where = [
            "--backend",
            "openai",
            "--openai_api_url",
            url,
            "--model",
            "reference",
            "--tokenizer",
            tokenizer_dir,
        ]
        load = ["--num_clients", clients, "--num_requests", requests]
        load += ["--max_failed_share", "100%"]  # what fails here fails on purpose
        code, out, err = benchmark(*where, *lengths, *load, *arguments)
        assert code == status, out + err
        (path,) = (tmp_path / "results/openai").glob("*.json")
        return store.load(path)

    return run


def test_every_request_is_logged_with_every_token(load: Callable[..., Log]) -> None:
    log = load("")
    done = samples.succeeded(log)
    assert len(done) == 20 and sorted(r.id for r in done) == list(range(20))
    assert all(list(r.event_tokens) == [1] * 10 and r.generated_tokens == 10 for r in done)
    assert all(np.all(np.diff(r.event_ns) >= 0) and r.event_ns[0] > 0 for r in done)
    assert {r.phase for r in log.results} == {"warmup", "measured", "cooldown"}
    assert log.quality.unstamped_share == 0


def test_the_load_goes_on_until_the_last_measured_request_ended(load: Callable[..., Log]) -> None:
    log = load("")
    assert log.window_ns
    start, end = log.window_ns
    assert all(start <= r.sent_ns and r.sent_ns + r.event_ns[-1] <= end for r in samples.measured(log))
    assert log.quality.achieved_concurrency > 3


def test_warm_up_requests_come_first_for_every_client(load: Callable[..., Log]) -> None:
    log = load("", "--warmup", 2)
    first = min(r.sent_ns for r in samples.measured(log))
    for client in range(4):
        done = [r for r in log.results if r.client == client and r.phase == "warmup" and r.sent_ns < first]
        assert len(done) >= 2


def test_several_load_processes_share_the_work(load: Callable[..., Log]) -> None:
    log = load("", "--num_workers", 3, clients=5)
    assert len(log.quality.worker_cpu_share) == 3
    assert sorted(r.id for r in samples.succeeded(log)) == list(range(20))
    assert {r.client for r in log.results} == set(range(5))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_replicas_of_unlike_speed_answer_as_many_requests_whoever_sends_them(
    benchmark: Benchmark, reference: Callable[..., str], tokenizer_dir: Path, tmp_path: Path, workers: int
) -> None:
    """One is four times as fast. With the clients of one load process all at the slow one, it would get half."""
    urls = [reference("--ttft", ttft, "--gap", "0") for ttft in ("0.05", "0.2")]
    what = ["--backend", "openai", "--openai_api_url", *urls, "--model", "m", "--tokenizer", tokenizer_dir]
    what += ["--scenario", "D(8,1)", "--num_clients", 6, "--num_requests", 50, "--num_workers", workers]
    code, out, err = benchmark(*what)
    assert code == 0, out + err
    (path,) = (tmp_path / "results/openai").glob("*.json")
    log = store.load(path)
    assert len(log.quality.worker_cpu_share) == log.client["num_workers"] == workers
    assert sum(r.server for r in samples.succeeded(log)) == pytest.approx(10, abs=4)


def test_the_chat_dialect(load: Callable[..., Log]) -> None:
    assert samples.failed_share(load("", "--api", "chat")) == 0


def test_answers_that_come_whole_have_no_ttft(load: Callable[..., Log]) -> None:
    log = load("", "--no_stream")
    assert len(samples.succeeded(log)) == 20
    assert samples.each(log, latency.ttft_s).size == 0


@pytest.mark.parametrize(
    ("usage", "source"), [("none", "tokenizer"), ("last", "usage of the answer"), ("each", "usage in every event")]
)
def test_the_log_says_where_token_counts_come_from(load: Callable[..., Log], usage: str, source: str) -> None:
    log = load(f"--usage {usage}")
    assert {r.token_source for r in samples.succeeded(log)} == {source}


def test_several_tokens_in_an_event_are_counted(load: Callable[..., Log]) -> None:
    log = load("--tokens_per_event 4 --usage each")
    assert all(list(r.event_tokens) == [4, 4, 2] for r in samples.succeeded(log))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("status", "HTTP 503"),
        ("throttle", "HTTP 429"),
        ("reset", "reset by peer"),
        ("cut", "closed the connection inside the answer"),
        ("garbage", "not an HTTP answer"),
        ("broken_chunk", "not an HTTP answer"),
        ("broken_json", "not a completion chunk"),
        ("error_event", "the engine died"),
        ("error_close", "the engine died"),
        ("no_end", "cut it off"),
        ("abort", "finish_reason abort"),
        ("silent_close", "without an answer"),
    ],
)
def test_failed_requests_are_counted_and_explained(load: Callable[..., Log], fault: str, reason: str) -> None:
    log = load(f"--fault {fault} --fault_every 5")
    assert errors(log) and all(reason in error for error in errors(log)), errors(log)
    assert len(samples.measured(log)) == 20
    assert len(samples.succeeded(log)) == 20 - len(errors(log))


@pytest.mark.parametrize("fault", ["reset", "cut", "broken_chunk", "broken_json", "error_event"])
def test_a_failed_request_keeps_what_did_arrive(load: Callable[..., Log], fault: str) -> None:
    log = load(f"--fault {fault} --fault_every 5")
    assert all(len(r.event_ns) == 3 for r in samples.measured(log) if r.error)


def test_a_stall_ends_with_the_request_timeout(load: Callable[..., Log]) -> None:
    log = load("--fault stall --fault_every 7", "--request_timeout", 0.5)
    assert errors(log) and all("--request_timeout" in error for error in errors(log))


def test_slow_headers_are_latency_not_failure(load: Callable[..., Log]) -> None:
    assert not errors(load("--fault slow_headers --fault_every 10"))


def test_a_server_that_closes_after_answers_fails_no_request(load: Callable[..., Log]) -> None:
    log = load("--fault close", requests=60)
    assert not errors(log)


def test_a_point_without_any_success_has_failed(load: Callable[..., Log]) -> None:
    log = load("--fault status", status=1)
    assert log.status == "failed" and "every request failed" in (log.failure or "")


def test_ipv6(load: Callable[..., Log]) -> None:
    assert samples.failed_share(load("--host ::1")) == 0


TWO_FAMILIES = """
import socket
real = socket.getaddrinfo
def both(host, port, *args, **kwargs):
    names = ["::1", "127.0.0.1"] if host == "localhost" else [host]
    return [found for name in names for found in real(name, port, *args, **kwargs)]
socket.getaddrinfo = both
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_address_of_a_name_is_tried(
    load: Callable[..., Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(TWO_FAMILIES)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    log = load(f"--host {host}", name="localhost")
    assert samples.failed_share(log) == 0 and len(samples.succeeded(log)) == 20
    assert max(latency.e2e_s(r) for r in samples.succeeded(log)) < 1


def test_a_http_error_names_the_path_that_was_asked(load: Callable[..., Log]) -> None:
    assert "HTTP 503 for /v1/completions: " in str(load("--fault status", status=1).failure)


def test_extra_fields_and_headers_reach_the_server(load: Callable[..., Log]) -> None:
    extra = ["--extra_body", '{"max_tokens": 3}', "--extra_headers", "Authorization: Bearer sesame"]
    log = load("--key sesame", *extra)
    assert all(r.generated_tokens == 3 for r in samples.succeeded(log)) and not errors(log)
    assert log.run.extra_body == {"max_tokens": 3}


def test_a_read_that_the_kernel_did_not_stamp_is_noted_as_such() -> None:
    endpoint = Endpoint.of("http://127.0.0.1:1")
    http, poller = Http1(endpoint, {}), read_loop.Poller()
    client = Client(0, Route(0, endpoint, None, lambda: http), SimpleNamespace(), poller, lambda *_: None)
    client.answer.add(Segment(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 1, 0, True))
    ours, theirs = socket.socketpair()  # nobody asked this one for stamps
    with ours, theirs:
        theirs.send(b"5\r\nhello\r\n")
        poller.add_stream(SimpleNamespace(sock=ours), client.answer.segments, client)
        read_loop.read([(ours.fileno(), select.EPOLLIN)], poller.streams, {}, 7, poller.lag_ns.append)
    kept = client.answer.segments
    assert (kept.data[-1], kept.earliest_ns[-1]) == (b"5\r\nhello\r\n", 7)
    assert kept.stamp_ns[-1] > 10**18 and len(poller.lag_ns) == poller.unstamped == 1


def test_a_line_cut_off_mid_write_is_left_out(tmp_path: Path) -> None:
    result = make_result(0, 1.0, [0.5, 1.0])
    whole = msgspec.json.encode(result) + b"\n"
    (tmp_path / "part").write_bytes(whole + whole[:20])
    assert list(read_parts([tmp_path / "part", tmp_path / "missing"])) == [result]
