"""Variants of an engine: every combination of --engine_args, --engine_grid and --engine_env."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product
from typing import Any

from servebench.analysis.variants import Flags, made
from servebench.cli.keys import hide_in_words
from servebench.errors import InputError
from servebench.log.schema import variant_label


@dataclass(frozen=True, repr=False)  # keys never reach a message
class Variant:
    """What an engine is started with. As it was given, keys included."""

    name: str  # "" of one that is alone and unnamed
    args: tuple[str, ...]
    env: tuple[str, ...]  # NAME=VALUE

    @cached_property
    def flags(self) -> Flags:
        """As logs may have them."""
        return tuple(hide_in_words(self.args)), tuple(hide_in_words(self.env))


def variants_of(given: Mapping[str, Any]) -> list[Variant]:
    """All that a command line asks for, with their names, at least one. Raises InputError."""
    found = list(_combined(given))
    if len(found) == 1:
        return found
    flags = [(variant.args, variant.env) for variant in found]
    for at, variant in enumerate(found):
        if flags[at] in flags[:at]:
            words = " ".join(chain(*variant.flags)) or "none"
            raise InputError(f"two variants of the engine have the same flags ({words}); leave one of them out")
    made_up = made([variant.flags for variant in found])
    named = [replace(variant, name=variant.name or own) for variant, own in zip(found, made_up, strict=True)]
    labels = [variant_label(variant.name) for variant in named]
    for variant in named:
        if labels.count(variant_label(variant.name)) > 1:
            alike = f"two variants of the engine are named {variant.name}, or alike in file names"
            raise InputError(f'{alike}; give them other names: "NAME: FLAGS"')
    return named


def _combined(given: Mapping[str, Any]) -> Iterator[Variant]:
    """One that has a name keeps it, with what the grid and the variables add behind it."""
    grid, environments = list(product(*given.get("engine_grid", ()))), list(_environments(given))
    more = [(tuple(chain(*flags)), env) for flags, env in product(grid, environments)]
    names = made(more) if len(more) > 1 else [""]
    for (name, args), ((flags, env), added) in product(
        given.get("engine_args", [("", ())]), list(zip(more, names, strict=True))
    ):
        yield Variant(", ".join(filter(None, [name, name and added])), (*args, *flags), env)


def _environments(given: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every combination of the values of each variable."""
    of_name: dict[str, list[str]] = {}
    for variable in given.get("engine_env", ()):
        of_name.setdefault(variable.partition("=")[0], []).append(variable)
    return product(*of_name.values())
