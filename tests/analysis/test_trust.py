"""Which numbers may decide: what gathers events, what a cache held, what one run of several shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from conftest import make_log, make_result

from servebench.analysis import trust
from servebench.log import schema, store
from servebench.log.schema import Log
from servebench.log.telemetry import Gpu, GpuUse, HostUse, Machine, Telemetry
from servebench.show import advice

GAP_S = 0.001  # ten times what no server generates in


def log_of(events_s: list[float], **changes: object) -> Log:
    per_request = {name: changes.pop(name) for name in ("cached_tokens", "asked_prompt_tokens") if name in changes}
    return make_log([make_result(i, float(i), events_s, **per_request) for i in range(20)], (0.0, 20.0), **changes)


def evenly(first_s: float, gap_s: float, tokens: int = 20) -> list[float]:
    return [first_s + i * gap_s for i in range(tokens)]


def test_tokens_that_came_all_at_once_decide_nothing() -> None:
    gathered = log_of(evenly(0.5, 1e-6))
    assert all("all at once" in str(trust.doubt(gathered, m)) for m in ("ttft_p99", "tpot", "itl_p50_s"))
    assert (
        trust.doubt(gathered, "e2e_latency_mean_s") is None and trust.doubt(gathered, "request_throughput") is None
    )
    assert trust.marks([gathered]) == ["buffered"]
    assert any("something between" in words for words in advice.of_point(gathered))


@pytest.mark.parametrize(
    "log",
    [
        log_of(evenly(0.5, GAP_S)),
        log_of([0.5, 0.5, 0.5]),  # too few tokens to tell
        make_log([make_result(0, 0, [0.5], event_tokens=[20], generated_tokens=20)], (0, 1)),  # in a single event
        log_of(evenly(0.5, 0.0), stream=False),
    ],
)
def test_what_is_not_gathered(log: Log) -> None:
    assert not trust.buffered(log) and trust.doubt(log, "ttft") is None


def test_a_client_that_read_late_is_not_a_proxy_that_gathers() -> None:
    late = log_of(evenly(0.5, 0.0), verdict="client-limited: it read too late")
    assert trust.marks([late]) == ["client-limited"]


def test_prompts_that_a_cache_held_decide_nothing() -> None:
    cached = log_of(evenly(0.1, GAP_S), cached_tokens=98)  # of 100
    assert trust.marks([cached]) == ["98% cached"] and "98%" in str(trust.doubt(cached, "ttft"))
    by_counters = msgspec.structs.replace(log_of(evenly(0.1, GAP_S)), cache_hit_rate=0.5)
    assert trust.cached_share(by_counters) == 0.5
    assert trust.doubt(log_of(evenly(0.1, GAP_S), cached_tokens=10), "ttft") is None  # a few blocks


@pytest.mark.parametrize(
    "changes",
    [
        {"shared_prefix": (90, 1)},
        {"dataset": "chats.json"},
        {"dataset": "chats.json", "multi_turn": True},
        {"api": "chat", "asked_prompt_tokens": 2},  # 98 of the 100 are the template's
    ],
)
def test_what_is_shared_may_be_cached(changes: dict[str, object]) -> None:
    assert trust.cached_share(log_of(evenly(0.1, GAP_S), cached_tokens=98, **changes)) == 0


def test_one_run_of_several_is_said_and_does_not_brand_the_point() -> None:
    good, bad = log_of(evenly(0.5, GAP_S)), log_of(evenly(0.5, GAP_S), verdict="client-limited: late")
    assert trust.of_point([good, good, bad]) is None
    assert trust.marks([good, good, bad]) == ["1 of 3 runs client-limited"]
    doubt = trust.of_point([good, bad, bad], "e2e_latency")
    assert doubt and doubt.kind == "client-limited" and trust.marks([good, bad, bad]) == ["client-limited"]


def test_a_failed_point_decides_nothing() -> None:
    failed = msgspec.structs.replace(log_of([0.5]), status="failed")
    assert trust.doubt(failed, "failed_share") == "the point failed"


def test_the_stand_in_of_fastgen_is_known_by_its_engine() -> None:
    def of(engine: str, backend: str = "fastgen") -> Log:
        facts = schema.ServerFacts(urls=[], engine=engine)
        return msgspec.structs.replace(log_of([0.5], backend=backend), server_facts=facts)

    assert trust.stand_in(of("deepspeed-mii 0.3.3+cpu")) and not trust.stand_in(of("deepspeed-mii 0.3.3"))
    assert not trust.stand_in(of("vllm 0.11+cpu", "vllm"))
    assert any("stand-in" in words for words in advice.of_point(of("deepspeed-mii 0.3.3+cpu")))


def test_a_proxy_that_gathers_is_named_on_the_terminal(
    reference: Callable[..., str],
    benchmark: Callable[..., tuple[int, str, str]],
    tokenizer_dir: Path,
    results: Path,
) -> None:
    url = reference("--buffered")
    where = ("--backend", "openai", "--openai_api_url", url, "--model", "reference", "--tokenizer", tokenizer_dir)
    load = ("--num_clients", 2, "--num_requests", 12, "--mean_prompt_length", 8, "--mean_max_new_tokens", 20)
    code, out, err = benchmark(*where, *load)
    assert code == 0, out + err
    assert "warning: the tokens of an answer came all at once" in out
    (log,) = [store.load(path) for path in results.glob("openai/*.json")]
    limited = "client-limited" in out  # on a busy machine: late as well, which its verdict says
    assert trust.buffered(log) and (limited or out.count("buffered") >= 3)


# The machine.


def beside(host: dict[str, float] | None = None, **gpu: object) -> Log:
    """A log with these shares of the host, or with this use of a GPU of 400 W."""
    shares = {"client": 0.1, "server": 0.4, "others": 0.0, "kernel": 0.0, "steal": 0.0, "idle": 0.5} | (host or {})
    cores, wanted = int(shares.pop("cores", 2)), shares.pop("wanted", None)
    names = {"client": "client_cpu_share", "server": "server_cpu_share", "others": "others_cpu_share"}
    names |= {"kernel": "kernel_cpu_share"}
    of_host = HostUse(
        **{names.get(name, f"{name}_share"): share for name, share in shares.items()},  # type: ignore[arg-type]
        busiest_others=["python3 98%"],
        others_wanted_share=wanted,
    )
    gpus = [GpuUse(index=3, **gpu)] if gpu else []  # type: ignore[arg-type]
    machine = Machine(gpus=[Gpu(index=3, name="G", power_limit_w=400, default_power_limit_w=400)])
    log = log_of(evenly(0.1, GAP_S), others_cpu_share=shares["others"])
    found = Telemetry(host=of_host, gpus=gpus)
    return msgspec.structs.replace(log, telemetry=found, machine=machine, client={"cores": cores})


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"others": 0.25, "idle": 0.3}, "other programs (python3 98%) wanted 0.5 of 2 cores"),
        ({"others": 0.01, "wanted": 0.49, "idle": 0.01}, "other programs (python3 98%) wanted 1.0 of 2 cores"),
        (
            {"others": 0.03, "wanted": 0.07, "idle": 0.01, "cores": 8},
            "other programs (python3 98%) wanted 0.6 of 8 cores",
        ),
        ({"steal": 0.08}, "other virtual machines took 8% of this one's cores"),
    ],
)
def test_a_host_whose_cores_others_took_decides_nothing(host: dict[str, float], words: str) -> None:
    log = beside(host)
    assert trust.marks([log]) == ["host-contended"] and trust.doubt(log, "request_throughput") == words
    (advised,) = [line for line in advice.of_point(log) if line.startswith("host-contended: ")]
    assert words in advised and "--overwrite_results" in advised


@pytest.mark.parametrize(
    "host",
    [
        {},
        {"others": 0.15, "idle": 0.2},
        {"wanted": 0.07, "cores": 8},
        {"wanted": 0.1, "idle": 0.0},
        {"steal": 0.02},
    ],
)
def test_a_host_that_had_room_decides(host: dict[str, float]) -> None:
    assert trust.marks([beside(host)]) == []


@pytest.mark.parametrize(
    ("gpu", "mark", "words"),
    [
        ({"throttled": {"thermal": 0.3}}, "gpu-throttled", "GPU 3 was slowed down by its temperature 30% of the"),
        ({"throttled": {"hardware": 0.1}}, "gpu-throttled", "by its power supply or hardware 10% of the window"),
        (
            {"shared_share": 1.0, "sharing": ["train (7)"]},
            "gpu-shared",
            "other processes (train (7)) were on GPU 3",
        ),
    ],
)
def test_a_gpu_that_was_slowed_down_or_shared_decides_nothing(
    gpu: dict[str, object], mark: str, words: str
) -> None:
    log = beside(**gpu)
    assert trust.marks([log]) == [mark] and words in str(trust.doubt(log, "ttft"))
    assert any(line.startswith(f"{mark}: ") and "measure again" in line for line in advice.of_point(log))


def test_a_power_limit_counts_only_if_it_was_lowered() -> None:
    capped = beside(throttled={"power_cap": 0.8})
    assert trust.marks([capped]) == []
    lowered = Machine(gpus=[Gpu(index=3, name="G", power_limit_w=250, default_power_limit_w=400)])
    log = msgspec.structs.replace(capped, machine=lowered)
    assert trust.marks([log]) == ["gpu-throttled"]
    assert "a power limit of 250 W, below the default of 400 W, 80% of the window" in str(trust.doubt(log, "ttft"))
    unknown = msgspec.structs.replace(capped, machine=None)
    assert trust.marks([unknown]) == []


def test_little_heat_and_a_passing_guest_are_no_verdict() -> None:
    assert trust.marks([beside(throttled={"thermal": 0.03}, shared_share=0.02)]) == []


def test_a_log_of_before_telemetry_tells_of_others_too() -> None:
    log = log_of(evenly(0.1, GAP_S), others_cpu_share=0.3)
    assert trust.marks([log]) == ["host-contended"] and "30% of all cores" in str(trust.doubt(log, "ttft"))


def test_a_point_with_a_mark_ends_no_search() -> None:
    from servebench.plan import strategies

    assert strategies._doubt(beside({"others": 0.5}))
