# Sourced by run_example.sh, run_all.sh and run_tests.sh, with their arguments: steps that end cleanly with the script.
# Each step is a process group of its own, so that Ctrl-C or a SIGTERM to the script ends all of it, once.
PYTHON=.venv/bin/python LOGS=results DRY_RUN='' STEP='' FAILED=()

previous=
for word; do
    case $word in
    -h | --help) # the comment at the head of the script
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
        exit
        ;;
    --dry_run | --dry-run) DRY_RUN=yes ;;
    --out_json_dir=*) LOGS=${word#*=} ;;
    esac
    case $previous in --out_json_dir) LOGS=$word ;; esac
    previous=$word
done

step() { # step COMMAND...: run it and wait; its exit status is ours
    set -m
    "$@" &
    STEP=$!
    set +m
    wait "$STEP"
}

try() { # try COMMAND...: a step after whose failure the others go on; with --dry_run it is only shown
    if [ "$DRY_RUN" ]; then show "$@"; else step "$@" || failed "$@"; fi
}

failed() { FAILED+=("$*"); return 1; }

show() { # show COMMAND...: as it is typed into a shell
    local line
    printf -v line '%q ' "$@"
    echo "${line% }"
}

benchmark() { # benchmark ARGUMENTS...: show the command and measure; with --dry_run show its plan, if the client is there
    show $PYTHON run_benchmark.py "$@"
    if [ "$DRY_RUN" ] && [ ! -x $PYTHON ]; then return; fi
    step $PYTHON run_benchmark.py "$@" || failed run_benchmark.py "$@"
}

finish() { # the end of a script: name what failed
    if [ ${#FAILED[@]} -eq 0 ]; then exit; fi
    printf 'failed: %s\n' "${FAILED[@]}" >&2
    exit 1
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
