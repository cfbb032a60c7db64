"""Short names for variants of an engine: of its flags and environment variables those in which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from servebench.log.config import ServerConfig

MAX_LETTERS = 32  # of a setting in a legend
Flags = tuple[tuple[str, ...], tuple[str, ...]]  # of its command line, and NAME=VALUE of its environment


def flags_of(server: ServerConfig) -> Flags:
    return (*server.serve, *server.engine_args), server.engine_env


def names_of(servers: Iterable[ServerConfig]) -> Mapping[Flags, str]:
    """A name for the flags of each: one that it was measured under, unless two variants have it."""
    own: dict[Flags, str] = {}
    for server in servers:
        own[flags_of(server)] = own.get(flags_of(server)) or server.variant
    made_up = dict(zip(own, made(list(own)), strict=True))
    names = {flags: name or made_up[flags] for flags, name in own.items()}
    return names if len(set(names.values())) == len(names) else made_up


def made(variants: Sequence[Flags]) -> list[str]:
    """`max-num-seqs 8, enforce-eager`: what each has and not all have."""
    parts = [[*_parts(args), *env] for args, env in variants]
    common = set(parts[0]).intersection(*parts) if len(parts) > 1 else set()
    own = [", ".join(part for part in of_one if part not in common) for of_one in parts]
    whole = [
        name or ("no more engine_args" if of_one else "no engine_args")
        for name, of_one in zip(own, parts, strict=True)
    ]
    return [
        f"{shortened(name)} {_trace(flags)}" if whole.count(name) > 1 else shortened(name)
        for name, flags in zip(whole, variants, strict=True)
    ]


def _parts(words: Sequence[str]) -> list[str]:
    """Each flag with its values, without dashes."""
    found: list[list[str]] = []
    for word in words:
        if not found or (word.startswith("-") and not word[1:2].isdigit()):
            found.append([word.lstrip("-").replace("=", " ", 1)])
        else:
            found[-1].append(word)
    return list(map(" ".join, found))


def shortened(words: str) -> str:
    """Cut if it is long, and then told apart from others that begin alike."""
    return words if len(words) <= MAX_LETTERS else f"{words[: MAX_LETTERS - 4]}...{_trace(words)}"


def _trace(words: object) -> str:
    return sha256(repr(words).encode()).hexdigest()[:4]
