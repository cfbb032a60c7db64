"""The words of a command line, made ready for argparse, which would misread some of them.

- Options may be spelled with hyphens: `--num-clients`.
- What is a command line itself may begin with dashes, also in a list: `--engine_args --enforce-eager "--a 1"`.
- Numbers and choices may be joined by commas: `--num_clients 1,2,4`; GPUs may be a range: `--gpus 0-7`.
- A list ends where the folders begin that a command still lacks: `--sla fastgen-4 results/`.
"""

from __future__ import annotations

import re
from argparse import Action, ArgumentTypeError
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

NUMBER = re.compile(r"-\d*\.?\d+(e-?\d+)?")
LIST = "+"  # argparse's nargs
TYPO = 0.85  # likeness from which a word is one of our options, misspelled


@dataclass
class Part:
    """An option and the words behind it; or words that are free, without an option."""

    option: str = ""
    action: Action | None = None  # None for an option that is not known
    values: list[str] = field(default_factory=list)
    joined: bool = False  # was it `--option=value`?

    def full(self) -> bool:
        """Is the next word none of its values?"""
        if self.joined or not self.action:
            return self.joined
        return not self.is_list and len(self.values) >= (self.action.nargs != 0)

    @property
    def is_list(self) -> bool:
        return self.action is not None and self.action.nargs == LIST

    def words(self) -> list[str]:
        if self.joined and not self.is_list:
            return [f"{self.option}={self.values[0]}"]
        return [self.option, *self.values] if self.option else self.values

    def typed(self) -> bool | str | list[str]:
        """As a --config file has it: a flag is on or off."""
        if not self.values:
            return self.action is None or self.action.const is not False
        values = [value.lstrip() if value.startswith(" -") else value for value in self.values]  # see as_value
        return values if self.is_list and len(values) > 1 else values[0]


def parts(words: Sequence[str], options: Mapping[str, Action], quoted: Collection[str]) -> list[Part]:
    """Each option with its words. `quoted` are the options that take the next word, whatever it looks like."""
    found = [Part()]
    for word in words:
        last = found[-1]
        if last.option in quoted and not last.values:
            last.values, last.joined = [word], not last.is_list
        elif last.option in quoted and last.is_list and not (_is_option(word) and _is_ours(word, options)):
            last.values.append(word)
        elif _is_option(word):
            name, joined, value = word.partition("=")
            option = _spelled(name, options)
            found.append(Part(option, options.get(option), [value] * bool(joined), bool(joined)))
        elif last.full():
            found.append(Part(values=[word]))
        else:
            last.values.append(word)
    for part in found:
        part.values = list(_split(part)) if part.is_list else part.values
        if part.option in quoted and part.is_list:
            part.values = list(map(as_value, part.values))
    return found


def as_value(word: str) -> str:
    """A word of a list, with a space before it if it begins with a dash: else it would be an option."""
    return f" {word}" if word.startswith("-") else word


def _is_option(word: str) -> bool:
    name = word.partition("=")[0]
    return len(word) > 1 and name.startswith("-") and " " not in name and not NUMBER.fullmatch(word)


def _spelled(name: str, options: Mapping[str, Action]) -> str:
    """As it was declared, if it is an option of ours; else as it was typed."""
    ours = "--" + name[2:].replace("-", "_")
    return ours if name not in options and name.startswith("--") and ours in options else name


def _is_ours(word: str, options: Mapping[str, Action]) -> bool:
    """Is it an option of ours, as far as its spelling tells?"""
    name = _spelled(word.partition("=")[0], options)
    return any(SequenceMatcher(None, name, option).ratio() > TYPO for option in options)


def _split(part: Part) -> Iterator[str]:
    """The values of a list, one by one: numbers (commandline.Number) and choices may be joined by commas."""
    assert part.action
    split = getattr(part.action.type, "split", None)
    for value in part.values:
        yield from split(value) if split else value.split(",") if part.action.choices else [value]


def ready(
    words: Sequence[str], options: Mapping[str, Action], quoted: Collection[str], places: Sequence[Action]
) -> list[str]:
    """The words as argparse is to see them. `places` are the positional arguments."""
    before, behind = before_dashes(words)
    found = parts(before, options, quoted)
    if behind or not places or not any(part.is_list for part in found):
        return [word for part in found for word in part.words()] + behind
    found = _end_lists(found, places)
    with_option = [word for part in found if part.option for word in part.words()]
    free = [word for part in found if not part.option for word in part.values]
    return [*with_option, "--", *free] if free else with_option


def before_dashes(words: Sequence[str]) -> tuple[Sequence[str], list[str]]:
    """The words before `--`, behind which nothing is an option, and the rest."""
    at = list(words).index("--") if "--" in words else len(words)
    return words[:at], list(words[at:])


def _end_lists(found: list[Part], places: Sequence[Action]) -> list[Part]:
    """Lists without the words that belong to places which nothing else fills: those behind the last list first.

    A word that can be there goes there. If a place has to be filled, any word does, and is then refused by name.
    """
    free = sum(len(part.values) for part in found if not part.option)
    required = sum(place.nargs in (None, LIST) for place in places)
    for fits, wanted in ((_fits(places[0]), len(places)), (lambda word: True, required)):
        ended: list[Part] = []
        for part in reversed(found):
            ended.insert(0, part)
            while part.is_list and free < wanted and len(part.values) > 1 and fits(part.values[-1]):
                ended.insert(1, Part(values=[part.values.pop()]))
                free += 1
        found = ended
    return found


def _fits(place: Action) -> Callable[[str], bool]:
    """Can a word be there, or does it look like a folder? Of a place that takes any text it is not known."""

    def fits(word: str) -> bool:
        try:
            return bool(callable(place.type) and place.type(word))
        except (ArgumentTypeError, ValueError):
            return word.endswith("/")

    return fits
