"""`./servebench COMMAND` (or `python -m servebench COMMAND`): all that is around run_benchmark.py."""

from __future__ import annotations

import sys
from importlib import import_module

from servebench.cli import commandline
from servebench.cli.nearest import did_you_mean
from servebench.commands import COMMANDS, GROUPS


def show_help() -> None:
    print("usage: servebench COMMAND [options]\n")
    for title, commands in GROUPS.items():
        print(f"{title}:", *(f"  {name:17} {what}" for name, (_, what) in commands.items()), "", sep="\n")
    print("servebench COMMAND -h shows the options of a command.")


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in ("-h", "--help"):
        commandline.run(show_help)
    if command not in COMMANDS:
        said = (
            f"unknown command {command!r}{did_you_mean(command, COMMANDS)}" if command else "a command is missing"
        )
        print(f"servebench: error: {said} (servebench -h lists the commands)", file=sys.stderr)
        sys.exit(2)
    sys.argv[:2] = [f"servebench {command}"]
    commandline.run(import_module(f"servebench.{COMMANDS[command]}").main)


if __name__ == "__main__":
    main()
