"""What goes on beside the requests: the manifest of a server's machine, and samples of GPUs, host and engines."""
