"""How many output tokens/s a GPU can give at most: by its memory, and by its arithmetic.

A step of decoding reads the weights once, and what the KV cache holds of each sequence; it gives a token to each.
A token, of a prompt too, takes two operations for each parameter. With b sequences in flight on a replica, whose
GPUs share all of this evenly:

    output tokens/s a GPU <= b / max((weights + b x KV cache of a sequence) / bandwidth,
                                     b x 2 x parameters x (prompt + generated) / generated / (operations/s))

No server reaches it: attention, what GPUs tell each other, sampling and waiting come on top. Of a mixture of
experts only the weights that one token passes through count. Prompt tokens from a prefix cache take no operations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from servebench.analysis import machines, samples
from servebench.analysis.model_size import parameters
from servebench.log.schema import Log
from servebench.log.telemetry import Gpu

# By the driver's name of a GPU (of MI250X: of one of its two dies): dense 16-bit operations/s, bytes/s.
GPUS = {
    r"A100.*40GB": (312e12, 1555e9),
    r"A100.*80GB PCIe": (312e12, 1935e9),
    r"A100": (312e12, 2039e9),
    r"H100 PCIe": (756e12, 2039e9),
    r"H100 NVL": (835e12, 3938e9),
    r"H100": (989e12, 3352e9),
    r"H200": (989e12, 4917e9),
    r"B200": (2250e12, 8000e9),
    r"L40S": (362e12, 864e9),
    r"L4\b": (121e12, 300e9),
    r"A10\b": (125e12, 600e9),
    r"RTX A6000": (155e12, 768e9),
    r"RTX 4090": (165e12, 1008e9),
    r"V100": (125e12, 900e9),
    r"MI250X": (191.5e12, 1638e9),
    r"MI300X": (1307e12, 5300e9),
}
# By what flags, settings or the model's name say: bytes of a weight, and how much faster its arithmetic may be.
FORMS = {
    r"nvfp4|mxfp4|fp4|gpt-oss": (0.5, 4),
    r"awq|gptq|int4|w4a16|4bit|q4_": (0.5, 1),
    r"fp6": (0.75, 1),
    r"fp8|int8|w8a8|q8_": (1.0, 2),
    r"float32|fp32|f32": (4.0, 1),
}
SPECULATIVE = ("speculative_config.method", "speculative_algorithm", "speculative.types", "num_speculative_tokens")


@dataclass(frozen=True)
class Roofline:
    """Of a server: what its GPUs can do, and what a token asks of them."""

    gpu: str
    bandwidth: float  # bytes/s
    operations: float  # /s, at the width of the weights
    parameters: float
    weight_bytes: float  # of one weight
    form: str  # of the weights, as it was found: "fp8"; "" where 16 bits are assumed
    kv_bytes: float | None = field(compare=False)  # of a sequence halfway through its answer; None: left out
    prompt_share: float = field(compare=False)  # prompt tokens that are worked out, for each output token

    def tokens_per_s(self, in_flight: np.ndarray) -> np.ndarray:
        """At most, a GPU, with so many requests in flight on its replica."""
        memory_s, arithmetic_s = self.step_s(in_flight)
        return np.asarray(in_flight / np.maximum(memory_s, arithmetic_s))

    def step_s(self, in_flight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How long one GPU alone takes at least for one token of each: by its memory, by its arithmetic."""
        read = self.parameters * self.weight_bytes + in_flight * (self.kv_bytes or 0.0)
        done = in_flight * 2 * self.parameters * (1 + self.prompt_share)
        return read / self.bandwidth, done / self.operations


def of_log(log: Log) -> Roofline | str:
    """The roofline of the server; in words why there is none."""
    used = [gpu for gpu in machines.machine_of(log).gpus if gpu.index in (log.server_facts.gpus or [gpu.index])]
    known = next((numbers for name, numbers in GPUS.items() if used and re.search(name, used[0].name)), None)
    size, done = parameters(log.server.model), samples.succeeded(log)
    config = log.server_facts.configuration
    if not used:
        return "no GPU is known"
    if not known:
        return f"what {used[0].name} can do is not known"
    if any(config.get(name) not in (None, "", "none", "None", 0) for name in SPECULATIVE):
        return "it decodes speculatively"
    if not size or not done:
        return "the model's name does not tell its parameters" if done else "no request succeeded"
    prompt, generated = (
        sum(r.prompt_tokens for r in done) / len(done),
        sum(r.generated_tokens for r in done) / len(done),
    )
    form, weight_bytes, faster = _form(log)
    values = log.server_facts.kv_values_per_token
    return Roofline(
        gpu=used[0].name,
        bandwidth=bandwidth(used[0]) or known[1],
        operations=known[0] * faster,
        parameters=size,
        weight_bytes=weight_bytes,
        form=form,
        kv_bytes=values and values * _kv_value_bytes(log) * (prompt + generated / 2),
        prompt_share=prompt * (1 - (log.cache_hit_rate or 0)) / generated,
    )


def bandwidth(gpu: Gpu) -> float | None:
    """Bytes/s: two transfers a clock on each wire of the bus, as the driver counts clocks."""
    clock, bits = gpu.max_memory_clock_mhz, gpu.memory_bus_bits
    return 2e6 * clock * bits / 8 if clock and bits else None


def _form(log: Log) -> tuple[str, float, int]:
    config = log.server_facts.configuration
    flags = " ".join(log.server.engine_args)
    told = [str(config.get(name) or "") for name in ("quantization", "model_ftype", "dtype")]
    flag = re.search(r"--(?:quantization|dtype)[ =](\S+)", flags)
    words = [flag[1] if flag else "", "fp6" * log.server.fp6, *told, log.server.model.rpartition("/")[2]]
    for text in words:
        for form, numbers in FORMS.items():
            if found := re.search(form, text.lower()):
                return found[0], *numbers
    return "", 2.0, 1


def _kv_value_bytes(log: Log) -> float:
    config = log.server_facts.configuration
    told = f"{config.get('cache_dtype')} {config.get('kv_cache_dtype')} {' '.join(log.server.engine_args)}"
    return 1.0 if re.search(r"(?:^|cache-dtype[ =]|^\w* )fp8", told) else 2.0
