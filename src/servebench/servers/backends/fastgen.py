"""DeepSpeed-MII in persistent mode, from .engines/fastgen (CUDA) or .engines/fastgen-cpu.

One deployment brings all replicas, and MII's own balancer spreads requests over them. It speaks gRPC, with the
messages of load/mii.py. `fastgen-cpu` is all of MII but the model: a stand-in replaces its CUDA engine.
"""

from __future__ import annotations

from typing import Any

from servebench.load import mii
from servebench.log.config import RunConfig, ServerConfig
from servebench.log.schema import model_label
from servebench.servers.backends.contract import REPOSITORY, Backend, Launch, check_gpus
from servebench.servers.backends.installed import Installed


def launch(engine: Installed, config: ServerConfig, port: int, replica: int) -> Launch:
    if not engine.on_cpu:
        check_gpus(config)
    command = [str(engine.program), str(REPOSITORY / "engines/mii_server.py"), "--model", config.model]
    command += ["--port", str(port), "--deployment-name", config.deployment_name or model_label(config.model)]
    command += ["--tensor-parallel", str(config.tp_size), "--replica-num", str(config.num_replicas)]
    command += ["--max-ragged-batch-size", str(config.max_ragged_batch_size)]
    command += ["--quantization-mode", "wf6af16"] if config.fp6 else []
    command += ["--gpus", ",".join(map(str, config.gpus))] if config.gpus else []
    command += ["--cpu-engine", "hf"] if engine.on_cpu else []
    return Launch((*command, *config.engine_args))


def deployment_ports(config: ServerConfig) -> int:
    """One for the balancer, and one for every GPU of every replica."""
    return 1 + config.workers


def endpoint(url: str, run: RunConfig) -> str:
    return url.rstrip("/") + mii.SERVICE + ("GeneratorReplyStream" if run.stream else "GeneratorReply")


def body(run: RunConfig, model: str, prompt: str, max_new_tokens: int) -> dict[str, Any]:
    """The same sampling as with every engine; MII does not take a temperature of 0 but do_sample off.

    A temperature is given all the same, though it chooses nothing then: MII's scheduler breaks, and answers nobody
    any more, where some requests of a batch have one and others (the questions of --check) have none.
    """
    keywords = {"do_sample": run.temperature > 0, "temperature": run.temperature or 1.0, "top_p": run.top_p}
    ends = {"ignore_eos": not run.respect_eos, "return_full_text": False}
    return {"prompt": prompt, "max_new_tokens": max_new_tokens, "stream": run.stream, **keywords, **ends}


BACKEND = Backend(
    body,
    launch,
    environments=("fastgen", "fastgen-cpu"),
    packages=("deepspeed-mii",),
    deployment_ports=deployment_ports,
    ready_line="ready on port",
    lists_models=False,
    api="mii",
    endpoint=endpoint,
    encode=mii.encode,
    unsaid="top_k off",
)
