#!/usr/bin/env python3
"""A stand-in for docker: it knows the words that ServeBench uses, and a container is a process.

    docker run [--rm] [--label K=V] [--cidfile FILE] [-p ...] [-e K=V] [--network ...] IMAGE WORDS...
    docker ps [-aq] --filter label=K=V        docker inspect --format {{.FIELD}} ID
    docker rm -f ID...                        docker image inspect --format {{.Id}} IMAGE

No client is the parent of that process, and it has a session of its own, as a daemon's child has: it lives on when
its client is killed. What is known of it is in $CONTAINERS/ID.json. Without that folder no daemon runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

HOME = Path(os.environ["CONTAINERS"])
IMAGE_ID = "sha256:" + "0123456789abcdef" * 4


def known() -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in HOME.glob("*.json")}


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def run(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    for flag in ("--rm", "--init"):
        parser.add_argument(flag, action="store_true")
    for option in ("--label", "-p", "-e", "--gpus", "--network"):
        parser.add_argument(option, action="append", default=[])
    parser.add_argument("--cidfile")
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(words)
    if given.image != "engine:1":
        sys.exit(f"Unable to find image '{given.image}' locally")
    name = uuid.uuid4().hex
    if given.cidfile:
        with Path(given.cidfile).open("x") as file:
            file.write(name)
    log = HOME / f"{name}.log"
    pid = start(given.command, log, dict(each.split("=", 1) for each in given.e))
    (HOME / f"{name}.json").write_text(json.dumps({"pid": pid, "labels": given.label}))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    return attached(pid, log, HOME / f"{name}.status")


def start(command: list[str], log: Path, variables: dict[str, str]) -> int:
    """By a fork of a fork, which tells the pid and then the status."""
    read, write = os.pipe()
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        with log.open("wb") as out:
            try:
                process = subprocess.Popen(
                    command, stdout=out, stderr=out, start_new_session=True, env=os.environ | variables
                )
            except OSError as error:
                out.write(f"exec: {error}\n".encode())
                os._exit(127)
        os.write(write, str(process.pid).encode())
        os.close(write)
        log.with_suffix(".status").write_text(str(process.wait()))
        os._exit(0)
    os.wait()
    os.close(write)
    return int(os.read(read, 20))


def attached(pid: int, log: Path, status: Path) -> int:
    """As a client is: it shows the log, and ends as the container does."""
    with log.open("rb") as lines:
        while True:
            ended = not alive(pid)
            sys.stdout.buffer.write(lines.read())
            sys.stdout.flush()
            if ended:
                break
            time.sleep(0.05)
    while not status.exists():
        time.sleep(0.05)
    code = int(status.read_text() or 0)
    return code if code >= 0 else 128 - code


def remove(names: list[str]) -> None:
    for name in names:
        if name in known():
            pid = known()[name]["pid"]
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            while alive(pid):
                time.sleep(0.02)
            (HOME / f"{name}.json").unlink()
            print(name)
        else:
            sys.exit(f"Error: No such container: {name}")


def inspect(field: str, name: str) -> None:
    if name not in known():
        sys.exit(f"\nError: No such object: {name}")
    pid = known()[name]["pid"]
    fields = {".State.Running": str(alive(pid)).lower(), ".State.Pid": pid, ".Image": IMAGE_ID}
    print(fields[field.strip("{}")])


def main() -> None:
    if not HOME.is_dir():
        sys.exit(
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
        )
    match sys.argv[1:]:
        case ["run", *words]:
            sys.exit(run(words))
        case ["ps", "-aq", "--filter", wanted]:
            label = wanted.removeprefix("label=")
            print(*[name for name, each in known().items() if label in each["labels"]], sep="\n")
        case ["ps", "-q"]:
            print(*known(), sep="\n")
        case ["inspect", "--format", field, name]:
            inspect(field, name)
        case ["rm", "-f", *names]:
            remove(names)
        case ["image", "inspect", "--format", "{{.Id}}", image]:
            print(IMAGE_ID) if image == "engine:1" else sys.exit(f"Error: No such image: {image}")
        case words:
            sys.exit(f"docker: {words} is not known")


if __name__ == "__main__":
    main()
