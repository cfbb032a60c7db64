"""Tokenizers without a tokenizer.json, judged by what SentencePiece, tiktoken and mistral-common count."""

from __future__ import annotations

import base64
import json
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate, pairwise
from pathlib import Path
from typing import ClassVar

import mistral_common
import numpy as np
import pytest
import sentencepiece
import tiktoken
from conftest import in_hub_cache
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from servebench.errors import InputError
from servebench.log.identity import content_of
from servebench.workload import load_tokenizer, model_files
from servebench.workload.model_files import NoTokenizer
from servebench.workload.other_tokenizers import PROSE
from servebench.workload.texts import exact_texts, plain_words
from servebench.workload.token_counts import count_tokens, tokens_of_events

DATA = Path(mistral_common.__file__).parent / "data"
TEKKEN = DATA / "tekken_240718.json"
LENGTHS = [16, 17, 64, 100, 500, 1000, 4000]
ODD = [
    "",
    " ",
    "  ",
    "\n\n \n",
    " one",
    "two  three   four",
    "héé ß…",
    "日本語を書く",
    "👩‍👩‍👧 😀",
    "e\u0301",
    "a\tb\r\n",
]
ODD += [
    "1234567 8",
    "don't I'LL",
    "<s> [INST] <|endoftext|>",
    "x" * 300,
    "def f(x):\n    return {'a': x**2}  # ok\n",
]
# As in the code that Llama 3 and Qwen came with.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
Judge = Callable[[str], int]  # tokens of a text, without special ones


def ranks() -> dict[bytes, int]:
    tekken = json.loads(TEKKEN.read_text())
    return {base64.b64decode(each["token_bytes"]): each["rank"] for each in tekken["vocab"][:60_000]}


def sentencepiece_model(folder: Path, of: str) -> Judge:
    shutil.copy(
        next(DATA.glob(f"*tokenizer*.model.{of}")), folder / f"tokenizer.model{'' if of == 'v1' else f'.{of}'}"
    )
    (model,) = folder.glob("tokenizer.model*")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    return lambda text: len(processor.encode(text))


def own_unigram(folder: Path, _: str) -> Judge:
    """Trained here: a unigram model, which collapses spaces and normalizes characters, without a BOS."""
    text = iter(PROSE.read_text().splitlines())
    fields = {"model_type": "unigram", "vocab_size": 700, "bos_id": -1, "minloglevel": 2}
    with (folder / "tokenizer.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=text, model_writer=model, **fields)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return lambda text: len(processor.encode(text))


def tekken(folder: Path, of: str) -> Judge:
    shutil.copy(DATA / of, folder / "tekken.json")
    judge = Tekkenizer.from_file(folder / "tekken.json")
    return lambda text: len(judge.encode(text, bos=False, eos=False))


def of_ranks(folder: Path, name: str) -> Judge:
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks().items())
    (folder / name).write_bytes(b"".join(lines))
    pattern = QWEN if "qwen" in name else LLAMA3
    judge = tiktoken.Encoding("judge", pat_str=pattern, mergeable_ranks=ranks(), special_tokens={})
    return lambda text: len(judge.encode_ordinary(text))


KINDS = {  # who makes it, of which file, and the special tokens that engines add to a prompt
    "Mistral 7B": (sentencepiece_model, "v1", 1),
    "Mistral v3": (sentencepiece_model, "v3", 1),
    "Mistral v7": (sentencepiece_model, "v7", 1),
    "unigram": (own_unigram, "", 0),
    "Nemo": (tekken, "tekken_240718.json", 1),
    "Pixtral": (tekken, "tekken_240911.json", 1),
    "Llama 3": (of_ranks, "tokenizer.model", 1),
    "Qwen": (of_ranks, "qwen.tiktoken", 0),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Judge, int]:
    """A model's directory, who counts its tokens, and how many special ones a prompt has beside."""
    make, of, special = KINDS[request.param]
    folder = tmp_path_factory.mktemp("other")
    return folder, make(folder, of), special


@pytest.mark.parametrize("prose", [False, True])
def test_prompts_are_exact_by_the_original_library(made: tuple[Path, Judge, int], prose: bool) -> None:
    folder, judge, special = made
    tokenizer = load_tokenizer(str(folder))
    texts = exact_texts(tokenizer, LENGTHS * 4, np.random.default_rng(0), prose=prose)
    assert [judge(text) + special for text in texts] == LENGTHS * 4
    assert plain_words(tokenizer).special == special


def odd_texts(n: int) -> list[str]:
    rng = random.Random(0)
    words = [*PROSE.read_text().split(), *ODD * 20]
    return ODD + [" ".join(rng.choices(words, k=rng.randint(1, 60))) for _ in range(n)]


def test_any_text_has_the_tokens_that_the_original_library_counts(made: tuple[Path, Judge, int]) -> None:
    folder, judge, special = made
    tokenizer, texts = load_tokenizer(str(folder)), odd_texts(300)
    assert count_tokens(tokenizer, texts, special=False) == [judge(text) for text in texts]
    assert count_tokens(tokenizer, texts) == [judge(text) + special for text in texts]


def test_tokens_of_events_are_those_of_what_had_come(made: tuple[Path, Judge, int]) -> None:
    folder, judge, _ = made
    tokenizer, rng = load_tokenizer(str(folder)), random.Random(1)
    words = PROSE.read_text().split() + ["héé", "日本語"] * 50
    for _ in range(30):
        text = " ".join(rng.choices(words, k=rng.randint(1, 60)))
        (encoded,) = tokenizer.encode_batch([text], add_special_tokens=False)
        # Not within a character, nor behind a space, which some drop at a text's end.
        ends = [
            end
            for _, end in encoded.offsets
            if end and text[end - 1 : end + 1].isascii() and not text[:end].endswith(" ")
        ]
        ends = sorted({*rng.sample(ends, len(ends) // 2), len(text)})
        events = [text[a:b] for a, b in pairwise([0, *ends])]
        (counted,) = tokens_of_events([events], tokenizer)
        assert sum(counted) == judge(text)
        assert counted == [b - a for a, b in pairwise([0, *map(judge, accumulate(events))])]
    for text in filter(None, odd_texts(50)):  # cut anywhere, nothing is lost
        cut = sorted({0, len(text), *rng.sample(range(len(text)), len(text) // 3)})
        (counted,) = tokens_of_events([[text[a:b] for a, b in pairwise(cut)]], tokenizer)
        assert sum(counted) == judge(text)


def test_two_tokenizers_do_not_share_prompts_in_the_cache(tmp_path: Path) -> None:
    traces = set()
    for make, of in ((sentencepiece_model, "v1"), (tekken, "tekken_240718.json"), (of_ranks, "qwen.tiktoken")):
        folder = tmp_path / of
        folder.mkdir()
        make(folder, of)
        traces.add(load_tokenizer(str(folder)).to_str())
    assert len(traces) == 3


@pytest.mark.parametrize(
    ("config", "special"), [({"add_bos_token": False}, 0), ({"add_bos_token": True}, 1), ({}, 1)]
)
@pytest.mark.parametrize("kind", ["Mistral 7B", "Nemo", "Llama 3"])
def test_the_models_configuration_says_whether_bos_is_added(
    tmp_path: Path, kind: str, config: dict[str, bool], special: int
) -> None:
    make, of, _ = KINDS[kind]
    make(tmp_path, of)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert count_tokens(load_tokenizer(str(tmp_path)), [""]) == [special]


def test_the_file_itself_can_be_named(tmp_path: Path) -> None:
    judge = sentencepiece_model(tmp_path, "v3")
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer.model.v3"))
    assert count_tokens(tokenizer, ["Hello there"]) == [judge("Hello there") + 1]


def test_a_tokenizer_json_beside_them_counts(tokenizer_dir: Path, tmp_path: Path) -> None:
    shutil.copy(tokenizer_dir / "tokenizer.json", tmp_path)
    alone = content_of(str(tmp_path)).rpartition(" ")[2]
    content_of.cache_clear()
    (tmp_path / "qwen.tiktoken").touch()
    (tmp_path / "tokenizer.model.v3").touch()
    assert content_of(str(tmp_path)).rpartition(" ")[2] == alone, "so that points that were measured stay the same"
    (text,) = exact_texts(load_tokenizer(str(tmp_path)), [30], np.random.default_rng(0))
    assert len(load_tokenizer(str(tokenizer_dir)).encode(text).ids) == 30


def test_what_counts_is_part_of_the_identity(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "qwen.tiktoken").touch()
    before = content_of(str(tmp_path))
    content_of.cache_clear()
    (tmp_path / "qwen.tiktoken").write_text("YQ== 0\n")
    assert content_of(str(tmp_path)) != before


@pytest.mark.parametrize("name", ["", "tokenizer.model", "tokenizer.model.v3", "qwen.tiktoken", "tekken.json"])
def test_without_their_libraries_the_line_says_what_to_install(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("transformers", "tiktoken", "sentencepiece"):
        monkeypatch.setitem(sys.modules, library, None)
    if name == "tekken.json":
        shutil.copy(TEKKEN, tmp_path / name)
    elif name:
        (tmp_path / name).write_text("YQ== 0\n" if "tiktoken" in name else "\n")
    with pytest.raises(NoTokenizer) as refused:
        load_tokenizer(str(tmp_path))
    only = f", only {name}; pip install '.[tokenizers]' to read it, or" if name else ";"
    assert f"no tokenizer.json in it{only} name another" in str(refused.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("no model")
    with pytest.raises(InputError, match="its tokenizer cannot be loaded"):
        load_tokenizer(str(tmp_path))


def test_a_model_of_the_hub_without_tokenizer_json_is_read_from_the_cache(hub_out_of_reach: Path) -> None:
    judge = sentencepiece_model(in_hub_cache(hub_out_of_reach, "org/spm"), "v1")
    assert count_tokens(load_tokenizer("org/spm", "--model"), ["Hello there"]) == [judge("Hello there") + 1]


class Hub(BaseHTTPRequestHandler):
    """A hub with one model, org/spm, that has weights and SentencePiece's file."""

    files: ClassVar[dict[str, bytes]] = {}
    fetched: ClassVar[list[str]] = []
    gated = False

    def do_HEAD(self) -> None:
        name = self.path.rpartition("/")[2]
        status, code = (
            (403, "GatedRepo") if Hub.gated else (200, "") if name in Hub.files else (404, "EntryNotFound")
        )
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{name}"')
        self.send_header("Content-Length", str(len(Hub.files.get(name, b""))))
        self.end_headers()

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        about = {"id": "org/spm", "sha": "a" * 40, "siblings": [{"rfilename": file} for file in Hub.files]}
        tree = [{"type": "file", "path": file, "size": len(data), "oid": file} for file, data in Hub.files.items()]
        listing = tree if "/tree/" in self.path else about
        data = json.dumps(listing).encode() if "/api/" in self.path else Hub.files[name]
        Hub.fetched += [] if "/api/" in self.path else [name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Judge]:
    judge = sentencepiece_model(tmp_path, "v1")
    monkeypatch.setattr(
        Hub, "files", {"tokenizer.model": (tmp_path / "tokenizer.model").read_bytes(), "w.bin": b"w"}
    )
    monkeypatch.setattr(Hub, "fetched", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "ENDPOINT": url,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + URL_OF_FILE)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)
        monkeypatch.setattr(model_files, "unreachable", [])
        yield judge
        server.shutdown()


URL_OF_FILE = "/{repo_id}/resolve/{revision}/{filename}"


def test_only_what_counts_is_fetched_from_the_hub(hub: Judge) -> None:
    assert count_tokens(load_tokenizer("org/spm", "--model"), ["Hello there"]) == [hub("Hello there") + 1]
    assert Hub.fetched == ["tokenizer.model"]


@pytest.mark.usefixtures("hub")
def test_a_gated_model_without_tokenizer_json_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "gated", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(InputError, match=r"this model is gated, and \$HF_TOKEN is not set; accept its licence"):
        load_tokenizer("org/spm", "--model")
