"""The commands of sh, bash and zsh that change the environment, and a few that name more to follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import dynamic, posix
from .expand import expand
from .state import Alias, Value
from .syntax import Simple, SyntaxProblem

if TYPE_CHECKING:
    from .interp import Interpreter

Builtin = Callable[["Interpreter", Simple], "bool | None"]
_ALLEXPORT = {"allexport", "all_export", "ALL_EXPORT", "ALLEXPORT"}


def declare(shell: Interpreter, command: Simple) -> bool | None:
    """`export`, `declare`, `typeset`, `readonly`, `local`: with -x what is set is exported, with -n or +x no more."""
    exporting = command.words[0].literal == "export"
    for word in command.words[1:]:
        text = word.literal
        if text and text[0] in "-+" and len(text) > 1:
            if (text == "-n" and command.words[0].literal == "export") or (text[0] == "+" and "x" in text):
                exporting = False
                for other in command.words[2:]:
                    if other.literal:
                        shell.export(other.literal, on=False)
                return True
            exporting = exporting or "x" in text
            continue
        if shell.assign_word(command, word, exported=exporting) is not None:
            continue
        name = expand(word, shell.state)
        if name is None:
            if exporting:
                dynamic.exports(shell, command, word)
        elif exporting:
            shell.export(name)
    return True


def unset(shell: Interpreter, command: Simple) -> bool | None:
    """`unset NAME…`."""
    words = [expand(word, shell.state) for word in command.words[1:]]
    if words and words[0] == "-f":
        return True
    for name in words:
        if name:
            shell.unset(name)
    return True


def set_(shell: Interpreter, command: Simple) -> bool | None:
    """`set -a`, `set -o allexport`, and the same off again."""
    words = [word.literal or "" for word in command.words[1:]]
    for number, word in enumerate(words):
        following = words[number + 1] if number + 1 < len(words) else ""
        if word in ("--", "-"):
            break
        if (word[:1] in "-+" and word[1:].isalpha() and "a" in word[1:].replace("o", "")) or (
            word in ("-o", "+o") and following in _ALLEXPORT
        ):
            shell.state.allexport = word[0] == "-"
    return True


def setopt(shell: Interpreter, command: Simple) -> bool | None:
    """zsh's `setopt allexport` and `unsetopt allexport`."""
    if any(word.literal in _ALLEXPORT for word in command.words[1:]):
        shell.state.allexport = command.words[0].literal == "setopt"
    return True


def source(shell: Interpreter, command: Simple) -> bool | None:
    """`source FILE` and `. FILE`."""
    return shell.source(command)


def leave(shell: Interpreter, command: Simple) -> bool | None:
    """`return` and `exit`."""
    shell.leave()
    return None


def alias(shell: Interpreter, command: Simple) -> bool | None:
    """`alias NAME=value…`."""
    for word in command.words[1:]:
        text = expand(word, shell.state)
        if text and "=" in text and not text.startswith("-"):
            name, _, value = text.partition("=")
            shell.state.aliases[name] = Alias(value, shell.place(command, word), not shell.unsure)
    return True


def unalias(shell: Interpreter, command: Simple) -> bool | None:
    """`unalias NAME…`."""
    for word in command.words[1:]:
        if not shell.unsure:
            shell.state.aliases.pop(word.literal or "", None)
    return True


def eval_(shell: Interpreter, command: Simple) -> bool | None:
    """`eval` of text that is known; of a command's output only that of `direnv hook` is."""
    words = [expand(word, shell.state) for word in command.words[1:]]
    written = " ".join(shell.script.text[word.start : word.end] for word in command.words[1:])
    if "direnv hook" in written or "direnv export" in written:
        shell.state.direnv = True
    if None in words:
        dynamic.mentions(shell, command, written)
        return None
    try:
        script = posix.parse(" ".join(word or "" for word in words), zsh=shell.state.shell == "zsh")
    except SyntaxProblem:
        return None
    for item in script.body.items:
        if isinstance(item, Simple):
            _evaluated(shell, item, command)
    return None


def _evaluated(shell: Interpreter, inner: Simple, command: Simple) -> None:
    """A command inside of `eval`: what it sets is found where `eval` stands."""
    before = len(shell.state.passed), dict(shell.state.variables)
    shell.simple(inner)
    for name, value in list(shell.state.variables.items()):
        if before[1].get(name) is not value and value.place and value.place.path == shell.path:
            moved = Value(value.text, shell.place(command), value.exported, value.certain, value.via, value.ran)
            shell.state.variables[name] = moved
            shell.state.passed = [
                (n, moved if at >= before[0] and v is value else v) for at, (n, v) in enumerate(shell.state.passed)
            ]
            shell.state.live = {n: [moved if v is value else v for v in vs] for n, vs in shell.state.live.items()}


BUILTINS: dict[str | None, Builtin] = {
    **dict.fromkeys(("export", "declare", "typeset", "readonly", "local"), declare),
    "unset": unset,
    "set": set_,
    "setopt": setopt,
    "unsetopt": setopt,
    "source": source,
    ".": source,
    "return": leave,
    "exit": leave,
    "alias": alias,
    "unalias": unalias,
    "eval": eval_,
}
