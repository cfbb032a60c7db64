"""`servebench COMMAND` (or `python -m servebench COMMAND`): everything beside the benchmark, run_benchmark.py."""

from __future__ import annotations

import sys
from importlib import import_module

from servebench.cli import commandline

COMMANDS = {  # the module whose main() it is, and what `servebench -h` says of it
    "summary": ("show.terminal", "table and warnings of a folder of logs"),
    "spreadsheet": ("show.spreadsheet", "the same numbers as summary.csv"),
    "compare": ("show.compare", "two folders of logs side by side, with intervals and verdicts"),
    "gate": ("show.gate", "do results keep to limits? a line a limit, and the exit status for CI"),
    "paired": ("campaign.paired", "measure two servers in turn, run by run, and compare them"),
    "report": ("show.html.report", "a folder of logs as one HTML page, figures included"),
    "server": ("campaign.detached", "start, stop, restart or list servers that outlive a benchmark"),
    "reference-server": ("reference.server", "a server whose times are known, for tests"),
    "calibrate": ("reference.calibrate", "measure how exact this client is on this machine"),
}
LISTED = "\n".join(f"  {name:17} {what}" for name, (_, what) in COMMANDS.items())


def show_help() -> None:
    print(f"usage: servebench COMMAND ...\n\n{LISTED}\n\nThe benchmark itself is `python run_benchmark.py`.")


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in ("-h", "--help"):
        commandline.run(show_help)
    if command not in COMMANDS:
        said = f"there is no command {command!r}" if command else "a command is missing"
        print(f"servebench: error: {said}; give one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv[:2] = [f"servebench {command}"]
    commandline.run(import_module(f"servebench.{COMMANDS[command][0]}").main)


if __name__ == "__main__":
    main()
