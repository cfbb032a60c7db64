"""Questions with known answers: how texts are scored, which files are read, and the set that is shipped."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from servebench.errors import InputError
from servebench.workload import load_tokenizer, scorers
from servebench.workload.questions import BASIC, Question, read_questions

ABOUT = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}


@pytest.fixture
def read(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Read a file with these lines, each a text or what becomes JSON."""

    def read(*lines: Any, name: str = "q.jsonl") -> list[Question]:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / name).write_text("".join(f"{text}\n" for text in texts))
        return read_questions(tmp_path / name)

    return read


@pytest.fixture
def refusal(read, tmp_path: Path):  # type: ignore[no-untyped-def]
    """What is said of a file with these lines, without its folder."""

    def refusal(*lines: Any, name: str = "q.jsonl") -> str:
        with pytest.raises(InputError) as error:
            read(*lines, name=name)
        said = str(error.value)
        assert "\n" not in said
        return said.replace(f"{tmp_path}/", "")

    return refusal


def line(answer: Any = "4", scorer: str = "exact", prompt: str = "2 + 2 =", **others: Any) -> dict[str, Any]:
    return {"prompt": prompt, "answer": answer, "scorer": scorer, **others}


# Scorers


def is_right(scorer: str, text: str, answer: Any) -> bool | None:
    return Question("0", "?", (), scorers.checked(scorer, answer), scorer, 8).right(text)


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("Paris", "Paris", True),
        (" Paris \n", "Paris", True),
        ("paris", "Paris", False),
        ("Paris.", "Paris", False),
        ("", "Paris", False),
        ("colour", ["color", "colour"], True),
        ("colours", ["color", "colour"], False),
        ("42", 42, True),
        ("two\nlines", "two\nlines", True),
    ],
)
def test_exact(text: str, answer: Any, right: bool) -> None:
    assert is_right("exact", text, answer) is right


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("18", 18, True),
        ("She has 16 - 3 = 13 eggs. #### 18", 18, True),
        ("#### 18\n\nQuestion: Tom has 5 apples", 18, True),  # what comes after it does not count
        ("#### 17\nNo: #### 18", 18, True),  # the last mark does
        ("so it is 18 ####", 18, True),  # a mark without a number
        ("#### Answer: $18.", 18, True),
        ("First 3, then 18", 18, True),
        ("18, or rather 3", 18, False),
        ("$1,234.50", 1234.5, True),
        ("1,234,567 people", 1234567, True),
        ("the list 1,2,18", 18, True),
        ("about 18%", 18, True),
        ("18.00 dollars.", 18, True),
        ("It is 18.", 18, True),
        ("18.5", 18, False),
        ("118", 18, False),
        ("-18", 18, False),
        ("= -18", -18, True),
        ("−18", -18, True),  # a minus sign, as typeset
        ("$-18", -18, True),
        ("-$18", -18, True),
        ("between 10-18", 18, True),  # a hyphen
        ("(20)-18", 18, True),
        ("- 18 apples", 18, True),  # an item of a list
        (".5", 0.5, True),
        ("0.1", 0.1, True),
        ("0.30000000000000004", 0.3, False),
        ("7", "7", True),
        ("1000", "$1,000", True),
        ("50", "50%", True),
        ("-3", "$-3", True),
        ("4 or 5", [5, 6], True),
        ("4 or 5", ["5", "6"], True),
        ("100,000,000,000,000,000,000", 1e20, True),
        ("none", 0, False),
        ("", 0, False),
        ("9" * 5000, 9, False),
    ],
)
def test_number(text: str, answer: Any, right: bool) -> None:
    assert is_right("number", text, answer) is right


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" B\n", "B"),
        ("B.", "B"),
        ("B) a cat", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("`B`", "B"),
        ("B: a cat", "B"),
        ("B, since cats purr", "B"),
        ("The answer is B", "B"),
        ("The answer is: **B**. Option A is wrong.", "B"),
        ("Answer: (B)", "B"),
        ("**Answer:** B", "B"),
        ("The correct answer is option B", "B"),
        (r"The answer is $\boxed{B}$", "B"),
        ("the answer would be B", "B"),
        ("A dog is no cat, so the answer is B", "B"),
        ("C looks good, but the answer is B", "B"),
        ("The answer is B\n\nQuestion: ...\nAnswer: C", "B"),  # the first, not that of a question it made up
        ("A dog is no cat. B", "B"),  # an article
        ("I think B", "B"),  # a pronoun
        ("I'd say B", "B"),
        ("A's name: B", "B"),
        ("A-levels: B", "B"),
        ("Because B", "B"),  # letters of words do not count
        ("DNA: B", "B"),
        ("A", "A"),
        ("A. dog", "A"),
        ("A\nthe dog", "A"),
        ("A because dogs bark; B is wrong", "A"),
        ("A is right, not B", "A"),
        ("A and not B", "A"),
        ("The answer is A dog", "A"),
        ("The answer is A because", "A"),
        ("A dog", "A"),  # the only one there is
        ("Answers vary: C", "C"),
        ("J", "J"),
        ("K", None),
        ("b", None),  # letters of choices are capitals
        ("the first one", None),
        ("", None),
        ("AB", None),
        ("B2", None),
    ],
)
def test_choice(text: str, letter: str | None) -> None:
    assert scorers.choice_of(text) == letter
    assert is_right("choice", text, "B") is (letter == "B")


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (" Rome", "Rome", True),
        ("It's ROME!", "rome", True),
        ("**Rome**", "Rome", True),
        ("Rome's", "Rome", True),
        ("Romeo", "Rome", False),
        ("Jerome", "Rome", False),
        ("1.Rome", "Rome", True),
        ("South\n America", "South America", True),
        ("7", 7, True),
        ("It is 7.", "7", True),
        ("7, 8", "7", True),
        ("17", " 7 ", False),
        ("8,10", "8", True),
        ("7th", "7", False),
        ("17", "7", False),
        ("71", "7", False),
        ("7.5", "7", False),
        ("1.7", "7", False),
        ("7,000", "7", False),
        ("1,007", "007", False),
        ("-7", "7", False),
        ("-7", "-7", True),
        ("1 - 7", "7", True),
        ("2+5=7", "7", True),
        ("C++ it is", "C++", True),
        ("a.c", "abc", False),  # nothing in an answer is a pattern
        ("abc", "a.c", False),
        ("Hg", ["Au", "Hg"], True),
        ("écureuil", ["écureuil", "ecureuil"], True),
        ("", "7", False),
    ],
)
def test_contains(text: str, answer: Any, right: bool) -> None:
    assert is_right("contains", text, answer) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"age": 7}', True),
        ('  {"age": 7}\n', True),
        ('```json\n{"age": 7}\n```', True),
        ('```\n{"age": 7}```', True),
        ('Here it is:\n```json\n{"age": 7}\n```\nAnything else?', True),
        ('Sure! {"age": 7} and {"age": -1}', True),  # the first counts
        ('{"age": -1} or {"age": 7}', False),
        ('The {braces} and [brackets] of prose: {"age": 7}', True),
        ('{"age": 7', False),  # cut off
        ('{"person": {"age": 7}', False),  # what is whole in it is not the answer
        ('{"age": "7"}', False),
        ('{"name": "x"}', False),
        ("{'age': 7}", False),
        ('{"age": NaN}', False),
        ("[7]", False),
        ("7", False),
        ("", False),
        ("no JSON", False),
        ("[" * 100_000, False),
        ('{"a":' * 100_000, False),
    ],
)
def test_json_schema(text: str, right: bool) -> None:
    assert is_right("json_schema", text, ABOUT) is right


@pytest.mark.parametrize(
    ("text", "schema", "right"),
    [
        ("[1, 2]", {"type": "array", "items": {"type": "integer"}}, True),
        ("List: [1, 2.5]", {"type": "array", "items": {"type": "integer"}}, False),
        ("42", {"type": "integer"}, True),
        ('```json\n"red"\n```', {"enum": ["red", "blue"]}, True),
        ("null", {"type": "null"}, True),
        ("{}", True, True),
        ("no JSON", True, False),
        ("{}", {"properties": {"a": {"default": 1}}, "required": ["a"]}, False),  # defaults fill nothing in
        ("1e999", {"multipleOf": 2}, False),
        ('{"a": 1}', {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}, True),
    ],
)
def test_json_schemas_of_other_kinds(text: str, schema: Any, right: bool) -> None:
    assert is_right("json_schema", text, schema) is right


def test_agreement_is_not_scored(read) -> None:  # type: ignore[no-untyped-def]
    (question,) = read({"prompt": "Once", "scorer": "agreement"})
    assert question.right("upon a time") is None
    assert (question.answer, question.max_new_tokens) == (None, 32)


# Files


def test_a_line_says_what_is_asked(read) -> None:  # type: ignore[no-untyped-def]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    prompt, messages = read(
        line(max_tokens=3, stop=["\n", "."], subject="sums"), {"messages": chat, "answer": 4, "scorer": "number"}
    )
    assert (prompt.prompt, prompt.messages, prompt.answer, prompt.scorer) == ("2 + 2 =", (), "4", "exact")
    assert (prompt.max_new_tokens, prompt.stop) == (3, ("\n", "."))
    assert (messages.prompt, messages.messages, messages.stop) == ("", tuple(chat), ())


def test_a_line_can_have_a_prompt_and_messages(read) -> None:  # type: ignore[no-untyped-def]
    (question,) = read(line(messages=[{"role": "user", "content": "2 + 2?"}]))
    assert question.prompt and question.messages


@pytest.mark.parametrize(
    ("scorer", "answer", "tokens"),
    [
        ("choice", "A", 4),
        ("contains", "x", 16),
        ("number", 5, 256),
        ("json_schema", {}, 256),
        ("exact", "four letters", 14),
        ("exact", ["a", "four letters"], 14),
        ("exact", "日本語", 12),
    ],
)
def test_tokens_where_a_line_does_not_say(read, scorer: str, answer: Any, tokens: int) -> None:  # type: ignore[no-untyped-def]
    (question,) = read(line(answer, scorer))
    assert question.max_new_tokens == tokens


def test_an_id_is_of_what_is_asked_and_right(read) -> None:  # type: ignore[no-untyped-def]
    def id_of(entry: dict[str, Any]) -> str:
        return str(read(entry)[0].id)

    first = id_of(line())
    assert len(first) == 12 and int(first, 16) >= 0
    assert first == id_of(dict(reversed(line(max_tokens=9, stop="\n", note="x").items())))
    changed = [line(answer="5"), line(prompt="2+2="), line(scorer="contains")]
    changed += [{"messages": [{"role": "user", "content": "2 + 2 ="}], "answer": "4", "scorer": "exact"}]
    assert len({first, *map(id_of, changed)}) == 5
    assert id_of(line({"a": 1, "type": "object"}, "json_schema")) == id_of(
        line({"type": "object", "a": 1}, "json_schema")
    )


def test_a_question_that_comes_again_is_asked_once(read) -> None:  # type: ignore[no-untyped-def]
    questions = read(line(max_tokens=1), line("5"), line(max_tokens=2))
    assert [(q.answer, q.max_new_tokens) for q in questions] == [("4", 1), ("5", 8)]


def test_blank_lines_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "q").write_bytes(b"\xef\xbb\xbf\r\n" + json.dumps(line()).encode() + b"\r\n\r\n")
    assert len(read_questions(tmp_path / "q")) == 1


def test_gsm8k(read) -> None:  # type: ignore[no-untyped-def]
    worked = "She sells 16 - 7 = <<16-7=9>>9 eggs for $1,118 each.\n#### 1,118"
    (question,) = read({"question": "How much?", "answer": worked})
    assert question.prompt == "Question: How much?\nAnswer:"
    assert (question.scorer, question.max_new_tokens, question.stop) == ("number", 256, ("\nQuestion:",))
    assert question.right(worked) and question.right("So it is 1118.") and not question.right("1119")


ASKED = "Which is a bird?\nA. cat\nB. wren, or so\nC. dog\nD. eel\nAnswer:"


@pytest.mark.parametrize("answer", [1, "B"])
def test_mmlu_of_the_hub(read, answer: Any) -> None:  # type: ignore[no-untyped-def]
    choices = ["cat", "wren, or so", "dog", "eel"]
    entry = {"question": "Which is a bird?", "subject": "birds", "choices": choices, "answer": answer}
    (question,) = read(entry)
    assert (question.prompt, question.answer) == (ASKED, "B")
    assert (question.scorer, question.max_new_tokens, question.stop) == ("choice", 4, ())


def test_mmlu_as_csv(read) -> None:  # type: ignore[no-untyped-def]
    rows = 'Which is a bird?,cat,"wren, or so",dog,eel,B', '"Two\nlines?",1,2,3,4,D'
    first, second = read(*rows, name="birds_test.csv")
    assert (first.prompt, first.answer) == (ASKED, "B")
    assert second.prompt.startswith("Two\nlines?\nA. 1\n") and second.answer == "D"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("so 2 + 2 = 4", "q.jsonl, line 2: not a JSON object by itself (JSON is malformed"),
        ("[", "q.jsonl, line 2: not a JSON object by itself"),
        ([1], "q.jsonl, line 2: not a JSON object by itself (Expected `object`, got `array`); give one per line"),
        ({"prompt": "x", "answer": "y"}, 'without scorer (its keys: prompt, answer); give all, such as {"prompt"'),
        ({"prompt": "x"}, "without answer, scorer (its keys: prompt)"),
        ({"answer": "y", "scorer": "exact"}, "without prompt or messages (its keys: answer, scorer)"),
        ({}, "without answer, scorer, prompt or messages (its keys: none)"),
        (
            line(scorer="near"),
            "scorer near is not known; give exact, number, choice, contains, json_schema or agr",
        ),
        (line(prompt=""), "Expected `str` of length >= 1 - at `$.prompt`"),
        (line(prompt=3), "Expected `str | null`, got `int` - at `$.prompt`"),
        (line(max_tokens=0), "Expected `int` >= 1 - at `$.max_tokens`"),
        (line(stop=[1]), "got `int` - at `$.stop[0]`"),
        ({"messages": [], "answer": "4", "scorer": "exact"}, "Expected `array` of length >= 1 - at `$.messages`"),
        ({"messages": [{"role": "user"}], "answer": "4", "scorer": "exact"}, "missing required field `content`"),
        (line(None), "its answer is null; for scorer exact give a text, or a list of texts"),
        (line(" "), 'its answer is " "; for scorer exact give a text'),
        (line([]), "its answer is []; for scorer exact give a text"),
        (line(["a", {}], "contains"), 'its answer is ["a", {}]; for scorer contains give a text'),
        (line(True, "contains"), "its answer is true; for scorer contains"),
        (line("four", "number"), 'its answer is "four"; for scorer number give a number'),
        (line("4 or 5", "number"), 'its answer is "4 or 5"; for scorer number give a number'),
        (line(True, "number"), "its answer is true; for scorer number give a number"),
        (line("K", "choice"), 'its answer is "K"; for scorer choice give a letter from A to J'),
        (line(1, "choice"), "its answer is 1; for scorer choice give a letter from A to J"),
        (line("{}", "json_schema"), 'its answer is "{}"; for scorer json_schema give a JSON schema'),
        (line({"type": "strng"}, "json_schema"), "no JSON schema that can be used (Unknown type"),
        (line({"properties": 3}, "json_schema"), "no JSON schema that can be used ("),
        (line({"pattern": "("}, "json_schema"), "no JSON schema that can be used (missing )"),
        (line({"$ref": "http://127.0.0.1/a"}, "json_schema"), "(http://127.0.0.1/a is not allowed); correct it"),
        (line({"$ref": "file:///etc/passwd"}, "json_schema"), "(file:///etc/passwd is not allowed); correct it"),
        (line("4", "agreement"), "an answer, which agreement does not compare with; leave it out"),
        ({"question": "x", "answer": "18"}, "no #### before a number in its answer, as GSM8K has it; give prompt"),
        ({"question": "x", "answer": "#### many"}, 'its answer is "many"; for scorer number give a number'),
        (
            {"question": "x", "choices": ["a", "b"], "answer": 2},
            "answer 2 is none of its 2 choices; give a letter",
        ),
        ({"question": "x", "choices": ["a", "b"], "answer": -1}, "answer -1 is none of its 2 choices"),
        ({"question": "x", "choices": ["a", "b"], "answer": True}, "answer True is none of its 2 choices"),
        ({"question": "x", "choices": "ab", "answer": 0}, "answer 0 is none of its 0 choices"),
        (
            {"question": "x", "choices": ["a", "b"]},
            "without answer, scorer, prompt or messages (its keys: question",
        ),
    ],
)
def test_a_bad_line_is_named_with_the_reason(refusal, entry: Any, said: str) -> None:  # type: ignore[no-untyped-def]
    message = refusal(line("1"), entry, line("5"))
    assert message.startswith("q.jsonl, line 2: ") and said in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,a,b,c,d", "5 columns, not the 6 of MMLU: question, A, B, C, D, letter"),
        ("x,a,b,c,d,E", "answer 'E' is none of its 4 choices"),
        ("question,A,B,C,D,answer", "answer 'answer' is none of its 4 choices"),
    ],
)
def test_a_bad_row_of_csv_is_named(refusal, row: str, said: str) -> None:  # type: ignore[no-untyped-def]
    assert said in refusal('"Two\nlines",1,2,3,4,A', row, name="q.csv")
    assert refusal('"Two\nlines",1,2,3,4,A', row, name="q.csv").startswith("q.csv, line 3: ")


@pytest.mark.parametrize("lines", [(), ("", " ")])
def test_a_file_without_questions_is_refused(refusal, lines: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    assert refusal(*lines).startswith('q.jsonl: no question in it; give one per line, such as {"prompt": ')


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes('{"prompt": "é"}'.encode("latin1"))
    for name, why in (("", "Is a directory"), ("none", "No such file or directory"), ("latin1", "'utf-8' codec")):
        with pytest.raises(InputError, match=why) as error:
            read_questions(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: cannot be read (")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "q").touch(0)
    with pytest.raises(InputError, match="Permission denied"):
        read_questions(tmp_path / "q")


# The set that is shipped


@pytest.fixture(scope="module")
def basic() -> list[Question]:
    return read_questions(BASIC)


def test_every_line_of_the_basic_set_is_a_question_of_its_own(basic: list[Question]) -> None:
    assert len({question.id for question in basic}) == len(basic) == len(BASIC.read_text().splitlines())
    assert len({question.prompt for question in basic}) == len(basic)
    scored = Counter(question.scorer for question in basic)
    assert scored["contains"] > 300 and scored["agreement"] == 40 and len(scored) == 2


def test_basic_questions_are_short(basic: list[Question], tokenizer_dir: Path) -> None:
    """The tests' tokenizer knows few words, so that it needs several times the tokens of a model's own."""
    encode = load_tokenizer(str(tokenizer_dir)).encode
    tokens = [len(encode(question.prompt).ids) for question in basic]
    assert min(tokens) >= 15 and max(tokens) <= 150 and sum(tokens) / len(tokens) < 80
    assert {question.max_new_tokens for question in basic if question.answer} == {8}


def test_basic_questions_end_where_the_answer_begins(basic: list[Question]) -> None:
    for question in basic:
        assert question.prompt == question.prompt.strip()
        if question.answer:
            *examples, asked = question.prompt.split("\n")
            assert len(examples) >= 2 and question.stop == ("\n",)
            turns = zip(examples, question.messages[:-1:2], strict=True)
            assert all(example.startswith(turn["content"]) for example, turn in turns)
            assert question.messages[-1] == {"role": "user", "content": asked}


def test_basic_answers_are_right_and_others_are_not(basic: list[Question]) -> None:
    for question in (q for q in basic if q.answer):
        answers = question.answer if isinstance(question.answer, list) else [question.answer]
        assert all(question.right(f" {answer}\n") for answer in answers), question
        assert not question.right("") and not question.right("something else")


def test_basic_sums_are_what_python_makes_of_them(basic: list[Question]) -> None:
    sums = [q for q in basic if q.answer and set(q.prompt) <= set("0123456789+-*/= \n")]
    assert len(sums) > 20
    for question in sums:
        asked = question.prompt.split("\n")[-1].removesuffix("=")
        assert question.right(f"{eval(asked):g}"), question.prompt


def test_the_basic_set_is_package_data() -> None:
    """As is every other file of the package that is not Python: wheels have what pyproject.toml names."""
    listed = re.search(r"^servebench = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert listed
    named = {path for pattern in json.loads(listed[1]) for path in (ROOT / "src/servebench").glob(pattern)}
    there = {path for path in (ROOT / "src/servebench").rglob("*.*") if path.suffix not in (".py", ".pyc")}
    assert BASIC in there and there <= named
    assert resources.files("servebench.workload").joinpath(BASIC.name).is_file()
