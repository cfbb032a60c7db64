"""What the parent and a load process tell each other: the task, the shared counters, the report.

The shared file holds int64 slots: first those that the parent sets for all, then a block for each worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Literal

import msgspec

from servebench.log.result import Phase

# How an answer comes: streamed, as one object, as Azure ML's score, or as gRPC messages of DeepSpeed-MII (streamed
# or as one).
Form = Literal["events", "object", "score", "mii", "mii_whole"]
STREAMED: tuple[Form, ...] = ("events", "mii")

# What the parent sets.
PHASE = 0
CONNECT, WARM_UP, MEASURE, STOP = range(4)  # its values
START_NS = 1  # when arrivals start
# Of an open loop, which reads these four together; WINDOW_NS is set last.
WINDOW_NS = 2  # when measured requests begin; 0: not yet known
GAP_FILLER_ARRIVALS = 3  # how many arrivals of the gap filler come before
LEAD_IN_ARRIVALS = 4  # how many arrivals lead in to the window
LEAD_IN_NS = 5  # and for how long

# What a worker sets in its block. ENDED, WAITS, STAMPS and SERVERS are the ledger's (ledger.py).
FIRST_BLOCK = 8
CONNECTED, WARMED, DONE, FAILED, IN_FLIGHT, EVENTS, CHECKED, ENDED, WAITS, STAMPS = range(10)
STAMPS_IN_RING = 64
# How many measured requests had their first token, and a pause per token after it, after about so long; of answers
# that came whole, how long these took. For the live line: the log has the times themselves.
TIMES = 640
TTFTS = STAMPS + STAMPS_IN_RING
TPOTS = TTFTS + TIMES
SERVERS = TPOTS + TIMES

SPARE_CONNECTIONS = 4  # an open loop keeps that many open to each server, or an eighth of those in use


def slots(servers: int) -> int:
    """Size of a worker's block."""
    return SERVERS + servers


def kind_of_time(ns: int) -> int:
    """Which of TIMES a time belongs to: 16 an octave, so that it is known to 3 %."""
    bits = max(5, ns.bit_length())
    return min(TIMES - 1, 16 * (bits - 5) + (ns >> (bits - 5)) % 16)


def time_of_kind(kind: int) -> float:
    """In ns: the middle of those that belong to it."""
    return (16.5 + kind % 16) * 2.0 ** (kind // 16)


class Job(msgspec.Struct, frozen=True):
    """One request to send."""

    id: int
    body: bytes
    prompt_tokens: int
    max_new_tokens: int
    conversation: int  # its jobs follow each other in a list, and one client sends them in turn
    think_ns: int = 0  # pause after the conversation's last answer; of a filler after its own answer
    keeps_text: bool = False  # is the text of its answer to be looked at?
    scheduled_ns: int | None = None  # open loop


class Arrivals(msgspec.Struct, frozen=True):
    """A worker's share of one stream of arrivals: every step-th, from the first-th on."""

    at_ns: list[int]
    first: int
    step: int
    total: int  # of all workers
    span_ns: int = 0  # after which they come again


class Pace(msgspec.Struct, frozen=True):
    """When a worker's requests leave, in an open loop."""

    warmup: Arrivals  # after the start that the parent sets
    gap_filler: Arrivals  # likewise; it goes on until the parent opens the window
    measured: Arrivals  # after the window opened
    cooldown: Arrivals  # likewise
    period_ns: int  # after which the measured arrivals would come again; the lead-in repeats them backwards
    max_in_flight: int | None  # of all workers together; more requests wait
    phase: Phase | None = None  # of all requests, whatever their time
    spin_ns: int = 0  # before each arrival, that its worker waits without sleep


class Task(msgspec.Struct, frozen=True):
    """What one worker does."""

    number: int
    peers: list[int]  # numbers of the workers that share the open loop, this one too
    wake_fds: list[int]  # an eventfd of each peer, to wake it when there is a place; empty with one worker
    lock_fd: int  # locked while a worker chooses a server; -1 with one worker
    tag: str  # of the point: makes the ids in X-Request-Id unlike those of any other point
    folder: str  # of the shared file `control` and of what this worker writes: part, lag, report
    urls: list[str]
    headers: dict[str, str]
    secrets: list[str]  # in headers and bodies, that no log may repeat
    clients: list[tuple[int, int]]  # (client, server) numbers; in an open loop those that connect beforehand
    client_step: int  # open loop: from the number of one client to that of the next
    pace: Pace | None  # None: a closed loop
    warmup: int
    form: Form
    request_timeout_s: float
    max_retries: int
    measured: list[Job]
    filler: list[Job]  # requests around the measured ones, which keep the server under load
    filler_ids: tuple[int, int]  # first id and step, so that no two workers use one twice
    checks_per_request: float = 0.0  # questions that it asks for each request of its peers

    def fillers(self) -> Iterator[Job]:
        """Filler requests, again and again, each time with a fresh id."""
        first, step = self.filler_ids
        for n in count():
            yield msgspec.structs.replace(self.filler[n % len(self.filler)], id=first + step * n)

    def counters(self, shared: memoryview, worker: int) -> memoryview:
        """The block of this worker in the shared file."""
        size = slots(len(self.urls))
        return shared[FIRST_BLOCK + worker * size :][:size]


class Report(msgspec.Struct, frozen=True):
    """What a worker says of itself at its end, about the measured phase."""

    cpu_s: float  # without waits that did not sleep
    wall_s: float
    send_late_ns: list[int]
    late_ids: list[int]  # ids of the requests in send_late_ns
    unstamped_reads: int
