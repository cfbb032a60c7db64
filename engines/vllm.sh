#!/usr/bin/env bash
# vLLM's CUDA build, for machines with an NVIDIA GPU: ./engines/vllm.sh [VERSION]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=vllm VERSION=${1:-0.33.0}
done_already $NAME "vllm $VERSION" && exit
command -v nvidia-smi >/dev/null || die "no NVIDIA driver here (nvidia-smi); without a GPU use ./engines/vllm-cpu.sh"

new_environment $NAME
step $NAME "installing vllm $VERSION (several GB)" "$ENGINES/$NAME/bin/python" -m pip install --progress-bar off "vllm==$VERSION"
step $NAME "trying it" "$ENGINES/$NAME/bin/vllm" --version
mark_done $NAME "vllm $VERSION"
