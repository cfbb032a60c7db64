"""What is benchmarked when the command line does not say: data, and how it is looked up.

Lengths and tensor parallel sizes are those of DeepSpeed-FastGen's published runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ModelDefaults:
    """The sweep of one model; lengths in tokens."""

    tp_size: tuple[int, ...] = (1,)
    mean_prompt_length: tuple[int, ...] = (2600,)
    mean_max_new_tokens: tuple[int, ...] = (60,)
    max_prompt_length: int = 4000


ANY_MODEL = ModelDefaults()
_LLAMA = ModelDefaults(mean_prompt_length=(1200, 2600), mean_max_new_tokens=(60, 128))
_FALCON = ModelDefaults(mean_prompt_length=(1200, 1900), mean_max_new_tokens=(60, 128), max_prompt_length=2000)

MODELS = {
    "meta-llama/Llama-2-7b-hf": _LLAMA,
    "meta-llama/Llama-2-13b-hf": replace(_LLAMA, tp_size=(1, 2, 4)),
    "meta-llama/Llama-2-70b-hf": replace(_LLAMA, tp_size=(4, 8)),
    "tiiuae/falcon-40B": replace(_FALCON, tp_size=(2, 4)),
    "tiiuae/falcon-180B": replace(_FALCON, tp_size=(8,)),
    "microsoft/phi-2": _FALCON,
    "mistralai/Mixtral-8x7B-v0.1": replace(_LLAMA, tp_size=(4,)),
}

# As the original suite writes a model: as the hub does.
ALIASES = {"meta-llama/Llama-13b-hf": "meta-llama/Llama-2-13b-hf"}

NUM_CLIENTS = (1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32)


WARMUP = 1  # requests of each client
ARRIVALS_S = 30  # of an open loop's point


def of_model(name: str) -> ModelDefaults:
    """The hub finds models whatever the case of their names."""
    return next((found for known, found in MODELS.items() if known.lower() == name.lower()), ANY_MODEL)


def hub_name(model: str) -> str:
    """The model's name on the hub, where people know it by another."""
    return next((right for alias, right in ALIASES.items() if alias.lower() == model.lower()), model)


def num_arrivals(request_rate: float) -> int:
    """Requests that a point of an open loop counts: those of half a minute, and enough for a p90."""
    return max(100, round(ARRIVALS_S * request_rate))


def num_requests(num_clients: int) -> int:
    """Requests that a point counts: four a client and enough for a median at one client."""
    return 4 * num_clients + 32
