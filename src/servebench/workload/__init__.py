"""What is sent and when: requests of exact lengths, datasets and traces, arrival times; all from a seed."""

from servebench.workload.arrivals import Schedule
from servebench.workload.build import build_workload
from servebench.workload.requests import Request, Workload
from servebench.workload.tokens import load_tokenizer

__all__ = ["Request", "Schedule", "Workload", "build_workload", "load_tokenizer"]
