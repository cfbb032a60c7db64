"""When a request is sent again, if the user asked for that (`--max_retries`), and after how long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import time

BUSY = (408, 424, 429)  # 424: Azure ML's word for a model that failed
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 60.0
NUMBER = re.compile(r"\d+(\.\d*)?")


def worth_it(error: str | None, status: int) -> bool:
    """Did an attempt fail in a way that another may not? A refusal for good (400, 401, 404) would come again."""
    return error is not None or status in BUSY or status >= 500


def wait_s(retries: int, headers: Mapping[bytes, bytes]) -> float:
    """What the server asks for, else twice as long each time; never longer than LONGEST_WAIT_S."""
    asked = asked_s(headers)
    return min(max(0.0, FIRST_WAIT_S * 2**retries if asked is None else asked), LONGEST_WAIT_S)


def asked_s(headers: Mapping[bytes, bytes]) -> float | None:
    """`retry-after-ms` (Azure's), or `Retry-After` in seconds or as a date; None where there is neither."""
    ms, asked = (headers.get(name, b"").decode("latin-1") for name in (b"retry-after-ms", b"retry-after"))
    if NUMBER.fullmatch(ms):
        return float(ms) / 1e3
    if NUMBER.fullmatch(asked):
        return float(asked)
    from email.utils import parsedate_to_datetime  # longer to import than all else here, and hardly ever needed

    try:
        return parsedate_to_datetime(asked).timestamp() - time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
