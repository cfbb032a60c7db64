#!/usr/bin/env bash
# llama.cpp's own HTTP server, prebuilt: ./engines/llamacpp.sh   (seconds, 130 MB)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NAME=llamacpp PACKAGE=xllamacpp VERSION=2026.10.11549
done_already $NAME "$PACKAGE $VERSION" && exit

new_environment $NAME
step $NAME "installing $PACKAGE $VERSION" "$ENGINES/$NAME/bin/python" -m pip install --progress-bar off $PACKAGE==$VERSION
step $NAME "trying it" "$ENGINES/$NAME/bin/python" -c 'import xllamacpp; xllamacpp.Server'
mark_done $NAME "$PACKAGE $VERSION"
