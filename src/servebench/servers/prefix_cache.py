"""Hit rate of an engine's prefix cache, by its own counters in /metrics before and after a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from typing import NamedTuple

from servebench.log.urls import beside
from servebench.servers.http_call import call
from servebench.servers.metrics_page import readings


class Counters(NamedTuple):
    """Prompt tokens found in the cache, and prompt tokens looked up, since the servers started."""

    hits: float
    queries: float


def read_counters(urls: Sequence[str], names: tuple[str, str], headers: Mapping[str, str]) -> Counters | None:
    """The counters of these names, summed over servers; None if one cannot be read or no server has them."""
    pages = []
    for url in urls:
        with suppress(OSError):
            pages.append(call(beside(url, "/metrics"), headers, timeout_s=10))
    found = readings(b"\n".join(pages))
    hits, queries = ([value for value in found.get(name, ()) if isfinite(value)] for name in names)
    return Counters(sum(hits), sum(queries)) if len(pages) == len(urls) and hits and queries else None


def hit_rate(before: Counters | None, after: Counters | None) -> float | None:
    """Share (0..1) of the prompt tokens between two readings that were found in the cache; None if unknown."""
    if not before or not after or after.queries <= before.queries:
        return None
    return (after.hits - before.hits) / (after.queries - before.queries)
