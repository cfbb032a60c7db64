"""BRIDGE"""

from __future__ import annotations

from servebench.log.config import Dataset, RunConfig
from servebench.log.lengths import HIGHEST, Lengths, parse_scenario

__all__ = ["HIGHEST", "Lengths", "lengths_of", "parse_scenario"]


def lengths_of(run: RunConfig) -> tuple[Lengths, Lengths]:
    if isinstance(run.requests, Dataset):
        return Lengths.around(2600, 0.3, "normal"), run.requests.answer_lengths
    return run.requests.lengths
