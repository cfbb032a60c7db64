"""ServeBench: benchmark LLM servers, with every token stamped by the kernel where it arrives."""

__version__ = "0.1.0"
