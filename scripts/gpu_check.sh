#!/usr/bin/env bash
# Do vLLM and DeepSpeed-MII run, and differ, on this machine's GPU? From nothing to figures:
#
#     ./scripts/gpu_check.sh             an hour or so the first time, most of it installing
#     ./scripts/gpu_check.sh --dry_run   only says what it would do; needs no GPU
#
# The model is Llama-2-7b's shape in random weights, so nothing but packages is downloaded. Logs go to
# results/gpu_check, figures to plots/gpu_check. What failed does not stop the rest; it is named at the end (status 1).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/steps.sh

LOGS=results/gpu_check FIGURES=plots/gpu_check
MODEL=${SERVEBENCH_MODELS:-.models}/Llama-2-7b-random
PYTHON=.venv/bin/python
FAILED=()

case "$*" in
"") command -v nvidia-smi >/dev/null ||
    { echo "gpu_check.sh: no NVIDIA driver here (nvidia-smi); --dry_run says what it would do" >&2; exit 2; } ;;
--dry_run) step() { printf '%q ' "$@" && echo; } ;;
*) echo "gpu_check.sh: $*: only --dry_run is understood" >&2; exit 2 ;;
esac

try() { step "$@" || FAILED+=("$*"); }

describe_machine() { # what the figures were measured on, beside the logs
    mkdir -p "$LOGS" && { nvidia-smi && nvcc --version && tail -n +1 "${SERVEBENCH_ENGINES:-.engines}"/*/.installed; } >"$LOGS/machine.txt"
}

benchmark() { # benchmark BACKEND ARGUMENTS...
    try $PYTHON run_benchmark.py --backend "$1" --model "$MODEL" --out_json_dir $LOGS --num_clients 1 4 16 32 \
        --mean_prompt_length 512 --mean_max_new_tokens 64 "${@:2}"
}

step scripts/setup_client.sh || exit
try engines/vllm.sh
try engines/fastgen.sh
try engines/llama_7b.sh
try describe_machine
benchmark vllm --engine_args "--load-format dummy"
benchmark fastgen
for figure in th_lat effective_throughput; do
    try $PYTHON src/plot_$figure.py --backend vllm fastgen --log_dir $LOGS --out_dir $FIGURES
done

if [ ${#FAILED[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${FAILED[@]}" >&2
    exit 1
fi
