"""What the parent and a load process say to each other: the task, the shared counters, the report."""

from __future__ import annotations

import msgspec

from servebench.load.answers import Form
from servebench.log.schema import Phase

CONNECT, WARM_UP, MEASURE, STOP = range(4)  # phases, set by the parent
SPARE_CONNECTIONS = 4  # an open loop keeps that many open to each server, or an eighth of those in use
# int64 slots of the shared file: phase; start (ns); of an open loop, when its counted requests begin (ns; 0: not
# yet known), how many arrivals of its bridge come before, how many lead the window in and for how long (ns); then
# a block a worker.
PHASE, START, OPENS, BRIDGED, LED_IN, LEAD_NS, FIRST_WORKER = 0, 1, 2, 3, 4, 5, 8
# In a worker's block. ENDED, WAITS, STAMPS and SERVERS are the ledger's (ledger.py).
CONNECTED, WARMED, DONE, FAILED, IN_FLIGHT, EVENTS, ENDED, WAITS, STAMPS = range(9)
KEPT_STAMPS = 64
SERVERS = STAMPS + KEPT_STAMPS


def slots(servers: int) -> int:
    """Size of a worker's block."""
    return SERVERS + servers


class Job(msgspec.Struct, frozen=True):
    """One request to send."""

    id: int
    body: bytes
    prompt_tokens: int
    max_new_tokens: int
    conversation: int  # jobs of one follow each other in a list, and are sent in turn by one client
    think_ns: int = 0  # after the conversation's last answer; of a spare one after its own
    scheduled_ns: int | None = None  # open loop


class Part(msgspec.Struct, frozen=True):
    """A worker's share of some arrivals of the one stream: every step-th, from the first-th on."""

    at_ns: list[int]
    first: int
    step: int
    total: int  # of all workers
    span_ns: int = 0  # after which they come again


class Pace(msgspec.Struct, frozen=True):
    """When a worker's requests leave, in an open loop."""

    warmup: Part  # after the start that the parent sets
    bridge: Part  # likewise; they go on until the parent opens the window
    counted: Part  # after the window opened
    hold: Part  # likewise
    turn_ns: int  # after which the counted ones' times come again, where they lead the window in
    most_in_flight: int | None  # of all workers together; more requests wait
    phase: Phase | None = None  # of all requests, whatever their time
    awake_ns: int = 0  # before each of them, that its worker spends without sleep


class Task(msgspec.Struct, frozen=True):
    """What one worker does."""

    number: int
    peers: list[int]  # numbers of the workers that the open loop is shared among, this one too
    wake_fds: list[int]  # of each of them, to say that there is a place; none where there is one worker
    lock_fd: int  # to be the only one that chooses a server; -1 where there is one worker
    tag: str  # of the point, which makes the ids in X-Request-Id unlike those of any other point
    folder: str  # of the shared file `control` and of what this worker writes: part, lag, report
    urls: list[str]
    headers: dict[str, str]
    secrets: list[str]  # among them and in bodies, that no log may repeat
    clients: list[tuple[int, int]]  # (client, server) numbers; in an open loop those that are connected beforehand
    client_step: int  # open loop: from the number of one client to that of the next
    pace: Pace | None  # None: a closed loop
    warmup: int
    form: Form
    request_timeout_s: float
    max_retries: int
    counted: list[Job]
    spare: list[Job]
    spare_ids: tuple[int, int]  # first id and step, so that no two workers use one twice


class Report(msgspec.Struct, frozen=True):
    """What a worker says of itself at its end, over the measured phase."""

    cpu_s: float  # without that of waiting awake
    wall_s: float
    send_late_ns: list[int]
    late_ids: list[int]  # of the requests that were so late
    unstamped_reads: int
