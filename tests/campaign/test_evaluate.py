"""servebench evaluate: what is asked, what is stored, whose it is, and that nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ENGINES, ROOT, make_log, ours
from msgspec.structs import replace
from real_engines import SMOLLM2, nothing_is_left, wait_for
from warm_python import python

from servebench.campaign.lm_eval import tasks_of
from servebench.log import evaluation, store
from servebench.log.evaluation import Evaluation, Score, Task, server_identity
from servebench.log.identity import identity_of
from servebench.log.schema import Log
from servebench.show import scores

_ = nothing_is_left  # a fixture for every test here
TASKS = ROOT / "tests/data/tasks"
RESULTS = json.loads((TASKS / "lm_eval_results.json").read_text())  # of lm-eval 0.4.13 on vLLM, of the group `grp`
SECRET = "sk-not-to-be-seen"
# Stands for lm-eval: knows any task but `unknown`, gives the recorded results, and writes down how it was called.
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, shutil, sys, time
words = sys.argv[1:]
if words[0] == "validate":
    sys.exit(print("Tasks not found: unknown") or 1 if "unknown" in words[2] else 0)
called = {{"words": words, "key": os.environ["OPENAI_API_KEY"]}}
pathlib.Path(sys.argv[0]).with_name("called.json").write_text(json.dumps(called))
print("Running", "loglikelihood" if "choice" in words else "generate_until", "requests", flush=True)
time.sleep(600 if "slow" in words else 0)
if "broken" in words:
    raise ValueError("it broke")
folder = pathlib.Path(words[words.index("--output_path") + 1]) / "m"
folder.mkdir()
shutil.copy({str(TASKS / "lm_eval_results.json")!r}, folder / "results_2026.json")
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "engines/lm-eval/bin/lm_eval"
    program.parent.mkdir(parents=True)
    program.write_text(STAND_IN)
    program.chmod(0o755)
    (program.parents[1] / ".installed").write_text("lm_eval 0.4.13\n")
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path / "engines"))
    return program


@pytest.fixture
def words(reference: Callable[..., str], tokenizer_dir: Path, results: Path) -> list[str]:
    """Those for a running server, which wants a key."""
    url = reference("--ttft", "0.002", "--gap", "0.0002", "--key", SECRET)
    of_server = ["--backend", "openai", "--openai_api_url", url, "--model", "m", "--openai_api_key", SECRET]
    return [*of_server, "--tokenizer", str(tokenizer_dir), "--out_json_dir", str(results)]


def evaluate(*words: object) -> tuple[int, str, str]:
    ended = python("-m", "servebench", "evaluate", *words, cwd=ROOT)
    return ended.returncode, ended.stdout, ended.stderr


# Bad input.


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--tasks", "unknown"], "--tasks: Tasks not found: unknown"),
        ([], "missing: --tasks"),
        (["--tasks", "t", "--limit", "0"], "'0' is not a whole number of at least 1"),
        (["--tasks", "t", "--include_path", "nowhere"], "--include_path nowhere: there is no such folder"),
        (["--tasks", "t", "--extra_headers", "x-api-key: k"], "no other header"),
        (["--tasks", "t", "--num_client", "1"], "unknown option --num_client"),
    ],
)
def test_bad_input_is_refused_in_a_line(stand_in: Path, words: list[str], more: list[str], said: str) -> None:
    code, _, err = evaluate(*more, *words)
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert not stand_in.with_name("called.json").exists()


def test_an_engine_without_openai_s_api_is_refused(stand_in: Path, tokenizer_dir: Path) -> None:
    aml = ["--backend", "aml", "--aml_api_url", "http://127.0.0.1:9/score", "--aml_api_key", "k"]
    code, _, err = evaluate(
        "--tasks", "t", *aml, "--deployment_name", "d", "--tokenizer", tokenizer_dir, "--model", "m"
    )
    assert code == 2 and "--backend aml has no OpenAI API" in err


def test_what_is_not_installed_is_named(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVEBENCH_ENGINES", str(tmp_path))
    code, _, err = evaluate("--tasks", "t", *words)
    assert code == 2 and "./engines/lm-eval.sh" in err and err.count("\n") == 1
    assert evaluate("--tasks", "t", *words, "--dry_run")[0] == 0


# What is asked and stored.


def test_scores_are_stored_once_and_found_for_the_logs_of_the_server(
    stand_in: Path, words: list[str], results: Path, benchmark: Callable[..., tuple[int, str, str]]
) -> None:
    given = ["--tasks", "grp,", "sums", "--limit", "10", "--seed", "0", *words]
    code, out, err = evaluate(*given)
    assert code == 0 and "0.800 ±0.133       10" in out, err
    called = json.loads(stand_in.with_name("called.json").read_text())
    assert called["key"] == SECRET and SECRET not in " ".join(called["words"])
    assert "--limit=10" in called["words"] and called["words"][called["words"].index("--tasks") + 1] == "grp,sums"
    (found,) = evaluation.read(results)
    assert found.tasks.keys() == {"grp", "sums"} and SECRET not in json.dumps(found.command)

    stand_in.with_name("called.json").unlink()
    code, out, _ = evaluate(*given)
    assert code == 0 and "evaluated before" in out and "0.800" in out
    assert not stand_in.with_name("called.json").exists()
    assert evaluate(*given, "--overwrite_results")[0] == 0 and stand_in.with_name("called.json").exists()

    code, _, err = benchmark(*words[:-2], "--seed", 0, "--num_clients", 1, "--num_requests", 4)
    assert code == 0, err
    ((_, log),) = store.load_folder(results)
    assert evaluation.of_server(evaluation.read(results), log) == evaluation.read(results)[0]
    shown = python("-m", "servebench", "summary", results)
    assert (
        "scores 0.800 ±0.133 at sums, 0.800 ±0.133 at grp (--limit 10)" in shown.stdout
        and "left out" not in shown.stderr
    )


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("broken", "lm-eval ended with status 1: ValueError: it broke"),
        ("choice", "tasks of multiple choice need"),
    ],
)
def test_a_failure_is_stored_and_never_replaces_scores(
    stand_in: Path, words: list[str], results: Path, task: str, why: str
) -> None:
    """The reference server ignores that it is asked for log probabilities; what lm-eval makes of it is wrong."""
    code, out, err = evaluate("--tasks", task, *words)
    assert code == 1 and f"FAILED: {why}" in out, err
    (found,) = evaluation.read(results)
    assert found.status == "failed" and why in found.failure and not evaluation.merged([found])
    (file,) = results.glob("*/evaluations/*.json")
    good = file.read_text().replace('"status": "failed"', '"status": "ok"')
    file.write_text(good)
    assert evaluate("--tasks", task, *words, "--overwrite_results")[0] == 1
    assert file.read_text() == good


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_ends_it_ends_lm_eval(
    stand_in: Path, words: list[str], results: Path, number: signal.Signals
) -> None:
    program = [sys.executable, "-m", "servebench", "evaluate", "--tasks", "slow", *words]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: stand_in.with_name("called.json").exists(), 60)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number) and "Traceback" not in err
    wait_for(lambda: not ours(results), 20)
    assert not list(results.glob("*/evaluations/*"))


# Results and their servers.


def test_parts_of_a_group_are_left_out_unless_asked_for() -> None:
    assert tasks_of(RESULTS, ["grp"]) == {
        "grp": Task(metrics={"acc,none": Score(value=0.8, stderr=0.4 / 3)}, samples=20)
    }
    assert tasks_of(RESULTS, ["grp", "sums_choice"]).keys() == {"sums_choice", "grp"}
    bare = RESULTS | {"results": RESULTS["results"] | {"grp": {"alias": "grp"}}}
    assert tasks_of(bare, ["grp"]).keys() == {"sums", "sums_choice"}, "it has no score of its own"
    assert list(tasks_of(bare, ["grp"])["sums_choice"].metrics) == ["acc,none", "acc_norm,none"]


def test_a_score_may_have_no_error_and_less_may_be_better() -> None:
    values = {"ppl": {"perplexity,none": 9.5, "perplexity_stderr,none": "N/A"}}
    found = {"results": values, "higher_is_better": {"ppl": {"perplexity": False}}, "group_subtasks": {}}
    assert tasks_of(found, ["ppl"])["ppl"].metrics["perplexity,none"] == Score(value=9.5, higher_is_better=False)


def log_of(engine: str = "vllm 1", host: str = "here", **server: object) -> Log:
    log = make_log([], None, **server)
    return replace(log, identity=identity_of(log.server, log.run, {"engine": engine, "host": host}))


def evaluation_of(log: Log, started_at: str = "", limit: int | None = None, **tasks: Score) -> Evaluation:
    return Evaluation(
        status="ok",
        started_at=started_at,
        asked={"api": "completions", "limit": limit},
        identity=server_identity(log.server, log.identity),
        server=log.server,
        num_concurrent=8,
        tasks={name: Task(metrics={"acc,none": score}, samples=10) for name, score in tasks.items()},
    )


GOOD, BAD = Score(value=0.8, stderr=0.4 / 3), Score(value=0.4, stderr=0.4 / 3)


def test_an_evaluation_is_of_all_copies_of_its_server_and_of_no_other() -> None:
    stored = [evaluation_of(log_of(engine_args=("--x", "1")), t=GOOD)]
    for same in (log_of(engine_args=("--x", "1"), num_replicas=4), log_of(engine_args=("--x", "1"), host="there")):
        assert evaluation.of_server(stored, same) == stored[0]
    others = [log_of("vllm 2", engine_args=("--x", "1")), log_of(), log_of(engine_args=("--x", "1"), tp_size=2)]
    for other in [*others, make_log([], None, engine_args=("--x", "1"))]:
        assert evaluation.of_server(stored, other) is None


def test_tasks_asked_for_alike_are_together() -> None:
    first, second = evaluation_of(log_of(), "1", t=GOOD), evaluation_of(log_of(), "2", u=BAD)
    other = evaluation_of(log_of(), "0", limit=5, v=BAD)
    (found,) = evaluation.merged([second, other, first])
    assert found.started_at == "2" and found.tasks == first.tasks | second.tasks
    assert scores.lines([second, first]) == ["vLLM TP 1 x 1 scores 0.800 ±0.133 at t, 0.400 ±0.133 at u"]


def test_worse_is_what_chance_does_not_explain() -> None:
    """1.96 standard errors of a difference are 0.370 here; of two tasks 2.24 are 0.423."""
    a, b = log_of(), log_of("xllamacpp 1", backend="llamacpp")
    said = "llama.cpp TP 1 x 1 is worse at t: 0.400 ±0.133 against 0.800 ±0.133"
    assert scores.worse(evaluation_of(a, t=GOOD), evaluation_of(b, t=BAD)) == said
    assert scores.worse(evaluation_of(b, t=BAD), evaluation_of(a, t=GOOD)) == said
    near = Score(value=0.45, stderr=0.4 / 3)
    assert scores.worse(evaluation_of(a, t=GOOD), evaluation_of(b, t=near)) is None
    assert scores.worse(evaluation_of(a, t=GOOD, u=GOOD), evaluation_of(b, t=BAD, u=GOOD)) is None
    assert scores.worse(evaluation_of(a, t=GOOD, limit=5), evaluation_of(b, t=BAD)) is None, "asked otherwise"
    assert scores.worse(evaluation_of(a, t=Score(value=1)), evaluation_of(b, t=BAD)) is None, "no error is known"
    less = [Score(value=score.value, stderr=score.stderr, higher_is_better=False) for score in (GOOD, BAD)]
    assert "vLLM TP 1 x 1 is worse" in str(scores.worse(evaluation_of(a, t=less[0]), evaluation_of(b, t=less[1])))


def test_a_few_answers_that_are_all_right_prove_little() -> None:
    """Ten of ten has the standard error 0, as if chance had no part in it; it counts as 1/12."""
    all_right, seven = Score(value=1.0, stderr=0.0), Score(value=0.7, stderr=0.153)  # 1.96 x 0.174 = 0.342
    a, b = log_of(), log_of("xllamacpp 1", backend="llamacpp")
    assert scores.worse(evaluation_of(a, t=all_right), evaluation_of(b, t=seven)) is None
    six = Score(value=0.6, stderr=0.163)  # 1.96 x 0.183 = 0.359
    assert scores.worse(evaluation_of(a, t=all_right), evaluation_of(b, t=six)) is not None


# lm-eval itself.


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words for tasks of our own, where no hub is needed."""
    assert (ENGINES / "lm-eval/.installed").exists(), "./engines/lm-eval.sh installs it"
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
    }.items():
        monkeypatch.setenv(name, value)
    return [
        "--include_path",
        str(TASKS),
        "--limit",
        "10",
        "--model",
        str(SMOLLM2),
        "--out_json_dir",
        str(tmp_path / "results"),
    ]


@pytest.mark.engine
def test_real_engines_are_scored(offline: list[str], results: Path) -> None:
    """llama.cpp does not tell the log probabilities of prompts; what it can do it does as well as vLLM."""
    args = ["--engine_args", "vllm: --enforce-eager", "llamacpp: --threads 1"]
    code, out, err = evaluate("--tasks", "sums,sums_choice", "--backend", "vllm", "llamacpp", *args, *offline)
    assert code == 1 and "llama.cpp TP 1 x 1: FAILED: tasks of multiple choice need" in out, err
    code, out, err = evaluate("--tasks", "sums", "--backend", "llamacpp", *args[:1], args[2], *offline)
    assert code == 0, err
    of = {each.server.backend: each for each in evaluation.merged(evaluation.read(results))}
    assert list(of["vllm"].tasks) == ["sums", "sums_choice"] and list(of["llamacpp"].tasks) == ["sums"]
    assert all(each.tasks["sums"].metrics["exact_match,number"].value > 0.3 for each in of.values())
    assert of["vllm"].tasks["sums_choice"].metrics["acc,none"].value > 0.3, "a quarter is chance"
    assert scores.worse(of["vllm"], of["llamacpp"]) is None


@pytest.mark.engine
def test_an_end_midway_leaves_neither_lm_eval_nor_the_engine(offline: list[str], results: Path) -> None:
    words = ["--tasks", "sums", "--backend", "llamacpp", "--engine_args=--threads 1", *offline, "--api", "chat"]
    process = subprocess.Popen([sys.executable, "-m", "servebench", "evaluate", *words], cwd=ROOT)
    wait_for(lambda: any("lm_eval run" in line for line in ours(results)), 60)
    time.sleep(3)
    process.terminate()
    assert process.wait(40) == 143
    assert not ours(results)
