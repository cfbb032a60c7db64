#!/usr/bin/env bash
# What telemetry sees of the GPUs here, and what it costs: a small plan with it and without it, in turn.
#
#     scripts/gpu_check.sh --model NAME                      on vLLM; --backend sglang for another engine
#     scripts/gpu_check.sh --model NAME --num_clients 4 64   further arguments go to run_benchmark.py
#
# Needs the client (scripts/setup_client.sh), an engine (engines/vllm.sh) and a GPU. --runs N measures N pairs [2]; for
# each the engine is started twice. Logs go to results/gpu_check/ (--out_json_dir DIR). Says: the GPUs by their driver and
# how long each call to it takes; power, energy and verdict of each point; what differs with and without telemetry.
# --dry_run shows what it would do.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/steps.sh

RUNS=2 PLAN=(--backend vllm --num_clients 8 32 --mean_prompt_length 256 --mean_max_new_tokens 128 --seed 0)
if [ "$LOGS" = results ]; then LOGS=results/gpu_check; fi
while [ $# -gt 0 ]; do # the last of an option counts, so what is given comes behind what is here
    case $1 in
    --runs) RUNS=${2:?how many runs?} && shift ;;
    --runs=*) RUNS=${1#*=} ;;
    --out_json_dir) shift ;;
    --out_json_dir=*) ;;
    *) PLAN+=("$1") ;;
    esac
    shift || break
done

turn() { # turn WITH_OR_WITHOUT RUNS: measure what is missing up to so many runs
    local words=("${PLAN[@]}" --runs "$2" --out_json_dir "$LOGS/$1")
    if [ "$1" = without ]; then words+=(--no_telemetry); fi
    benchmark "${words[@]}"
}

try $PYTHON benchmarks/telemetry_cost.py
for ((run = 1; run <= RUNS; run++)); do # in turn, so that a drift of the machine favours none
    if ((run % 2)); then order=(with without); else order=(without with); fi
    for side in "${order[@]}"; do turn "$side" "$run"; done
done
try $PYTHON benchmarks/telemetry_cost.py --results "$LOGS/with" --without "$LOGS/without"
try $PYTHON -m servebench summary "$LOGS/with"
try $PYTHON -m servebench compare --paired "$LOGS/without" "$LOGS/with"
finish
