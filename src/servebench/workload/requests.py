"""What a point sends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
import numpy as np

from servebench.workload.arrivals import Schedule


@dataclass(frozen=True)
class Request:
    """One thing to ask for. `messages`: the chat, where it is more than one message of a user."""

    prompt: str
    prompt_tokens: int
    max_new_tokens: int
    messages: tuple[dict[str, str], ...] = ()
    conversation: int | None = None  # requests of one are sent one after the other, by one client
    think_s: float = 0.0  # after the conversation's last answer; of a spare one after its own


@dataclass(frozen=True)
class Workload:
    """`counted` are measured, each once; `spare` keep the server under load before and after, in turn."""

    counted: list[Request]
    spare: list[Request]
    schedule: Schedule | None = None  # open loop
    probes: tuple[Request, ...] = ()  # short ones beside the load, in turn
    remark: str = ""  # what of a dataset was left out or cut, in words

    @property
    def sha256(self) -> str:
        """Identity of what was counted: equal for two engines that were asked the same, at the same times."""
        digest = hashlib.sha256()
        for r in self.counted:
            chat = msgspec.json.encode(r.messages).decode() if r.messages else ""
            digest.update(f"{r.prompt}\1{r.max_new_tokens}\1{chat}\0".encode())
        if self.schedule:
            digest.update(np.rint(self.schedule.times_s * 1e9).tobytes())
        return digest.hexdigest()
