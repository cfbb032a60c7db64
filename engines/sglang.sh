#!/usr/bin/env bash
# SGLang, for machines with an NVIDIA GPU: ./engines/sglang.sh [VERSION]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=sglang VERSION=${1:-0.5.23}
done_already $NAME "sglang $VERSION" && exit
command -v nvidia-smi >/dev/null || die "no NVIDIA driver here (nvidia-smi); SGLang's packages are for GPUs only"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "SGLang needs Python 3.11 or newer as python3"

new_environment $NAME
step $NAME "installing sglang $VERSION (several GB)" "$ENGINES/$NAME/bin/python" -m pip install --progress-bar off "sglang==$VERSION"
step $NAME "trying it" "$ENGINES/$NAME/bin/python" -m sglang.launch_server --help
mark_done $NAME "sglang $VERSION"
