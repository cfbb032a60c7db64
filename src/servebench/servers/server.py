"""The server's life: start, ready, watch, stop; nothing of it is left behind.

with running_server(config, access, results / "vllm") as server:
    run_load(..., server.target(run))
"""

from __future__ import annotations

import base64
import difflib
import os
import secrets
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

import msgspec

from servebench import __version__
from servebench.cli.keys import hide_in_url, secrets_of, taken
from servebench.errors import InputError
from servebench.load.chunks import UNREADABLE, tolerant_json
from servebench.load.http import over
from servebench.load.sharding import Target
from servebench.log.schema import RunConfig, ServerConfig, ServerFacts, model_label
from servebench.log.urls import beside, endpoint, models_url
from servebench.servers.access import Access
from servebench.servers.backends import BACKENDS
from servebench.servers.launch import (
    SAID_AFTER_S,
    Process,
    call,
    launch_replicas,
    say,
    server_failed,
    tail,
    tried,
    urls_of,
)
from servebench.servers.prefix_cache import Counters, read_counters
from servebench.workload import Request as Ask

CONNECT_S = 30.0
MOST_NAMES = 10  # of models, in a message


@dataclass(frozen=True)
class Server:
    """A server that answers. `facts.model`: its name for the model; `context`: the most tokens it takes, if known.

    `urls`, `headers` and `extra_body` are as they are sent: they may hold keys, which no log has.
    """

    config: ServerConfig
    facts: ServerFacts
    urls: tuple[str, ...]
    context: int | None
    processes: tuple[Process, ...]
    headers: Mapping[str, str]  # of every call
    extra_body: Mapping[str, Any]
    length_field: str = "max_tokens"  # its name for the most tokens of an answer
    template_tokens: int = 0  # that a chat template adds to a prompt

    def check(self) -> None:
        for process in self.processes:
            process.check()

    def alive(self) -> bool:
        return all(process.popen.poll() is None for process in self.processes)

    def log_tail(self) -> str:
        return "\n".join(tail(process.log_file) for process in self.processes)

    def target(self, run: RunConfig) -> Target:
        """Where and how the requests of this run go."""
        backend = BACKENDS[self.config.backend]
        salt = {"cache_salt": secrets.token_hex(8)} if backend.salted else {}  # no prompt is in the cache already

        def body(ask: Ask) -> bytes:
            fields = backend.body(run, self.facts.model, ask.prompt, ask.max_new_tokens)
            chat = {"messages": list(ask.messages)} if ask.messages else {}
            return backend.encode(self._renamed(without_nulls(fields | salt | chat, self.extra_body)))

        where = backend.endpoint or (lambda url, run: endpoint(url, run.api))
        urls, headers = [where(url, run) for url in self.urls], dict(self.headers)
        return Target(urls, headers, body, self.check, secrets_of(headers, urls, self.extra_body))

    def _renamed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """With the length of the answer under the name that this server wants."""
        if self.length_field in fields or "max_tokens" not in fields:
            return fields
        return {self.length_field if name == "max_tokens" else name: value for name, value in fields.items()}

    def empty_cache(self) -> None:
        """Forget the prompts of the point before, where the engine can."""
        path = BACKENDS[self.config.backend].reset_cache
        for url in self._each() if path else []:
            with suppress(OSError):
                call(beside(url, path or ""), self.headers, timeout_s=30, body=b"")

    def cache_counters(self) -> Counters | None:
        """What the engine has counted of its prefix cache so far, if it does."""
        names = BACKENDS[self.config.backend].cache_counters
        return read_counters(self._each(), names, self.headers) if names else None

    def _each(self) -> list[str]:
        """The servers themselves, also those behind a router."""
        return [process.url for process in self.processes] or list(self.urls)


def without_nulls(ours: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request: those that the user gives win, and null takes one of ours away.

    A length that the user gives under its newer name takes the place of ours.
    """
    taken_away = {name for name, value in extra.items() if value is None and name in ours}
    kept = {
        name: value for name, value in ours.items() if name != "max_tokens" or "max_completion_tokens" not in extra
    }
    return {name: value for name, value in (kept | dict(extra)).items() if name not in taken_away}


@contextmanager
def running_server(config: ServerConfig, access: Access, log_dir: Path) -> Iterator[Server]:
    """Launch the server of a config, or attach to it. Raises ServerFailed, or InputError if none is there."""
    backend = BACKENDS[config.backend]
    with ExitStack() as stack:
        started = time.monotonic()
        processes: list[Process] = []
        if config.urls or not backend.launch:
            urls = access.urls
        else:
            processes = launch_replicas(config, access, log_dir, stack)
            urls = tuple(urls_of(config, processes))
        headers = headers_of(config, access)
        model, context = config.model, None
        if backend.lists_models:
            if not processes:
                for url in urls:
                    _wait_while_loading(url, config, headers, access)
            model, context = _served(urls, config.model, headers, ours=bool(processes))
        elif not processes:
            for url in urls:
                _reach(url)
        facts = ServerFacts(
            urls=[hide_in_url(url) for url in urls],
            commands=[process.command for process in processes],
            engine=backend.version() if processes else "attached",
            model=model,
            log_files=[str(process.log_file) for process in processes],
            start_s=round(time.monotonic() - started, 1),
        )
        yield Server(config, facts, urls, context, tuple(processes), headers, access.extra_body)


def headers_of(config: ServerConfig, access: Access) -> dict[str, str]:
    """What every call carries: our name, the key, and the headers that the user gave, which win.

    Of several keys the one that was named most closely counts: `user:password@` of the URL, then an --api-key that
    the engine is started with, then the option or its variable, which may be of another service.
    """
    key = taken(access.engine_args, "--api-key")[1] or access.key
    users = [parts for url in access.urls if "@" in (parts := urlsplit(url)).netloc]
    ours = {"User-Agent": f"servebench/{__version__}"} | BACKENDS[config.backend].headers(config)
    if users:
        user = f"{unquote(users[0].username or '')}:{unquote(users[0].password or '')}"
        ours["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    elif key:
        ours["Authorization"] = f"Bearer {key}"
    return over(ours, dict(access.extra_headers))


def _wait_while_loading(url: str, config: ServerConfig, headers: Mapping[str, str], access: Access) -> None:
    """While /health says 503 and the API itself does too, a model is still being loaded.

    A gateway may say 503 to a path that it does not know, so the API is asked as well. Raises ServerFailed.
    """
    health, api, ask = beside(url, "/health"), endpoint(url, access.api), _short_body(config, access)
    since, told = time.monotonic(), False
    while tried(health, headers, 10)[0] == 503 and tried(api, headers, 10, ask)[0] == 503:
        waited_s = time.monotonic() - since
        if waited_s > access.server_timeout:
            raise server_failed(f"{health} says 503 after {access.server_timeout:g} s (--server_timeout)")
        if waited_s > SAID_AFTER_S and not told:
            told = True
            limit = f"for at most {access.server_timeout:g} s (--server_timeout)"
            say(f"waiting {limit}: {hide_in_url(health)} and the API say 503, so the model is still loading")
        time.sleep(0.5)


def _short_body(config: ServerConfig, access: Access) -> bytes:
    """A request of one token."""
    run = RunConfig(api=access.api, stream=False)  # type: ignore[arg-type]
    backend = BACKENDS[config.backend]
    return msgspec.json.encode(without_nulls(backend.body(run, config.model, "1", 1), access.extra_body))


def _served(urls: Sequence[str], model: str, headers: Mapping[str, str], ours: bool) -> tuple[str, int | None]:
    """(the servers' name for the model, the context that all of them have). Raises InputError."""
    found = [_name_at(url, model, headers, ours) for url in urls]
    names = list(dict.fromkeys(name for name, _ in found))
    if len(names) > 1:
        raise InputError(f"the servers have the model under other names: {', '.join(names)}; measure them apart")
    if names[0] not in (model, model_label(model)):
        say(f"{hide_in_url(urls[0])} serves {names[0]}, which is measured for --model {model}")
    return names[0], min((context for _, context in found if context), default=None)


def _name_at(url: str, model: str, headers: Mapping[str, str], ours: bool) -> tuple[str, int | None]:
    """(a server's name for the model, its context length): the model's own, the only one, or of ours the first."""
    known = {
        str(entry["id"]): entry for entry in _listed(url, headers) if isinstance(entry, dict) and "id" in entry
    }
    rooted = [name for name, entry in known.items() if entry.get("root") == model]
    names = [name for name in (model, model_label(model), *rooted) if name in known]
    if known and not names and not ours and len(known) > 1:
        near = difflib.get_close_matches(model, known, MOST_NAMES, 0.0)
        more = f", ... ({len(known)} in all)" if len(known) > len(near) else ""
        raise InputError(
            f"--model {model} is not served at {hide_in_url(url)}, which has {', '.join(near)}{more}; "
            "name one of them, and the tokenizer with --tokenizer"
        )
    name = (names or [*known, model])[0]
    context = known[name].get("max_model_len") if name in known else None
    return name, context if isinstance(context, int) else None


def _listed(url: str, headers: Mapping[str, str]) -> list[Any]:
    """The models that a server lists; none where it lists none. Raises InputError when nothing answers."""
    where = models_url(url)
    try:
        listing = tolerant_json(call(where, headers, timeout_s=30))
    except HTTPError as error:
        if error.code == 401:  # 403 may be said of the list alone
            given = "the key" if "authorization" in {name.lower() for name in headers} else "calls without a key"
            raise InputError(
                f"{hide_in_url(where)} refuses {given} (HTTP 401); give --openai_api_key, or the header that it "
                "wants with --extra_headers"
            ) from error
        return []  # it speaks, but lists no models
    except OSError as error:
        raise InputError(_unreachable(url, error)) from error
    except UNREADABLE:
        return []
    listed = listing.get("data") if isinstance(listing, dict) else listing
    return listed if isinstance(listed, list) else []


def _reach(url: str) -> None:
    """Of a server that lists no models: does it listen at all? Raises InputError."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), CONNECT_S) as sock:
            if parts.scheme == "https":
                ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname).close()
    except OSError as error:
        raise InputError(_unreachable(url, error)) from error


def _unreachable(url: str, error: OSError) -> str:
    """In a line: that nobody is there, why, and what may help."""
    parts = urlsplit(hide_in_url(url))
    why = f"nothing answers at {parts.scheme}://{parts.netloc} ({error})"
    proxies = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"{why}; if an authority of your own signed the certificate, name its file in $SSL_CERT_FILE"
    if "WRONG_VERSION_NUMBER" in str(error):
        return f"{why}; it does not speak TLS, try http://"
    used = f"; ${proxies[0]} is set but not used, since a proxy would be measured too" if proxies else ""
    return f"{why}; start the server or correct the URL{used}"
