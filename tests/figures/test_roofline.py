"""The roofline: physics by hand, what is read from logs, and the figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import A100, ROOT, point
from msgspec.structs import replace
from warm_python import python

from servebench.analysis import roofline
from servebench.analysis.roofline import Roofline
from servebench.figures.curves import Series, points_of
from servebench.log import store
from servebench.log.schema import Log
from servebench.log.telemetry import Gpu, Machine
from servebench.workload.model_files import kv_values_per_token

sys.path.insert(0, str(ROOT / "src"))

import plot_roofline

MODEL = "meta-llama/Llama-2-7b-hf"


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def log_of(
    clients: int = 1, gpu: str = "NVIDIA A100-SXM4-80GB", facts: dict[str, object] | None = None, **changes: object
) -> Log:
    """100 prompt tokens, 4 generated ones, on this GPU."""
    log = point("vllm", clients, 1.0, **changes)
    machine = Machine(gpus=[Gpu(index=0, name=gpu)] if gpu else [])
    return replace(log, machine=machine, server_facts=replace(log.server_facts, **(facts or {})))


def limit_of(log: Log) -> Roofline:
    found = roofline.of_log(log)
    assert isinstance(found, Roofline), found
    return found


@pytest.mark.parametrize(
    ("mhz", "bits", "gb_per_s"),
    [
        (1593, 5120, 2039),
        (2619, 5120, 3352),
        (1215, 5120, 1555),
        (6251, 192, 300),
        (10501, 384, 1008),
        (877, 4096, 898),
    ],
    ids=["A100-SXM4-80GB", "H100 SXM", "A100 40GB", "L4", "RTX 4090", "V100"],
)
def test_bandwidth_from_clock_and_bus(mhz: int, bits: int, gb_per_s: int) -> None:
    gpu = Gpu(index=0, name="any", max_memory_clock_mhz=mhz, memory_bus_bits=bits)
    assert (roofline.bandwidth(gpu) or 0) / 1e9 == pytest.approx(gb_per_s, abs=1)
    assert roofline.bandwidth(Gpu(index=0, name="any", max_memory_clock_mhz=mhz)) is None


@pytest.mark.parametrize(
    ("name", "tflops", "gb_per_s"),
    [
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA A100-SXM4-40GB", 312, 1555),
        ("NVIDIA A100 80GB PCIe", 312, 1935),
        ("NVIDIA H100 80GB HBM3", 989, 3352),
        ("NVIDIA H100 PCIe", 756, 2039),
        ("NVIDIA L40S", 362, 864),
        ("NVIDIA L4", 121, 300),
        ("NVIDIA A10", 125, 600),
        ("NVIDIA RTX A6000", 155, 768),
    ],
)
def test_gpus_by_name(name: str, tflops: int, gb_per_s: int) -> None:
    limit = limit_of(log_of(gpu=name))
    assert (limit.operations / 1e12, limit.bandwidth / 1e9) == (tflops, gb_per_s)


def test_the_limit_by_hand() -> None:
    """8 GB/s and 100 Gop/s; 1e9 parameters of 2 bytes, 2 MB of KV cache, 3 prompt tokens for each output token."""
    limit = Roofline("x", 8e9, 100e9, 1e9, 2.0, "", 2e6, 3.0)
    memory_s, arithmetic_s = limit.step_s(np.array([1.0, 10.0]))
    assert memory_s.tolist() == pytest.approx([2.002 / 8, 2.02 / 8])
    assert arithmetic_s.tolist() == pytest.approx([8 / 100, 80 / 100])
    assert limit.tokens_per_s(np.array([1.0, 10.0])).tolist() == pytest.approx([8 / 2.002, 12.5])


def test_what_a_token_asks_for() -> None:
    limit = limit_of(log_of(facts={"kv_values_per_token": 1000}))
    assert (limit.parameters, limit.weight_bytes, limit.form) == (7e9, 2.0, "")
    assert limit.prompt_share == 25 and limit.kv_bytes == 1000 * 2 * 102
    assert limit_of(log_of()).kv_bytes is None
    assert limit_of(replace(log_of(), cache_hit_rate=0.8)).prompt_share == pytest.approx(5)


@pytest.mark.parametrize(
    ("changes", "configuration", "form", "weight_bytes", "faster"),
    [
        ({"engine_args": ("--quantization", "fp8")}, {}, "fp8", 1, 2),
        ({"engine_args": ("--quantization=awq",)}, {}, "awq", 0.5, 1),
        ({"model": "org/Model-7B-GPTQ"}, {}, "gptq", 0.5, 1),
        ({}, {"model_ftype": "Q4_1", "dtype": "float32"}, "q4_", 0.5, 1),
        ({}, {"dtype": "torch.float32"}, "float32", 4, 1),
        ({}, {"dtype": "torch.bfloat16", "quantization": None}, "", 2, 1),
        ({"fp6": True}, {}, "fp6", 0.75, 1),
    ],
)
def test_the_form_of_the_weights(
    changes: dict[str, object], configuration: dict[str, object], form: str, weight_bytes: float, faster: int
) -> None:
    limit = limit_of(log_of(facts={"configuration": configuration}, **changes))
    assert (limit.form, limit.weight_bytes, limit.operations / 312e12) == (form, weight_bytes, faster)


def test_a_cache_of_8_bits() -> None:
    values: dict[str, object] = {"kv_values_per_token": 1000}
    by_flag = log_of(facts=values, engine_args=("--kv-cache-dtype", "fp8_e4m3"))
    told = log_of(facts=values | {"configuration": {"cache_dtype": "fp8"}})
    of_weights = log_of(facts=values, engine_args=("--quantization", "fp8"))
    assert [limit_of(log).kv_bytes for log in (by_flag, told, of_weights)] == [102e3, 102e3, 204e3]


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (log_of(gpu=""), "no GPU is known"),
        (log_of(gpu="NVIDIA T4000"), "what NVIDIA T4000 can do is not known"),
        (log_of(model="org/phi"), "the model's name does not tell its parameters"),
        (log_of(facts={"configuration": {"speculative_config.method": "eagle"}}), "it decodes speculatively"),
        (replace(log_of(), results=[]), "no request succeeded"),
    ],
)
def test_why_there_is_no_limit(log: Log, why: str) -> None:
    assert roofline.of_log(log) == why


@pytest.mark.parametrize(
    ("config", "values"),
    [
        ({"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64}, 64),
        ({"num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 64}, 256),
        ({"text_config": {"num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 5}}, 20),
        ({"num_hidden_layers": 3, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 1728),
        ({"num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 64, "sliding_window": 4096}, None),
        (
            {
                "num_hidden_layers": 2,
                "num_attention_heads": 8,
                "hidden_size": 64,
                "sliding_window": 9,
                "use_sliding_window": False,
            },
            256,
        ),
        ({"num_hidden_layers": 2, "num_attention_heads": 8, "layer_types": ["linear_attention"]}, None),
        ({"num_hidden_layers": "two", "num_attention_heads": None}, None),
        ({}, None),
    ],
)
def test_the_cache_of_a_model(tmp_path: Path, config: dict[str, object], values: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert kv_values_per_token(str(tmp_path)) == values


def test_the_figure_has_the_limit_and_what_is_left() -> None:
    """4 clients at 4 tokens/s each; a replica of two has half the requests in flight, and two GPUs."""
    logs = [log_of(clients) for clients in (1, 2, 4)]
    series = [Series("vLLM", "#1555e0", points=points_of(logs))]
    series.append(Series("vLLM x 2", "#1555e0", points=points_of([log_of(4, num_replicas=2)])))
    _, ax = plt.subplots()
    plot_roofline.draw(ax, [(one, limit_of(one.log)) for one in series])
    first, second, limit = (line for line in ax.lines if len(line.get_xdata()) and line.get_label()[0] != "_")
    assert list(first.get_xdata()) == pytest.approx([1, 2, 4], rel=0.02)
    assert list(second.get_xdata()) == pytest.approx([2], rel=0.02)
    share = first.get_ydata()[-1] / float(limit_of(logs[0]).tokens_per_s(np.array(first.get_xdata()[-1])))
    assert first.get_label() == f"vLLM, {share:.0%}"
    assert limit.get_label() == "limit of NVIDIA A100-SXM4-80GB, 16-bit weights"
    assert (np.interp(first.get_xdata(), limit.get_xdata(), limit.get_ydata()) > first.get_ydata()).all()
    (made_of, _) = [str(line.get_label()) for line in ax.lines if not len(line.get_xdata())][-2:]
    assert made_of.startswith("NVIDIA A100-SXM4-80GB: 2039 GB/s, 312 TFLOP/s; 7B parameters of 2 bytes (assumed)")
    assert "KV cache unknown, left out; limited by" in made_of


def test_on_a_cpu_there_is_nothing_to_draw_but_one_line(logs: Path) -> None:
    for path in logs.glob("*/*.json"):
        log = store.load(path)
        assert log.machine == A100
        store.save(replace(log, machine=None), path)
    ended = python(ROOT / "src/plot_roofline.py", "--log_dir", logs, cwd=logs.parent)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (0, "", 1)
    assert (
        ended.stderr.startswith("nothing to draw: ") and "vLLM TP 1 x 1: no limit, no GPU is known" in ended.stderr
    )
