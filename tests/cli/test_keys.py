"""Keys: known by their names, and in no process list, log or message."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from servebench.cli import commandline, keys
from servebench.errors import InputError
from servebench.plan import arguments

SECRET = "sesame-417"


@pytest.mark.parametrize(
    "name", ["--api-key", "x-api-key", "HF_TOKEN", "client_secret", "Authorization", "APIKEY", "clientSecret"]
)
def test_keys_are_known_by_name(name: str) -> None:
    assert keys.is_key(name)


@pytest.mark.parametrize(
    "name", ["--max_tokens", "tokenizer", "eos_token", "--model", "keyboard", "monkey", "prompt_cache_key"]
)
def test_other_names_are_no_keys(name: str) -> None:
    assert not keys.is_key(name)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--openai_api_key", SECRET, "--seed", "1"], ["--openai_api_key", "***", "--seed", "1"]),
        ([f"--openai_api_key={SECRET}"], ["--openai_api_key=***"]),
        (["--extra_headers", f"a:{SECRET}", f"b: {SECRET}"], ["--extra_headers", "a:***", "b:***"]),
        (["--u", f"https://me:{SECRET}@h/v1?v=1&sig={SECRET}"], ["--u", "https://***@h/v1?v=1&sig=***"]),
        (["--extra_body", f'{{"a":{{"api_key":"{SECRET}"}}}}'], ["--extra_body", '{"a":{"api_key":"***"}}']),
        (["--extra_body", f'{{"api_keys":["{SECRET}"]}}'], ["--extra_body", '{"api_keys":["***"]}']),
        (["-H", f"Authorization: Bearer {SECRET}"], ["-H", "Authorization:***"]),
        (["--engine_args", f"--x 1 --api-key {SECRET}"], ["--engine_args", "--x 1 --api-key '***'"]),
        ([f"--engine_args=--api-key={SECRET}"], ["--engine_args='--api-key=***'"]),
        ([f"--port 1 --extra_headers 'k: {SECRET}'", "b"], ["--port 1 --extra_headers 'k:***'", "b"]),
        (["env", f"VLLM_API_KEY={SECRET}", "vllm"], ["env", "VLLM_API_KEY=***", "vllm"]),
        (["--title", "a key = b", "--x", "{{odd}} x"], ["--title", "a key = b", "--x", "{{odd}} x"]),
        (["--extra_body", f'{{"api_key": "{SECRET}"'], ["--extra_body", "***"]),
    ],
)
def test_a_command_line_without_its_keys(words: list[str], shown: list[str]) -> None:
    assert keys.hide_in_words(words) == shown


def test_what_an_engine_wrote_shows_no_key() -> None:
    said = f"args: {{'api_key': '{SECRET}', 'x': 1}} --api-key {SECRET} api_key=None"
    assert keys.hide_in_text(said) == "args: {'api_key': '***', 'x': 1} --api-key *** api_key=None"


def test_what_requests_carry_is_looked_for_in_the_servers_words() -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "X-Tenant": "of the tenants", "User-Agent": "servebench"}
    fields = {"auth": {"token": "in-the-body"}, "keys": ["one-of-some"], "stop": ["word-of-theirs"]}
    found = keys.secrets_of(headers, ["http://h/v1?sig=of-the-url&v=of-no-key"], fields)
    values = {"of the tenants", "of-the-url", "in-the-body", "one-of-some"}
    assert set(found) == {f"Bearer {SECRET}", SECRET} | values
    assert keys.redact(found, f"bad key '{SECRET}' of servebench") == "bad key '***' of servebench"
    assert keys.redact(found, f"bad key {SECRET[:-1]}") == "bad key ***"


def test_the_log_of_an_engine_that_still_writes_shows_no_key(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as log:
        log.write(f"args: --api-key {SECRET}\n".encode() + b"\xff\n")
        keys.hide_in_file(tmp_path / "log")
        log.write(b"more\n")
    assert (tmp_path / "log").read_bytes() == b"args: --api-key **********\n\xff\nmore\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--extra_headers", f"Authorization Bearer {SECRET}"],
        ["--extra_headers", f"a:{SECRET}\n{SECRET}"],
        ["--extra_body", f'{{"api_key": "{SECRET}"'],
        ["--openai_api_k", SECRET],
        ["--openai_api_url", f"ftp://me:{SECRET}@h", "--client_only"],
        ["--openai_api_url", f"http://me:{SECRET}@h:99999", "--client_only"],
        ["--openai_api_url", f"http://me:{SECRET}/x@h/v1", "--client_only"],
        ["--openai_api_url", f"http://me:{SECRET}@[::1/v1", "--client_only"],
        ["--openai_api_url", f"http://me:{SECRET}@h℀/v1", "--client_only"],
        ["--engine_args", f"--api-key '{SECRET}"],
        ["--openai_api_key", f"{SECRET}…"],
        ["--openai_api_key", f"{SECRET}\nmore"],
    ],
)
def test_messages_show_no_key(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, InputError)) as refused:
        arguments.parse(["--backend", "vllm", *words])
    assert SECRET not in capsys.readouterr().err + str(refused.value)


def test_unknown_words_are_still_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        commandline.Parser(prog="x").parse_args(["stray"])
    assert "stray" in capsys.readouterr().err


def everything_seen(process: subprocess.Popen[str]) -> str:
    """All command lines of a program and of what it started, until it ends."""
    seen = set()
    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            seen |= {" ".join(one.cmdline()) for one in family}
        except psutil.Error:
            pass
        time.sleep(0.02)
    return "\n".join(seen - first_words(process))


def first_words(process: subprocess.Popen[str]) -> set[str]:
    """What the user typed is there until the program starts itself again."""
    return {" ".join(map(str, process.args))}  # type: ignore[arg-type]


@pytest.mark.parametrize("paired", [False, True])
def test_no_key_reaches_a_process_list_or_a_file(
    reference: Callable[..., str], tokenizer_dir: Path, results: Path, paired: bool
) -> None:
    url = reference("--ttft", "0.01", "--gap", "0.001").replace("//", f"//me:{SECRET}@") + f"/v1?key={SECRET}"
    own = ["--openai_api_url", url, "--extra-headers", f"k:{SECRET}", "--extra_body", f'{{"token":"{SECRET}"}}']
    load = ["--backend", "openai", "--model", "reference", "--tokenizer", str(tokenizer_dir), "--num_clients", "1"]
    load += ["--num_requests", "3", "--mean_prompt_length", "8", "--openai-api-key", SECRET]
    quoted = [" ".join([*own[:4], "--out_json_dir", f"{results}/{side}"]) for side in "ab"]
    words = [*quoted, "--runs", "1", *load] if paired else [*own, *load, "--out_json_dir", str(results)]
    program = ["-m", "servebench", "paired"] if paired else [str(ROOT / "run_benchmark.py")]
    with subprocess.Popen([sys.executable, *program, *words], stdout=-1, stderr=-2, text=True) as process:
        seen = everything_seen(process)
        assert process.stdout
        said = process.stdout.read()
    files = [path for path in results.rglob("*") if path.is_file()]
    assert "servebench.load.worker" in seen and "***" in seen and any(file.suffix == ".json" for file in files), (
        said
    )
    assert SECRET not in seen + said
    assert not [path for path in files if SECRET in path.read_text()]
