"""Exports that only running something could tell: `export $(cat FILE | xargs)`, a loop over a file's lines, `eval`.

The files that such a command names are looked into; what they would bring is noted as uncertain.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from .names import WATCHED
from .state import Place, Value
from .syntax import Block, Chain, For, If, Node, Not, Pipe, Simple, While, Word

if TYPE_CHECKING:
    from .interp import Interpreter

_PATH = re.compile(r"""["']?((?:~|\$HOME|\$\{HOME\})?[\w./@+-]*(?:/|\.env)[\w./@+-]*)""")
_LINE = re.compile(rf"[ \t]*(?:export[ \t]+)?({'|'.join(WATCHED)})[ \t]*=[ \t]*(\S*)")
_NAMES = re.compile(rf"\b({'|'.join(WATCHED)})=")
MOST_BYTES = 1 << 20


def exports(shell: Interpreter, command: Simple, word: Word) -> None:
    """An `export` whose names a substitution gives."""
    files_in(shell, command, shell.script.text[word.start : word.end])


def files_in(shell: Interpreter, command: Simple, written: str) -> None:
    """Look into the files that `written` names."""
    for found in _PATH.finditer(written):
        text = re.sub(r"^(~|\$HOME|\$\{HOME\})", str(shell.state.home), found[1])
        path = Path(text) if text.startswith("/") else shell.state.home / text
        for number, name, value in lines(path):
            place = Place(path, number)
            shell.perhaps(Block())
            shell.unsure += 1
            shell.assign(name, Value(value, place, exported=True, via="file", through=shell.place(command)))
            shell.unsure -= 1


def lines(path: Path) -> list[tuple[int, str, str | None]]:
    """(line, name, value) of the watched names in a file of KEY=VALUE lines; a value that a shell expands is None."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return []
        text = path.read_text("utf-8", "replace")
    except OSError:
        return []
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        match = _LINE.match(line)
        if match:
            value = match[2].strip("\r").strip("\"'")
            found.append((number, match[1], None if re.search(r"[$`]", value) else value))
    return found


def mentions(shell: Interpreter, command: Simple, written: str) -> None:
    """`eval` of a command's output: what it names outright may be set."""
    for name in dict.fromkeys(_NAMES.findall(written)):
        shell.unsure += 1
        shell.assign(name, Value(None, shell.place(command), exported=True, ran=written))
        shell.unsure -= 1
    files_in(shell, command, written)


def loop(shell: Interpreter, node: For | While) -> None:
    """A loop that exports lines of a file it reads: the file stands in the loop's own text."""
    exporting = [c for c in commands(node.body) if _exports_a_variable(c)]
    if not exporting:
        return
    positions = [c.start for c in commands(node)]
    positions += [word.start for word in node.words] if isinstance(node, For) else []
    begin = shell.script.text.rfind("\n", 0, min(positions)) + 1
    last = max(c.end for c in commands(node.body))
    done = re.compile(r"\b(?:done|end|\})[^\n]*").search(shell.script.text, last)
    files_in(shell, exporting[0], shell.script.text[begin : done.end() if done else last])


def _exports_a_variable(command: Simple) -> bool:
    first = command.words[0].literal
    return first in ("export", "eval", "declare", "typeset", "set") and any(
        part.kind != "lit" for word in command.words[1:] for part in word.parts
    )


def commands(node: Node) -> list[Simple]:
    """Every simple command in `node`, function bodies left out."""
    match node:
        case Simple():
            return [node]
        case Block() | Pipe():
            return [c for item in node.items for c in commands(item)]
        case Chain():
            return [c for _, item in node.items for c in commands(item)]
        case Not():
            return commands(node.item)
        case If():
            inner: list[Node] = [n for condition, body in node.branches for n in (condition, body) if n is not None]
            return [c for item in inner for c in commands(item)]
        case For():
            return commands(node.body)
        case While():
            return [*commands(node.condition), *commands(node.body)]
        case _:
            return []
