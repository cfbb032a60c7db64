"""What an engine's own counters say of its prefix cache, read from /metrics before and after a point."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from servebench.log.urls import beside
from servebench.servers.launch import call


class Counters(NamedTuple):
    """Prompt tokens that were found in the cache, and that were looked for, since the servers started."""

    hits: float
    queries: float


def read_counters(urls: Sequence[str], names: tuple[str, str], headers: Mapping[str, str]) -> Counters | None:
    """Summed over servers; None where one has no such counters."""
    pages = []
    for url in urls:
        with suppress(OSError):
            pages.append(call(beside(url, "/metrics"), headers, timeout_s=10).decode(errors="replace"))
    hits, queries = (_values("\n".join(pages), name) for name in names)
    return Counters(sum(hits), sum(queries)) if len(pages) == len(urls) and hits and queries else None


def _values(page: str, name: str) -> list[float]:
    """Of a counter in Prometheus' text format, whatever its labels."""
    found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})?\s+([-+.\deE]+)", page, re.MULTILINE)
    return [float(value) for value in found]


def hit_rate(before: Counters | None, after: Counters | None) -> float | None:
    """Share of the prompt tokens in between that were found in the cache."""
    if not before or not after or after.queries <= before.queries:
        return None
    return (after.hits - before.hits) / (after.queries - before.queries)
