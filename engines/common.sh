# Sourced by the recipes beside it. A recipe makes one environment under .engines/<name> and marks it when it is
# complete, so that a second run has nothing to do and a broken one starts over.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
ENGINES=${SERVEBENCH_ENGINES:-$ROOT/.engines}
MODELS=${SERVEBENCH_MODELS:-$ROOT/.models}
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "[setup] $*" >&2; }
die() { printf '%s\n' "[setup] error: $*" >&2; exit 1; }

# done_already NAME "PACKAGE VERSION": was exactly this installed before?
done_already() {
    [ "$(cat "$ENGINES/$1/.installed" 2>/dev/null)" = "$2" ] && say "$1: $2 is installed in $ENGINES/$1"
}

mark_done() { printf '%s\n' "$2" >"$ENGINES/$1/.installed" && say "$1: installed $2"; }

# step NAME WHAT COMMAND...: run with its output in a log; on failure show the end of it and stop
step() {
    local name=$1 what=$2 log="$ENGINES/$1.log"
    shift 2
    mkdir -p "$ENGINES"
    say "$name: $what"
    "$@" >>"$log" 2>&1 || { tail -n 15 "$log" >&2; die "$name: $what failed; all of its output is in $log"; }
}

# new_environment NAME: an empty virtual environment in $ENGINES/NAME
new_environment() {
    rm -rf "${ENGINES:?}/$1" "$ENGINES/$1.log"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "Python 3.10 or newer is needed (python3 --version)"
    python3 -c 'import ensurepip' 2>/dev/null || die "python3 cannot make environments; on Debian and Ubuntu: apt-get install python3-venv"
    step "$1" "making an environment in $ENGINES/$1" python3 -m venv "$ENGINES/$1"
}

# pip_or_uv NAME PACKAGE...: pip first; where it cannot resolve (CPU builds of torch live outside of the main
# index), uv, which knows where they are
pip_or_uv() {
    local python="$ENGINES/$1/bin/python"
    shift
    "$python" -m pip install --progress-bar off "$@" && return
    "$python" -m pip install --progress-bar off uv &&
        "$python" -m uv pip install --python "$python" --torch-backend=cpu "$@"
}
