#!/usr/bin/env bash
# DeepSpeed-MII without a GPU: ./engines/fastgen-cpu.sh   (2 minutes, 1.5 GB)
# The real MII around a stand-in for DeepSpeed's engine (mii_cpu/), for tests and for trying the benchmark out; its
# figures say nothing about DeepSpeed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=fastgen-cpu VERSION=0.3.3 TORCH=2.13.0
done_already $NAME "deepspeed-mii $VERSION+cpu" && exit
python3 -c 'import sys; sys.exit(sys.version_info >= (3, 14))' || die "DeepSpeed-MII needs Python 3.13 or older as python3"

new_environment $NAME
step $NAME "installing deepspeed-mii $VERSION and CPU torch (about 2 minutes)" \
    pip_or_uv $NAME torch==$TORCH+cpu -r "$HERE/fastgen-requirements.txt"
step $NAME "trying it" "$ENGINES/$NAME/bin/python" -c 'import mii; mii.serve'
mark_done $NAME "deepspeed-mii $VERSION+cpu"
