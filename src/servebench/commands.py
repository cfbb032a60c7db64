"""The table of the commands: what `servebench -h` lists, and what completion knows."""

from __future__ import annotations

# The commands in groups: the module whose main() each is, and what `servebench -h` says of it.
GROUPS = {
    "look at results": {
        "summary": ("show.summary", "the table of a folder of logs, the result, and what is wrong"),
        "report": ("show.html.report", "the folder as one HTML page, with figures"),
        "compare": ("show.compare", "two folders side by side, with intervals and verdicts"),
        "decide": ("show.decide", "which server to run within limits, by how much, and how sure that is"),
        "gate": ("show.gate", "check results against limits, with an exit status for CI"),
        "spreadsheet": ("show.spreadsheet", "the same numbers as summary.csv"),
    },
    "measure": {
        "run": ("campaign.driver", "the benchmark: the same as python run_benchmark.py"),
        "paired": ("campaign.paired", "measure two servers in turn, run by run, and compare them"),
        "evaluate": ("campaign.evaluate", "how good the answers of these servers are, by tasks of lm-eval"),
        "server": ("campaign.detached", "start, stop, restart or list servers that outlive a benchmark"),
        "calibrate": ("reference.calibrate", "how exact this client is on this machine"),
        "reference-server": ("reference.server", "a server with known times, to try things out"),
    },
    "set up": {
        "completion": ("completion", "complete commands and options with TAB, in bash or zsh"),
    },
}
COMMANDS = {name: module for group in GROUPS.values() for name, (module, _) in group.items()}
