#!/usr/bin/env bash
# From nothing to figures in one command, on any Linux machine with Python >= 3.10, without a GPU:
#
#     ./run_example.sh
#
# Sets itself up (3 GB, once), serves SmolLM2-135M with vLLM and with llama.cpp, measures both at 1, 2, 4 and 8
# clients, and draws the throughput-latency and effective-throughput curves. Run it again after an interrupt:
# only what is missing is measured. Further arguments go to run_benchmark.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/steps.sh

step scripts/setup_client.sh
step engines/llamacpp.sh
step engines/vllm-cpu.sh
step engines/smollm2.sh

MODEL=${SERVEBENCH_MODELS:-.models}/SmolLM2-135M-Instruct
benchmark() { # benchmark BACKEND ENGINE_ARGS ARGUMENTS...
    step .venv/bin/python run_benchmark.py --backend "$1" --engine_args "$2" --model "$MODEL" --num_clients 1 2 4 8 \
        --mean_prompt_length 64 --mean_max_new_tokens 32 --num_requests 24 "${@:3}"
}
STATUS=0
benchmark llamacpp "" "$@" || STATUS=$?
benchmark vllm "--enforce-eager" "$@" || STATUS=$?

# A laptop's speed: the prompt at 128 tokens/s or more, the generation at 8, 16 and 24.
SLA="--sla_prompt_tokens_per_sec 128 --sla_gen_tokens_per_sec 8 16 24"
FIGURES="--backend vllm llamacpp --log_dir results/ --model_name $MODEL"
echo "figures:"
# shellcheck disable=SC2086
step .venv/bin/python src/plot_th_lat.py $FIGURES
# shellcheck disable=SC2086
step .venv/bin/python src/plot_effective_throughput.py $FIGURES $SLA
exit $STATUS
