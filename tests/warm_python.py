"""A Python that has imported the client already: it saves each test the second that imports take.

It stands for `python run_benchmark.py ...`, `python src/plot_x.py ...` and `python -m servebench ...`. Each
command still runs in its own process (a fork of the warm one), from its file, with its own arguments, folder and
environment.

    python("-m", "servebench", "summary", folder)      # as subprocess.run() does, text captured
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

READ_AT_START = ("PYTHONPATH", "LD_LIBRARY_PATH")  # when a Python starts, or its loader: too late for a fork
AT_START = [os.environ.get(name) for name in READ_AT_START]
_warm: list[tuple[subprocess.Popen[bytes], socket.socket]] = []


def python(*words: object, cwd: Path | None = None, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """What subprocess.run([sys.executable, *words], capture_output=True, text=True) does and gives."""
    command = [sys.executable, *map(str, words)]
    if [os.environ.get(name) for name in READ_AT_START] != AT_START:
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        task = {"command": command, "cwd": str(cwd or Path.cwd()), "environment": dict(os.environ)}
        status = _ask(task, [out.fileno(), err.fileno()], timeout)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


def _ask(task: object, files: list[int], timeout: float) -> int:
    """Has the warm Python do this; gives the exit status. Whoever is late or interrupted ends it."""
    if not _warm:
        _warm.append(_start())
    process, sock = _warm[0]
    pid = 0
    try:
        sock.settimeout(timeout)
        socket.send_fds(sock, [json.dumps(task).encode()], files)
        pid = int(sock.recv(100))
        return int(sock.recv(100))
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(pid or process.pid, signal.SIGTERM)
        _stop()
        raise


def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    return process, ours


@atexit.register
def _stop() -> None:
    while _warm:
        process, sock = _warm.pop()
        sock.close()  # which it takes as its end
        process.wait(30)


# In the warm Python.


def import_all() -> None:
    import servebench

    for module in pkgutil.walk_packages(servebench.__path__, "servebench."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def serve(sock: socket.socket) -> list[str]:
    """Forks for each task and tells pid and exit status. Returns in the children alone, with the command."""
    while True:
        message, files, _, _ = socket.recv_fds(sock, 1 << 20, 2)
        if not message:
            sys.exit()
        if not (pid := os.fork()):
            task = json.loads(message)
            for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), *files]):
                os.dup2(file, number)
                os.close(file)
            sock.close()
            os.chdir(task["cwd"])
            os.environ.clear()
            os.environ.update(task["environment"])
            return list(task["command"])
        for file in files:
            os.close(file)
        sock.send(str(pid).encode())
        sock.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def become(command: list[str]) -> None:
    """Be the program of this command, as if Python had been started for it."""
    sys.orig_argv[:] = command
    if command[1] == "-m":
        sys.path[0], sys.argv[:] = os.getcwd(), command[2:]
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv[:] = str(Path(command[1]).parent), command[1:]
        runpy.run_path(command[1], run_name="__main__")


if __name__ == "__main__":
    import_all()
    gc.freeze()
    become(serve(socket.socket(fileno=int(sys.argv[1]))))
