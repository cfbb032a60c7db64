#!/usr/bin/env bash
# DeepSpeed-MII (FastGen), for machines with an NVIDIA GPU: ./engines/fastgen.sh [TORCH_VERSION]
# DeepSpeed compiles its kernels where it runs, so the CUDA of nvcc must be the CUDA that torch was built with: where
# the two differ, this stops, and another TORCH_VERSION or another CUDA toolkit is needed.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=fastgen VERSION=0.3.3 TORCH=${1:-2.13.0} PYTHON=$ENGINES/fastgen/bin/python
done_already $NAME "deepspeed-mii $VERSION" && exit
command -v nvidia-smi >/dev/null || die "no NVIDIA driver here (nvidia-smi); without a GPU use ./engines/fastgen-cpu.sh"
command -v nvcc >/dev/null || die "no CUDA compiler here (nvcc); install the CUDA toolkit and put its bin folder in PATH"
command -v g++ >/dev/null || die "no C++ compiler here (g++); on Debian and Ubuntu: apt-get install build-essential"
python3 -c 'import sys; sys.exit(sys.version_info >= (3, 14))' || die "DeepSpeed-MII needs Python 3.13 or older as python3"
[ -f "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
    die "no headers of Python here (Python.h); on Debian and Ubuntu: apt-get install python3-dev"

new_environment $NAME
step $NAME "installing torch $TORCH (several GB)" "$PYTHON" -m pip install --progress-bar off torch=="$TORCH"
step $NAME "installing deepspeed-mii $VERSION" "$PYTHON" -m pip install --progress-bar off torch=="$TORCH" -r "$HERE/fastgen-requirements.txt"
# Now, so that an error shows here, and not while the first server starts:
step $NAME "compiling DeepSpeed's kernels (some minutes)" env PATH="$ENGINES/$NAME/bin:$PATH" "$PYTHON" -c '
from deepspeed.ops.op_builder import InferenceCoreBuilder, RaggedOpsBuilder, RaggedUtilsBuilder
for builder in (RaggedUtilsBuilder, RaggedOpsBuilder, InferenceCoreBuilder):
    builder().load(verbose=True)'
step $NAME "trying it" "$PYTHON" -c 'import mii; mii.serve'
mark_done $NAME "deepspeed-mii $VERSION"
