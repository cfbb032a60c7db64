"""When a request is sent again, if the user asked for that (`--max_retries`), and after how long."""

from __future__ import annotations

BUSY = (408, 424, 429)  # 424: Azure ML's word for a model that failed
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 30.0


def worth_it(error: str | None, status: int) -> bool:
    """Did an attempt fail in a way that another may not? A refusal for good (400, 401, 404) would come again."""
    return error is not None or status in BUSY or status >= 500


def wait_s(retries: int, retry_after: bytes) -> float:
    """What the server asks for (Retry-After, in seconds), else twice as long each time; never for ever."""
    asked = float(retry_after) if retry_after.isdigit() else FIRST_WAIT_S * 2**retries
    return min(asked, LONGEST_WAIT_S)
