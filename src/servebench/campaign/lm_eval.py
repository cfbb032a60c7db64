"""lm-evaluation-harness as a program (./engines/lm-eval.sh): has a server answer tasks, and reads their scores."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from servebench.campaign.measure import Bench
from servebench.cli import live
from servebench.errors import InputError, PointFailed
from servebench.load.chunks import UNREADABLE, tolerant_json
from servebench.log.evaluation import Score, Task
from servebench.log.urls import endpoint
from servebench.servers.backends.contract import environment
from servebench.servers.engine_log import last_line, own_words
from servebench.servers.http_call import call
from servebench.servers.process_group import end_session, ends_with_us
from servebench.servers.server import Server
from servebench.workload.model_files import expanded

ROOM = 4096  # tokens that a request may have, prompt and answer together, where the model takes as many
ENV = {"TQDM_MININTERVAL": "1"}  # its log grows by a line a second
PROMPT = {"prompt": "1 2 3 4 5 6", "max_tokens": 1, "echo": True, "logprobs": 1}
NO_LOGPROBS = "tasks of multiple choice need the log probabilities of a prompt's tokens, which this server does "
NO_LOGPROBS += "not tell; leave such tasks out (vLLM and SGLang tell them, but not with --api chat)"


def program() -> str:
    return str(environment("lm-eval") / "bin/lm_eval")


def version() -> str:
    """ "" where it is not installed."""
    with suppress(InputError):
        return (environment("lm-eval") / ".installed").read_text().strip()
    return ""


def check_tasks(tasks: str, more: Sequence[str]) -> None:
    """It knows these tasks. Raises InputError."""
    ended = subprocess.run([program(), "validate", "--tasks", tasks, *more], capture_output=True, text=True)
    if ended.returncode:
        said = (ended.stdout.strip() or ended.stderr.strip() or "lm-eval cannot be run").splitlines()[-1]
        raise InputError(f"--tasks: {said}; see {program()} ls tasks, or name their folder with --include_path")


def scored(bench: Bench, api: str, concurrent: int, words: Sequence[str], log_file: Path) -> tuple[list[str], Any]:
    """(its command, the results as it writes them). Raises PointFailed."""
    command = [program(), "run", *_model(bench, api, concurrent, "--apply_chat_template" in words), *words]
    with TemporaryDirectory(dir=log_file.parent, suffix=".parts") as folder:
        status = _run([*command, "--output_path", folder], bench.server, log_file)
        asks_prompts = b"Running loglikelihood" in log_file.read_bytes()
        if asks_prompts and not (api == "completions" and _tells_prompts(bench.server)):
            raise PointFailed(NO_LOGPROBS)  # also where it gives scores: it may have taken what is missing for 0
        results = [path.read_bytes() for path in Path(folder).rglob("results_*.json")]
    if status or not results:
        raise PointFailed(f"lm-eval ended with status {status}: {own_words(log_file)} (see {log_file})")
    return command, tolerant_json(results[0])


def _model(bench: Bench, api: str, concurrent: int, as_chat: bool) -> list[str]:
    """Whom it asks. The key is in the environment."""
    fields: dict[str, Any] = {"model": bench.server.facts.model, "base_url": endpoint(bench.server.urls[0], api)}
    fields |= {"num_concurrent": concurrent, "timeout": int(bench.settings.common.request_timeout)}
    if api != "chat":
        fields |= {"max_length": min(bench.context or ROOM, ROOM)} | _tokenizer(bench, as_chat)
    kind = "local-chat-completions" if api == "chat" else "local-completions"
    return ["--model", kind, "--model_args", msgspec.json.encode(fields).decode()]


def _tokenizer(bench: Bench, as_chat: bool) -> dict[str, Any]:
    """Prompts begin with the token that the engine would put before a text, if there is one."""
    if isinstance(bench.tokenizer, InputError):  # there is none here
        return {"tokenizer_backend": "none"}  # so no log probabilities
    path = expanded("--tokenizer", bench.settings.tokenizer)
    name = str(path.parent if path.is_file() else path) if path.exists() else bench.settings.tokenizer
    begins = not as_chat and len(bench.tokenizer.encode_batch([""])[0]) > 0
    return {"tokenizer_backend": "huggingface", "tokenizer": name, "add_bos_token": begins}


def _run(command: list[str], server: Server, log_file: Path) -> int:
    """In a session of its own, which ends with us. Raises ServerFailed if the server ends meanwhile."""
    key, since = server.headers.get("Authorization", "").removeprefix("Bearer "), time.monotonic()
    env = os.environ | ENV | {"OPENAI_API_KEY": key}  # also an empty one: ours may be for another server
    with log_file.open("wb") as log:
        files: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        child = subprocess.Popen(command, env=env, start_new_session=True, **files)
    try:
        with ends_with_us(child.pid):
            while child.poll() is None:
                server.check()
                live.show(f"lm-eval: {time.monotonic() - since:.0f} s", last_line(log_file)[:70])
                time.sleep(0.3)
    finally:
        end_session(child.pid)
        live.clear()
    return child.wait()


def _tells_prompts(server: Server) -> bool:
    """Does it tell the log probabilities of a prompt's tokens? Some servers ignore that they are asked to."""
    url, body = endpoint(server.urls[0], "completions"), PROMPT | {"model": server.facts.model}
    with suppress(OSError, LookupError, TypeError, *UNREADABLE):
        choice = tolerant_json(call(url, server.headers, 60, msgspec.json.encode(body)))["choices"][0]
        return len(choice["logprobs"]["token_logprobs"]) > 2
    return False


def tasks_of(results: dict[str, Any], asked: Sequence[str]) -> dict[str, Task]:
    """The scores of tasks and groups; of the parts of a group only those that were asked for by name."""
    higher, found = results["higher_is_better"], results["results"]
    known = {name: scores for name, each in found.items() if (scores := _scores(each, higher.get(name, {})))}
    parts = {part for group, names in results["group_subtasks"].items() if group in known for part in names}
    kept = [name for name in known if name in asked or name not in parts]
    return {name: Task(metrics=known[name], samples=found[name].get("sample_len")) for name in kept}


def _scores(values: dict[str, Any], higher: dict[str, bool]) -> dict[str, Score]:
    """`acc,none` and `acc_stderr,none` are one score."""
    numbers = {name: value for name, value in values.items() if "," in name and isinstance(value, int | float)}

    def score(metric: str, filtered: str) -> Score:
        value, stderr = numbers[f"{metric},{filtered}"], numbers.get(f"{metric}_stderr,{filtered}")
        return Score(value=value, stderr=stderr, higher_is_better=higher.get(metric, True))

    return {name: score(*name.split(",")) for name in numbers if "_stderr," not in name}
