"""Which numbers of a log may decide: one place that every reader asks.

A number that something else than the server made is shown, but it meets no limit, ends no search and wins no
comparison: that of a failed point, of a client that was the limit, of a proxy that gathered the events.
"""

from __future__ import annotations

from servebench.records import Log


def doubt(log: Log, metric: str) -> str | None:
    """Why this metric of the log decides nothing; None if it may. `metric` begins with ttft, tpot, itl, e2e..."""
    if log.status != "ok":
        return "the point failed"
    if log.quality.verdict.startswith("client-limited"):
        return "the client was the limit"
    return None
