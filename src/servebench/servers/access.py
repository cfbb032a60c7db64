"""How a server is started or called, keys included. A ServerConfig goes into logs, so it holds none of this."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from servebench import __version__
from servebench.cli.keys import pop_option
from servebench.load.http import merge_headers
from servebench.log.config import ServerConfig
from servebench.servers.backends import BACKENDS


@dataclass(frozen=True, repr=False)  # keys never reach a message
class Access:
    """What it takes to start or call one server. Everything is as the user gave it, keys included."""

    urls: tuple[str, ...]  # base URLs of servers that run already; () where servers are started
    key: str
    extra_headers: tuple[tuple[str, str], ...]
    extra_body: Mapping[str, Any]  # request fields beside or replacing ours
    api: str
    port: int | None  # the first port for servers that are started; None: any free one
    server_timeout: float  # seconds until a server must be ready
    engine_args: tuple[str, ...] = ()
    engine_env: tuple[str, ...] = ()  # NAME=VALUE
    requests_at_once: int = 1  # how many requests the plan has in flight on this server
    serve: tuple[str, ...] = ()  # the command line of --backend command
    request_tokens: int = 1  # prompt and answer of the longest request of the plan


def headers_of(config: ServerConfig, access: Access) -> dict[str, str]:
    """The headers of every call: our name, the key, and the user's headers, which win.

    The most specific key counts: `user:password@` in the URL, then an --api-key that the engine is started with,
    then the option or its variable, which may belong to another service.
    """
    key = pop_option((*access.serve, *access.engine_args), "--api-key")[1] or access.key
    users = [parts for url in access.urls if "@" in (parts := urlsplit(url)).netloc]
    ours = {"User-Agent": f"servebench/{__version__}"} | BACKENDS[config.backend].headers(config)
    if users:
        user = f"{unquote(users[0].username or '')}:{unquote(users[0].password or '')}"
        ours["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    elif key:
        ours["Authorization"] = f"Bearer {key}"
    return merge_headers(ours, dict(access.extra_headers))


def with_extra_body(ours: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request, where the user's win, and null removes one of our fields.

    If the user gives max_completion_tokens, our max_tokens, its older name, is left out.
    """
    removed = {name for name, value in extra.items() if value is None and name in ours}
    replaced = {"max_tokens"} if "max_completion_tokens" in extra else set()
    kept = {name: value for name, value in ours.items() if name not in replaced}
    return {name: value for name, value in (kept | dict(extra)).items() if name not in removed}
