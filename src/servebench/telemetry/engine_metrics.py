"""What engines say of themselves on /metrics while requests run: asked for twice a second, a few values kept.

This runs inside the sampler, which must start fast: no numpy here.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from threading import Event, Thread
from urllib.parse import urljoin, urlsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from servebench.errors import HttpError
from servebench.load.http import Answer, merge_headers
from servebench.load.wire import Segment

GAUGES = ("running", "waiting", "kv_cache_usage")
HISTOGRAMS = ("queue_s", "prefill_s", "ttft_s")  # of each, its sum and count: `queue_s_sum`, `queue_s_count`
PERIOD_S, RARE_PERIOD_S = 0.5, 5.0
FAILURES = 10  # one after another, from which on a page is asked for rarely
DEADLINE_S = 1.0
MAX_BYTES = 4_000_000
RESTARTED = "the server restarted: its counters fell"

Table = Mapping[str, Sequence[str]]  # our names -> those of the engine, the one to prefer first


class Engine(msgspec.Struct, frozen=True):
    """The metrics of a replica: where, how to ask, and how they are called there."""

    url: str
    headers: dict[str, str]
    metrics: dict[str, tuple[str, ...]]


def series_of(table: Table) -> dict[str, list[str]]:
    """Our names, with those of a histogram's parts -> the names that lines of a page begin with."""
    parts = {name: ("_sum", "_count") if name in HISTOGRAMS else ("",) for name in table}
    return {name + part: [theirs + part for theirs in table[name]] for name in table for part in parts[name]}


def values(page: bytes | str, table: Table) -> tuple[dict[str, float], str]:
    """(what a page says, by our names; what was wrong with it, or "").

    Values of several labels (engines, ranks) are summed, those of kv_cache_usage averaged.
    """
    series, text = series_of(table), page.encode() if isinstance(page, str) else page
    found = _found(text, [name for names in series.values() for name in names])
    result: dict[str, float] = {}
    for ours, names in series.items():
        numbers = next((found[name] for name in names if name in found), [None])
        good = [number for number in numbers if number is not None]
        if len(good) == len(numbers):
            result[ours] = sum(good) / (len(good) if ours == "kv_cache_usage" else 1)
    bad = next((f"not a number: {name}" for name, numbers in found.items() if None in numbers), "")
    return result, bad or ("its last line is cut off" if found and not text.endswith(b"\n") else "")


def _found(page: bytes, names: list[str]) -> dict[str, list[float | None]]:
    """The values of all labels of these names. Their lines are chosen first: a page may have a thousand others."""
    beginnings = tuple(f"{name}{mark}".encode() for name in names for mark in "{ ")
    found: dict[str, list[float | None]] = {}
    for line in page.splitlines(keepends=True):
        if line.startswith(beginnings):
            name = line.partition(b" ")[0].partition(b"{")[0].decode()
            found.setdefault(name, []).append(_value(line))
    return found


def _value(line: bytes) -> float | None:
    """The number of a line of Prometheus' text format. None if it is not one, or half a line."""
    try:
        (family,) = text_string_to_metric_families(line.decode())
        value = float(family.samples[0].value)
    except (ValueError, LookupError):
        return None
    return value if isfinite(value) and line.endswith(b"\n") else None


class Scraper(Thread):
    """Asks one replica for its metrics until it is stopped.

    `put` takes values by our names and their time (ns of CLOCK_REALTIME), `remark` what was wrong, in a few words.
    A page that keeps failing is asked for rarely. A redirect is followed within its host alone, since headers may
    hold a key.
    """

    def __init__(
        self, engine: Engine, put: Callable[[Mapping[str, float], int], None], remark: Callable[[str], None]
    ) -> None:
        super().__init__(daemon=True)
        self.url, self.headers, self.table = engine.url, engine.headers, engine.metrics
        self.put, self.remark = put, remark
        self._tls: ssl.SSLContext | None = None
        self._sock: socket.socket | None = None
        self._ended = Event()
        self._failures = 0
        self._before: dict[str, float] = {}

    def run(self) -> None:
        while not self._ended.wait(self._wait_s()):
            self.scrape()
        if not self._failures:
            self.scrape()  # so that counters are known up to the end
        self.close()

    def stop(self) -> None:
        """Ends soon; `join` waits for it."""
        self._ended.set()

    def _wait_s(self) -> float:
        period = PERIOD_S if self._failures < FAILURES else RARE_PERIOD_S
        return period - time.monotonic() % period

    def scrape(self) -> None:
        """Ask once, and hand on what came."""
        began_ns = time.time_ns()
        found: dict[str, float] = {}
        try:
            page = self._page(time.monotonic() + DEADLINE_S)
            at_ns = (began_ns + time.time_ns()) // 2
            found, wrong = values(page, self.table)
            if not found:
                wrong = wrong or ("no metric that is known" if b"# TYPE " in page else "not metrics")
            elif any(found[name] < self._before.get(name, 0.0) for name in found if name not in GAUGES):
                wrong = wrong or RESTARTED
            self._before |= found
        except Exception as error:  # whatever a server does, the sampler goes on
            self.close()
            wrong = _reason(error)
        self._failures = 0 if found else self._failures + 1
        if found:
            self.put(found, at_ns)
        if wrong:
            self.remark(wrong)

    def _page(self, end: float) -> bytes:
        """A connection that was idle may have been closed by the server; then it is asked on another one."""
        if self._sock:
            try:
                return self._ask(self._sock, end)
            except ConnectionError:
                self.close()
        self._sock = self._connect(end)
        return self._ask(self._sock, end)

    def _connect(self, end: float) -> socket.socket:
        parts = urlsplit(self.url)
        tls = parts.scheme == "https"
        address = (parts.hostname or "", parts.port or (443 if tls else 80))
        sock = socket.create_connection(address, timeout=_left_s(end))
        if not tls:
            return sock
        self._tls = self._tls or ssl.create_default_context()
        sock.settimeout(_left_s(end))
        return self._tls.wrap_socket(sock, server_hostname=parts.hostname)

    def _ask(self, sock: socket.socket, end: float) -> bytes:
        """The body of a good answer. Raises HttpError, OSError."""
        parts = urlsplit(self.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        ours = {"Host": parts.netloc.rpartition("@")[2], "Accept": "text/plain"}
        lines = [f"{name}: {value}\r\n" for name, value in merge_headers(ours, dict(self.headers)).items()]
        sock.sendall(f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1"))
        answer = _read(sock, end)
        if not answer.keep_alive():
            self.close()
        if 300 <= answer.status < 400:
            self._follow(answer.headers.get(b"location", b"").decode("latin-1"))
        if answer.status != 200:
            raise HttpError(f"status {answer.status}")
        return answer.whole()

    def _follow(self, location: str) -> None:
        there = urljoin(self.url, location)
        if urlsplit(there)[:2] == urlsplit(self.url)[:2]:  # scheme and host
            self.url = there

    def close(self) -> None:
        if self._sock:
            self._sock.close()
        self._sock = None


def _read(sock: socket.socket, end: float) -> Answer:
    answer, size, complete = Answer(), 0, False
    while not complete:
        sock.settimeout(_left_s(end))
        data = sock.recv(65536)
        size += len(data)
        if size > MAX_BYTES:
            raise HttpError(f"more than {MAX_BYTES / 1e6:.0f} MB")
        if not data and not answer.end_of_stream():
            raise ConnectionResetError(0, "closed before the end of the answer")
        complete = not data or answer.add(Segment(data, 0, 0, False))
    answer.frame()
    answer.release()
    return answer


def _left_s(end: float) -> float:
    left_s = end - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _reason(error: Exception) -> str:
    """Why there are no values, in a few words."""
    if isinstance(error, TimeoutError):
        return f"no answer within {DEADLINE_S:g} s"
    if isinstance(error, OSError):
        return f"no answer: {error.strerror or error}"
    return str(error) if isinstance(error, HttpError) else f"{type(error).__name__}: {error}"
