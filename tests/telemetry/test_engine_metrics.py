"""What engines say on /metrics, and servers that break there: nothing of it stops the sampler or costs much."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import numpy as np
import pytest
from test_house import loaded_by

from servebench.log.telemetry import EngineUse
from servebench.servers.backends import BACKENDS, metrics_of
from servebench.telemetry import engine_metrics
from servebench.telemetry.engine_metrics import Engine, Scraper, values
from servebench.telemetry.engine_use import use

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 1.0
vllm:num_preemptions_total{engine="0"} 7.0
vllm:num_preemptions_created{engine="0"} 1.795665758434377e+09
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001"} 1.0
vllm:time_to_first_token_seconds_sum{engine="0"} 2.5e+00
vllm:time_to_first_token_seconds_count{engine="0"} 5.0
"""
FOUND = {"running": 7.0, "waiting": 1.0, "kv_cache_usage": 0.75, "preemptions": 7.0}
FOUND |= {"ttft_s_sum": 2.5, "ttft_s_count": 5.0}


def test_labels_are_summed_and_shares_averaged() -> None:
    assert values(VLLM, metrics_of("vllm")) == (FOUND, "")
    assert values(VLLM, metrics_of("openai")) == (FOUND, "")


def test_a_newer_name_replaces_an_older_one() -> None:
    page = b"vllm:gpu_cache_usage_perc 0.2\n"
    assert values(page, metrics_of("vllm"))[0] == {"kv_cache_usage": 0.2}
    assert values(page + b"vllm:kv_cache_usage_perc 0.4\n", metrics_of("vllm"))[0] == {"kv_cache_usage": 0.4}


def test_other_engines() -> None:
    page = b"llamacpp:requests_processing 2\nllamacpp:requests_deferred 5\n"
    assert values(page, metrics_of("openai")) == ({"running": 2, "waiting": 5}, "")
    page = b'sglang:num_running_reqs{tp_rank="0"} 2.0\nsglang:cached_tokens_total{cache_source="host"} 4.0\n'
    page += b'sglang:cached_tokens_total{cache_source="device"} 6.0\nsglang:token_usage{tp_rank="0"} 0.28\n'
    assert values(page, metrics_of("sglang"))[0] == {
        "running": 2.0,
        "prefix_cache_hits": 10.0,
        "kv_cache_usage": 0.28,
    }
    assert values(b"tgi_queue_size 3\n", metrics_of("openai"))[0] == {"waiting": 3.0}
    assert metrics_of("fastgen") == {}


def test_names_of_engines_are_distinct() -> None:
    names = [theirs for backend in BACKENDS.values() for each in backend.metrics.values() for theirs in each]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("bad", ["NaN", "+Inf", "", "x", '{engine="1" 3', '{"a"} 1 2 3 4'])
def test_what_is_no_number_is_left_out_with_all_labels_of_its_name(bad: str) -> None:
    found, wrong = values(VLLM + f"vllm:num_preemptions_total {bad}\n".encode(), metrics_of("vllm"))
    assert found == {name: value for name, value in FOUND.items() if name != "preemptions"}
    assert wrong == "not a number: preemptions"


def test_a_page_that_is_cut_off_says_nothing() -> None:
    for mark in (b"{", b"5.0"):
        assert values(VLLM[: VLLM.rindex(mark) + 1], metrics_of("vllm")) == ({}, "its last line is cut off")


def test_the_sampler_starts_without_numpy() -> None:
    assert not {"numpy", "tokenizers"} & loaded_by("servebench.telemetry.engine_metrics")


def test_garbage_never_raises() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        page = bytearray(VLLM)
        for at in rng.integers(0, len(page), 20):
            page[at] = rng.integers(0, 256)
        values(bytes(page), metrics_of("vllm"))


# Servers.

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def whole(page: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(page), page)


class Server:
    """Answers every request on its own port with what `answer` does to the connection; counts connections."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self.answer, self.connections, self.requests = answer, 0, []  # type: ignore[var-annotated]
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/metrics"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            while request := sock.recv(65536):
                self.requests.append(request)
                self.answer(sock)


class Taken:
    """What a scraper hands on."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.values: list[tuple[dict[str, float], int]] = []
        self.remarks: list[str] = []
        self.scraper = Scraper(Engine(url, headers or {}, metrics_of("vllm")), self._put, self.remarks.append)

    def _put(self, values: Mapping[str, float], at_ns: int) -> None:
        self.values.append((dict(values), at_ns))

    def scrape(self) -> None:
        began = time.monotonic()
        self.scraper.scrape()
        assert time.monotonic() - began < engine_metrics.DEADLINE_S + 0.3


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(answer: Callable[[socket.socket], None] | bytes) -> Server:
        send = answer if callable(answer) else lambda sock: sock.sendall(answer)
        running.append(Server(send))
        return running[-1]

    yield start
    for each in running:
        each.listener.close()


def trickle(sock: socket.socket) -> None:
    sock.sendall(HEAD + b"\r\n")
    for byte in VLLM:
        sock.sendall(bytes([byte]))
        time.sleep(0.2)


def huge(sock: socket.socket) -> None:
    sock.sendall(HEAD + b"Content-Length: 50000000\r\n\r\n")
    for _ in range(50):
        sock.sendall(b"# filling\n" * 100_000)


FAULTS = {
    "no answer within 1 s": lambda sock: time.sleep(3),
    "no metrics: more than 4 MB": huge,
    "status 500": b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
    "no metric that is known": whole(b"<html>login</html>"),
    "not a number: running": whole(b"vllm:num_requests_running NaN\n"),
    "no metrics: BadStatusLine": b"SSH-2.0-not-http\r\n\r\n",
    "no metrics: Remote end closed": lambda sock: sock.shutdown(socket.SHUT_RDWR),
}


@pytest.mark.parametrize("why", FAULTS)
def test_a_fault_is_said_and_nothing_is_taken(server: Callable[..., Server], why: str) -> None:
    taken = Taken(server(FAULTS[why]).url)
    taken.scrape()
    taken.scrape()
    assert not taken.values and len(taken.remarks) == 2
    assert taken.remarks[0].startswith(why)


def test_an_answer_has_one_deadline_however_it_trickles(server: Callable[..., Server]) -> None:
    taken = Taken(server(trickle).url)
    taken.scrape()
    assert taken.remarks == ["no answer within 1 s"] and not taken.values


def test_nobody_listens() -> None:
    taken = Taken("http://127.0.0.1:1/metrics")
    taken.scrape()
    assert taken.remarks == ["no metrics: Connection refused"]


def test_a_key_does_not_follow_a_redirect_to_another_host(server: Callable[..., Server]) -> None:
    elsewhere = server(whole(VLLM))
    moved = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
    taken = Taken(server(moved.encode()).url, {"Authorization": "Bearer secret"})
    taken.scrape()
    taken.scrape()
    assert taken.remarks == ["status 307"] * 2 and elsewhere.connections == 0


def test_a_redirect_within_the_host_is_followed(server: Callable[..., Server]) -> None:
    at: list[Server] = []

    def answer(sock: socket.socket) -> None:
        moved = b"HTTP/1.1 307 Moved\r\nLocation: /metrics/\r\nContent-Length: 0\r\n\r\n"
        sock.sendall(whole(VLLM) if b" /metrics/ " in at[0].requests[-1] else moved)

    at.append(server(answer))
    taken = Taken(at[0].url)
    taken.scrape()
    taken.scrape()
    assert not taken.remarks and [found for found, _ in taken.values] == [FOUND] * 2


def test_a_chunked_page(server: Callable[..., Server]) -> None:
    page = VLLM
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (page[:100], page[100:]))
    taken = Taken(server(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n").url)
    taken.scrape()
    assert taken.values[0][0] == FOUND


def test_a_restart_is_said(server: Callable[..., Server]) -> None:
    counts = iter((7, 9, 2, 3))
    taken = Taken(server(lambda sock: sock.sendall(whole(b"vllm:num_preemptions_total %d\n" % next(counts)))).url)
    for _ in range(4):
        taken.scrape()
    assert taken.remarks == ["the server restarted: its counters fell"] and len(taken.values) == 4


def test_a_page_that_hangs_is_asked_for_rarely(
    server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_metrics, "PERIOD_S", 0.02)
    monkeypatch.setattr(engine_metrics, "FAILURES", 3)
    failing = server(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    taken = Taken(failing.url)
    taken.scraper.start()
    time.sleep(0.6)
    taken.scraper.stop()
    taken.scraper.join(1)
    assert not taken.scraper.is_alive()
    assert 3 <= len(failing.requests) <= 4


def test_a_scraper_asks_on_its_grid_and_once_at_the_end(server: Callable[..., Server]) -> None:
    good = server(whole(VLLM))
    taken = Taken(good.url)
    taken.scraper.start()
    time.sleep(1.75)
    taken.scraper.stop()
    taken.scraper.join(1)
    steps = np.diff([at_ns for _, at_ns in taken.values]) / 1e9
    assert len(steps) in (3, 4) and np.allclose(steps[:-1], engine_metrics.PERIOD_S, atol=0.15)


def test_over_tls(https: Callable[..., str]) -> None:
    taken = Taken(https() + "/metrics")
    taken.scrape()
    taken.scrape()
    assert len(taken.values) == 2 and not taken.remarks


# The window.


def of(at_s: list[float], **series: list[float]) -> EngineUse | None:
    at_ns = (np.array(at_s) * 1e9).astype(np.int64) + 1_795_000_000_000_000_000
    begin = 1_795_000_010_000_000_000
    return use(1, at_ns, {name: np.array(each) for name, each in series.items()}, (begin, begin + 10_000_000_000))


def test_gauges_are_weighted_by_time() -> None:
    found = of([9, 11, 13, 19, 21], waiting=[5, 0, 6, 2, 99], kv_cache_usage=[0, 0.5, 0.96, 0.96, 0])
    assert found and found.server == 1 and found.running is None
    # Edges half-way: 9 and 21 touch the window in nothing, 11 has 2 s, 13 has 4 s, 19 has 4 s.
    assert found.waiting == pytest.approx(3.2, abs=0.01) and found.waiting_max == 6
    assert found.kv_cache_usage == pytest.approx(0.868, abs=0.01)
    assert found.kv_cache_full_share == pytest.approx(0.8, abs=0.01)


def test_counters_rise_between_the_edges_and_restart_at_zero() -> None:
    found = of([8, 12, 16, 24], preemptions=[100, 140, 20, 60])
    assert found and found.preemptions == pytest.approx(20 + 20 + 20)


def test_means_of_histograms_and_rates() -> None:
    times = {"queue_s_sum": [5, 17], "queue_s_count": [10, 30], "prefill_s_sum": [1, 1], "prefill_s_count": [4, 4]}
    cache = {"prefix_cache_hits": [0, 30], "prefix_cache_queries": [0, 40]}
    found = of([10, 20], **times, **cache, draft_tokens=[0, 0], accepted_tokens=[0, 0])
    assert found and found.queue_s == pytest.approx(0.6) and found.prefill_s is None
    assert found.prefix_cache_hit_rate == 0.75 and found.acceptance_rate is None


def test_samples_that_are_missing_or_far_away() -> None:
    nan = float("nan")
    found = of([10, 15, 20], running=[2, nan, 4], waiting=[nan, nan, nan])
    assert found and found.running == pytest.approx(3) and found.waiting is None
    assert of([1, 2, 3], running=[1, 1, 1]) is None, "more than 5 s before the window"
    assert of([], running=[]) is None


# The reference server, which knows the truth.


def test_the_reference_server_says_who_runs_and_who_waits(reference: Callable[..., str]) -> None:
    url = reference("--slots", "2", "--ttft", "0.2", "--gap", "0.1")
    taken = Taken(f"{url}/metrics")
    port = int(url.rpartition(":")[2])
    body = b'{"prompt": "a", "max_tokens": 5, "stream": true}'
    request = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
    for client in clients:
        client.sendall(request)
    time.sleep(0.1)
    taken.scrape()
    time.sleep(2.2)  # three rounds of 0.6 s
    taken.scrape()
    for client in clients:
        client.close()
    (first, _), (last, _) = taken.values
    assert (first["running"], first["waiting"]) == (2, 4) and (last["running"], last["waiting"]) == (0, 0)
    assert last["queue_s_count"] == 6
    assert last["queue_s_sum"] == pytest.approx(2 * (0.6 + 1.2), abs=0.05)
    assert last["prefill_s_sum"] == pytest.approx(6 * 0.2, abs=0.1)
    assert last["ttft_s_sum"] == pytest.approx(last["queue_s_sum"] + last["prefill_s_sum"], abs=1e-6)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("hang", "no answer within 1 s"),
        ("error", "status 500"),
        ("nan", "not a number: running"),
        ("half", "its last line is cut off"),
        ("huge", "no metrics: more than 4 MB"),
    ],
)
def test_faults_of_the_reference_server(reference: Callable[..., str], how: str, why: str) -> None:
    taken = Taken(reference("--metrics", how) + "/metrics")
    taken.scrape()
    assert taken.remarks == [why]
