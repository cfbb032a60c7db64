"""Completion of commands, options and their choices in a shell.

    source <(./servebench completion bash)        in ~/.bashrc; for zsh: completion zsh, in ~/.zshrc

It works for ./servebench, ./run_benchmark.py and `python run_benchmark.py`. The words are written into the
script, so that no Python starts when TAB is pressed; make it again after an update.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module

from servebench.cli.parser import Made, Parser
from servebench.commands import COMMANDS

FURTHER = ("server", "paired", "evaluate")  # these take the options of `run` too
SCRIPT = """# Made by `servebench completion {shell}`: completes servebench and run_benchmark.py.
{first}
_servebench_words() {{ # the words of a command, or of one of its options
    case "$1" in
{cases}
    esac
}}
_servebench() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} command="" option="" at=1 i
    case "${{COMP_WORDS[0]}}" in
    *run_benchmark.py) command=run ;;
    *servebench) [ "$COMP_CWORD" -gt 1 ] && command=${{COMP_WORDS[1]}} at=2 ;;
    *) [[ ${{COMP_WORDS[1]}} == *run_benchmark.py ]] || return; command=run at=2 ;; # python
    esac
    for ((i = COMP_CWORD - 1; i >= at; i--)); do
        if [[ ${{COMP_WORDS[i]}} == --* ]]; then option=${{COMP_WORDS[i]//-/_}} && break; fi
    done
    [[ $option ]] && option=" --${{option#__}}"
    if [[ $current == -* ]]; then # an option, with hyphens or underscores
        option="" current=${{current#-}} current=${{current#-}}
        current=--${{current//-/_}}
    fi
    COMPREPLY=($(compgen -W "$(_servebench_words "$command$option")" -- "$current"))
}}
complete -o default -F _servebench servebench run_benchmark.py
complete -p python &>/dev/null || complete -o default -F _servebench python python3
"""
FIRST = {"bash": "", "zsh": "autoload -U +X compinit && compinit; autoload -U +X bashcompinit && bashcompinit"}


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("shell", choices=list(FIRST))
    shell = parser.parse_args().shell
    cases = "\n".join(f'    "{key}") echo "{" ".join(words)}" ;;' for key, words in table())
    print(SCRIPT.format(shell=shell, first=FIRST[shell], cases=cases), end="")


def table() -> Iterator[tuple[str, list[str]]]:
    """What to complete: of nothing the commands, of a command its options, of an option its choices."""
    yield "", list(COMMANDS)
    parsers = {command: parser_of(command) for command in COMMANDS}
    for command, parser in parsers.items():
        known = [parser, parsers["run"]] if command in FURTHER else [parser]
        actions = [action for each in known for action in each._actions]
        named = [name for action in actions for name in action.option_strings if name.startswith("--")]
        places = [
            str(choice)
            for action in parser._actions
            if not action.option_strings
            for choice in action.choices or ()
        ]
        yield command, [*places, *dict.fromkeys(named)]
        for action in actions:
            if action.choices and action.option_strings:
                yield f"{command} {action.option_strings[0]}", list(map(str, action.choices))


def parser_of(command: str) -> Parser:
    """The parser that a command makes: it is stopped where it would read its words."""
    given, Parser.asked_for = sys.argv[1:], True
    sys.argv[1:] = []
    try:
        import_module(f"servebench.{COMMANDS[command]}").main()
    except Made as made:
        return made.parser
    finally:
        sys.argv[1:], Parser.asked_for = given, False
    raise AssertionError(f"{command} reads no words")
