"""Logs of version 1, brought up to date: their run is flat, and their cooldown is called hold."""

from __future__ import annotations

import msgspec

from servebench.log.config import run_of
from servebench.log.schema import LOG_VERSION

RESULTS = b'\n  "probes": ['  # where a log's requests begin, as it is written


def upgraded(data: bytes) -> bytes:
    """The same log as this version writes it. Raises msgspec.MsgspecError where it is no JSON."""
    head, found, requests = data.partition(RESULTS)
    log = msgspec.json.decode(head.rstrip().rstrip(b",") + b"}" if found else data)
    if not isinstance(log, dict) or not isinstance(log.get("run"), dict):
        return data  # no log; what it lacks is said where it is read
    log |= {"servebench_log": LOG_VERSION, "run": run_of(log["run"])}
    text = msgspec.json.encode(log)
    requests = requests.replace(b'"phase":"hold"', b'"phase":"cooldown"')
    return text[:-1] + b"," + found + requests if found else text
