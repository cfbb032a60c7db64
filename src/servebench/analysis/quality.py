"""How far a point's client can be trusted, from the client's own record of itself.

With kernel stamps a late client does not move a time; it merges events, and it is late with the next request.
So the verdict asks what these may have changed, not about CPU: at 40 % CPU a client can be late and at 90 % in
time. CPU tells only what would help: a client that had hardly anything to do was kept from its core.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import msgspec
import numpy as np

from servebench.analysis import latency, stats, throughput
from servebench.log.result import Result
from servebench.log.schema import Quality

CLOCK_STEP_S = 100e-6  # a change of the wall clock that voids a point
UNSTAMPED_SHARE = 0.01
LAG_S = 1e-3  # p99 of the lag above which merged events may be our own doing
DOUBT_S, DOUBT_SHARE = 1e-4, 0.002  # by which what merged events leave open may move TTFT; ITL by five times that
DOUBTED = {"ttft_mean_s": 1, "ttft_p99_s": 1, "itl_p50_s": 5, "itl_p99_s": 5}
LATE_SHARE = 0.02  # of throughput (closed loop) or of TTFT from schedule (open loop) that late sends may change
BUSY_SHARE = 0.25  # of a core, below which it was not the client's work that made it late
GROWTH_SHARE = 0.05  # of the arrivals that stay behind where a server does not keep up
MOMENTS = 64  # of a window, at which the requests in flight are counted


@dataclass(frozen=True)
class Evidence:
    """What the load processes and their parent noted during the measured phase. Arrays in ns."""

    lag_ns: np.ndarray
    send_late_ns: np.ndarray
    late_ids: np.ndarray  # of the requests that were so late
    unstamped_reads: int
    worker_cpu_s: list[float]
    worker_cpu_share: list[float]
    clock_step_s: float


def judge(results: list[Result], window_ns: tuple[int, int], asked: int, evidence: Evidence) -> Quality:
    """The quality record of a point; `asked` is its number of clients."""
    measured = [r for r in results if r.phase == "measured"]
    events = sum(len(r.event_ns) for r in measured)
    read = sum(len(r.event_ns) - bisect_right(r.event_ns, window_ns[0] - r.sent_ns) for r in results)
    lag, late = evidence.lag_ns / 1e9, evidence.send_late_ns / 1e9
    connects = [r.connect_ns / 1e9 for r in measured if r.connect_ns]
    open_loop = any(r.scheduled_ns is not None for r in measured)
    quality = Quality(
        lag_p50_s=stats.percentile(lag, 50),
        lag_p99_s=stats.percentile(lag, 99),
        lag_max_s=stats.percentile(lag, 100),
        reads=len(lag),
        merged_share=sum(len(r.merged) for r in measured) / events if events else 0.0,
        unstamped_share=evidence.unstamped_reads / len(lag) if len(lag) else 0.0,
        send_late_p99_s=stats.percentile(late, 99),
        asked_concurrency=float(asked),
        achieved_concurrency=throughput.concurrency(results, window_ns),
        worker_cpu_share=evidence.worker_cpu_share,
        cpu_per_event_s=sum(evidence.worker_cpu_s) / read if read else None,
        clock_step_s=evidence.clock_step_s,
        connect_p50_s=stats.percentile(np.array(connects), 50),
        overloaded=open_loop and growing(outstanding(results, window_ns), len(measured)),
    )
    late_s = dict(zip(evidence.late_ids.tolist(), late.tolist(), strict=True))
    return msgspec.structs.replace(quality, verdict=_verdict(quality, measured, late_s, open_loop))


def outstanding(results: list[Result], window_ns: tuple[int, int]) -> np.ndarray:
    """Requests that should have left and have not ended, at MOMENTS moments of the window. Shape (MOMENTS,)."""
    arrived = np.sort([r.sent_ns if r.scheduled_ns is None else r.scheduled_ns for r in results])
    ended = np.sort([latency.end_ns(r) for r in results if not r.cancelled])
    at = np.linspace(*window_ns, MOMENTS)
    return np.asarray(np.searchsorted(arrived, at) - np.searchsorted(ended, at))


def growing(in_flight: np.ndarray, arrivals: int, strictness: float = 1.0) -> bool:
    """Did the requests in flight grow all through? Over the last three quarters of a window with so many arrivals.

    Each quarter has a higher mean than the one before; the growth is more than chance (two deviations of a Poisson
    count, which is what a stable server of many slots has in flight) and than a share of the arrivals meanwhile.
    """
    if len(in_flight) < 8:
        return False
    _, second, third, fourth = (float(np.mean(quarter)) for quarter in np.array_split(in_flight, 4))
    chance = max(2 * max(second, 1.0) ** 0.5, GROWTH_SHARE * arrivals / 2)
    return second < third < fourth and fourth - second > strictness * chance


def _verdict(quality: Quality, measured: list[Result], late_s: dict[int, float], open_loop: bool) -> str:
    done = [r for r in measured if r.succeeded]
    changed = _changed_by_lateness(done, np.array([late_s.get(r.id, 0.0) for r in done]), open_loop)
    too_late = _bounds_too_wide(measured, quality.lag_p99_s or 0.0)
    faults = [
        (quality.clock_step_s > CLOCK_STEP_S, "the host's clock stepped; measure again"),
        (quality.unstamped_share > UNSTAMPED_SHARE, "times without kernel stamps; run the client on Linux"),
        (too_late, "it read too late to tell tokens apart"),
        (changed is not None, f"late with its requests, {changed}"),
        (too_late or changed is not None, _remedy(max(quality.worker_cpu_share, default=0.0))),
    ]
    found = [why for fault, why in faults if fault]
    return "client-limited: " + "; ".join(found) if found else "ok"


def _changed_by_lateness(done: list[Result], late_s: np.ndarray, open_loop: bool) -> str | None:
    """By how much requests that left late changed a result, if by more than LATE_SHARE.

    In a closed loop a client that is late asks for less. In an open loop the wait is part of TTFT from schedule;
    of an answer that came whole, of its latency.
    """
    if not done:
        return None
    if not open_loop:
        share = late_s.mean() / (late_s.mean() + np.mean([latency.e2e_s(r) for r in done]))
        return f"throughput {share:.1%} lower" if share > LATE_SHARE else None
    felt_s = np.array([r.event_ns[0] / 1e9 + latency.schedule_wait_s(r) for r in done])
    felt, in_time = ((values.mean(), *np.percentile(values, [50, 99])) for values in (felt_s, felt_s - late_s))
    longer = [(a - b) / max(b, DOUBT_S / LATE_SHARE) for a, b in zip(felt, in_time, strict=True)]
    name, share = max(zip(("mean", "p50", "p99"), longer, strict=True), key=itemgetter(1))
    return f"TTFT {name} from schedule {share:.1%} longer" if share > LATE_SHARE else None


def _remedy(busiest: float) -> str:
    if busiest >= BUSY_SHARE:
        return "more --num_workers or a free core"
    idle = f"at {busiest:.0%} CPU it was kept from its core"
    return f"{idle}; more --num_workers do not help, a quieter machine does"


def _bounds_too_wide(measured: list[Result], lag_p99_s: float) -> bool:
    """Would TTFT or ITL be others if merged events had come as early as they can have, by our fault?

    A client that always wakes up in time would have seen the first of several events alone, had it come earlier:
    where the lag is small it was the server, or the network, that put them together.
    """
    if lag_p99_s < LAG_S or not any(r.merged for r in measured):
        return False
    answered = [r for r in measured if r.event_ns]
    stamped = latency.timing_statistics([r.event_ns for r in answered])
    spread = latency.timing_statistics([_spread(r) for r in answered])
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
