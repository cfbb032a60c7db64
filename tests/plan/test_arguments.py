"""The command line: what it means, and one clear line for what it cannot mean."""

from __future__ import annotations

import argparse

import pytest

from servebench.cli.commandline import words_in_quotes
from servebench.errors import InputError
from servebench.load import mii
from servebench.log import urls
from servebench.plan import arguments, defaults
from servebench.plan.options import ClientsPerReplica

VLLM = ["--backend", "vllm"]
TWO_URLS = ["--openai_api_url", "http://a/v1", "http://b/v1"]
API = ["--backend", "openai", "--openai_api_url"]
BROKEN = {
    "": "does not begin with http://",
    "localhost:8000/v1": "does not begin with http://",
    "http://[::1": "cannot be read",
    "http://h:99999/v1": "cannot be read",
    "http://h:port/v1": "cannot be read",
    "http:///v1": "has no host",
    "http://a b/v1": "a character in it that no URL has",
    "http://h/v1\r\nX: 1": "a character in it that no URL has",
}


def test_defaults_are_the_models_own() -> None:
    (settings,) = arguments.parse([*VLLM, "--model", "meta-llama/Llama-2-13b-hf"])
    assert [server.tp_size for server in settings.servers] == [1, 2, 4]
    assert list(dict.fromkeys(r.mean_prompt_length for r in settings.requests)) == [1200, 2600]
    assert [load.size for load in settings.loads] == [1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32]


def test_the_command_line_overrides_them() -> None:
    (settings,) = arguments.parse([*VLLM, "--model", "meta-llama/Llama-2-13b-hf", "--tp_size", "1", "2"])
    assert [server.tp_size for server in settings.servers] == [1, 2]


@pytest.mark.parametrize("name", ["meta-llama/Llama-13b-hf", "meta-llama/llama-13B-hf"])
def test_the_specs_short_name_is_measured_as_the_hubs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (settings,) = arguments.parse([*VLLM, "--model", name])
    assert settings.model == settings.tokenizer == "meta-llama/Llama-2-13b-hf"
    assert [server.tp_size for server in settings.servers] == [1, 2, 4]
    assert f"--model {name}: measured as meta-llama/Llama-2-13b-hf" in capsys.readouterr().err


def test_a_models_defaults_are_found_whatever_the_case_of_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    (settings,) = arguments.parse([*VLLM, "--model", "Tiiuae/falcon-40b"])
    assert (settings.model, settings.requests[0].max_prompt_length) == ("Tiiuae/falcon-40b", 2000)
    assert [server.tp_size for server in settings.servers] == [2, 4]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("model", defaults.MODELS)
def test_the_defaults_fit_the_models_context(model: str) -> None:
    contexts = {"meta-llama": 4096, "tiiuae": 2048, "microsoft": 2048, "mistralai": 32768}
    asked, context = defaults.MODELS[model], contexts[model.partition("/")[0]]
    assert max(asked.mean_prompt_length) + max(asked.mean_max_new_tokens) <= context
    assert max(asked.mean_prompt_length) < asked.max_prompt_length < context


def test_clients_per_replica_leave_no_clients_of_another_number() -> None:
    (settings,) = arguments.parse([*VLLM, "--num_replicas", "1", "2", "--clients_per_replica", "16"])
    assert settings.loads == (ClientsPerReplica(clients_per_replica=16),)


def test_values_given_twice_count_once() -> None:
    (settings,) = arguments.parse([*VLLM, "--num_clients", "4", "1", "4"])
    assert [load.size for load in settings.loads] == [4, 1]


@pytest.mark.parametrize("given", [["--engine_args", "--enforce-eager"], ["--engine_args=--enforce-eager"]])
def test_engine_args_may_begin_with_dashes(given: list[str]) -> None:
    assert arguments.parse([*VLLM, *given])[0].variants[0].args == ("--enforce-eager",)


def test_quotes_of_a_pair_that_do_not_close_are_one_line() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="No closing quotation; quote it as in a shell"):
        words_in_quotes("--model 'x")


def test_engine_args_are_split_as_in_a_shell() -> None:
    assert arguments.parse([*VLLM, "--engine_args", "--a 'b c' --d"])[0].variants[0].args == (
        "--a",
        "b c",
        "--d",
    )


def test_keys_come_from_the_environment_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    (settings,) = arguments.parse(VLLM)
    assert settings.access.key == "secret"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--num_clients", "4", "-1"], "--num_clients"),
        (["--num_clients", "0"], "at least 1"),
        (["--mean_prompt_length", "many"], "whole number"),
        (["--prompt_length_var", "1.5"], "at most 1"),
        (["--backend", "nosuch"], "--backend"),
        (["--port", "70000"], "65535"),
        (["--extra_body", "[1]"], "not a JSON object"),
        (["--engine_args", "'open"], "--engine_args: No closing quotation"),
        (["--extra_headers", "no-colon"], "NAME:VALUE"),
        (["--shared_prefix", "512"], "TOKENS:GROUPS"),
        (["--request_rate", "0"], "at least"),
        (["--request_rate", "inf"], "not a number"),
        (["--request_timeout", "1e999"], "not a number"),
        (["--dataset", ""], "--dataset: it is empty"),
        (["--find_max", ""], "--find_max: it is empty"),
        (["--out_json_dir", ""], "--out_json_dir: it is empty"),
        (["--openai_api_k", "shortened"], "--openai_api_k"),
    ],
)
def test_a_bad_value_is_one_line_and_status_2(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.parse([*VLLM, *words])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert reason in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--backend", "fastgen", "--client_only"], "--port"),
        (["--backend", "fastgen", "--router"], "--router"),
        ([*VLLM, "--fp6"], "--fp6 is an option of DeepSpeed"),
        ([*VLLM, "--gpus", "0", "1", "--tp_size", "2", "--num_replicas", "2"], "--gpus names 2"),
        (["--backend", "aml"], "--deployment_name, --aml_api_url, --aml_api_key"),
        (["--backend", "openai"], "--openai_api_url"),
        ([*VLLM, "--aml_api_url", "https://h/score"], "measure it with --backend aml"),
        ([*VLLM, "--client_only"], "--port"),
        ([*VLLM, "--openai_api_url", "http://x/v1"], "--client_only"),
        ([*VLLM, "--openai_api_url", "ftp://x"], "is not a URL"),
        (["--backend", "aml", "--model", "m", "--deployment_name", ""], "needs --deployment_name, --aml_api_url"),
        ([*VLLM, "--mean_prompt_length", "500", "--max_prompt_length", "100"], "--max_prompt_length"),
        ([*VLLM, "--mean_prompt_length", "1200", "2600", "--max_prompt_length", "2000"], "2600 is more than"),
        ([*VLLM, "--trace_format", "bailian"], "--trace_format goes with --dataset"),
        ([*VLLM, "--client_only", "--port", "1", "--gpus", "0"], "--gpus is for servers that are started"),
        ([*VLLM, "--client_only", "--port", "1", "--tp_size", "1", "2"], "has only one"),
        *((["--backend", "openai", "--openai_api_url", url], why) for url, why in BROKEN.items()),
        ([*API, "http://h/v1/completions", "--api", "chat"], "--api chat, but the URL names completions"),
        ([*API, "http://h/v1/completions", "http://h/v1/chat/completions"], "all have to speak one API"),
        ([*API, "http://h/score"], "--backend aml"),
        ([*VLLM, "--find_max", "e2e_p99<2s,ttft_p99<1s", "--no_stream"], "no TTFT or TPOT"),
        ([*VLLM, "--find_peak", "--no_stream"], "no TTFT or TPOT"),
        ([*VLLM, "--request_rate", "1", "--num_clients", "2"], "exclude each other"),
        ([*VLLM, "--request_rate", "1", "--trace_speed", "2"], "exclude each other"),
        ([*VLLM, "--trace_speed", "2"], "--dataset"),
        ([*VLLM, "--arrival", "constant"], "--request_rate"),
        ([*VLLM, "--request_rate", "1", "--burstiness", "0.5"], "--arrival gamma"),
        ([*VLLM, "--ramp_from", "1"], "--request_rate"),
        ([*VLLM, "--request_rate", "1", "2", "--ramp_from", "2"], "give another"),
        ([*VLLM, "--max_concurrency", "8"], "--max_concurrency goes with --request_rate or --trace_speed"),
        ([*VLLM, "--request_rate", "1", "--num_requests", "1"], "give more"),
        ([*VLLM, "--clients_per_replica", "4", "--num_clients", "8"], "exclude each other"),
        ([*VLLM, "--clients_per_replica", "4", "--request_rate", "1"], "exclude each other"),
        ([*VLLM, "--clients_per_replica", "4", "--find_peak"], "leave the search out"),
        (["--clients_per_replica", "4", "--backend", "openai", *TWO_URLS], "give --num_replicas 2"),
        ([*VLLM, "--multi_turn"], "--dataset"),
        ([*VLLM, "--dataset", __file__, "--multi_turn", "--request_rate", "1"], "--num_clients"),
        ([*VLLM, "--think_time", "1"], "--think_time goes with --dataset"),
        ([*VLLM, "--dataset", "/no/such/file"], "cannot be read"),
        ([*VLLM, "--scenario", "D(1,2)", "--mean_prompt_length", "9"], "exclude each other"),
        (
            [*VLLM, "--scenario", "D(1,2)", "--length_distribution", "fixed"],
            "beside --scenario leave it out",
        ),
        ([*VLLM, "--scenario", "D(9000,2)"], "--max_prompt_length"),
        ([*VLLM, "--scenario", "E(1,2)"], "is not a scenario; write"),
        ([*VLLM, "--dataset", __file__, "--shared_prefix", "8:2"], "--shared_prefix"),
        ([*VLLM, "--find_max", "ttft_p99<2s", "--find_peak"], "exclude each other"),
        ([*VLLM, "--find_max", "fast"], "there is no < or > in it"),
        ([*VLLM, "--find_peak", "--request_rate", "1", "--ramp_from", "2"], "--ramp_from"),
    ],
)
def test_what_makes_no_sense_together_is_refused(words: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        arguments.parse(words)


def test_the_specs_azure_command_is_understood() -> None:
    words = "--backend aml --model mistralai/Mixtral-8x7B-v0.1 --deployment_name d --aml_api_url u --aml_api_key k"
    (settings,) = arguments.parse(words.replace(" u ", " https://x.inference.ml.azure.com/score ").split())
    assert (settings.common.api, settings.common.stream) == ("score", False)
    assert [server.tp_size for server in settings.servers] == [4]
    with pytest.raises(InputError, match="u is not a URL"):
        arguments.parse(words.split())


@pytest.mark.parametrize(
    ("url", "api", "endpoint"),
    [
        ("http://h/v1", "chat", "http://h/v1/chat/completions"),
        ("http://h/v1/completions", "chat", "http://h/v1/chat/completions"),
        ("https://h/chat/completions?api-version=1", "chat", "https://h/chat/completions?api-version=1"),
        ("https://h/score", "score", "https://h/score"),
    ],
)
def test_requests_go_to_the_endpoint_of_their_api(url: str, api: str, endpoint: str) -> None:
    assert urls.endpoint(url, api) == endpoint


def test_a_url_may_have_a_line_end_behind_it() -> None:
    assert arguments.parse([*API, "http://h/v1\n"])[0].access.urls == ("http://h/v1",)


def test_a_keyword_that_mii_cannot_be_sent_is_refused() -> None:
    with pytest.raises(InputError, match="'stop' of --extra_body is a list"):
        mii.encode({"prompt": "x", "stop": ["a"]})
