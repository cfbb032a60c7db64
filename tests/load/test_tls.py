"""TLS: stamped as plain sockets are, and verified unless the certificate's authority is made known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from servebench.analysis import samples
from servebench.log import store

LOAD = ["--backend", "openai", "--model", "reference", "--num_clients", 3, "--num_requests", 12]
LOAD += ["--mean_prompt_length", 500, "--mean_max_new_tokens", 8, "--max_new_tokens_var", 0]


def test_https_is_measured_with_kernel_stamps(
    https: Callable[..., str], benchmark: Callable[..., tuple[int, str, str]], tokenizer_dir: Path, tmp_path: Path
) -> None:
    url = https("--ttft", "0.02", "--gap", "0.002") + "/v1"
    code, _, err = benchmark(*LOAD, "--openai_api_url", url, "--tokenizer", tokenizer_dir)
    assert code == 0, err
    (path,) = (tmp_path / "results/openai").glob("*.json")
    log = store.load(path)
    assert samples.failed_share(log) == 0
    assert log.quality.unstamped_share == 0
    assert all(list(r.event_tokens) == [1] * 8 for r in samples.succeeded(log))


AZURE = ["--backend", "aml", "--model", "m", "--deployment_name", "d", "--aml_api_key", "k", "--aml_api_url"]


@pytest.mark.parametrize("who", [[*LOAD, "--openai_api_url"], AZURE])
def test_a_certificate_that_nobody_vouches_for_is_refused(
    https: Callable[..., str],
    benchmark: Callable[..., tuple[int, str, str]],
    tokenizer_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    who: list[object],
) -> None:
    url = https()
    monkeypatch.delenv("SSL_CERT_FILE")
    code, _, err = benchmark(*who, url, "--tokenizer", tokenizer_dir)
    assert code == 2
    assert "CERTIFICATE_VERIFY_FAILED" in err and "$SSL_CERT_FILE" in err and err.count("\n") == 1
