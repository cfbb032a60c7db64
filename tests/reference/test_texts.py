"""What the reference server says: plain words, answers to known questions, and both broken on demand."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import mistral_common
import pytest
from conftest import MODELS
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from servebench.reference import calibrate
from servebench.reference.texts import WORDS

QUESTIONS: list[dict[str, Any]] = [
    {"prompt": "What is 40 + 2?", "answer": 42, "scorer": "number"},
    {"prompt": "The capital of Peru?", "answer": ["the city of Lima", "Lima"], "scorer": "contains"},
    {"prompt": "As JSON?", "answer": {"type": "object"}, "scorer": "json_schema"},
    {"prompt": "Tell a story.", "scorer": "agreement", "max_tokens": 12},
]
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is 7 a prime?"}]


class Said(NamedTuple):
    text: str
    why: str
    tokens: int
    events: list[str]


class Form(NamedTuple):
    """How a server is asked."""

    streamed: bool
    chat: bool

    def ask(self, url: str, prompt: str | list[dict[str, str]], tokens: int = 24, number: int = 0) -> Said:
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        body = {"messages": turns} if self.chat else {"prompt": prompt}
        data = json.dumps(body | {"max_tokens": tokens, "stream": self.streamed}).encode()
        path = "/v1/chat/completions" if self.chat else "/v1/completions"
        with urlopen(Request(url + path, data, {"X-Request-Id": f"tag-{number}"}), timeout=20) as page:
            return self._read(page.read().decode())

    def _read(self, answer: str) -> Said:
        chunks = [json.loads(part) for part in re.findall(r"data: (\{.*)", answer)] or [json.loads(answer)]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        events = [self._text(choice) for choice in choices]
        whys = [why for choice in choices if (why := choice.get("finish_reason"))]
        (tokens,) = (chunk["usage"]["completion_tokens"] for chunk in chunks if "usage" in chunk)
        return Said("".join(events), "".join(whys), tokens, [event for event in events if event])

    def _text(self, choice: dict[str, Any]) -> str:
        said = choice.get("delta", choice.get("message", {})) if self.chat else choice
        return str(said.get("content" if self.chat else "text") or "")


PLAIN = Form(streamed=True, chat=False)


@pytest.fixture(
    params=[Form(*form) for form in ((True, False), (True, True), (False, False), (False, True))], ids=str
)
def form(request: pytest.FixtureRequest) -> Form:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> str:
    chat = {"messages": TURNS, "answer": ["yes"], "scorer": "exact"}
    return write(tmp_path_factory.mktemp("questions"), [*QUESTIONS, chat])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Start a reference server with these options, or give the URL of one that was."""
    with ExitStack() as stack:

        @cache
        def start(*options: str) -> str:
            folder = tmp_path_factory.mktemp("server")
            more = ("--ttft", "0.01", *options)
            return stack.enter_context(calibrate.reference_server(folder, 0.0, *more))[0]

        yield start


def write(folder: Path, questions: list[dict[str, Any]]) -> str:
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return str(file)


def cycles(text: str) -> bool:
    """Is its last half a text of at most 64 characters, four times or more?"""
    half = text[len(text) // 2 :]
    lengths = range(1, min(64, len(half) // 4) + 1)
    return any(half == (half[:n] * len(half))[: len(half)] for n in lengths)


def in_order(text: str) -> bool:
    """Are these WORDS in their order, and round again?"""
    places = [WORDS.index(f" {word}") for word in text.split()]
    return all(b == (a + 1) % len(WORDS) for a, b in pairwise(places))


# Plain words.


def test_every_word_is_one_token_and_of_one_size() -> None:
    model = Path(mistral_common.__file__).parent / "data/tokenizer.model.v1"
    mistral = SentencePieceProcessor(model_file=str(model))
    assert len(set(WORDS)) == len(WORDS) >= 150 and {len(word) for word in WORDS} == {5}
    assert [len(pieces) for pieces in mistral.encode([word.strip() for word in WORDS])] == [1] * len(WORDS)


@pytest.mark.skipif(not (MODELS / "SmolLM2-135M-Instruct").exists(), reason="SmolLM2 is not here")
def test_every_word_is_one_token_of_smollm2() -> None:
    smollm2 = Tokenizer.from_file(str(MODELS / "SmolLM2-135M-Instruct/tokenizer.json"))
    assert smollm2.encode("".join(WORDS)).tokens == [word.replace(" ", "Ġ") for word in WORDS]


def test_an_answer_is_words_in_their_order(server: Callable[..., str], form: Form) -> None:
    url = server()
    said = form.ask(url, "something", 400)
    assert len(said.text.split()) == said.tokens == 400 and said.why == "length"
    assert in_order(said.text) and not cycles(said.text)
    assert form.ask(url, "something", 400) == said
    assert len({form.ask(url, f"another {n}").text for n in range(9)}) > 5


@pytest.mark.parametrize("usage", ["last", "each"])
def test_an_event_carries_the_next_words(server: Callable[..., str], usage: str) -> None:
    url = server("--tokens_per_event", "3")
    said = PLAIN.ask(url, "something", 301)
    assert [len(event.split()) for event in said.events] == [3] * 100 + [1] and in_order(said.text)


# Known questions.


def test_known_questions_are_answered_rightly(server: Callable[..., str], form: Form, questions: str) -> None:
    url = server("--know", questions)
    assert form.ask(url, "What is 40 + 2?")[:3] == ("42", "stop", 1)
    city = form.ask(url, "The capital of Peru?")
    assert city[:3] == ("the city of Lima", "stop", 4)
    assert city.events == (["the", " city", " of", " Lima"] if form.streamed else ["the city of Lima"])
    assert form.ask(url, "The capital of Peru?", 2)[:3] == ("the city", "length", 2)
    for other in ("What is 40 + 3?", "As JSON?"):
        said = form.ask(url, other)
        assert in_order(said.text) and (said.why, said.tokens) == ("length", 24)


def test_known_messages_are_answered_rightly(server: Callable[..., str], questions: str) -> None:
    url = server("--know", questions)
    for streamed in (True, False):
        assert Form(streamed, True).ask(url, TURNS)[:3] == ("yes", "stop", 1)
        assert Form(streamed, True).ask(url, TURNS[1:]).why == "length"


def test_a_question_without_a_right_answer_has_the_same_one_each_time(
    server: Callable[..., str], form: Form, questions: str
) -> None:
    urls = [server("--know", questions, *more) for more in ((), ("--wrong_share", "1"))]
    first, wrong = ([form.ask(url, "Tell a story.", number=n) for n in range(3)] for url in urls)
    assert len({said.text for said in first}) == len({said.text for said in wrong}) == 1
    assert first[0].text != wrong[0].text and first[0][1:3] == wrong[0][1:3] == ("stop", 12)


def test_a_share_of_the_questions_is_answered_wrongly(server: Callable[..., str], tmp_path: Path) -> None:
    asked = [{"prompt": f"What is {n}?", "answer": n, "scorer": "number"} for n in range(20)]
    file = write(tmp_path, asked)

    def wrong(share: str) -> set[int]:
        url = server("--know", file, "--wrong_share", share)
        said = [PLAIN.ask(url, f"What is {n}?") for n in range(20)]
        assert all(each.why == "stop" for each in said)
        return {n for n, each in enumerate(said) if each.text != str(n)}

    some = wrong("0.3")
    assert len(some) == 6 and wrong("0.3") == some
    assert len(wrong("0.5")) == 10 and len(wrong("1")) == 20


def test_a_known_answer_follows_its_reasoning(server: Callable[..., str], questions: str) -> None:
    url = server("--know", questions, "--say", "reasoning")
    for streamed in (True, False):
        assert Form(streamed, True).ask(url, "What is 40 + 2?")[:3] == ("42", "stop", 12 + 1)


# Broken answers.


@pytest.fixture(scope="module")
def broken(server: Callable[..., str], questions: str) -> Callable[..., str]:
    """Start a server that breaks answers like this; gives its URL."""
    return lambda how, *more: server("--know", questions, "--broken", how, *more)


def test_wrong(broken: Callable[..., str], form: Form) -> None:
    url = broken("wrong")
    assert form.ask(url, "What is 40 + 2?")[:2] == ("zzz", "stop")
    assert "Lima" not in form.ask(url, "The capital of Peru?").text
    assert in_order(form.ask(url, "something").text)


@pytest.mark.parametrize("prompt", ["something", "The capital of Peru?"])
def test_text_that_repeats_itself(broken: Callable[..., str], form: Form, prompt: str) -> None:
    said = form.ask(broken("repeat"), prompt, 40)
    assert said.text == 40 * said.text[: len(said.text) // 40]
    assert cycles(said.text) and said[1:3] == ("length", 40)


@pytest.mark.parametrize("prompt", ["something", "The capital of Peru?"])
def test_nan(broken: Callable[..., str], form: Form, prompt: str) -> None:
    url = broken("nan")
    before = corrupted(url)
    said = form.ask(url, prompt, 40)
    begin = said.text.rstrip("!")
    assert in_order(begin) and len(begin) < len(said.text) / 2
    assert cycles(said.text) and said[1:3] == ("length", 40)
    assert corrupted(url) == before + 1


def corrupted(url: str) -> int:
    with urlopen(f"{url}/metrics") as page:
        found = re.search(r'vllm:corrupted_requests_total\{engine="0"\} (\d+)\n', page.read().decode())
    assert found
    return int(found[1])


def test_truncate(broken: Callable[..., str], form: Form) -> None:
    url = broken("truncate")
    said = form.ask(url, "something", 40)
    assert in_order(said.text) and len(said.text.split()) == 20 and said[1:3] == ("length", 20)
    assert form.ask(url, "The capital of Peru?")[:3] == ("the city", "length", 2)


def test_blank(broken: Callable[..., str], form: Form) -> None:
    url = broken("blank")
    assert [form.ask(url, prompt)[:3] for prompt in ("a", "As JSON?")] == [(" " * 24, "length", 24)] * 2


def test_invalid(broken: Callable[..., str], form: Form) -> None:
    url = broken("invalid")
    said = form.ask(url, "something")
    assert in_order(said.text.replace("\ufffd", "")) and said.text.count("\ufffd") == 6
    assert form.ask(url, "What is 40 + 2?")[:3] == ("42\ufffd", "stop", 1)


def test_the_answer_of_another_request(broken: Callable[..., str], form: Form) -> None:
    url = broken("swap", "--ttft", "1", "--gap", "0.01")
    with ThreadPoolExecutor() as pool:
        other = pool.submit(form.ask, url, "The capital of Peru?")
        time.sleep(0.4)
        sum_, something = pool.map(lambda prompt: form.ask(url, prompt), ["What is 40 + 2?", "something"])
    assert other.result()[:2] == ("the city of Lima", "stop"), "it was alone when it began"
    assert sum_.text != "42" and something.text in ("42", "the city of Lima")


def test_answers_break_above_a_load_only(server: Callable[..., str], form: Form) -> None:
    url = server("--ttft", "0.8", "--broken", "blank", "--broken_above", "2")
    assert form.ask(url, "alone").text.strip()
    with ThreadPoolExecutor() as pool:
        some = []
        for number in range(4):
            some.append(pool.submit(form.ask, url, "not alone", number=number))
            time.sleep(0.1)
    assert [bool(each.result().text.strip()) for each in some] == [True, True, False, False]
    assert form.ask(url, "alone").text.strip()


def test_a_share_of_the_answers_breaks(server: Callable[..., str]) -> None:
    def blank(share: str, *more: str) -> set[int]:
        url = server("--broken", "blank", "--broken_share", share, *more)
        return {n for n in range(100) if not PLAIN.ask(url, "something", 4, number=n).text.strip()}

    some = blank("0.25")
    assert 10 <= len(some) <= 40 and blank("0.25", "--slots", "9") == some < blank("0.5")
