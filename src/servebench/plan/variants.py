"""Variants of an engine: every combination of --engine_args, --engine_grid and --engine_env."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

from servebench.analysis.variants import Flags, made
from servebench.cli.keys import hide_in_words
from servebench.errors import InputError


@dataclass(frozen=True, repr=False)  # keys never reach a message
class Variant:
    """What an engine is started with. As it was given, keys included."""

    name: str  # "" of one that is alone and unnamed
    args: tuple[str, ...]
    env: tuple[str, ...]  # NAME=VALUE

    @property
    def flags(self) -> Flags:
        """As logs may have them."""
        return tuple(hide_in_words(self.args)), tuple(hide_in_words(self.env))


def variants_of(given: Mapping[str, Any]) -> list[Variant]:
    """All that a command line asks for, with their names, at least one. Raises InputError."""
    found = list(_combined(given))
    flags = [variant.flags for variant in found]
    for at, each in enumerate(flags):
        if each in flags[:at]:
            words = " ".join(chain(*each)) or "none"
            raise InputError(f"two variants of the engine have the same flags ({words}); leave one of them out")
    names = [variant.name for variant in found]
    if len(found) == 1:
        return found
    names = [name or own for name, own in zip(names, made(flags), strict=True)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two variants of the engine are named {twice}; name one of them differently")
    return [Variant(name, each.args, each.env) for name, each in zip(names, found, strict=True)]


def _combined(given: Mapping[str, Any]) -> Iterator[Variant]:
    """One that has a name keeps it, with what the grid adds behind it."""
    grid = list(product(*given.get("engine_grid", ())))
    of_grid = made([(tuple(chain(*flags)), ()) for flags in grid])
    for (name, args), (flags, added), env in product(
        given.get("engine_args", [("", ())]), zip(grid, of_grid, strict=True), list(_environments(given))
    ):
        several = [added] if name and len(grid) > 1 else []
        yield Variant(", ".join([name, *several]), (*args, *chain(*flags)), env)


def _environments(given: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every combination of the values of each variable."""
    of_name: dict[str, list[str]] = {}
    for variable in given.get("engine_env", ()):
        of_name.setdefault(variable.partition("=")[0], []).append(variable)
    return product(*of_name.values())
