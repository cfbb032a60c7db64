"""DeepSpeed-MII on a machine without a GPU: a stand-in for its engine, for tests and for trying the benchmark out.

Python runs this file when it starts with this folder on PYTHONPATH, as mii_server.py --cpu-engine puts it there.
Every process of `mii.serve` is then the real, unmodified MII (launcher, balancer, gRPC, scheduler, samplers,
streaming); only the function that would build DeepSpeed's CUDA engine builds one of cpu_engine.py. Figures of it
say nothing about DeepSpeed.
"""

import sys
import types


def load_model(model_config: object) -> object:
    from cpu_engine import make_engine  # not at the top: this file runs in every Python process, torch is slow

    return make_engine(model_config)


replacement = types.ModuleType("mii.modeling.models")
replacement.load_model = load_model
sys.modules[replacement.__name__] = replacement
