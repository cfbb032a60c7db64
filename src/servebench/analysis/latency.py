"""Times of one request, s; None is what its record cannot tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from servebench.log.result import Result


def ttft_s(r: Result) -> float | None:
    """Time to first token: first content event - sent, of every streamed answer, also one of a single event."""
    return r.event_ns[0] / 1e9 if r.streamed and r.event_ns else None


def time_to_first_answer_token_s(r: Result) -> float | None:
    """First content event that is not reasoning - sent, of a streamed answer; None where all was reasoning."""
    at = r.first_answer_event
    return r.event_ns[at] / 1e9 if r.streamed and at is not None and r.event_ns else None


def ttft_from_schedule_s(r: Result) -> float | None:
    """TTFT as a user feels it (s): first content event - when the request should have left (open loop)."""
    first = ttft_s(r)
    return None if first is None or r.scheduled_ns is None else first + schedule_wait_s(r)


def e2e_s(r: Result) -> float:
    """End-to-end latency: last content event - sent."""
    return r.event_ns[-1] / 1e9


def e2e_from_schedule_s(r: Result) -> float | None:
    """End-to-end latency from when the request should have left (open loop), s."""
    return None if r.scheduled_ns is None else e2e_s(r) + schedule_wait_s(r)


def tpot_s(r: Result) -> float | None:
    """Time per output token after the first event: (last - first event) / tokens of the events after the first."""
    rest = shown_tokens(r) - r.event_tokens[0]
    return (r.event_ns[-1] - r.event_ns[0]) / 1e9 / rest if rest > 0 else None


def itl_s(r: Result) -> np.ndarray:
    """Inter-token latencies: gaps between successive content events of one request. Shape (events - 1,)."""
    return np.diff(r.event_ns) / 1e9


def interactivity_per_s(r: Result) -> float | None:
    """1 / TPOT: tokens/s that a user sees."""
    tpot = tpot_s(r)
    return 1 / tpot if tpot else None


def end_ns(r: Result) -> int:
    """When the request ended (ns of CLOCK_REALTIME): its last content event, or the time that it was given up."""
    return r.sent_ns + (r.ended_ns if r.ended_ns is not None else r.event_ns[-1] if r.event_ns else 0)


def schedule_wait_s(r: Result) -> float:
    """Open loop: sent - scheduled, which every latency from schedule has on top of that from send. Else 0."""
    return 0.0 if r.scheduled_ns is None else (r.sent_ns - r.scheduled_ns) / 1e9


def shown_tokens(r: Result) -> int:
    """Tokens that came in events: all that were generated, without reasoning that stayed hidden."""
    return sum(r.event_tokens) if r.reasoning_tokens else r.generated_tokens


def timing_statistics(requests: Sequence[Sequence[int]]) -> dict[str, float]:
    """Mean, p50 and p99 of TTFT and of pooled ITL, s, from each request's event times (ns since it was sent).

    For calibration and quality, which compare a log's times with times that are in no log. Needs one request
    or more; where no request has gaps, those of ITL are 0.
    """
    first = np.array([events[0] for events in requests]) / 1e9
    gaps = np.concatenate([np.diff(events) for events in requests]) / 1e9
    values: dict[str, float] = {}
    for name, sample in (("ttft", first), ("itl", gaps if len(gaps) else np.zeros(1))):
        p50, p99 = np.percentile(sample, [50, 99])
        values |= {
            f"{name}_mean_s": float(sample.mean()),
            f"{name}_p50_s": float(p50),
            f"{name}_p99_s": float(p99),
        }
    return values
