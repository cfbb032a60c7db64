#!/usr/bin/env python3
"""Benchmark LLM servers: sweep tp_size x replicas x lengths x clients and write one JSON log a point to results/.

python run_benchmark.py --backend vllm --num_clients 1 2 4 8        (-h explains every option)
"""

from contextlib import closing

from tqdm import tqdm

from servebench import arguments, commandline, keys, summary, sweep
from servebench.calibrate import calibrate
from servebench.measure import measure_plan
from servebench.preflight import preflight
from servebench.signals import ends_on_signals
from servebench.workload import load_tokenizer


def main() -> int:
    keys.hide_own_keys()
    settings = arguments.parse()
    if settings.list_models:
        print(summary.models_table())
        return 0
    with ends_on_signals():
        return calibrate(settings) if settings.calibrate else run(settings)


def run(settings: arguments.Settings) -> int:
    """Plan, measure what is pending, save each log before anything else can fail, show all of the plan's logs."""
    plan = sweep.make_plan(settings)
    print(summary.plan_table(plan, settings))
    if settings.dry_run:
        return 0
    preflight(settings, plan)
    tokenizer = load_tokenizer(settings.tokenizer)
    failed = False
    with (
        tqdm(total=sweep.num_pending(plan), desc="points", disable=None) as bar,
        closing(measure_plan(plan, settings, tokenizer)) as measured,
    ):
        for point, log in measured:
            sweep.save(point, log)
            bar.write(summary.line(log))
            bar.update()
            failed |= log.status != "ok"
            if failed and settings.on_error == "stop":
                break
    print(summary.closing(plan, settings))
    return int(failed)


if __name__ == "__main__":
    commandline.run(main)
