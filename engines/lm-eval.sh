#!/usr/bin/env bash
# lm-evaluation-harness, which scores the answers of a server: ./engines/lm-eval.sh   (a minute, 1 GB)
# Only what asks a server is installed, so no torch; transformers is for the tokenizer alone, without which no task
# of multiple choice can be asked.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=lm-eval PACKAGE=lm_eval VERSION=0.4.13 TRANSFORMERS=5.24.0
done_already $NAME "$PACKAGE $VERSION" && exit

new_environment $NAME
step $NAME "installing $PACKAGE $VERSION" \
    "$ENGINES/$NAME/bin/python" -m pip install --progress-bar off "$PACKAGE[api]==$VERSION" transformers==$TRANSFORMERS
step $NAME "trying it" "$ENGINES/$NAME/bin/lm_eval" validate --tasks gsm8k
mark_done $NAME "$PACKAGE $VERSION"
