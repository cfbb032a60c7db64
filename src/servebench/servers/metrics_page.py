"""A page of Prometheus, as engines have it on /metrics. No numpy here: the sampler must start fast."""

from __future__ import annotations

import re
from math import nan

LINE = re.compile(rb"^([\w:]+)(?:\{.*\})?[ \t]+(.*)$", re.MULTILINE)  # name{labels} value time


def readings(page: bytes) -> dict[str, list[float]]:
    """The values of each name, whatever their labels; nan for what is no number."""
    found: dict[str, list[float]] = {}
    for name, value in LINE.findall(page):
        found.setdefault(name.decode(), []).append(_number(value))
    return found


def _number(text: bytes) -> float:
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return nan
