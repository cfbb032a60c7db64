#!/usr/bin/env python3
"""Benchmark LLM servers: sweep tp_size x replicas x lengths x clients and write one JSON log a point to results/.

python run_benchmark.py --backend vllm --num_clients 1 2 4 8        (-h explains every option)
"""

import sys
from contextlib import closing
from pathlib import Path

try:
    import servebench  # first: it says what this Python lacks
except ModuleNotFoundError:
    sys.path.append(str(Path(__file__).resolve().parent / "src"))
    import servebench

    servebench.refuse_lacking(["servebench"])

import msgspec
from tqdm import tqdm

from servebench.campaign.measure import measure_plan
from servebench.cli import commandline, keys
from servebench.cli.signals import ends_on_signals
from servebench.log import store
from servebench.log.schema import Log
from servebench.plan import arguments, search, sweep
from servebench.plan.preflight import check_loads, preflight
from servebench.show import terminal


def main() -> int:
    keys.hide_own_keys()
    settings = arguments.parse()
    if settings.list_models:
        print(terminal.models_table())
        return 0
    with ends_on_signals():
        return run(settings)


def run(settings: arguments.Settings) -> int:
    """Plan, measure what is pending, save each log before anything else can fail, show all of the plan's logs."""
    if settings.dry_run:
        plan = sweep.make_plan(settings)
        print(terminal.plan_table(plan, settings))
        check_loads(settings, plan)
        return 0
    with store.sole_writer(settings.out_json_dir / settings.backend):
        plan = sweep.make_plan(settings)
        print(terminal.plan_table(plan, settings))
        preflight(settings, plan)
        failed = measure(plan, settings)
        found = search.conclusions(plan, settings)
        print(terminal.closing(plan, found, failed, settings.out_json_dir))
        search.save(found)
    return int(bool(failed))


def measure(plan: sweep.Plan, settings: arguments.Settings) -> list[Log]:
    """Measure what is pending of the plan. Returns the logs that failed, the one that has no room included."""
    failed: list[Log] = []
    bar = tqdm(total=sweep.num_pending(plan), desc="points", disable=None)
    with bar, closing(measure_plan(plan, settings)) as measured:
        for point, log in measured:
            bar.write(terminal.line(log))
            try:
                written = store.put(log, point.path)
            except OSError as error:
                why = f"its log cannot be written ({error.strerror}); those before it are kept"
                return [*failed, msgspec.structs.replace(log, status="failed", failure=why)]
            bar.update()
            if log.status != "ok":
                failed.append(log)
                if not written:
                    bar.write("  the log of this point that was measured before is kept")
                if settings.on_error == "stop":
                    break
    return failed


if __name__ == "__main__":
    commandline.run(main)
