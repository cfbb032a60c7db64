"""Discover, by one short chat request before the load, what prompts and bodies must respect.

That is how many tokens the chat template adds to a prompt, and by which name the server wants an answer's length.
"""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import numpy as np
from tokenizers import Tokenizer

from servebench.log.config import RunConfig
from servebench.servers.http_call import notify, try_call
from servebench.servers.server import Server
from servebench.workload import Request
from servebench.workload.requests import PROBE_PROMPT
from servebench.workload.texts import exact_texts, plain_words

REFUSED = (400, 422)
FIELDS = ("ignore_eos", "stream_options", "temperature", "top_p")  # that a server may not know


def discovered(server: Server, run: RunConfig, tokenizer: Tokenizer) -> Server:
    """The server with what this request told. If it fails, the load will too, which counts and shows failures."""
    if run.api != "chat":
        return server
    tokens = max(PROBE_PROMPT, plain_words(tokenizer).special + 1)
    request = Request(exact_texts(tokenizer, [tokens], np.random.default_rng())[0], tokens, 1)
    status, answer = _ask(server, run, request)
    if status in REFUSED and "max_completion_tokens" in answer:
        server = replace(server, length_field="max_completion_tokens")
        server = noted(server, "it wants max_completion_tokens instead of max_tokens, and gets it")
        status, answer = _ask(server, run, request)
    if status in REFUSED:
        _advise(server, answer)
    template = _prompt_tokens(answer) - tokens
    if template <= 0:
        return server
    server = replace(server, template_tokens=template)
    return noted(server, f"its chat template adds {template} tokens; prompts leave room for them in the context")


def _ask(server: Server, run: RunConfig, request: Request) -> tuple[int, str]:
    """Send the request as the load does. Returns (HTTP status, answer); status 0 if no answer came."""
    target = server.target(run)
    return try_call(target.urls[0], target.headers, run.request_timeout, target.body(request))


def noted(server: Server, fact: str) -> Server:
    """The server with something that was learnt about it, which is said and logged."""
    notify(f"{server.facts.urls[0]}: {fact}")
    return replace(server, facts=msgspec.structs.replace(server.facts, learnt=[*server.facts.learnt, fact]))


def _advise(server: Server, answer: str) -> None:
    """Name the options that leave out the fields which the server refuses."""
    for field in FIELDS:
        option = "--respect_eos" if field == "ignore_eos" else f"""--extra_body '{{"{field}": null}}'"""
        if re.search(rf'\b{field}\b(?!\\?"\s*:)', answer):  # an answer that repeats the request has a colon there
            notify(f"{server.facts.urls[0]} refuses the field {field}; leave it out with {option}")


def _prompt_tokens(answer: str) -> int:
    """By the usage of an answer, streamed or not; 0 if it has none."""
    counts = re.findall(r'"prompt_tokens"\s*:\s*(\d+)', answer)
    return int(counts[-1]) if counts else 0
