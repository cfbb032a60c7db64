#!/usr/bin/env bash
# From nothing to an answer in one command, on any Linux machine with Python >= 3.10:
#
#     ./run_example.sh              sets itself up, measures, draws, reports; run again, it only does what is missing
#     ./run_example.sh --dry_run    shows what it would do on this machine, and does nothing
#
# With an NVIDIA GPU: figure 8 of the first DeepSpeed-FastGen blog, Llama-2-7b with vLLM and DeepSpeed-MII (40 GB of disk;
# an hour or two). Without: SmolLM2-135M with vLLM and llama.cpp at 1, 2, 4 and 8 clients (3 GB; minutes).
# Further arguments go to run_benchmark.py. What fails does not stop the rest; it is named at the end (status 1).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/steps.sh

has_gpu() { # does a GPU hold Llama-2-7b and a KV cache? One that does not say its memory is believed to
    local mib
    mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null) || return
    mib=${mib%%$'\n'*}
    [[ ! $mib =~ ^[0-9]+$ || $mib -ge 20000 ]]
}

llama_7b() { # sets MODEL: the trained one, or random weights of its shape, as the recipe says
    MODEL=meta-llama/Llama-2-7b-hf
    if [ "$DRY_RUN" ]; then
        show engines/llama_7b.sh
        echo "# $MODEL, or random weights of its shape where the hub does not give it"
        return
    fi
    local chosen
    chosen=$(mktemp)
    if step engines/llama_7b.sh >"$chosen"; then MODEL=$(cat "$chosen"); else failed engines/llama_7b.sh; fi
    rm -f "$chosen"
}

figures() { # figures "BACKENDS" SLA...
    # shellcheck disable=SC2206
    local what=(--backend $1 --log_dir "$LOGS" --model_name "$MODEL")
    try $PYTHON src/plot_th_lat.py "${what[@]}"
    try $PYTHON src/plot_effective_throughput.py "${what[@]}" "${@:2}"
}

answer() { # a page with everything, then the result in words and what to type next
    try $PYTHON -m servebench report "$LOGS"
    try $PYTHON -m servebench summary "$LOGS"
    if [ -z "$DRY_RUN" ]; then echo "Open $LOGS/report.html in a browser for all of it."; fi
}

on_a_gpu() {
    llama_7b
    for backend in vllm fastgen; do
        try engines/$backend.sh &&
            benchmark --backend $backend --model "$MODEL" --mean_prompt_length 2600 --mean_max_new_tokens 60 "$@"
    done
    figures "vllm fastgen"
    answer
}

on_a_laptop() {
    try engines/smollm2.sh
    MODEL=${SERVEBENCH_MODELS:-.models}/SmolLM2-135M-Instruct
    local load=(--num_clients 1 2 4 8 --mean_prompt_length 64 --mean_max_new_tokens 32 --num_requests 24 --runs 3)
    try engines/llamacpp.sh &&
        benchmark --backend llamacpp --model "$MODEL" "${load[@]}" "$@"
    try engines/vllm-cpu.sh &&
        benchmark --backend vllm --model "$MODEL" --engine_args=--enforce-eager "${load[@]}" "$@"
    # A laptop's speed: the prompt at 128 tokens/s or more, the generation at 8, 16 and 24.
    figures "vllm llamacpp" --sla_prompt_tokens_per_sec 128 --sla_gen_tokens_per_sec 8 16 24
    answer
}

try scripts/setup_client.sh || exit
if [ $# -gt 0 ] && [ -z "$DRY_RUN" ]; then # a wrong option is refused before anything is installed
    step $PYTHON run_benchmark.py --backend vllm "$@" --dry_run >/dev/null || exit
fi
if has_gpu; then on_a_gpu "$@"; else on_a_laptop "$@"; fi
finish
