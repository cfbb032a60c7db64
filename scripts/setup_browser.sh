#!/usr/bin/env bash
# The browser that the report is tested in: chromium and its driver, from the system's packages (Debian, Ubuntu).
# Does nothing when both are there. Without them one test fails and names this script.
set -euo pipefail
LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT

say() { printf '%s\n' "[setup] $*" >&2; }

if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
    say "browser: installed"
    exit
fi
if [ "$(id -u)" = 0 ]; then SUDO=""; elif sudo -n true 2>/dev/null; then SUDO="sudo -n"; else
    say "browser: not installed; the test of the report needs it: apt-get install chromium chromium-driver (as root)"
    exit
fi
say "browser: installing chromium and chromium-driver"
if { $SUDO apt-get update && $SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    chromium chromium-driver; } >"$LOG" 2>&1; then
    say "browser: installed"
else
    tail -n 3 "$LOG" >&2
    say "browser: apt-get install chromium chromium-driver failed; the test of the report needs them"
fi
