"""What a run sends and when: requests of exact lengths, datasets, traces and arrival times, all from a seed."""

from servebench.workload.arrivals import Schedule
from servebench.workload.build import build_workload
from servebench.workload.model_files import load_tokenizer
from servebench.workload.requests import Request, Workload

__all__ = ["Request", "Schedule", "Workload", "build_workload", "load_tokenizer"]
