#!/usr/bin/env python3
"""Benchmark LLM servers: sweep tp_size x replicas x lengths x clients and write a log of each run to results/.

python run_benchmark.py --backend vllm --num_clients 1 2 4 8        (-h explains every option)
"""

import sys
from pathlib import Path

try:
    import servebench  # first: it says what this Python lacks
except ModuleNotFoundError:
    sys.path.append(str(Path(__file__).resolve().parent / "src"))
    import servebench

    servebench.refuse_lacking(["servebench"])

from servebench.campaign import loop
from servebench.cli import commandline, keys
from servebench.cli.signals import ends_on_signals
from servebench.plan import arguments
from servebench.show import plan_table


def main() -> int:
    keys.hide_own_keys()
    settings = arguments.parse()
    if settings[0].execution.list_models:
        print(plan_table.models_table())
        return 0
    with ends_on_signals():
        return loop.run(settings)


if __name__ == "__main__":
    commandline.run(main)
