#!/usr/bin/env bash
# The data of the DeepSpeed-FastGen blogs: every model of the defaults on both engines, then every figure
# and the report.
# Meant for 8 x A100 (80 GB); days of work, resumable at any time. Arguments (--dry_run, ...) go to every benchmark.
#
#     ./run_all.sh
#
# A model that fails does not stop the rest; it is named at the end, and the exit status is 1.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/steps.sh

step scripts/setup_client.sh || exit
PYTHON=.venv/bin/python
BACKENDS="fastgen vllm"
MODELS="meta-llama/Llama-2-7b-hf meta-llama/Llama-13b-hf meta-llama/Llama-2-70b-hf tiiuae/falcon-40B
        tiiuae/falcon-180B microsoft/phi-2 mistralai/Mixtral-8x7B-v0.1"
FAILED=()

benchmark() { # benchmark BACKEND MODEL ARGUMENTS...
    step $PYTHON run_benchmark.py --backend "$1" --model "$2" "${@:3}" || FAILED+=("$*")
}

for model in $MODELS; do
    for backend in $BACKENDS; do
        benchmark "$backend" "$model" "$@"
    done
done
for backend in $BACKENDS; do # the long generations of the Mixtral blog
    benchmark "$backend" mistralai/Mixtral-8x7B-v0.1 --tp_size 4 \
        --mean_prompt_length 500 --mean_max_new_tokens 150 500 1024 "$@"
done

case " $* " in *" --dry_run "*) ;; *)
    for figure in src/plot_*.py; do
        # shellcheck disable=SC2086
        step $PYTHON "$figure" --backend $BACKENDS --log_dir results/ || FAILED+=("$figure")
    done
    step $PYTHON -m servebench.report results/ || FAILED+=("report") ;;
esac

if [ ${#FAILED[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${FAILED[@]}" >&2
    exit 1
fi
