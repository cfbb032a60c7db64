"""What the user asked for, as typed values: the result of a command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servebench.log.config import Load, Requests, RunConfig, ServerConfig
from servebench.plan.options import ClientsPerReplica, Decide, Execution, FindMax, FindPeak, Repeats, TargetCi
from servebench.plan.variants import Variant
from servebench.servers.access import Access


@dataclass(frozen=True)
class Settings:
    """What the user asked for, with defaults filled in."""

    servers: tuple[ServerConfig, ...]
    fit: str  # which combinations of sizes do not fit the GPUs, or that nobody knows; "" if all do
    variants: tuple[Variant, ...]  # of the engine's flags, keys included
    loads: tuple[Load | ClientsPerReplica, ...]
    requests: tuple[Requests, ...]
    common: RunConfig  # what all runs have in common
    num_requests: int | None
    warmup: int | None
    seed: int | None
    strategy: Repeats | TargetCi | FindMax | FindPeak | Decide
    access: Access  # to the servers; it has the keys
    tokenizer: str
    execution: Execution
    options: dict[str, Any] = field(default_factory=dict, compare=False)  # as typed, without keys

    @property
    def backend(self) -> str:
        return self.servers[0].backend

    @property
    def model(self) -> str:
        return self.servers[0].model

    @property
    def starts(self) -> bool:
        """Are the servers started, or do they run already?"""
        return not self.access.urls

    @property
    def tokenizer_option(self) -> str:
        """The option that names the tokenizer."""
        return "--model" if self.tokenizer == self.model else "--tokenizer"

    @property
    def folder(self) -> Path:
        """Where the logs of the engine go."""
        return self.execution.out_json_dir / self.servers[0].engine
