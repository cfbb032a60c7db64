"""Work on all requests or tokens of a log is done once: its result stays with the log."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from servebench.log.schema import Log

P = ParamSpec("P")


T = TypeVar("T")


def once_a_log(of_log: Callable[Concatenate[Log, P], T]) -> Callable[Concatenate[Log, P], T]:
    """A decorator: works a function of a log out once for each of its arguments."""

    @wraps(of_log)
    def cached(log: Log, /, *args: P.args, **kwargs: P.kwargs) -> T:
        memory: dict[Any, T] = log.__dict__.setdefault("memory", {})
        key = (of_log, args, tuple(kwargs.items()))  # not its name: two functions may have the same
        if key not in memory:
            memory[key] = of_log(log, *args, **kwargs)
        return memory[key]

    return cached
