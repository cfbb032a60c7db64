"""What is a key, and how it stays out of process lists, logs and messages.

A key is known by the name that it goes by: of an option, a header, a field, a variable or a part of a URL's query;
and by its place, where a URL has `user:password@`. Where a key was, there is `***`.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

HIDDEN = "***"
WORDS = "SERVEBENCH_WORDS"  # the variable that a program's own words travel in, when a key is among them
NAMES = {"key", "keys", "apikey", "token", "secret", "password", "passwd", "pwd", "pass", "authorization", "auth"}
NAMES |= {"cookie", "credential", "credentials", "signature", "sig", "jwt", "bearer", "accesstoken", "authtoken"}
NAMES |= {"passphrase"}
NO_KEYS = {"eos", "bos", "pad", "stop", "unk", "mask", "prompt_cache"}  # `eos_token` and its like: not secret
URL_SECRET_NAMES = {"code"}  # Azure's functions
OPTION = re.compile(r"--[\w-]+")
SHORT_OPTION = re.compile(r"-[A-Za-z]").fullmatch
HEADERS_OPTIONS = ("--extra_headers", "--extra-headers")  # any of them may be a key
IN_TEXT = re.compile(r"(?i)(api[-_]?key\W{1,4})(?!None)([^\s,'\")]+)")
HEADER = re.compile(r"\s*([\w-]+):\s")
NO_SECRETS = {"user-agent", "accept", "content-type", "azureml-model-deployment"}  # headers
SHORTEST = 8  # characters of a secret that is looked for in what others say; a shorter one may be a word of theirs


def is_key(name: str) -> bool:
    """Does what goes by this name stay hidden? `--api-key`, `x-api-key`, `HF_TOKEN`, `clientSecret`, ..."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).lower()
    rest, _, last = words.strip("_").rpartition("_")
    return (last in NAMES or last.endswith("apikey")) and rest not in NO_KEYS


def hide_in_url(url: str) -> str:
    """Without user and password, and without the values of keys in its query."""
    url = re.sub(r"(?<=//)[^/?#@]*(?:@[^/?#@]*)*@", f"{HIDDEN}@", url)
    return re.sub(r"([?&])([^=&#]+)=([^&#]*)", _hide_in_query, url)


def _hide_in_query(found: re.Match[str]) -> str:
    before, name, value = found.groups()
    return f"{before}{name}={HIDDEN if _is_key_of_url(name) else value}"


def _is_key_of_url(name: str) -> bool:
    return is_key(name) or name.lower() in URL_SECRET_NAMES


def hide_in_fields(value: Any) -> Any:
    """JSON without the values of keys: texts, and lists of them."""
    if isinstance(value, dict):
        return {name: _hide_field(v) if is_key(name) else hide_in_fields(v) for name, v in value.items()}
    return [hide_in_fields(entry) for entry in value] if isinstance(value, list) else value


def _hide_field(value: Any) -> Any:
    if isinstance(value, list):
        return [_hide_field(entry) for entry in value]
    return HIDDEN if isinstance(value, str) else hide_in_fields(value)


def secrets_of(headers: Mapping[str, str], urls: Sequence[str], fields: Any) -> list[str]:
    """What requests carry as keys, long ones first: a server may repeat them where it refuses a request."""
    values = [value for name, value in headers.items() if name.lower() not in NO_SECRETS]
    values += [part for value in values for part in value.split()]  # of `Bearer KEY` the key
    for url in urls:
        values += [value for name, value in parse_qsl(urlsplit(url).query) if _is_key_of_url(name)]
    values += _secret_fields(fields, hide_in_fields(fields))
    return sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)


def _secret_fields(given: Any, shown: Any) -> Iterator[str]:
    """The texts that are hidden."""
    if isinstance(given, dict):
        yield from (text for name in given for text in _secret_fields(given[name], shown[name]))
    elif isinstance(given, list):
        yield from (text for pair in zip(given, shown, strict=True) for text in _secret_fields(*pair))
    elif given != shown:
        yield given


def redact(secrets: Sequence[str], text: str) -> str:
    """The text without our secrets, including one that is cut off at its end."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
        begun = next((n for n in range(len(secret) - 1, SHORTEST - 1, -1) if text.endswith(secret[:n])), 0)
        text = text[: len(text) - begun] + HIDDEN * bool(begun)
    return text


def hide_in_words(words: Sequence[str]) -> list[str]:
    """A command line without keys, also where a word is a part of a command line itself."""
    shown: list[str] = []
    option, first = "", False  # the option before, and is this its first value, which may begin with a dash?
    for word in words:
        name, joined, value = word.partition("=")
        if not OPTION.fullmatch(name):
            option = "" if SHORT_OPTION(word) and not first else option
            shown.append(_hide_value(option, word))
            first = False
        else:
            option, first = "" if joined else name, not joined
            shown.append(f"{name}={_hide_value(name, value)}" if joined else word)
    return shown


def hide_in_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a --config file has them, without keys."""

    def hidden(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [hidden(name, each) for each in value]
        return value if isinstance(value, bool) else hide_in_words([f"--{name}={value}"])[0].partition("=")[2]

    return {name: hidden(name, value) for name, value in options.items()}


def _hide_value(option: str, value: str) -> str:
    """What stands behind an option."""
    if option in HEADERS_OPTIONS:
        return f"{value.partition(':')[0]}:{HIDDEN}"
    return HIDDEN if is_key(option) else _hide_in_word(value)


def _hide_in_word(word: str) -> str:
    name, joined, _ = word.partition("=")
    if word.lstrip().startswith(("{", "[")):
        return _hide_in_json(word)
    if joined and name.isidentifier() and is_key(name):
        return f"{name}={HIDDEN}"
    if (header := HEADER.match(word)) and is_key(header[1]):
        return f"{header[1]}:{HIDDEN}"
    if " " in word or OPTION.fullmatch(name):
        return _hide_in_part(word)
    return hide_in_url(word) if "://" in word else word


def _hide_in_json(word: str) -> str:
    try:
        value = msgspec.json.decode(word)
    except msgspec.MsgspecError:
        return _hide_all_of(word)
    shown = hide_in_fields(value)
    return word if shown == value else msgspec.json.encode(shown).decode()


def _hide_all_of(word: str) -> str:
    """What cannot be read is hidden if a key's name stands in it."""
    return HIDDEN if any(map(is_key, re.findall(r"[\w-]+", word))) else word


def _hide_in_part(part: str) -> str:
    """Words in quotes, such as those of --engine_args, or of servebench paired."""
    try:
        words = shlex.split(part)
    except ValueError:
        return _hide_all_of(part)
    shown = hide_in_words(words) if words != [part] or " " not in part else words
    return part if shown == words else shlex.join(shown)


def hide_in_text(text: str) -> str:
    """What an engine wrote, without the key that it may have been started with."""
    return IN_TEXT.sub(rf"\1{HIDDEN}", text)


def hide_in_file(path: Path) -> None:
    """Likewise, in place and as long as before, since the engine may go on writing behind it."""
    with suppress(OSError):
        text = path.read_bytes().decode("latin-1")
        shown = IN_TEXT.sub(lambda found: found[1] + "*" * len(found[2]), text)
        if shown != text:
            with path.open("r+b") as file:
                file.write(shown.encode("latin-1"))


def split_secrets(program: Sequence[str], words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(a command line without secrets, the variable that carries them) to run one of our programs with."""
    shown = hide_in_words(words)
    more = {} if shown == list(words) else {WORDS: msgspec.json.encode(list(words)).decode()}
    return [*program, *shown], more


def hide_own_keys() -> None:
    """Start this program again with the keys of its command line in the environment, since everybody can read the
    former. After the restart the words are as they were given."""
    given = os.environ.pop(WORDS, None)
    if given is not None:
        sys.argv[1:] = msgspec.json.decode(given, type=list[str])
        return
    words = sys.argv[1:]
    command, more = split_secrets(sys.orig_argv[: len(sys.orig_argv) - len(words)], words)
    if more:
        os.execve(sys.executable, command, os.environ | more)


def pop_option(words: Sequence[str], option: str) -> tuple[tuple[str, ...], str]:
    """(the words without this option, its value or "")."""
    rest, value, left = [], "", iter(words)
    for word in left:
        name, joined, behind = word.partition("=")
        if name != option:
            rest.append(word)
        else:
            value = behind if joined else next(left, "")
    return tuple(rest), value
