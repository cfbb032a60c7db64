"""What tokens cost: a price of a GPU hour times the GPUs of the server.

The price is a field of the log, as it was given when it was measured. A command that reads logs replaces it by the
one that it is given (`priced`), so metrics stay functions of a log alone, and nothing is kept on the side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from servebench.analysis import throughput
from servebench.analysis.cache import altered
from servebench.cli.commandline import Number
from servebench.log.schema import Log

OPTION, METAVAR = "gpu_hour_price", "DOLLARS"
HELP = "price of a GPU for an hour in $, for what a million tokens cost"
NO_GPUS = "it is not known how many GPUs the server has (on a CPU it has none; of a running one give --tp_size)"


def add_price(parser: argparse.ArgumentParser) -> None:
    """The option of every command that reads logs."""
    what = f"{HELP} [as given when they were measured]"
    parser.add_argument(f"--{OPTION}", type=Number(float, 0), metavar=METAVAR, help=what)


def with_price(log: Log, price: float | None) -> Log:
    """The log with this price, if there is one, in place of its own."""
    return log if price is None else altered(log, gpu_hour_price=price)


def priced(logs: Iterable[tuple[Path, Log]], price: float | None) -> Iterator[tuple[Path, Log]]:
    """Logs with this price; says in the end if there was a price, but nothing to count it for."""
    wanted = counted = False
    for path, log in logs:
        found = with_price(log, price)
        wanted |= found.gpu_hour_price is not None
        counted |= dollars_per_hour(found) is not None
        yield path, found
    if wanted and not counted:
        print(f"note: no $: {NO_GPUS}", file=sys.stderr)


def why_unknown(log: Log) -> str:
    """In a sentence, why there is no cost."""
    if log.gpu_hour_price is None:
        return f"no price is known; give --{OPTION}"
    return NO_GPUS if dollars_per_hour(log) is None else "no token to share it"


def dollars_per_hour(log: Log) -> float | None:
    """Of all GPUs. Who gives a price, and the size of a server that runs already, says that these are GPUs."""
    server = log.server
    gpus = throughput.known_gpus(log) or (server.workers if server.urls and server.workers > 1 else None)
    return None if log.gpu_hour_price is None or gpus is None else log.gpu_hour_price * gpus


def of_output_tokens(log: Log) -> float | None:
    """Price of a GPU hour x GPUs x hours of the window / output tokens that arrived in it, $ per million tokens.

    The whole cost is counted, as it is for input tokens: do not add the two.
    """
    return _per_million(log, throughput.output_token_throughput(log))


def of_input_tokens(log: Log) -> float | None:
    """Price of a GPU hour x GPUs x hours of the window / prompt tokens of requests that ended in it, $ per
    million tokens.

    The whole cost is counted, as it is for output tokens: do not add the two.
    """
    return _per_million(log, throughput.input_token_throughput(log))


def _per_million(log: Log, tokens_per_s: float | None) -> float | None:
    hourly = dollars_per_hour(log)
    return None if hourly is None or not tokens_per_s else hourly / 3600 / tokens_per_s * 1e6
