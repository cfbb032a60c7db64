"""Service level agreements: which requests came in time, and how many a second. `--sla` names them.

    --sla fastgen-4 mlperf-llama2-70b ttft=2,tpot=0.1

fastgen-R: the prompt at 512 tokens/s or more, the generation at R tokens/s or more by FastGen's moving average.
mlperf-MODEL[-interactive]: MLPerf's limits on TTFT and TPOT, here of each request (MLPerf's are of the p99).
ttft=S,tpot=S,e2e=S: free limits, each may be left out; requests/s within them are the goodput.

An SLA maps a log to one bool a successful request that counts, shape (n,). A failed request meets none. A message
with k tokens meets k deadlines at its stamp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from servebench.analysis import deadlines
from servebench.errors import InputError
from servebench.log.schema import Log

# Limits of MLPerf Inference on (TTFT, TPOT), s.
MLPERF = {
    "mlperf-llama2-70b": (2.0, 0.2),
    "mlperf-llama2-70b-interactive": (0.45, 0.04),
    "mlperf-mixtral-8x7b": (2.0, 0.2),
    "mlperf-llama3.1-405b": (6.0, 0.175),
    "mlperf-llama3.1-405b-interactive": (4.5, 0.08),
    "mlperf-llama3.1-8b": (2.0, 0.1),
    "mlperf-llama3.1-8b-interactive": (0.5, 0.03),
    "mlperf-deepseek-r1": (2.0, 0.08),
    "mlperf-deepseek-r1-interactive": (1.5, 0.015),
}


@dataclass(frozen=True)
class Sla:
    """An SLA by the name that `--sla` gave it; `limits` are its TTFT and TPOT (s) where it has both."""

    name: str
    met: deadlines.Met
    limits: tuple[float, float] | None = None
    of_tokens: bool = True  # it asks when tokens came, which answers that came whole do not tell

    def throughput(self, log: Log) -> float | None:
        """Requests/s that succeed and meet it. None where the log cannot tell."""
        return None if self.of_tokens and not log.run.stream else deadlines.effective_throughput(log, self.met)


def parse(name: str) -> Sla:
    """Raises InputError for what is no SLA."""
    fastgen = re.fullmatch(r"fastgen-(\d+(?:\.\d+)?)", name)
    if fastgen and float(fastgen[1]) > 0:
        return _fastgen(name, float(fastgen[1]))
    if name in MLPERF:
        ttft, tpot = MLPERF[name]
        return _limits(name, {"ttft": ttft, "tpot": tpot})
    found = re.findall(r"(ttft|tpot|e2e)=(\d*\.?\d+)(?:,|$)", name)
    limits = {key: float(value) for key, value in found}
    if limits and ",".join(f"{key}={value}" for key, value in found) == name:
        return _limits(name, limits)
    presets = "fastgen-1 ... fastgen-8, " + ", ".join(MLPERF)
    raise InputError(f"--sla {name!r} is no SLA; give ttft=S,tpot=S,e2e=S (any of them), or one of {presets}")


def _fastgen(name: str, rate: float) -> Sla:
    return Sla(name, lambda log: deadlines.meets_prompt(log) & deadlines.meets_ema(log, rate))


def _limits(name: str, limits: dict[str, float]) -> Sla:
    both = (limits["ttft"], limits["tpot"]) if {"ttft", "tpot"} <= limits.keys() else None
    return Sla(name, lambda log: deadlines.meets_limits(log, **limits), both, of_tokens=limits.keys() != {"e2e"})
