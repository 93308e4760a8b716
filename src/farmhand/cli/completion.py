"""Completion of `claude-cheap` and `farmhand` in bash, zsh and fish.

`python -m farmhand.cli.completion --bash DIRECTORY --zsh DIRECTORY --fish DIRECTORY`, which the role workstation runs,
writes the shells' functions: one line for each file that differs, and was written unless `--check` is given. Those call
the command, and click answers, through the classes here. Files are completed by the shell itself. `--ask bash zsh`
starts these shells, as a new terminal does, and prints a line for each that does not complete the commands.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    _resolve_context,
    _resolve_incomplete,
    add_completion_class,
)

from farmhand.cli.offers import offers

_COMMANDS = ("claude-cheap", "farmhand")
# Bash splits words at = and :. What readline replaces, and completes a file from, begins after the last of them.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value"); [[ $value != *[:=] ]] || compopt -o nospace ;;
        esac
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local type key descr
    local -a plain open described
    (( $+commands[%(prog_name)s] )) || return 1
    for type key descr in "${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
            %(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)}"; do
        case $type in
            dir|file) [[ -z $key ]] || compset -P "${(b)key}"; [[ $type == dir ]] && _path_files -/ || _path_files -f ;;
            plain) if [[ $descr != _ ]]; then described+=("$key:$descr")
                elif [[ $key == *[:=] ]]; then open+=("$key")
                else plain+=("$key"); fi ;;
        esac
    done
    (( ! $#described )) || _describe -V unsorted described -U
    (( ! $#open )) || compadd -U -S '' -V unsorted -a open
    (( ! $#plain )) || compadd -U -V unsorted -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""
_FISH = """\
function %(complete_func)s
    set -l token (commandline -t)
    for line in (COMP_WORDS=(commandline -cp | string collect) COMP_CWORD=$token \\
            %(complete_var)s=fish_complete %(prog_name)s 2>/dev/null)
        set -l item (string split -m 1 , -- $line)
        if test "$item[1]" = plain
            echo $item[2]
            continue
        end
        set -l word (string sub -s (math 1 + (string length -- "$item[2]")) -- $token)
        # What fish offers for a command without completions of its own: files.
        set -l paths (complete -C "farmhand-completes-a-file $word")
        test "$item[1]" = file; or set paths (string match -- '*/' $paths)
        string join \\n -- "$item[2]"$paths
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Offering(ShellComplete):
    """Answers with what is offered for an option or argument, where click itself knows nothing of its value."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return the items for `incomplete`, each the whole word: `--schema=` before the value stays there."""
        ctx = _resolve_context(self.cli, self.ctx_args, self.prog_name, args)
        found, word = _resolve_incomplete(ctx, args, incomplete)
        items = None
        if isinstance(found, click.Parameter) and not isinstance(found.type, click.Choice):
            items = offers(found.metavar or "", ctx.params, word)
        if items is None:
            items = found.shell_complete(ctx, word)
        front = incomplete[: len(incomplete) - len(word)]
        return [CompletionItem(front + item.value, item.type, item.help) for item in items]


@add_completion_class
class OfferingBash(_Offering, BashComplete):
    """For bash: words that it has split at = and : are one again, and answers are what comes after these."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the one at it."""
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        glue = False
        for word in (*args, incomplete):
            breaks = re.fullmatch("[=:]+", word) is not None
            if words and (glue or breaks):
                words[-1] += word
            else:
                words.append(word)
            glue = breaks
        return words[:-1], words[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return the items for `incomplete`, without what stands before its last = or :."""
        front = len(incomplete) - len(re.split("[=:]", incomplete)[-1])
        items = super().get_completions(args, incomplete)
        return [CompletionItem(item.value[front:], item.type, item.help) for item in items]


@add_completion_class
class OfferingZsh(_Offering, ZshComplete):
    """For zsh."""

    source_template = _ZSH


@add_completion_class
class OfferingFish(_Offering, FishComplete):
    """For fish."""

    source_template = _FISH


_SHELLS: dict[str, tuple[type[ShellComplete], str]] = {
    "bash": (OfferingBash, ""),
    "zsh": (OfferingZsh, ".zsh"),
    "fish": (OfferingFish, ".fish"),
}


#: Shell → a command that succeeds in it if it completes the commands, and what to do if it does not.
_ASKED = {
    "bash": (
        "complete -p -D",
        "bash does not complete the commands: bash-completion is missing, or ~/.bashrc does not read it"
        " (Debian or Ubuntu: apt-get install bash-completion)",
    ),
    "zsh": (
        "(( $+functions[_claude_cheap_completion] ))",
        "zsh does not complete the commands: ~/.zshrc has to call compinit (autoload -Uz compinit && compinit),"
        " above Farmhand's block",
    ),
}
#: How long a shell may take to start. Seconds.
_START_S = 30.0


def hints(shells: Iterable[str]) -> Iterator[str]:
    """Start the shells that are installed here, and yield a line for each that does not complete the commands."""
    environ = os.environ | {"FARMHAND_ASKING": "1"}  # as the search for keys tells them that it is no operator
    for shell in shells:
        if shell not in _ASKED or shutil.which(shell) is None:
            continue
        if shell == "zsh" and not os.path.exists(os.path.expanduser("~/.zshrc")):
            continue  # nobody uses it here
        question, hint = _ASKED[shell]
        null = subprocess.DEVNULL
        try:
            done = subprocess.run(
                [shell, "-ic", question], env=environ, stdin=null, stdout=null, stderr=null, check=False,
                timeout=_START_S, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            yield f"{shell} could not be asked whether it completes the commands: it took over {_START_S:g} s to start"
            continue
        if done.returncode != 0:
            yield hint


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    for shell in _SHELLS:
        parser.add_argument(f"--{shell}", type=Path, metavar="DIRECTORY")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--ask", nargs="+", default=(), metavar="SHELL", help="whether they complete")
    given = parser.parse_args(argv)
    for hint in hints(given.ask):
        sys.stdout.write(f"{hint}\n")
    asked_for = [shell for shell in _SHELLS if getattr(given, shell) is not None]
    try:
        for shell, command in itertools.product(asked_for, _COMMANDS):
            kind, suffix = _SHELLS[shell]
            path = getattr(given, shell) / f"{command}{suffix}"
            variable = f"_{command.replace('-', '_').upper()}_COMPLETE"
            unused: Any = None  # the command is not looked at here
            complete = kind(unused, {}, command, variable)
            text = complete.source_template % complete.source_vars()
            if path.is_file() and path.read_text("utf-8") == text:
                continue
            if not given.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
            sys.stdout.write(f"{path}\n")
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
