"""One HTTP call beside the load, to ask what a server is and how it does. The load itself is in load/."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from threading import Timer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from servebench.cli import live
from servebench.cli.keys import hide_in_url
from servebench.load.http import merge_headers

NOTICE_AFTER_S = 3.0  # a longer wait is announced


class SameHostRedirects(HTTPRedirectHandler):
    """Follows redirects of a GET within its host and refuses others, since headers may hold a key."""

    def redirect_request(self, req: Request, *moved: Any) -> Request | None:
        here, there = urlsplit(req.full_url), urlsplit(moved[-1])
        same = req.get_method() == "GET" and here[:2] == there[:2]  # scheme and host
        return super().redirect_request(req, *moved) if same else None


opener = build_opener(ProxyHandler({}), SameHostRedirects())  # no proxy, as for the load


def call(
    url: str, headers: Mapping[str, str], timeout_s: float, body: bytes | None = None, at_most: int | None = None
) -> bytes:
    """Return the body of a successful (2xx) answer, or its first bytes. With a body it POSTs JSON, else it GETs.

    Raises OSError if no such answer comes: HTTPError for another HTTP status.
    """
    kind = {"Content-Type": "application/json"} if body else {}
    request = Request(url, body, merge_headers(kind, dict(headers)))
    try:
        with (
            announced(f"for an answer from {hide_in_url(url)}"),
            opener.open(request, timeout=timeout_s) as answer,
        ):
            return bytes(answer.read(at_most))
    except HTTPException as error:
        raise OSError(f"the answer is not HTTP: {str(error)[:100]!r}") from error


def try_call(url: str, headers: Mapping[str, str], timeout_s: float, body: bytes | None = None) -> tuple[int, str]:
    """Return (HTTP status, text of the answer); status 0 if no answer came. A success has status 200."""
    try:
        return 200, call(url, headers, timeout_s, body).decode(errors="replace")
    except HTTPError as error:
        with suppress(OSError, HTTPException):  # the connection may break
            return error.code, error.read(4096).decode(errors="replace")
        return error.code, ""
    except OSError:
        return 0, ""


@contextmanager
def announced(wait: str) -> Iterator[None]:
    """Tell the user what a wait is for, once it has lasted for NOTICE_AFTER_S."""
    notice = Timer(NOTICE_AFTER_S, lambda: notify(f"waiting {wait}"))
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


def notify(line: str) -> None:
    """Print a line to stderr, above the live one."""
    live.write(line, sys.stderr)
