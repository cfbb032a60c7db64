"""What starting or calling a server takes beyond its ServerConfig, which goes into logs and so holds no keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Access:
    """How to start one server or call it. Everything is as the user gave it, keys included."""

    urls: tuple[str, ...] = ()  # base URLs of servers that run already; () where servers are started
    key: str = field(default="", repr=False)
    extra_headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    extra_body: Mapping[str, Any] = field(
        default_factory=dict, repr=False
    )  # request fields beside or replacing ours
    engine_args: tuple[str, ...] = field(default=(), repr=False)
    api: str = "completions"
    port: int | None = None  # the first port for servers that are started; None: any free one
    server_timeout: float = 1800.0  # seconds until a server must be ready
    requests_at_once: int = 1  # the most that the plan has in flight on this server
    request_tokens: int = 1  # prompt and answer of the longest request of the plan
