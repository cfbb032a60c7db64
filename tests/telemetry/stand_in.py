"""An engine on GPUs that needs none: the reference server in the place of vLLM, started as vLLM is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

SCRIPT = """#!/bin/sh
while [ "$1" != "--port" ]; do shift; done
echo $$ > {folder}/pid
exec {python} -m servebench reference-server --port "$2" --ttft 0.02 --gap 0.005
"""


@pytest.fixture
def stand_in(tmp_path: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The words that measure it. Its pid is in tmp_path/pid."""
    folder = tmp_path / "engines/vllm"
    (folder / "bin").mkdir(parents=True)
    (folder / ".installed").write_text("vllm 1.0")
    script = folder / "bin/vllm"
    script.write_text(SCRIPT.format(python=sys.executable, folder=tmp_path))
    script.chmod(0o755)
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(folder.parent))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    model = shutil.copytree(tokenizer_dir, tmp_path / "model")
    (model / "config.json").write_text('{"max_position_embeddings": 4096}')
    words = ["--backend", "vllm", "--model", model, "--mean_prompt_length", 8]
    return [*words, "--mean_max_new_tokens", 40, "--num_workers", 1, "--num_requests", 12]
