"""What is shown while a benchmark runs: on a terminal, and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import conftest
import pytest
from conftest import ROOT

from servebench.cli import live
from servebench.load import protocol
from servebench.load.fleet import Progress
from servebench.plan import arguments, sweep
from servebench.show import progress
from servebench.show.progress import Known, SweepProgress
from servebench.show.tables import ESCAPE

WORDS = [
    "--mean_prompt_length",
    "8",
    "--mean_max_new_tokens",
    "8",
    "--num_clients",
    "1",
    "2",
    "--num_requests",
    "12",
]


def in_terminal(command: list[str], columns: int) -> str:
    """What a terminal of that width is sent."""
    pid, terminal = pty.fork()
    if not pid:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execv(command[0], command)
    seen = b""
    while data := _read(terminal):
        seen += data
    os.waitpid(pid, 0)
    os.close(terminal)
    return seen.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


@pytest.fixture
def words(reference: Callable[..., str], tokenizer_dir: Path, tmp_path: Path) -> list[str]:
    where = ["--backend", "openai", "--openai_api_url", reference("--ttft", "0.05", "--gap", "0.02") + "/v1"]
    where += [
        "--model",
        "reference",
        "--tokenizer",
        str(tokenizer_dir),
        "--out_json_dir",
        str(tmp_path / "results"),
    ]
    return where + WORDS


def test_a_terminal_is_shown_one_line_that_is_redrawn(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = in_terminal([sys.executable, str(ROOT / "run_benchmark.py"), *words], 80)
    drawn = re.findall(r"\r\x1b\[K([^\r\n]+)", shown)
    assert all(len(line) < 80 for line in drawn)
    assert any(re.search(r"^0/2  1 client", line) and "/12" not in line for line in drawn), drawn
    measuring = r"^0/2  about \d+ s left  1 client \d+/12  \S+ req/s  TTFT \d+ ms  TPOT \d+ ms"
    assert any(re.search(measuring, line) for line in drawn), drawn
    assert any(line.startswith("1/2  about ") and "2 clients" in line for line in drawn)
    lasting = [line.rpartition("\x1b[K")[2] for line in shown.split("\r\n")]
    assert any(re.search(r"^  1 client  \S+ req/s  TTFT .* 12 ok", line) for line in lasting), lasting
    too_long = [line for line in lasting if len(ESCAPE.sub("", line)) > 80 and "/results" not in line]
    assert not too_long, "only a folder's name may be so long"


def test_a_pipe_is_shown_a_line_a_point_and_nothing_is_redrawn(
    words: list[str], benchmark: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = benchmark(*words)
    assert code == 0, err
    assert "\r" not in out + err and "\x1b" not in out + err
    assert re.search(r"^OpenAI-compatible at \S+: answers at http://", out, re.MULTILINE)
    assert len(re.findall(r"^  \d clients?  \S+ req/s  .* 12 ok", out, re.MULTILINE)) == 2
    assert "warming up" not in out and "Most requests/s: " in out


def test_a_pipe_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    line = live.Line()
    line.ahead = ("1/4 points",)
    for second in range(200):
        now[0] = float(second)
        line.show(f"at {second} s")
    assert capsys.readouterr().out.splitlines() == [f"  1/4 points  at {s} s" for s in (61, 122, 183)]


def test_a_line_that_is_too_long_loses_its_last_parts() -> None:
    assert live.fitting(("1/4 points", "about 3 min left", "8 clients"), 30) == "1/4 points  about 3 min left"
    assert live.fitting(("1/4 points",), 5) == "1/4 p"


def test_times_of_requests_are_known_to_three_percent() -> None:
    for ns in (17, 1000, 123_456, 210_000_000, 3_600_000_000_000):
        assert protocol.time_of_kind(protocol.kind_of_time(ns)) == pytest.approx(ns, rel=0.032)
    assert protocol.kind_of_time(0) == 0 and protocol.kind_of_time(2**62) == protocol.TIMES - 1


# The time left.


def plan_of(tmp_path: Path, *more: str) -> list[sweep.ServerPlan]:
    base = "--backend vllm --dry_run --model m --mean_prompt_length 9 --mean_max_new_tokens 9 --warmup 0"
    return sweep.make_plan(*arguments.parse([*base.split(), "--out_json_dir", str(tmp_path), *more]))


def test_the_first_point_tells_how_long_the_rest_takes(tmp_path: Path) -> None:
    """10 of 100 requests of the first of three points took 5 s: it has 45 s to go, the others take 50 s each."""
    plan = plan_of(
        tmp_path, "--num_clients", "4", "--num_requests", "96", "--mean_max_new_tokens", "9", "10", "11"
    )
    shown = SweepProgress(plan)
    assert shown.left_s(None) is None, "nothing is known"
    shown.begin(plan[0].points[0])
    assert shown.left_s(Progress("warming up", 1, 4, 0, 1.0, None, None)) is None
    assert shown.left_s(Progress("measuring", 9, 96, 0, 4.5, 0.1, 0.01)) == pytest.approx(43.5 + 2 * 50)


def test_earlier_logs_tell_before_anything_runs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "--num_clients", "1", "--num_requests", "99")
    (point,) = plan[0].points
    log = conftest.make_log([], (0.0, 10.0), num_clients=1, num_requests=20, mean_prompt_length=9)
    assert SweepProgress(plan, [log]).left_s(None) == pytest.approx(50)  # 100 requests at 2/s
    assert (
        SweepProgress(plan_of(tmp_path, "--num_clients", "1", "--find_max", "e2e_p90<1s"), [log]).left_s(None)
        is None
    )
    assert progress.seconds(point.server, point.run, []) is None


def test_a_rate_tells_how_long_its_point_takes(tmp_path: Path) -> None:
    (point,) = plan_of(tmp_path, "--request_rate", "5", "--num_requests", "100")[0].points
    assert progress.seconds(point.server, point.run, []) == 20


def test_the_nearest_load_of_the_same_server_is_taken(tmp_path: Path) -> None:
    near, far = (conftest.run_config(num_clients=n, num_requests=99) for n in (4, 64))
    server, other = (plan_of(tmp_path, "--tp_size", n, "--num_clients", "1")[0].server for n in ("1", "2"))
    known = [Known(server, far, 50.0), Known(server, near, 8.0), Known(other, near, 100.0)]
    run = conftest.run_config(num_clients=1, num_requests=99, warmup=0)
    assert progress.seconds(server, run, known) == pytest.approx(100 / (8.0 / 2)), "a quarter of the clients"
