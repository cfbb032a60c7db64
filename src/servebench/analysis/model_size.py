"""How many parameters a model has, by its name."""

from __future__ import annotations

import re

# Parameters that one token passes through, in billions, where the name says another number: mixtures of experts.
ACTIVE = {"8x7b": 12.9, "8x22b": 39.1, "gpt-oss-120b": 5.1, "gpt-oss-20b": 3.6}


# Those of models whose names say none.
UNSAID = {r"phi-2": 2.7, r"deepseek-v3(\.[12])?": 37.0, r"deepseek-r1": 37.0}


SIZE = r"(?<![\d.x])(?<!\d_)(\d+(?:\.\d+)?)([bm])(?![a-z\d])"


def parameters(model: str) -> float | None:
    """Parameters of a model by its name, those that a token passes through: a table, else what the name says.

    `Llama-2-70b` 70e9, `Qwen3-30B-A3B` 3e9, `Qwen2.5-7B-Instruct-1M` 7e9 (a million is its context). None where
    the name says nothing. Of a path, the last part that says something counts, and no hash.
    """
    parts = [part for part in model.lower().split("/") if not re.fullmatch(r"[0-9a-f]{12,}", part)]
    hub_id = len(model.split("/")) == 2 and not model.startswith((".", "~", "/"))
    return next((size for part in reversed(parts[hub_id:]) if (size := _parameters(part))), None)


def _parameters(name: str) -> float | None:
    for billions in (size for key, size in ACTIVE.items() if key in name):
        return billions * 1e9
    active = re.findall(rf"(?<![a-z])a{SIZE}", name)
    sizes = active or sorted(re.findall(SIZE, name), key=lambda size: size[1])  # billions before millions
    if sizes:
        return float(sizes[0][0]) * {"b": 1e9, "m": 1e6}[sizes[0][1]]
    return next((size * 1e9 for key, size in UNSAID.items() if re.search(rf"{key}(?![\d.])", name)), None)
