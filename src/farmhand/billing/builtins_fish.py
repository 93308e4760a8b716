"""The commands of fish that change the environment, and a few that name more to follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import dynamic
from .builtins_posix import Builtin
from .conditions import known
from .expand import dynamic_text, expand
from .state import Alias, Value
from .syntax import Simple

if TYPE_CHECKING:
    from .interp import Interpreter

_LONG = {"--export": "x", "--unexport": "u", "--erase": "e", "--query": "q", "--show": "S", "--names": "n"}


def set_(shell: Interpreter, command: Simple) -> bool | None:
    """`set [-x] NAME value…` and `set -e NAME`."""
    flags = ""
    words = command.words[1:]
    while words and (words[0].literal or "").startswith("-"):
        flag = words[0].literal or ""
        flags += _LONG.get(flag, "") if flag.startswith("--") else flag[1:]
        words = words[1:]
    if "q" in flags:
        return known(command, shell.state)
    if not words or "S" in flags or "n" in flags:
        return None
    if "e" in flags:
        for erased in words:
            shell.unset(erased.literal or "")
        return True
    name = expand(words[0], shell.state)
    if name is None:
        if "x" in flags:
            dynamic.exports(shell, command, words[0])
        return True
    texts = [expand(word, shell.state) for word in words[1:]]
    text = None if None in texts else " ".join(part or "" for part in texts)
    ran = next((dynamic_text(word.parts) for word in words[1:] if expand(word, shell.state) is None), "")
    shell.assign(name, Value(text, shell.place(command, words[0]), "x" in flags, ran=ran))
    if "u" in flags:
        shell.export(name, on=False)
    return True


def export(shell: Interpreter, command: Simple) -> bool | None:
    """fish's own function `export NAME=value`."""
    for word in command.words[1:]:
        if shell.assign_word(command, word, exported=True) is None:
            name = expand(word, shell.state)
            if name is None:
                dynamic.exports(shell, command, word)
            else:
                shell.export(name)
    return True


def source(shell: Interpreter, command: Simple) -> bool | None:
    """`source FILE` and `. FILE`."""
    return shell.source(command)


def leave(shell: Interpreter, command: Simple) -> bool | None:
    """`return` and `exit`."""
    shell.leave()
    return None


def alias(shell: Interpreter, command: Simple) -> bool | None:
    """`alias NAME value`, `alias NAME=value`."""
    words = [word for word in command.words[1:] if not (word.literal or "").startswith("-")]
    texts = [expand(word, shell.state) for word in words]
    if not texts or None in texts:
        return None
    joined = " ".join(text or "" for text in texts[1:])
    name, equals, value = (texts[0] or "").partition("=")
    shell.state.aliases[name] = Alias(value if equals else joined, shell.place(command, words[0]), not shell.unsure)
    shell.state.functions.pop(name, None)
    return True


def elsewhere(shell: Interpreter, command: Simple) -> bool | None:
    """`bass source FILE`, `fenv source FILE`: another shell's file."""
    written = " ".join(shell.script.text[word.start : word.end] for word in command.words[1:])
    dynamic.files_in(shell, command, written)
    return None


BUILTINS: dict[str | None, Builtin] = {
    "set": set_,
    "export": export,
    "source": source,
    ".": source,
    "return": leave,
    "exit": leave,
    "alias": alias,
    "bass": elsewhere,
    "fenv": elsewhere,
    "eval": elsewhere,
}
