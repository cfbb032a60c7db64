#!/usr/bin/env python3
"""Benchmark LLM servers: sweep tp_size x replicas x lengths x clients and write a log of each run to results/.

python run_benchmark.py --backend vllm --num_clients 1 2 4 8        (-h shows the common options)
"""

import sys
from pathlib import Path

try:
    import servebench  # first: it says what this Python lacks
except ModuleNotFoundError:
    sys.path.append(str(Path(__file__).resolve().parent / "src"))
    import servebench

    servebench.refuse_lacking(["servebench"])

from servebench.campaign import driver
from servebench.cli import commandline

if __name__ == "__main__":
    commandline.run(driver.main)
