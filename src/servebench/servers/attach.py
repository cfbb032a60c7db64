"""Attaching to a server that runs already: is it there, has it loaded its model, and by which name and context?"""

from __future__ import annotations

import difflib
import os
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import msgspec

from servebench.cli.keys import hide_in_url
from servebench.errors import InputError, ServerFailed
from servebench.load.chunks import UNREADABLE, tolerant_json
from servebench.log.config import RunConfig, ServerConfig
from servebench.log.schema import model_label
from servebench.log.urls import beside, endpoint, models_url
from servebench.servers.access import Access, with_extra_body
from servebench.servers.backends import BACKENDS
from servebench.servers.http_call import announced, call, notify, try_call

CONNECT_S = 30.0
MAX_NAMES = 10  # of models, in a message


def wait_while_loading(url: str, config: ServerConfig, access: Access, headers: Mapping[str, str]) -> None:
    """Wait while both /health and the API answer 503: the model is being loaded. Raises ServerFailed.

    /health alone is not enough, since a gateway may answer 503 to paths that it does not know.
    """
    health, api = beside(url, "/health"), endpoint(url, access.api)
    run = RunConfig(api=access.api, stream=False)  # type: ignore[arg-type]
    fields = with_extra_body(BACKENDS[config.backend].body(run, config.model, "1", 1), access.extra_body)
    body, since = msgspec.json.encode(fields), time.monotonic()

    def loading() -> bool:
        return try_call(health, headers, 10)[0] == 503 and try_call(api, headers, 10, body)[0] == 503

    if not loading():
        return
    limit = f"for at most {access.server_timeout:g} s (--server_timeout)"
    with announced(f"{limit}: {hide_in_url(health)} and the API say 503, so the model is still loading"):
        while loading():
            if time.monotonic() - since > access.server_timeout:
                raise ServerFailed(f"{health} says 503 after {access.server_timeout:g} s (--server_timeout)")
            time.sleep(0.5)


def served_model(
    urls: Sequence[str], model: str, headers: Mapping[str, str], ours: bool
) -> tuple[str, int | None]:
    """(the name that the servers have for the model, the context in tokens that all of them take, if known).

    `ours`: we started them, so they serve this model whatever they call it. Raises InputError.
    """
    found = [_served_at(url, model, headers, ours) for url in urls]
    names = list(dict.fromkeys(name for name, _ in found))
    if len(names) > 1:
        raise InputError(
            f"the servers have the model under different names: {', '.join(names)}; measure them separately"
        )
    if names[0] not in (model, model_label(model)):
        notify(f"{hide_in_url(urls[0])} lists no {model}; its model {names[0]} is measured")
    return names[0], min((context for _, context in found if context), default=None)


def _served_at(url: str, model: str, headers: Mapping[str, str], ours: bool) -> tuple[str, int | None]:
    """Likewise at one server: the listed model of this name or loaded from it, else the only one, or our first."""
    listed = {str(entry["id"]): entry for entry in _listed_models(url, headers)}
    loaded_from = [name for name, entry in listed.items() if entry.get("root") == model]
    names = [name for name in (model, model_label(model), *loaded_from) if name in listed]
    if not names and not ours and len(listed) > 1:
        near = difflib.get_close_matches(model, listed, MAX_NAMES, 0.0)
        more = f", ... ({len(listed)} in all)" if len(listed) > len(near) else ""
        raise InputError(
            f"--model {model} is not served at {hide_in_url(url)}, which has {', '.join(near)}{more}; "
            "name one of them, and the tokenizer with --tokenizer"
        )
    name = (names or [*listed, model])[0]
    context = listed.get(name, {}).get("max_model_len")
    return name, context if isinstance(context, int) else None


def _listed_models(url: str, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The models that a server lists; [] if it does not say. Raises InputError if it does not answer."""
    where = models_url(url)
    try:
        listing = tolerant_json(call(where, headers, timeout_s=30))
    except HTTPError as error:
        if error.code == 401:  # a 403 may be for the list alone
            given = "the key" if "authorization" in {name.lower() for name in headers} else "calls without a key"
            raise InputError(
                f"{hide_in_url(where)} refuses {given} (HTTP 401); give --openai_api_key, or the header that it "
                "wants with --extra_headers"
            ) from error
        return []
    except OSError as error:
        raise InputError(_unreachable(url, error)) from error
    except UNREADABLE:
        return []
    listed = listing.get("data") if isinstance(listing, dict) else listing
    entries = listed if isinstance(listed, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and "id" in entry]


def check_reachable(url: str) -> None:
    """Connect to a server that lists no models. Raises InputError if nobody listens."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), CONNECT_S) as sock:
            if parts.scheme == "https":
                ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname).close()
    except OSError as error:
        raise InputError(_unreachable(url, error)) from error


def _unreachable(url: str, error: OSError) -> str:
    """One line: nobody is there, why, and what may help."""
    parts = urlsplit(hide_in_url(url))
    why = f"nothing answers at {parts.scheme}://{parts.netloc} ({error})"
    proxies = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"{why}; if your own authority signed the certificate, name its file in $SSL_CERT_FILE"
    if "WRONG_VERSION_NUMBER" in str(error):
        return f"{why}; it does not speak TLS, try http://"
    used = f"; ${proxies[0]} is set but not used, since a proxy would be measured too" if proxies else ""
    return f"{why}; start the server or correct the URL{used}"
