#!/usr/bin/env bash
# vllm-router, the balancer of --router: ./engines/vllm-router.sh [VERSION]   (seconds, 200 MB)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=vllm-router VERSION=${1:-0.1.17}
done_already $NAME "vllm-router $VERSION" && exit

new_environment $NAME
step $NAME "installing vllm-router $VERSION" "$ENGINES/$NAME/bin/python" -m pip install --progress-bar off "vllm-router==$VERSION"
step $NAME "trying it" "$ENGINES/$NAME/bin/vllm-router" --help
mark_done $NAME "vllm-router $VERSION"
