#!/usr/bin/env bash
# Every test, from nothing: sets up the client and the engines that the tests start, then runs pytest.
#
#     ./run_tests.sh                     all tests (about 13 minutes on 2 cores, 4 more the first time)
#     ./run_tests.sh -m "not engine"     without those that start a real engine (6 minutes); arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/steps.sh

step scripts/setup_client.sh dev
step engines/llamacpp.sh
step engines/vllm-cpu.sh
step engines/fastgen-cpu.sh
step engines/vllm-router.sh
step engines/lm-eval.sh
step engines/smollm2.sh
step engines/tiny_llama.sh
step scripts/setup_browser.sh

step .venv/bin/ruff format --check .
step .venv/bin/ruff check .
step .venv/bin/mypy
# Three processes, since most tests wait half of their time; each has a file at a time, engines last (tests/conftest.py).
# Tests of times can fail where others take the cores meanwhile, so what failed is asked once more, alone.
step .venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder "$@" ||
    step .venv/bin/python -m pytest --last-failed --last-failed-no-failures none "$@"
