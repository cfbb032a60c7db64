"""Tokens counted by a server's own /tokenize, in the words of three engines. The stub's tokenizer is the judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import make_result
from test_endpoints import Answer, Benchmark, Call, Fake, the_log
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from servebench.analysis import samples
from servebench.campaign import loop
from servebench.errors import InputError
from servebench.log.config import ServerConfig
from servebench.servers.tokenize import server_tokenizer
from servebench.workload.model_files import NoTokenizer
from servebench.workload.other_tokenizers import PROSE
from servebench.workload.texts import exact_texts, plain_words
from servebench.workload.token_counts import count_tokens, tokens_of_events, with_token_counts

LENGTHS = [16, 17, 64, 100, 500, 1000, 4000]


@pytest.fixture(scope="module")
def judge() -> Tokenizer:
    """A byte-level BPE that begins every prompt with a BOS, and has tokens that span words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(
        [s[i : i + 9] for s in PROSE.read_text().split("\n") for i in range(len(s))], trainer
    )
    tokenizer.add_special_tokens(["<s>"])
    bos = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])
    return tokenizer


def vllm(asked: dict[str, Any], judge: Tokenizer) -> dict[str, Any]:
    encoded = judge.encode(asked["prompt"], add_special_tokens=asked.get("add_special_tokens", True))
    strings = encoded.tokens if asked.get("return_token_strs") else None
    return {"count": len(encoded.ids), "tokens": encoded.ids, "token_strs": strings, "max_model_len": 9000}


def sglang(asked: dict[str, Any], judge: Tokenizer) -> dict[str, Any]:
    encoded = judge.encode(asked["prompt"], add_special_tokens=asked.get("add_special_tokens", True))
    return {"tokens": encoded.ids, "count": len(encoded.ids), "max_model_len": 9000}


def llamacpp(asked: dict[str, Any], judge: Tokenizer) -> dict[str, Any]:
    """A piece that is no text is a list of bytes."""
    encoded = judge.encode(asked["content"], add_special_tokens=asked.get("add_special", False))
    pieces = [token.replace("Ġ", " ") for token in encoded.tokens]
    odd = [piece if piece.isascii() else [ord(letter) & 255 for letter in piece] for piece in pieces]
    return {"tokens": [{"id": i, "piece": piece} for i, piece in zip(encoded.ids, odd, strict=True)]}


@pytest.fixture
def serve(judge: Tokenizer) -> Iterator[Callable[..., Fake]]:
    """A server that answers /tokenize as this engine does, and says in usage what the judge counts."""
    running: list[Fake] = []

    def start(engine: Callable[..., dict[str, Any]]) -> Fake:
        def odd(call: Call) -> Answer | None:
            return (200, engine(call.body, judge)) if call.path == "/tokenize" else None

        running.append(Fake(odd))
        return running[-1]

    yield start
    for fake in running:
        fake.server.shutdown()
        fake.server.server_close()


def attached(fake: Fake) -> Any:
    facts = SimpleNamespace(model="m", urls=[fake.url])
    return SimpleNamespace(engines=[f"{fake.url}/v1"], headers={"Authorization": "Bearer key"}, facts=facts)


ENGINES = pytest.mark.parametrize("engine", [vllm, sglang, llamacpp])


@pytest.mark.parametrize(("engine", "prose"), [(vllm, False), (vllm, True), (sglang, False), (llamacpp, False)])
def test_prompts_are_exact_by_the_servers_own_tokenizer(
    serve: Callable[..., Fake], judge: Tokenizer, engine: Callable[..., dict[str, Any]], prose: bool
) -> None:
    fake = serve(engine)
    tokenizer = server_tokenizer(attached(fake))
    texts = exact_texts(tokenizer, LENGTHS, np.random.default_rng(0), prose=prose)
    assert [len(judge.encode(text).ids) for text in texts] == LENGTHS
    assert plain_words(tokenizer).special == 1
    assert {call.path for call in fake.calls} == {"/tokenize"} and fake.calls[0].body["model"] == "m"
    assert all(call.all("authorization") == ["Bearer key"] for call in fake.calls)


@ENGINES
def test_events_have_the_tokens_that_end_in_them(
    serve: Callable[..., Fake], judge: Tokenizer, engine: Callable[..., dict[str, Any]]
) -> None:
    tokenizer = server_tokenizer(attached(serve(engine)))
    answers = [PROSE.read_text().split("\n")[i] for i in range(20)] + ["a  b\n\n c", "日本語 👩‍👩‍👧 é"]
    assert count_tokens(tokenizer, answers, special=False) == count_tokens(judge, answers, special=False)
    for text in answers:
        ends = [end for _, end in judge.encode(text, add_special_tokens=False).offsets]
        events = [text[a:b] for a, b in pairwise(sorted({0, *ends[::2], len(text)}))]
        (found,) = tokens_of_events([events], tokenizer)
        if text.isascii() and engine is not sglang:  # which does not say where its tokens end
            assert found == tokens_of_events([events], judge)[0]
        assert sum(found) == len(ends)


def test_a_server_that_is_gone_leaves_answers_uncounted(serve: Callable[..., Fake]) -> None:
    fake = serve(vllm)
    tokenizer = server_tokenizer(attached(fake))
    fake.server.shutdown()
    fake.server.server_close()
    said = make_result(0, 0.0, [0.1], texts=["The"], event_tokens=[], generated_tokens=None, token_source="none")
    (left,) = with_token_counts([said], tokenizer)
    assert (left.texts, left.event_tokens, left.generated_tokens, left.token_source) == ([], [], None, "none")


def words_only(asked: dict[str, Any], _: Tokenizer) -> dict[str, Any]:
    """As the fake server counts in its usage: a word is a token."""
    return {"tokens": [{"id": 1, "piece": piece} for piece in asked["content"].split()]}


def test_a_model_that_is_only_known_to_the_server_needs_no_tokenizer(
    serve: Callable[..., Fake], benchmark: Benchmark, results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fake = serve(words_only)
    load = ["--num_clients", 1, "--num_requests", 2, "--warmup", 0, "--scenario", "D(50,4)"]
    code, out, err = benchmark("--backend", "openai", "--openai_api_url", fake.url, "--model", "/not/here", *load)
    assert code == 0, out + err
    assert "tokens are counted by the server's /tokenize" in err
    log = the_log(results)
    assert {r.prompt_tokens for r in samples.succeeded(log)} == {50}
    assert any("/tokenize" in fact for fact in log.server_facts.learnt)
    first = next(i for i, call in enumerate(fake.posts) if call.path != "/tokenize")
    last = max(i for i, call in enumerate(fake.posts) if call.path != "/tokenize")
    assert all(call.path != "/tokenize" for call in fake.posts[first : last + 1]), "none of them during the load"


def test_a_server_that_does_not_count_is_told_by_the_line_about_the_tokenizer(benchmark: Benchmark) -> None:
    fake = Fake(lambda call: (404, {}) if call.path == "/tokenize" else None)
    code, _, err = benchmark("--backend", "openai", "--openai_api_url", fake.url, "--model", "./nowhere")
    fake.server.shutdown()
    fake.server.server_close()
    assert code == 2 and err.count("\n") == 2, err
    assert "--model ./nowhere: there is no such directory or file; give one, or a Hugging Face id" in err


@pytest.mark.parametrize(
    "said", [b"data: 1\n\n", [], {}, {"tokens": None}, {"tokens": ["a", None]}, {"tokens": [{}]}]
)
def test_what_is_no_count_is_refused(said: Any) -> None:
    fake = Fake(lambda _: (200, said))
    with pytest.raises(InputError, match="does not count tokens at /tokenize"):
        server_tokenizer(attached(fake))
    fake.server.shutdown()
    fake.server.server_close()


@pytest.mark.parametrize(
    ("backend", "starts", "error", "counts"),
    [
        ("vllm", True, NoTokenizer("no file"), True),
        ("vllm", True, InputError("gated"), False),  # which keeps the engine from it too: it is not started
        ("vllm", False, InputError("gated"), True),
        ("openai", False, InputError("not on the hub"), True),
        ("fastgen", True, NoTokenizer("no file"), False),  # it has no /tokenize
        ("aml", False, NoTokenizer("no file"), False),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_when_the_server_may_count(
    monkeypatch: pytest.MonkeyPatch, backend: str, starts: bool, error: InputError, counts: bool, given: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop, "load_tokenizer_once", fail)
    name = "another" if given else "m"
    settings: Any = SimpleNamespace(tokenizer=name, model="m", tokenizer_option="--model", starts=starts)
    server = ServerConfig(backend=backend, model="m")
    if counts and not given:
        assert loop.tokenizer_at_hand(settings, server) is error
    else:
        with pytest.raises(InputError):
            loop.tokenizer_at_hand(settings, server)
