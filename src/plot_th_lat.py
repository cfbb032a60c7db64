#!/usr/bin/env python3
"""Latency against throughput: how long requests take (mean E2E latency) at the throughput that the server reaches.

    python src/plot_th_lat.py --backend vllm fastgen --log_dir results/
    python src/plot_th_lat.py --by layout --x throughput_per_gpu --y ttft_p99

One figure per model, server and pair of lengths; one curve per backend; one point per load.
"""

from __future__ import annotations

import servebench  # noqa: F401  # isort: skip  first: it says what this Python lacks

from servebench.cli import commandline
from servebench.figures import axes, curves, plotting, selection
from servebench.figures.page import page, plot_parser

THROUGHPUTS = {"window": "request_throughput", "blog": "blog_throughput"}
LATENCY = "e2e_latency_mean"


def main() -> None:
    parser = plot_parser(__doc__, "throughput_latency", x=THROUGHPUTS["window"], y=LATENCY, by=True)
    ways = "--x in other words: window (completed in the steady window) or blog (clients / mean latency) [window]"
    parser.add_argument("--throughput", choices=THROUGHPUTS, help=ways)
    args = parser.parse_args()
    if args.throughput:
        parser.set_defaults(x=axes.quantity(THROUGHPUTS[args.throughput]))
        args.x = parser.get_default("x")
    for group in curves.groups(args, selection.CONFIGURATION):
        with page(args, group) as figure:
            plotting.draw_quantities(figure.subplots(), group.series, args.x, args.y)


if __name__ == "__main__":
    commandline.run(main)
