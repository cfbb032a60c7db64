"""What engines say of themselves on /metrics while requests run: asked for twice a second, a few values kept.

This runs inside the sampler, which must start fast: no numpy here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import Request

import msgspec

from servebench.servers.http_call import opener
from servebench.servers.metrics_page import readings

GAUGES = ("running", "waiting", "kv_cache_usage")
HISTOGRAMS = ("queue_s", "prefill_s", "ttft_s")  # of each, its sum and count: `queue_s_sum`, `queue_s_count`
PERIOD_S, RARE_PERIOD_S = 0.5, 5.0
FAILURES = 10  # one after another, from which on a page is asked for rarely
DEADLINE_S, MAX_BYTES = 1.0, 4_000_000


class Engine(msgspec.Struct, frozen=True):
    """The metrics of a replica: where, how to ask, and our names -> those of the engine, the best first."""

    url: str
    headers: dict[str, str]
    metrics: dict[str, tuple[str, ...]]


def values(page: bytes, table: Mapping[str, Sequence[str]]) -> tuple[dict[str, float], str]:
    """(what a page says, by our names; what was wrong with it, or ""). A page that is cut off says nothing.

    Values of several labels (engines, ranks) are summed, those of kv_cache_usage averaged.
    """
    found, result = readings(page), {}
    for ours in table:
        for part in ("_sum", "_count") if ours in HISTOGRAMS else ("",):
            numbers = next((found[name + part] for name in table[ours] if name + part in found), None)
            if numbers:
                result[ours + part] = sum(numbers) / (len(numbers) if ours == "kv_cache_usage" else 1)
    if not result or not page.endswith(b"\n"):
        return {}, "its last line is cut off" if result else "no metric that is known"
    bad = [name for name, value in result.items() if not isfinite(value)]
    return {name: result[name] for name in result if name not in bad}, f"not a number: {bad[0]}" if bad else ""


class Scraper(Thread):
    """Asks one replica for its metrics until it is stopped; rarely where that keeps failing.

    `put` takes values by our names and their time (ns of CLOCK_REALTIME), `remark` what was wrong, in a few words.
    """

    def __init__(
        self, engine: Engine, put: Callable[[Mapping[str, float], int], None], remark: Callable[[str], None]
    ) -> None:
        super().__init__(daemon=True)
        self.engine, self.put, self.remark = engine, put, remark
        self._ended = Event()
        self._failures = 0
        self._before: dict[str, float] = {}

    def run(self) -> None:
        while not self._ended.wait(self._wait_s()):
            self.scrape()
        if not self._failures:
            self.scrape()  # so that counters are known up to the end

    def stop(self) -> None:
        """Ends soon; `join` waits for it."""
        self._ended.set()

    def _wait_s(self) -> float:
        period = PERIOD_S if self._failures < FAILURES else RARE_PERIOD_S
        return period - time.monotonic() % period

    def scrape(self) -> None:
        """Ask once, and hand on what came."""
        began_ns = time.time_ns()
        try:
            found, wrong = values(_page(self.engine), self.engine.metrics)
        except Exception as error:  # whatever a server does, the sampler goes on
            found, wrong = {}, _reason(error)
        if any(found[name] < self._before.get(name, 0.0) for name in found if name not in GAUGES):
            wrong = wrong or "the server restarted: its counters fell"
        self._before |= found
        self._failures = 0 if found else self._failures + 1
        if found:
            self.put(found, (began_ns + time.time_ns()) // 2)
        if wrong:
            self.remark(wrong)


def _page(engine: Engine) -> bytes:
    page, end = b"", time.monotonic() + DEADLINE_S
    with opener.open(Request(engine.url, headers=engine.headers), timeout=DEADLINE_S) as answer:
        while data := answer.read1(1 << 16):
            page += data
            if len(page) > MAX_BYTES:
                raise OSError(f"more than {MAX_BYTES / 1e6:.0f} MB")
            if time.monotonic() > end:
                raise TimeoutError
    return page


def _reason(error: Exception) -> str:
    """Why there are no values, in a few words."""
    if isinstance(error, HTTPError):
        return f"status {error.code}"
    cause = getattr(error, "reason", error)  # of urllib
    if isinstance(cause, TimeoutError):
        return f"no answer within {DEADLINE_S:g} s"
    words = str(cause) if isinstance(cause, OSError) else type(cause).__name__  # others may repeat a key
    return f"no metrics: {getattr(cause, 'strerror', None) or words}"
