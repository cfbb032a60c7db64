"""How far a point's client can be trusted, from the client's own record of itself.

With kernel stamps a late client does not move a time; it merges events, and it is late with the next request.
So these are what the verdict asks about, not CPU: at 40 % CPU a client can be late and at 90 % in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from servebench import metrics
from servebench.records import Quality, Result

CLOCK_STEP_S = 100e-6  # a change of the wall clock that voids a point
UNSTAMPED_SHARE = 0.01
LAG_S = 1e-3  # p99 of the lag above which merged events may be our own doing
DOUBT_S, DOUBT_SHARE = 1e-4, 0.002  # by which what merged events leave open may move TTFT; ITL by five times that
DOUBTED = {"ttft_mean_s": 1, "ttft_p99_s": 1, "itl_p50_s": 5, "itl_p99_s": 5}
LATE_SHARE = 0.02  # of the requests' duration that may pass between one request's end and the next's start
LATE_S = 1e-3  # p99 of that from schedule to send, in an open loop
GROWTH_SHARE = 0.05  # of the arrivals that stay behind where a server does not keep up
LOOKS = 64  # at the requests in flight over a window


@dataclass(frozen=True)
class Evidence:
    """What the load processes and their parent noted during the measured phase. Arrays in ns."""

    lag_ns: np.ndarray
    send_late_ns: np.ndarray
    unstamped_reads: int
    worker_cpu_s: list[float]
    worker_cpu_share: list[float]
    host_cpu_share: float | None
    clock_step_s: float


def judge(results: list[Result], window_ns: tuple[int, int], asked: int, evidence: Evidence) -> Quality:
    """The quality record of a point; `asked` is its number of clients."""
    measured = [r for r in results if r.phase == "measured"]
    events = sum(len(r.event_ns) for r in measured)
    lag, late = evidence.lag_ns / 1e9, evidence.send_late_ns / 1e9
    connects = [r.connect_ns / 1e9 for r in measured if r.connect_ns]
    open_loop = any(r.scheduled_ns is not None for r in measured)
    quality = {
        "lag_p50_s": _percentile(lag, 50),
        "lag_p99_s": _percentile(lag, 99),
        "lag_max_s": _percentile(lag, 100),
        "reads": len(lag),
        "merged_share": sum(len(r.merged) for r in measured) / events if events else 0.0,
        "unstamped_share": evidence.unstamped_reads / len(lag) if len(lag) else 0.0,
        "send_late_p99_s": _percentile(late, 99),
        "asked_concurrency": float(asked),
        "achieved_concurrency": metrics.concurrency(results, window_ns),
        "worker_cpu_share": evidence.worker_cpu_share,
        "cpu_per_event_s": sum(evidence.worker_cpu_s) / len(lag) if len(lag) else None,
        "host_cpu_share": evidence.host_cpu_share,
        "clock_step_s": evidence.clock_step_s,
        "connect_p50_s": _percentile(np.array(connects), 50),
        "overloaded": open_loop and growing(outstanding(results, window_ns), len(measured)),
    }
    draft = Quality(**quality)  # type: ignore[arg-type]
    return Quality(**quality, verdict=_verdict(draft, measured, late, open_loop))  # type: ignore[arg-type]


def _percentile(values: np.ndarray, q: float) -> float | None:
    return float(np.percentile(values, q)) if len(values) else None


def outstanding(results: list[Result], window_ns: tuple[int, int]) -> np.ndarray:
    """Requests that should have left and have not ended, at LOOKS moments of the window. Shape (LOOKS,)."""
    arrived = np.sort([r.sent_ns if r.scheduled_ns is None else r.scheduled_ns for r in results])
    ended = np.sort([metrics.end_ns(r) for r in results if r.finish_reason != "cancelled"])
    at = np.linspace(*window_ns, LOOKS)
    return np.asarray(np.searchsorted(arrived, at) - np.searchsorted(ended, at))


def growing(in_flight: np.ndarray, arrivals: int, strictness: float = 1.0) -> bool:
    """Did the requests in flight grow all through? Over the last three quarters of a window with so many arrivals.

    Each quarter has a higher mean than the one before; the growth is more than chance (two deviations of a Poisson
    count, which is what a stable server of many slots has in flight) and than a share of the arrivals meanwhile.
    """
    if len(in_flight) < 8:
        return False
    _, second, third, fourth = (float(np.mean(quarter)) for quarter in np.array_split(in_flight, 4))
    least = max(2 * max(second, 1.0) ** 0.5, GROWTH_SHARE * arrivals / 2)
    return second < third < fourth and fourth - second > strictness * least


def _verdict(quality: Quality, measured: list[Result], late_s: np.ndarray, open_loop: bool) -> str:
    durations = [r.event_ns[-1] / 1e9 for r in measured if r.event_ns and not r.error]
    late = (quality.send_late_p99_s or 0.0) > LATE_S
    if not open_loop:
        late = bool(durations) and len(late_s) > 0 and late_s.mean() > LATE_SHARE * float(np.mean(durations))
    faults = [
        (quality.clock_step_s > CLOCK_STEP_S, "the host's clock stepped; measure again"),
        (quality.unstamped_share > UNSTAMPED_SHARE, "times without kernel stamps; run the client on Linux"),
        (
            _bounds_too_wide(measured, quality.lag_p99_s or 0.0),
            "it read too late to tell tokens apart; more --num_workers or a free core",
        ),
        (late, "late with its requests; more --num_workers or a free core"),
    ]
    found = [why for fault, why in faults if fault]
    return "client-limited: " + "; ".join(found) if found else "ok"


def _bounds_too_wide(measured: list[Result], lag_p99_s: float) -> bool:
    """Would TTFT or ITL be others if merged events had come as early as they can have, by our fault?

    A client that always wakes up in time would have seen the first of several events alone, had it come earlier:
    where the lag is small it was the server, or the network, that put them together.
    """
    if lag_p99_s < LAG_S or not any(r.merged for r in measured):
        return False
    answered = [r for r in measured if r.event_ns]
    stamped = metrics.timing_statistics([r.event_ns for r in answered])
    spread = metrics.timing_statistics([_spread(r) for r in answered])
    return any(
        abs(stamped[name] - spread[name]) > factor * max(DOUBT_S, DOUBT_SHARE * stamped[name])
        for name, factor in DOUBTED.items()
    )


def _spread(r: Result) -> list[int]:
    """Event times with those of one read spread evenly, from the earliest that is possible to their stamp."""
    at = list(r.event_ns)
    for stamp, together in groupby(r.merged, key=lambda event: r.event_ns[event[0]]):
        merged = list(together)
        first, floor = merged[0]
        floor = max(floor, at[first - 1] if first else 0)
        for k, (i, _) in enumerate(merged):
            at[i] = floor + (stamp - floor) * k // len(merged)
    return at
