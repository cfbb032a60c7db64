#!/usr/bin/env bash
# Every figure of the two DeepSpeed-FastGen blogs (November 2023, January 2024) that 8 GPUs can give, with DeepSpeed-MII
# and with vLLM, and the figures of tensor parallel sizes. Made for 8 x A100 (80 GB).
#
#     ./run_all.sh              days of work; interrupt it whenever you like, the same command goes on
#     ./run_all.sh --dry_run    shows every plan and what would be drawn; needs no GPU and no engine
#
# Further arguments go to every benchmark. What fails does not stop the rest; it is named at the end (status 1).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/steps.sh

BACKENDS=
REPLICAS="--clients_per_replica 16 --mean_prompt_length 2600 --mean_max_new_tokens 60"
GIVEN=("$@")

measure() { # measure MODEL ARGUMENTS...: on both engines, 512 requests a point as in the blogs
    for backend in $BACKENDS; do
        benchmark --backend "$backend" --model "$1" --num_requests 512 "${@:2}" ${GIVEN[@]+"${GIVEN[@]}"}
    done
}

figure() { # figure SCRIPT ARGUMENTS...
    # shellcheck disable=SC2086
    try $PYTHON "src/$1.py" --backend $BACKENDS --log_dir "$LOGS" "${@:2}"
}

step scripts/setup_client.sh || exit
for backend in fastgen vllm; do # an engine that is there already is taken, whatever its version
    [ -f "${SERVEBENCH_ENGINES:-.engines}/$backend/.installed" ] || try engines/$backend.sh && BACKENDS+="$backend "
done
[ "$BACKENDS" ] || finish

# Sizes, lengths and clients are the model's defaults (run_benchmark.py --list_models) where none is given.
# November 2023:
measure meta-llama/Llama-2-70b-hf                     # figures 2, 4 and 5 (TP 4); figure 7 (TP 8), if the GPUs are H100
measure meta-llama/Llama-2-13b-hf                     # figure 3 (TP 1); tensor parallel sizes (TP 1, 2, 4)
measure meta-llama/Llama-2-7b-hf                      # figure 8, if the GPU is an A6000
measure meta-llama/Llama-2-70b-hf --tp_size 4 --num_replicas 1 2 $REPLICAS     # figure 6, as far as 8 GPUs go
measure meta-llama/Llama-2-13b-hf --tp_size 1 --num_replicas 1 2 4 8 $REPLICAS # the same with more replicas
# January 2024:
measure mistralai/Mixtral-8x7B-v0.1                   # figure 1
measure mistralai/Mixtral-8x7B-v0.1 --mean_prompt_length 500 --mean_max_new_tokens 150 500 1024 # figure 2
measure microsoft/phi-2                               # figure 3
measure tiiuae/falcon-40B                             # figure 4 (TP 2); tensor parallel sizes (TP 2, 4)
measure tiiuae/falcon-180B                            # figure 5

if [ "$DRY_RUN" ]; then echo "and then would draw:"; fi
figure plot_th_lat                                    # 2023: figures 2, 3, 7, 8; 2024: all
figure plot_effective_throughput                      # 2023: figures 4, 7, 8
figure plot_latency_percentile --filter num_clients=16 mean_max_new_tokens=128 # 2023: figure 5
figure plot_repl_scale --clients_per_replica 16       # 2023: figure 6
figure plot_tp_sizes                                  # latency and TFLOP/s per GPU
try $PYTHON -m servebench report "$LOGS"              # all of it on one page
finish
