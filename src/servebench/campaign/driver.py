"""The benchmark itself, `run_benchmark.py` or `servebench run`: command line, plan, loop."""

from __future__ import annotations

from servebench.campaign import loop
from servebench.cli import keys
from servebench.cli.signals import ends_on_signals
from servebench.plan import arguments
from servebench.show import plan_table


def main() -> int:
    keys.hide_own_keys()
    asked = arguments.parse()
    if asked[0].execution.list_models:
        print(plan_table.models_table())
        return 0
    with ends_on_signals():
        return loop.run(asked)
