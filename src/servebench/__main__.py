"""`./servebench COMMAND` (or `python -m servebench COMMAND`): all that is around run_benchmark.py."""

from __future__ import annotations

import sys
from importlib import import_module

from servebench.cli import commandline
from servebench.cli.nearest import did_you_mean

# The commands in groups: the module whose main() each is, and what `servebench -h` says of it.
GROUPS = {
    "look at results": {
        "summary": ("show.terminal", "table and warnings of a folder of logs"),
        "report": ("show.html.report", "the folder as one HTML page, with figures"),
        "compare": ("show.compare", "two folders side by side, with intervals and verdicts"),
        "gate": ("show.gate", "do the results keep to limits? a line each, and the exit status for CI"),
        "spreadsheet": ("show.spreadsheet", "the same numbers as summary.csv"),
    },
    "measure": {
        "run": ("campaign.driver", "the benchmark: the same as python run_benchmark.py"),
        "paired": ("campaign.paired", "measure two servers in turn, run by run, and compare them"),
        "server": ("campaign.detached", "start, stop, restart or list servers that outlive a benchmark"),
        "calibrate": ("reference.calibrate", "how exact this client is on this machine"),
        "reference-server": ("reference.server", "a server with known times, to try things out"),
    },
    "set up": {
        "completion": ("completion", "commands and options at the TAB key, in bash or zsh"),
    },
}
COMMANDS = {name: module for group in GROUPS.values() for name, (module, _) in group.items()}


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
