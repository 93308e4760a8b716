"""What the parsers of shells give: words with their places, and the commands they make. Nothing here runs anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


class SyntaxProblem(ValueError):
    """A file that its shell would refuse, or that is beyond the parser here. Never has text of the file."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


@dataclass(frozen=True)
class Part:
    """A piece of a word. `lit`: `text` itself; `var`: the variable `text`, or `default`; `dyn`: only known when run."""

    kind: Literal["lit", "var", "dyn"]
    text: str
    quoted: bool = False
    default: str | None = None


@dataclass(frozen=True)
class Word:
    """A word in text[start:end]."""

    start: int
    end: int
    parts: tuple[Part, ...]

    @property
    def literal(self) -> str | None:
        """The word if nothing in it has to be expanded."""
        return "".join(part.text for part in self.parts) if all(part.kind == "lit" for part in self.parts) else None

    @property
    def keyword(self) -> str | None:
        """The word if it may be a reserved word: literal and unquoted."""
        return None if any(part.quoted for part in self.parts) else self.literal


@dataclass
class Simple:
    """A simple command with its words, redirections left out. `alone`: a statement of the file itself, in no block."""

    words: list[Word]
    line: int
    alone: bool = False

    @property
    def start(self) -> int:
        """Where it begins."""
        return self.words[0].start

    @property
    def end(self) -> int:
        """Where its last word ends."""
        return self.words[-1].end


@dataclass
class Chain:
    """Commands joined by `&&` and `||`: (operator before it, command)."""

    items: list[tuple[str, Node]]


@dataclass
class Pipe:
    """A pipeline of more than one command, a subshell, or a command in the background: a process of its own."""

    items: list[Node]


@dataclass
class Not:
    """A command whose status is turned round."""

    item: Node


@dataclass
class Block:
    """Commands one after the other."""

    items: list[Node] = field(default_factory=list)


@dataclass
class If:
    """(condition, body) in their order; the last condition is None for `else`."""

    branches: list[tuple[Node | None, Block]]


@dataclass
class For:
    """A loop over words."""

    name: str
    words: list[Word]
    body: Block


@dataclass
class While:
    """A loop with a condition."""

    condition: Node
    body: Block


@dataclass
class Case:
    """(patterns, body) of a `case` or `switch`."""

    word: Word
    items: list[tuple[list[Word], Block]]


@dataclass
class Function:
    """A definition. `line` is where it begins."""

    names: list[str]
    body: Block
    line: int


Node = Simple | Chain | Pipe | Not | Block | If | For | While | Case | Function


@dataclass
class Script:
    """A parsed file. `line_starts` are offsets where a comment line may be put: between two tokens."""

    text: str
    body: Block
    line_starts: list[int]

    def line_of(self, offset: int) -> int:
        """The number of the line that has `offset`, from 1."""
        return self.text.count("\n", 0, offset) + 1


def mark_alone(body: Block) -> None:
    """Tell the commands that are statements of the file itself."""
    for item in body.items:
        if isinstance(item, Simple):
            item.alone = True
