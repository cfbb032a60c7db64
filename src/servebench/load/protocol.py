"""What the parent and a load process say to each other: the task, the shared counters, the report."""

from __future__ import annotations

import msgspec

from servebench.load.answers import Form
from servebench.records import Phase

CONNECT, WARM_UP, MEASURE, STOP = range(4)  # phases, set by the parent
SPARE_CONNECTIONS = 4  # an open loop keeps that many open to each server, or an eighth of those in use
PHASE, START, FIRST_WORKER, SLOTS = (
    0,
    1,
    8,
    8,
)  # int64 slots of the shared file: phase, start (ns), a block a worker
CONNECTED, WARMED, DONE, FAILED, IN_FLIGHT, EVENTS = range(6)  # in a worker's block


class Job(msgspec.Struct, frozen=True):
    """One request to send."""

    id: int
    body: bytes
    prompt_tokens: int
    max_new_tokens: int
    conversation: int  # jobs of one follow each other in a list, and are sent in turn by one client
    think_ns: int = 0  # after the conversation's last answer
    scheduled_ns: int | None = None  # open loop


class Pace(msgspec.Struct, frozen=True):
    """When a worker's requests leave, in an open loop: ns after the start that the parent sets."""

    warmup_ns: list[int]
    counted_ns: list[int]
    hold_ns: list[int]
    hold_span_ns: int  # after which those of hold_ns come again
    most_in_flight: int | None  # more requests wait
    phase: Phase | None = None  # of all requests, whatever their time
    awake_ns: int = 0  # before each of them, that its worker spends without sleep


class Task(msgspec.Struct, frozen=True):
    """What one worker does."""

    number: int
    tag: str  # of the point, which makes the ids in X-Request-Id unlike those of any other point
    folder: str  # of the shared file `control` and of what this worker writes: part, lag, report
    urls: list[str]
    headers: dict[str, str]
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
    unstamped_reads: int
    events: int
