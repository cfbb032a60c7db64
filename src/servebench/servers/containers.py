"""Servers in containers: the command that starts one is `docker run ...`, or that of podman or nerdctl.

What we start is only a client: a daemon holds the port, and the container outlives the client. It is known by the
id that the client writes. By a label with the folder of its log the next benchmark finds what a killed one left.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from servebench.errors import InputError
from servebench.servers.http_call import notify

CLIENTS = ("docker", "podman", "nerdctl")
LABEL = "servebench={}"
DETACHED = re.compile(r"-[itPq]*d[itPqd]*|--detach(=true)?").fullmatch
ALONE = re.compile(  # an option of `run` after which no value stands
    r".*=.*|-[^-].+|-[ditPq]|--(detach|disable-content-trust|env-host|init|interactive|no-healthcheck|no-hosts|"
    "oom-kill-disable|privileged|publish-all|quiet|read-only|replace|rm|rmi|sig-proxy|tls-verify|tty)"
).fullmatch


@dataclass(frozen=True)
class Container:
    """A container and the client that runs it."""

    client: tuple[str, ...]  # such as `sudo docker`
    id_file: Path

    def says(self, field: str) -> str:
        """`.State.Running`, `.State.Pid`, `.Image`; "" as long as there is no container."""
        return told(self.client, "inspect", "--format", f"{{{{{field}}}}}", self._id()).stdout.strip()

    def removal(self) -> list[str]:
        """The command that ends it, whatever it does with signals."""
        return [*self.client, "rm", "-f", name] if (name := self._id()) else []

    def _id(self) -> str:
        return self.id_file.read_text().strip() if self.id_file.exists() else ""


def client_of(command: Sequence[str]) -> tuple[str, ...]:
    """What stands before `run`, if that is a client of a container engine; else ()."""
    client = tuple(command[: command.index("run")]) if "run" in command else ()
    return client if any(Path(word).name in CLIENTS for word in client) else ()


def marked(command: Sequence[str], id_file: Path, folder: Path | None) -> tuple[str, ...]:
    """The command whose container is known to us. `folder`: None if it may outlive us."""
    at = command.index("run") + 1
    label = ("--label", LABEL.format(folder.resolve())) if folder else ()
    id_file.unlink(missing_ok=True)
    return (*command[:at], "--cidfile", str(id_file), *label, *command[at:])


def with_variables(command: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """The command whose container gets these of its client's variables."""
    at = command.index("run") + 1
    return (*command[:at], *(f"--env={name}" for name in names), *command[at:])


def remove_left(client: Sequence[str], folder: Path) -> None:
    """Remove what a benchmark that was killed left; to be called by the one that may write to this folder."""
    if left := told(client, "ps", "-aq", "--filter", f"label={LABEL.format(folder.resolve())}").stdout.split():
        told(client, "rm", "-f", *left)
        notify(f"removed the container that a killed benchmark left: {' '.join(left)}")


def check(command: Sequence[str]) -> None:
    """Raises InputError if the container engine does not answer, or would not give us the container's log."""
    client = client_of(command)
    if detached := next(filter(DETACHED, options_and_image(command)[0]), ""):
        raise InputError(
            f"--serve: {detached} leaves no log here and no word of the container's end; leave it out"
        )
    if (answer := told(client, "ps", "-q")).returncode:
        raise InputError(f"--serve: {' '.join(client)} runs no containers here: {' '.join(answer.stderr.split())}")


@cache  # of every replica it is asked again
def digest_of(command: tuple[str, ...]) -> str:
    """Of the image, if there is one, and on this machine."""
    if not (client := client_of(command)):
        return ""
    return told(client, "image", "inspect", "--format", "{{.Id}}", options_and_image(command)[1]).stdout.strip()


def options_and_image(command: Sequence[str]) -> tuple[list[str], str]:
    """Of a `run`; no values of options."""
    options: list[str] = []
    words = iter(command[command.index("run") + 1 :])
    for word in words:
        if not word.startswith("-"):
            return options, word
        options.append(word)
        if not ALONE(word):
            next(words, "")
    return options, ""


def told(client: Sequence[str], *words: str) -> subprocess.CompletedProcess[str]:
    """In a session of its own, so that Ctrl-C does not stop it midway."""
    try:
        return subprocess.run([*client, *words], capture_output=True, text=True, start_new_session=True)
    except OSError as error:
        return subprocess.CompletedProcess([], 127, "", str(error))
