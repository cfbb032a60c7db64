# Sourced by run_example.sh and run_all.sh: steps that end cleanly with the script that runs them.
# Each step is a process group of its own, so that Ctrl-C or a SIGTERM to the script ends all of it, once.
STEP=

step() { # step COMMAND...: run it and wait; its exit status is ours
    set -m
    "$@" &
    STEP=$!
    set +m
    wait "$STEP"
}

end_step() { # end_step STATUS: end the step that runs, wait for it, leave
    trap '' INT TERM HUP
    if [ -n "$STEP" ]; then
        kill -TERM -- "-$STEP" 2>/dev/null || true
        wait "$STEP" 2>/dev/null || true
    fi
    exit "$1"
}

trap 'end_step 130' INT
trap 'end_step 143' TERM
trap 'end_step 129' HUP
