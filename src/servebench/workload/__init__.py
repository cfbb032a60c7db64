"""What is sent: requests with exact token lengths and fresh text, from a seed."""

from servebench.workload.synthetic import Request, Workload, build_workload
from servebench.workload.tokens import load_tokenizer

__all__ = ["Request", "Workload", "build_workload", "load_tokenizer"]
