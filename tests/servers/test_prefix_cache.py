"""What the engine's counters say of its prefix cache, and what a user is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest
from conftest import make_log, make_result, run_config

from servebench.log.config import fields_of
from servebench.servers.prefix_cache import Counters, hit_rate, read_counters
from servebench.show import advice

NAMES = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")
PAGE = """# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 1.28e+02
vllm:prefix_cache_hits_total{engine="1",model_name="m"} 2.0
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 9.0
"""


@pytest.fixture
def exporter() -> Iterator[Callable[[str], str]]:
    """A server whose /metrics is this text; gives its URL."""
    running = []

    def start(text: str) -> str:
        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Page)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_counters_are_summed_over_engines_and_servers(exporter: Callable[[str], str]) -> None:
    assert read_counters([exporter(PAGE), exporter(PAGE)], NAMES, {}) == Counters(260.0, 2000.0)


def test_a_server_without_counters_has_none(exporter: Callable[[str], str]) -> None:
    assert read_counters([exporter(PAGE), exporter("other 1\n")], NAMES, {}) == Counters(130.0, 1000.0)
    assert read_counters([exporter("other 1\n")], NAMES, {}) is None
    assert read_counters(["http://127.0.0.1:1"], NAMES, {}) is None


def test_the_hit_rate_is_that_of_the_tokens_in_between() -> None:
    assert hit_rate(Counters(10, 100), Counters(60, 300)) == pytest.approx(50 / 200)
    assert hit_rate(Counters(10, 100), Counters(10, 100)) is None
    assert hit_rate(None, Counters(10, 100)) is None


def test_hits_of_prompts_that_share_nothing_are_warned_about() -> None:
    log = msgspec.structs.replace(make_log([make_result(0, 0, [0.1])], (0, 1)), cache_hit_rate=0.4)
    assert any("prefix cache held 40.0%" in warning for warning in advice.of_point(log))
    shared = msgspec.structs.replace(log, run=run_config(**(fields_of(log.run) | {"shared_prefix": (512, 4)})))
    assert not any("prefix cache" in warning for warning in advice.of_point(shared))
