"""What the URL of a server means: which API it names, and where that API, its models and its other pages are."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

ENDPOINTS = {"chat": "/chat/completions", "completions": "/completions", "score": "/score"}


def api_of(url: str, otherwise: str) -> str:
    """Which API a URL speaks, if its path names one."""
    path = urlsplit(url).path.rstrip("/")
    return next((api for api, ending in ENDPOINTS.items() if path.endswith(ending)), otherwise)


def endpoint(url: str, api: str) -> str:
    """Where requests go. The rule for URLs, as OpenAI's own clients have it:

    - what names its API (`.../chat/completions`) is taken as it stands;
    - anything else with a path is a base: `/v1`, `/api/v3`, `/openai/deployments/NAME`; the API's path follows it;
    - a URL without a path has the base `/v1`.
    A query (`?api-version=...`) goes with every call.
    """
    return _joined(url, urlsplit(url).path if api_of(url, "") == api else _base(url) + ENDPOINTS[api])


def host(url: str) -> str:
    """Where a URL leads, without user and password: `localhost:8000`."""
    return urlsplit(url).netloc.rpartition("@")[2]


def models_url(url: str) -> str:
    """Where models are listed: beside the API."""
    return _joined(url, f"{_base(url)}/models")


def beside(url: str, path: str) -> str:
    """Where a server has what is not of the API, such as /health and /metrics: above its `/v1`."""
    return _joined(url, _base(url).removesuffix("/v1") + path)


def _base(url: str) -> str:
    path = urlsplit(url).path.rstrip("/")
    for ending in ENDPOINTS.values():
        if path.endswith(ending):
            return path.removesuffix(ending)
    return path or "/v1"


def _joined(url: str, path: str) -> str:
    """The URL with this path instead, and without what is no part of a call: user, password, fragment."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=host(url), path=path, fragment=""))
