"""Azure ML: the spec's command against a server of ours that speaks its formats over TLS, with its faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import errors

from servebench.analysis import latency, samples
from servebench.errors import InputError
from servebench.load import retry
from servebench.log import store
from servebench.log.schema import Log
from servebench.plan import arguments

KEY = "a-key-that-nobody-may-see"
SPEC = ["--backend", "aml", "--model", "mistralai/Mixtral-8x7B-v0.1", "--deployment_name", "mixtral-4"]
LENGTHS = ["--mean_prompt_length", 16, "--mean_max_new_tokens", 10, "--max_new_tokens_var", 0]


@pytest.fixture
def azure(
    https: Callable[..., str], benchmark: Callable[..., tuple[int, str, str]], tokenizer_dir: Path, tmp_path: Path
) -> Callable[..., Log]:
    """Start a server with these options, measure it as the spec says, give the log."""

    def run(server: str, *arguments: object, path: str = "/score", status: int = 0, requests: int = 12) -> Log:
        url = https("--ttft", "0.02", "--gap", "0.002", "--key", KEY, *server.split()) + path
        where = ["--aml_api_url", url, "--aml_api_key", KEY, "--tokenizer", tokenizer_dir]
        load = ["--num_clients", 3, "--num_requests", requests]
        code, out, err = benchmark(*SPEC, *where, *LENGTHS, *load, *arguments)
        assert code == status, out + err
        assert KEY not in out + err
        (file,) = (tmp_path / "results/aml").glob("*.json")
        return store.load(file)

    return run


def test_scores_come_whole_and_are_counted_by_the_tokenizer(azure: Callable[..., Log]) -> None:
    log = azure("")
    done = samples.succeeded(log)
    assert len(done) == 12 and log.run.api == "score" and not log.run.stream
    assert all(r.token_source == "tokenizer" and r.generated_tokens > 0 for r in done)
    assert all(len(r.event_ns) == 1 and latency.ttft_s(r) is None and latency.e2e_s(r) > 0.03 for r in done)


@pytest.mark.parametrize(
    ("path", "api"),
    [("/v1/chat/completions?api-version=2024", "chat"), ("/v1/completions", "completions"), ("", "completions")],
)
def test_openai_compatible_endpoints_stream(azure: Callable[..., Log], path: str, api: str) -> None:
    log = azure("", path=path)
    assert log.run.api == api
    assert all(len(r.event_ns) == 10 and r.generated_tokens == 10 for r in samples.succeeded(log))
    assert not errors(log)


@pytest.mark.parametrize(("fault", "reason"), [("status", "HTTP 503"), ("throttle", "HTTP 429")])
def test_refused_requests_are_failures_unless_retries_are_asked_for(
    azure: Callable[..., Log], fault: str, reason: str
) -> None:
    log = azure(f"--fault {fault} --fault_every 4", "--max_failed_share", 1)
    assert errors(log) and all(error.startswith(reason) for error in errors(log))
    assert not any(r.retries for r in log.results)


@pytest.mark.parametrize("fault", ["status", "silent_close", "garbage"])
def test_retries_are_counted_and_their_time_is_in_the_latency(azure: Callable[..., Log], fault: str) -> None:
    log = azure(f"--fault {fault} --fault_every 4", "--max_retries", 3)
    again = [r for r in samples.measured(log) if r.retries]
    assert not errors(log) and again
    assert all(latency.e2e_s(r) >= retry.FIRST_WAIT_S for r in again)


def test_retry_after_is_obeyed(azure: Callable[..., Log]) -> None:
    log = azure("--fault throttle --fault_every 9", "--max_retries", 1)
    again = [r for r in log.results if r.retries and r.error is None and r.finish_reason != "cancelled"]
    assert again and all(latency.e2e_s(r) >= 1 for r in again)


def test_retries_end(azure: Callable[..., Log]) -> None:
    """A server that always refuses: every request fails after as many attempts as were asked for."""
    log = azure("--fault status", "--max_retries", 2, status=1, requests=4)
    assert [r.retries for r in samples.measured(log)] == [2] * 4
    assert log.failure and "every request failed" in log.failure


def test_a_wrong_key_fails_and_is_not_tried_again(azure: Callable[..., Log]) -> None:
    log = azure("--key another", "--max_retries", 3, status=1, requests=4)
    assert all(r.error and r.error.startswith("HTTP 401") and not r.retries for r in samples.measured(log))


def test_a_slow_answer_ends_with_the_request_timeout(azure: Callable[..., Log]) -> None:
    log = azure("--ttft 30", "--request_timeout", 0.3, "--warmup", 0, status=1, requests=3)
    assert all(r.error and "--request_timeout" in r.error for r in samples.measured(log))


def test_all_that_is_missing_is_named_in_one_line() -> None:
    with pytest.raises(InputError) as problem:
        arguments.parse(["--backend", "aml", "--aml_api_url", "https://x/score"])
    assert str(problem.value) == "--backend aml needs --model, --deployment_name, --aml_api_key too"


@pytest.mark.parametrize("name", ["имя", "a\nb: c"])
def test_a_deployment_fits_a_header(name: str) -> None:
    with pytest.raises(InputError, match="not allowed in a header"):
        arguments.parse([*SPEC, "--aml_api_url", "https://x/v1", "--aml_api_key", "k", "--deployment_name", name])


def test_a_key_without_a_value_is_refused(benchmark: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = benchmark(*SPEC, "--aml_api_url", "https://localhost:1/score", "--aml_api_key", "--dry_run")
    assert code == 2 and "--aml_api_key: its value is missing" in err


def test_no_key_in_any_file_or_process_list(
    https: Callable[..., str], driver: Callable[..., object], tokenizer_dir: Path, tmp_path: Path
) -> None:
    url = https("--ttft", "0.05", "--gap", "0.005") + "/score"
    where = ["--aml_api_url", url, f"--aml_api_key={KEY}", "--tokenizer", tokenizer_dir]
    running = driver(*SPEC, *where, *LENGTHS, "--num_clients", 2, "--num_requests", 60)
    seen: list[str] = []
    root = psutil.Process(running.pid)  # type: ignore[attr-defined]
    while running.poll() is None:  # type: ignore[attr-defined]
        try:
            family = [root, *root.children(recursive=True)]
            seen.extend(" ".join(process.cmdline()) for process in family)
        except psutil.Error:
            continue
    started = [line for line in seen if "servebench.load.worker" in line]
    assert started and not any(KEY in line for line in seen[seen.index(started[0]) :])
    assert running.returncode == 0  # type: ignore[attr-defined]
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
