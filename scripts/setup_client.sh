#!/usr/bin/env bash
# The client's environment: ./scripts/setup_client.sh [EXTRA]   makes .venv with this project in it (EXTRA: dev).
# Needs Python 3.10 or newer. Does nothing when it is there already and pyproject.toml has not changed. A .venv that it
# did not make (without .venv/.installed) is used if everything is in it, and never touched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
EXTRA=${1:-} WANTED="${1:-} $(sha256sum pyproject.toml | cut -d' ' -f1)" LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "[setup] $*" >&2; }
fail() { tail -n 15 "$LOG" >&2; printf '%s\n' "[setup] error: $*" >&2; exit 1; }

install() { # uv if it is here or can be had (seconds instead of half a minute), else pip
    if command -v uv >/dev/null; then
        uv pip install --python .venv/bin/python "$1" && return
    elif .venv/bin/python -m pip install --quiet uv; then
        .venv/bin/python -m uv pip install --python .venv/bin/python "$1" && return
    fi
    .venv/bin/python -m pip install --quiet "$1"
}

works() { # is all that we need in .venv?
    local modules="servebench.campaign.loop, servebench.show.html.report, servebench.figures.page"
    if [ "$EXTRA" = dev ]; then modules+=", mypy, pytest, ruff, xdist, selenium, trustme, mistral_common"; fi
    .venv/bin/python -c "import $modules" >"$LOG" 2>&1
}

case "$(cat .venv/.installed 2>/dev/null)" in
"$WANTED" | "dev ${WANTED#* }") say "client: installed in .venv"; exit ;;
esac
if [ -e .venv ] && [ ! -e .venv/.installed ]; then
    works && { say "client: using your own .venv"; exit; }
    say "error: .venv is not from this script and lacks what the client needs;" \
        "install it there: .venv/bin/python -m pip install -e '.${EXTRA:+[$EXTRA]}', or move .venv away"
    exit 1
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' >"$LOG" 2>&1 || fail "Python 3.10 or newer is needed as python3"
python3 -c 'import ensurepip' >"$LOG" 2>&1 || fail "python3 cannot make environments; on Debian and Ubuntu: apt-get install python3-venv"
say "client: installing into .venv"
rm -rf .venv
mkdir .venv && : >.venv/.installed # ours from now on, though not whole
python3 -m venv .venv >"$LOG" 2>&1 || fail "making .venv failed"
install "-e.${EXTRA:+[$EXTRA]}" >"$LOG" 2>&1 || fail "installing the client failed"
printf '%s\n' "$WANTED" >.venv/.installed
say "client: installed"
