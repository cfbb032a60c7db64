"""A request and its answer as they go over the wire, and what the log keeps of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servebench.analysis.flaws import flaw_of
from servebench.load import answers
from servebench.load.answers import Reading
from servebench.load.http import Answer
from servebench.load.protocol import STREAMED, Form, Job
from servebench.log.result import Phase, Result

if TYPE_CHECKING:
    from servebench.load.http2 import Http2Answer


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer; of several attempts the last answer, timed from the first attempt."""

    job: Job
    phase: Phase
    client: int
    server: int
    answer: Answer | Http2Answer
    sent_ns: int  # just before its last byte was handed to the kernel; before that, when it was started
    due_ns: int = 0  # when it should have left
    late_ns: int = 0  # from due to sent
    ended_ns: int = 0  # of a request without a whole answer: when it was given up
    connect_ns: int = 0
    resent: int = 0
    retries: int = 0
    error: str | None = None


def to_result(exchange: Exchange, form: Form, cancelled: bool = False) -> Result:
    """A finished exchange as the log keeps it."""
    job, sent_ns = exchange.job, exchange.sent_ns
    reading = answers.read(exchange.answer, form)
    segments, at = exchange.answer.segments, reading.segments
    stamps, earliest = segments.stamp_ns, segments.earliest_ns
    merged = [(i, max(0, earliest[s] - sent_ns)) for i, s in enumerate(at[:-1]) if at[i + 1] == s]
    usage, times = reading.usage, reading.times
    details = usage.prompt_tokens_details if usage else None
    error = _error_of(exchange, reading, cancelled)
    prompt_tokens = (usage.prompt_tokens if usage else 0) or job.prompt_tokens
    return Result(
        id=job.id,
        phase=exchange.phase,
        client=exchange.client,
        server=exchange.server,
        prompt_tokens=prompt_tokens,
        asked_prompt_tokens=job.prompt_tokens if job.prompt_tokens != prompt_tokens else None,
        max_new_tokens=job.max_new_tokens,
        generated_tokens=reading.generated,
        token_source=reading.token_source,
        reasoning_tokens=usage.reasoning() if usage else None,
        cached_tokens=details.cached_tokens if details else None,
        queue_s=times.queue_s() if times else None,
        prefill_s=times.prefill_s() if times else None,
        scheduled_ns=job.scheduled_ns,
        sent_ns=sent_ns,
        event_ns=[stamps[s] - sent_ns for s in at],
        event_tokens=reading.tokens,
        merged=merged,
        streamed=form in STREAMED,
        first_answer_event=reading.first_answer_event,
        texts=reading.texts if reading.token_source == "events" or job.keeps_text else [],
        logprobs=list(reading.logprobs) if job.keeps_text else [],
        flaw="" if error or cancelled else flaw_of(reading.texts),
        finish_reason="cancelled" if cancelled else reading.finish_reason,
        ended_ns=max(0, exchange.ended_ns - sent_ns) if error or cancelled else None,
        status=exchange.answer.status,
        connect_ns=exchange.connect_ns,
        resent=exchange.resent,
        retries=exchange.retries,
        error=error,
    )


def _error_of(exchange: Exchange, reading: Reading, cancelled: bool) -> str | None:
    """Why the request failed: the server's own words, else ours. One that was cancelled had no time to fail."""
    if cancelled:
        return exchange.error
    return reading.error if reading.from_server else exchange.error or reading.error
