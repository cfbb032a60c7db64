"""A request that ended, as it went over the wire, and what the log keeps of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from servebench.load import answers
from servebench.load.http import Answer
from servebench.load.protocol import Job
from servebench.log.schema import Phase, Result

if TYPE_CHECKING:
    from servebench.load.http2 import Http2Answer


class Exchange(NamedTuple):
    """A request that ended, as it went over the wire."""

    job: Job
    phase: Phase
    client: int
    server: int
    late_ns: int
    sent_ns: int
    ended_ns: int  # of a request without a whole answer: when it was given up
    connect_ns: int
    resent: int
    retries: int
    answer: Answer | Http2Answer
    error: str | None


def to_result(exchange: Exchange, form: answers.Form, cancelled: bool = False) -> Result:
    """A finished exchange as the log keeps it."""
    job, sent_ns = exchange.job, exchange.sent_ns
    reading = answers.read(exchange.answer, form)
    stamps, floors, at = exchange.answer.pieces.stamp_ns, exchange.answer.pieces.floor_ns, reading.piece
    merged = [(i, floors[p] - sent_ns) for i, p in enumerate(at[:-1]) if at[i + 1] == p]
    usage = reading.usage
    details = usage.prompt_tokens_details if usage else None
    error = exchange.error or (None if cancelled else reading.error)
    if reading.told and not cancelled:
        error = reading.error
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
        reasoning_tokens=usage.reasoned() if usage else None,
        cached_tokens=details.cached_tokens if details else None,
        scheduled_ns=job.scheduled_ns,
        sent_ns=sent_ns,
        event_ns=[stamps[p] - sent_ns for p in at],
        event_tokens=reading.tokens,
        merged=[(i, max(0, floor)) for i, floor in merged],
        streamed=form in answers.STREAMED,
        first_answer_event=reading.first_answer_event,
        texts=reading.texts if reading.token_source == "events" else [],
        finish_reason="cancelled" if cancelled else reading.finish_reason,
        ended_ns=max(0, exchange.ended_ns - sent_ns) if error or cancelled else None,
        status=exchange.answer.status,
        connect_ns=exchange.connect_ns,
        resent=exchange.resent,
        retries=exchange.retries,
        error=error,
    )
