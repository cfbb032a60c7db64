"""The log on disk: whole or not at all, versioned, and the original suite's."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import msgspec
import pytest
from conftest import make_log, make_result

from servebench import metrics, records
from servebench.records import LogError, RunConfig, ServerConfig

LOG = make_log([make_result(0, 1.0, [0.5, 1.0]), make_result(1, 2.0, [], error="HTTP 500")], (1.0, 3.0))


def test_a_log_survives_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "vllm" / "a.json"
    records.save(LOG, path)
    assert msgspec.json.encode(records.load(path), enc_hook=list) == msgspec.json.encode(LOG)
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_log_has_one_request_a_line(tmp_path: Path) -> None:
    records.save(LOG, tmp_path / "a.json")
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert sum(line.startswith('{"id":') for line in lines) == 2
    assert json.loads("\n".join(lines))["servebench_log"] == 1


@pytest.mark.parametrize("text", ["", "no json", '{"servebench_log": 1}', '{"args": 3}', "[]"])
def test_what_is_no_log_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(LogError, match=r"broken\.json"):
        records.load(path)


def test_a_newer_log_asks_for_a_newer_servebench(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(LOG, servebench_log=2)))
    with pytest.raises(LogError, match="newer"):
        records.load(path)


def test_a_line_cut_off_mid_write_is_left_out(tmp_path: Path) -> None:
    whole = msgspec.json.encode(LOG.results[0]) + b"\n"
    (tmp_path / "part").write_bytes(whole + whole[:20])
    assert list(records.read_parts([tmp_path / "part", tmp_path / "missing"])) == [LOG.results[0]]


def test_names_are_those_of_the_original_suite() -> None:
    server = ServerConfig(backend="vllm", model="meta-llama/Llama-2-7b-hf")
    run = RunConfig(num_clients=8)
    name = "meta-llama_Llama-2-7b-hf-tp1-bs768-replicas1-prompt2600-gen60-clients8"
    assert records.log_name(server, run) == f"{name}.json"
    assert records.log_name(server, run, "1a2b3c4d") == f"{name}-1a2b3c.json"
    again = msgspec.structs.replace(run, repetition=2)
    assert records.log_name(server, again, "1a2b3c4d") == f"{name}-1a2b3c-run2.json"


def test_a_full_disk_leaves_no_half_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    records.save(LOG, path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        records.save(LOG, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_log_of_the_original_suite_is_read(tmp_path: Path) -> None:
    original = {
        "args": {"backend": "fastgen", "model": "meta-llama/Llama-2-7b-hf", "tp_size": 1, "num_clients": 2}
        | {"mean_prompt_length": 2600, "mean_max_new_tokens": 60, "stream": True, "unknown": None},
        "time": "2023-11-01_10-00-00",
        "response_details": [
            {"generated_tokens": ["a", "b"], "prompt": "p", "start_time": 100.0, "end_time": 101.5}
            | {"model_time": 0, "token_gen_time": [1.0, 0.5]},
            {
                "generated_tokens": ["a"],
                "prompt": "p",
                "start_time": 100.5,
                "end_time": 102.5,
                "token_gen_time": [2.0],
            },
        ],
    }
    path = tmp_path / "o.json"
    path.write_text(json.dumps(original))
    log = records.load(path)
    assert (log.server.backend, log.run.num_clients, log.quality.verdict) == ("fastgen", 2, "unknown")
    assert [metrics.e2e_s(r) for r in log.results] == pytest.approx([1.5, 2.0])
    assert metrics.ttft_s(log.results[0]) == pytest.approx(1.0)
    assert log.window_ns == (100_500_000_000, 101_500_000_000)  # both were in flight
