"""README and the pages of docs/: every link leads somewhere, and every command that they show works.

A command is run as it stands, or as the first rule that fits rewrites it: where an engine would be needed its plan
is asked for instead, and where a server would be needed the reference server is measured. A command that no rule
covers fails, so whoever writes a new kind of command says here how it is tried.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, point
from warm_python import python

from servebench.log import schema, store

PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "engines/README.md", "results/README.md"]
PAGES += sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md"))
README_LINES = 160
FIGURES = "docs/figures.md"  # tests/figures/test_plot_scripts.py tries its commands
DATASETS = ROOT / "tests/data/datasets"


# Links.


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the heads of a page."""
    heads = re.findall(r"^#+ +(.+)$", without_code(page.read_text()), re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head).lower() for head in heads]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in plain}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = without_code((ROOT / page).read_text())
    links = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]
    for link in (link for link in links if "://" not in link):
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}: there is no such head"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


# Commands.


def commands(page: str) -> Iterator[str]:
    """Every command of a page's bash blocks: one a line, comments gone, continued lines joined."""
    for block in re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if words := " ".join(re.sub(r"(^| )#( .*|$)", "", line).split()):
                yield words


@dataclass(frozen=True)
class Rule:
    """A kind of command, and how it is tried."""

    form: str  # of the whole command, as a regular expression
    instead: str | Callable[[re.Match[str]], str] | None  # what is run; None: its programs only have to be there
    why: str


MEASURE, OURS = r"python run_benchmark\.py", r"\./servebench"
RUNNING = r"(?=.*(--openai_api_url|--aml_api_url|--client_only))"
# What keeps it short; an option that comes again later wins.
QUICK = " --num_clients 2 --num_requests 4 --mean_prompt_length 20 --mean_max_new_tokens 4 --runs 1"
QUICK += " --tokenizer TOKENIZER --out_json_dir SCRATCH"


def at_the_reference_server(found: re.Match[str]) -> str:
    """The same command, at a server that is there."""
    command = re.sub(r"(--\w+_api_url) \S+", r"\1 SERVER/v1", found[0])
    return re.sub(r"--client_only --port \d+", "--client_only --openai_api_url SERVER/v1", command) + QUICK


RULES = [
    Rule(rf"{MEASURE} .*(--dry_run|--list_models).*", r"\g<0>", "runs anywhere"),
    Rule(rf"{MEASURE} {RUNNING}.*", at_the_reference_server, "needs a server that runs"),
    Rule(rf"{MEASURE}( .*)?", r"\g<0> --dry_run", "needs an engine; its plan is the same"),
    Rule(rf"{OURS} server start (.*)", r"python run_benchmark.py \1 --dry_run", "needs an engine"),
    Rule(rf"{OURS} server (stop|restart) .*", "./servebench server status", "needs what was started before"),
    Rule(rf"{OURS} evaluate .*", r"\g<0> --dry_run", "needs engines and lm-eval; its plan is the same"),
    Rule(rf"{OURS} paired .*", r"\g<0> --dry_run", "needs engines; its plan is the same"),
    Rule(rf"{OURS} calibrate", r"\g<0> --num_clients 2 --num_requests 4", "takes minutes"),
    Rule(rf"{OURS} reference-server", r"\g<0> --help", "runs until it is ended"),
    Rule(rf"{OURS} report results/", None, "draws for long; is tried by tests/show/test_report.py"),
    Rule(
        rf"{OURS} report results/ (.*)", r"./servebench report results/after \1 --max_figures 1", "draws for long"
    ),
    Rule(rf"{OURS} .*", r"\g<0>", "reads logs"),
    Rule(rf"source <\(({OURS} completion bash)\)", r"\1", "is for a shell"),
    Rule(r"python src/plot_\w+\.py.*", r"\g<0>", "reads logs"),
    Rule(r"python -m [\w.]+ > docs/\w+\.md", None, "has a test that compares the page"),
    Rule(r"\./run_(example|all|tests)\.sh.*", None, "is tried by tests/test_scripts.py"),
    Rule(r"(\./)?(engines|scripts)/[\w-]+\.sh( \S+)*", None, "installs"),
    Rule(r"source \.venv/bin/activate|pip install -r requirements\.txt", None, "sets up"),
    Rule(r"(\.venv|\.engines)/.*|pre-commit install", None, "needs what set-up installs"),
    Rule(r"export \w+=\S+", None, "sets a key"),
]
MAY_SAY_NO = re.compile(r"\./servebench (gate|decide) ")  # status 1: a limit is broken, or no server keeps them


def rule_of(command: str) -> Rule:
    found = next((rule for rule in RULES if re.fullmatch(rule.form, command)), None)
    assert found, f"no rule says how this command is tried: {command}"
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has after a while: the tree, a dataset or two, and logs."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "engines", "run_benchmark.py"):
        (folder / name).symlink_to(ROOT / name)
    chats = json.loads((DATASETS / "sharegpt.json").read_text())
    (folder / "sharegpt.json").write_text(json.dumps(chats * 20))
    head, *rows = (DATASETS / "azure.csv").read_text().splitlines()
    (folder / "azure.csv").write_text("\n".join([head, *rows * 200]))
    (folder / ".models/SmolLM2-135M-Instruct").mkdir(parents=True)
    (folder / ".models/SmolLM2-135M-Instruct/config.json").write_text('{"max_position_embeddings": 8192}')
    for backend, base_s in (("vllm", 1.0), ("sglang", 0.9), ("fastgen", 0.8), ("llamacpp", 2.0), ("aml", 1.5)):
        write_logs(folder / "results" / backend, backend, base_s)
    for name in ("before", "after"):
        write_logs(folder / "results" / name, "openai", 1.0)
    return folder


def write_logs(folder: Path, backend: str, base_s: float) -> None:
    """Three loads on three layouts, two runs each."""
    for clients in (1, 2, 4):
        for sizes in ({}, {"tp_size": 2}, {"num_replicas": 2}):
            for run in (0, 1):
                latency_s = base_s * (1 + clients / 4) * (1 + run / 100)
                log = point(backend, clients, latency_s, repetition=run, num_requests=64, **sizes)
                store.save(log, folder / schema.log_name(log.server, log.run))


CASES = list(dict.fromkeys(command for page in PAGES if page != FIGURES for command in commands(page)))


@pytest.mark.parametrize("command", CASES, ids=lambda command: re.sub(r"\W+", "-", command)[:70])
def test_a_command_of_the_pages_works(
    command: str,
    checkout: Path,
    reference: Callable[..., str],
    tokenizer_dir: Path,
    tmp_path: Path,
) -> None:
    rule = rule_of(command)
    if rule.instead is None:
        return check_programs(command)
    found = re.fullmatch(rule.form, command)
    assert found
    instead = rule.instead(found) if callable(rule.instead) else found.expand(rule.instead)
    if "SERVER" in instead:
        instead = instead.replace("SERVER", reference("--ttft", "0.002", "--gap", "0.0002"))
    words = instead.replace("TOKENIZER", str(tokenizer_dir)).replace("SCRATCH", str(tmp_path))
    ended = python(*program(shlex.split(words)), cwd=checkout)
    assert ended.returncode in (0, 1) if MAY_SAY_NO.match(command) else ended.returncode == 0, ended.stderr


def program(words: list[str]) -> list[str]:
    """As arguments of a Python: `./servebench` runs the package."""
    return words[1:] if words[0] == "python" else ["-m", "servebench", *words[1:]]


def check_programs(command: str) -> None:
    """Scripts of this tree that it names exist, and can be run."""
    for name in re.findall(r"(?:^|(?<= ))(?:\./)?((?:engines|scripts)/[\w-]+\.sh|run_\w+\.sh)", command):
        assert os.access(ROOT / name, os.X_OK), name
