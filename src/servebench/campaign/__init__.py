"""What runs: the loop over servers and points, servers that stay, two benchmarks in turn."""
