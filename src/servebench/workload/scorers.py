"""Is an answer right? One scorer for each way to compare a text with the right answer; no model judges.

Where several answers are right, any of them will do. A scorer also refuses answers that it cannot compare with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import fastjsonschema

# The minus of "-3" and "$-3", not that of "10-3" or of a list's "- 3"; commas between thousands; "7", "7.5", ".5".
NUMBER = re.compile(
    r"(?:(?<![\w.,)%])[-−](?=[$\d.]))?\$?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+)"
)
LETTER = r"(?<![\w'’])([A-J])(?![\w'’]|-\w)"
# "The answer is B", "Answer: (B)", "**Answer:** option B", "the answer is \boxed{B}"
ANSWER_IS = re.compile(
    r"\b(?i:answer)\b(?:[\s:=*_`\"“'(\[{$\\]|\b(?i:is|would be|must be|the|option|choice|letter|boxed)\b)*"
    + LETTER
)
# "A dog" and "I think" begin no choice, but "A is right" and "A because ..." do.
MARKED = re.compile(LETTER + r"(?!(?<=[AI])[ \t]+(?!(?:is|as|and|or|because|since)\b)[a-z])")
JSON_BEGINS = re.compile(r'\{\s*["}]|\[\s*(?:[]["{\d-]|true\b|false\b|null\b)')
FENCE = re.compile(r"\A\s*```\w*\s|```\s*\Z")


class Scorer(NamedTuple):
    """How answers of a kind are compared."""

    is_right: Callable[[str, Any], bool]  # (text, one right answer)
    fits: Callable[[Any], bool]  # can a right answer be this?
    wants: str


def is_right(scorer: str, text: str, answer: Any) -> bool:
    """Is the text right by this scorer? A list of answers: is it right by any of them?"""
    answers = answer if isinstance(answer, list) else [answer]
    return any(SCORERS[scorer].is_right(text, one) for one in answers)


def checked(scorer: str, answer: Any) -> Any:
    """The answer as this scorer compares it. Raises ValueError with the reason when it cannot."""
    known = SCORERS[scorer]
    answers = answer if isinstance(answer, list) and answer else [answer]
    if not all(map(known.fits, answers)):
        raise ValueError(f"its answer is {json.dumps(answer)[:80]}; for scorer {scorer} give {known.wants}")
    if scorer == "json_schema":
        validator(json.dumps(answer))
    if scorer in AS_IS:
        return answer
    return list(map(str, answer)) if isinstance(answer, list) else str(answer)


def _exact(text: str, answer: str) -> bool:
    return text.strip() == answer.strip()


def _contains(text: str, answer: str) -> bool:
    """As a whole word or number, in capitals or not: 7 is not in 17, 7.5, 1.7, 7,000 or -7."""
    answer = answer.strip()
    before = r"(?<![-−])(?<!\d[.,])" if answer[0].isdigit() else ""
    after = r"(?!\.\d|,\d{3}(?!\d))" if answer[-1].isdigit() else ""
    words = r"\s+".join(map(re.escape, answer.split()))
    return bool(re.search(rf"(?<!\w){before}{words}(?!\w){after}", text, re.IGNORECASE))


def number_of(text: str) -> Decimal | None:
    """The first number after the last "####", as GSM8K ends its answers; without one, the last number."""
    _, mark, end = text.rpartition("####")
    first = NUMBER.search(end) if mark else None
    found = [first.group()] if first else NUMBER.findall(text)
    return Decimal(found[-1].replace("−", "-").replace(",", "").replace("$", "")) if found else None


def _number(text: str, answer: Any) -> bool:
    return number_of(text) == (number_of(answer) if isinstance(answer, str) else Decimal(str(answer)))


def _is_number(answer: Any) -> bool:
    """A number, or a text that is one and nothing else."""
    if isinstance(answer, str):
        return bool(NUMBER.fullmatch(answer.strip().removesuffix("%").replace("$-", "-$")))
    return isinstance(answer, int | float) and not isinstance(answer, bool)


def choice_of(text: str) -> str | None:
    """The letter that the text chooses, in capitals.

    That of the first "answer is X"; without one, the first letter that stands alone and is neither the article
    of "A dog" nor the pronoun of "I think"; without one, the first that stands alone.
    """
    found = ANSWER_IS.search(text) or MARKED.search(text) or re.search(LETTER, text)
    return found[1] if found else None


def json_value(text: str) -> Any:
    """The text as JSON, without ``` around it; else its first object or list. Raises ValueError if cut off."""
    bare = FENCE.sub("", text).strip()
    try:
        return json.loads(bare, parse_constant=_refuse)
    except ValueError:
        begins = JSON_BEGINS.search(bare)
        if not begins:
            raise
        return json.JSONDecoder(parse_constant=_refuse).raw_decode(bare, begins.start())[0]


def _json_schema(text: str, schema: Any) -> bool:
    try:
        validator(json.dumps(schema))(json_value(text))
    except (ValueError, ArithmeticError, RecursionError):  # no JSON, not valid, infinite, or [[[[[[...
        return False
    return True


@lru_cache(maxsize=4096)
def validator(schema: str) -> Callable[[Any], Any]:
    """Raises ValueError for what it refuses. A schema that refers to other files is bad: none is ever fetched."""
    handlers = dict.fromkeys(("http", "https", "ftp", "file", "data", ""), _refuse)
    try:
        return fastjsonschema.compile(json.loads(schema), handlers=handlers, use_default=False)
    except Exception as error:  # it checks little: a schema of the wrong shape fails anywhere
        raise ValueError(f"its answer is no JSON schema that can be used ({error}); correct it") from error


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"{what} is not allowed")


def _is_text(answer: Any) -> bool:
    return (isinstance(answer, str) and bool(answer.strip())) or (
        _is_number(answer) and not isinstance(answer, str)
    )


SCORERS = {
    "exact": Scorer(_exact, _is_text, "a text, or a list of texts of which any is right"),
    "number": Scorer(_number, _is_number, "a number"),
    "choice": Scorer(
        lambda text, answer: choice_of(text) == answer,
        lambda answer: isinstance(answer, str) and bool(re.fullmatch("[A-J]", answer)),
        "a letter from A to J",
    ),
    "contains": Scorer(_contains, _is_text, "a text, or a list of texts of which any is right"),
    "json_schema": Scorer(_json_schema, lambda answer: isinstance(answer, dict | bool), "a JSON schema"),
}
AS_IS = ("number", "json_schema")
