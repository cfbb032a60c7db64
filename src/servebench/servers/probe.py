"""What one short request tells of a server before the load, where the API is chat: how many tokens its template
adds to a prompt, and by which name it wants the length of an answer."""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import numpy as np
from tokenizers import Tokenizer

from servebench.log.schema import RunConfig
from servebench.servers.launch import say, tried
from servebench.servers.server import Server
from servebench.workload import Request as Ask
from servebench.workload.requests import PROBE_PROMPT
from servebench.workload.texts import exact_texts, plain_words

REFUSED = (400, 422)
WAYS = {  # to leave out a field that a server does not know
    "ignore_eos": "--respect_eos",
    "stream_options": """--extra_body '{"stream_options": null}'""",
    "temperature": """--extra_body '{"temperature": null}'""",
    "top_p": """--extra_body '{"top_p": null}'""",
}


def learnt(server: Server, run: RunConfig, tokenizer: Tokenizer) -> Server:
    """The server, and what it told. Whatever goes wrong here is left to the load, which counts and shows it."""
    if run.api != "chat":
        return server
    tokens = max(PROBE_PROMPT, plain_words(tokenizer).special + 1)
    ask = Ask(exact_texts(tokenizer, [tokens], np.random.default_rng())[0], tokens, 1)
    status, said = _answer(server, run, ask)
    if status in REFUSED and "max_completion_tokens" in said:
        server = replace(server, length_field="max_completion_tokens")
        server = _noted(server, "it wants max_completion_tokens in place of max_tokens, so that is sent")
        status, said = _answer(server, run, ask)
    for field, way in WAYS.items():
        if status in REFUSED and re.search(
            rf'\b{field}\b(?!\\?"\s*:)', said
        ):  # and does not just repeat the request
            say(f"{server.facts.urls[0]} refuses the field {field}; leave it out with {way}")
    template = _prompt_tokens(said) - tokens
    if template <= 0:
        return server
    server = replace(server, template_tokens=template)
    return _noted(server, f"its chat template adds {template} tokens, which prompts leave free in its context")


def _noted(server: Server, fact: str) -> Server:
    say(f"{server.facts.urls[0]}: {fact}")
    return replace(server, facts=msgspec.structs.replace(server.facts, learnt=[*server.facts.learnt, fact]))


def _answer(server: Server, run: RunConfig, ask: Ask) -> tuple[int, str]:
    """(HTTP status, answer) of one request as the load sends it; status 0 where no answer came."""
    target = server.target(run)
    return tried(target.urls[0], target.headers, run.request_timeout, target.body(ask))


def _prompt_tokens(said: str) -> int:
    """By the usage of an answer, streamed or whole; 0 where it has none."""
    counts = re.findall(r'"prompt_tokens"\s*:\s*(\d+)', said)
    return int(counts[-1]) if counts else 0
