"""Follows a shell's start-up files and notes what they put into its environment. Nothing is run.

Where only running something could tell whether a command is reached, it is taken to be, and marked as uncertain; an
`unset` there is not. So a credential that may be there is never missed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import builtins_fish, builtins_posix, dynamic
from .conditions import known
from .expand import assignment, dynamic_text, expand, matches, paths, text_of
from .names import WATCHED
from .state import Place, State, Value
from .syntax import Block, Case, Chain, For, Function, If, Node, Not, Pipe, Script, Simple, While, Word

_DEEPEST = 24
_MOST_STEPS = 100_000


class Left(Exception):
    """`return` or `exit`: what follows in this file is not reached."""


class Interpreter:
    """One shell. `load` gives the parsed file at a path, None for one that is not there or cannot be followed."""

    def __init__(self, state: State, load: Callable[[Path, str], Script | None]) -> None:
        self.state = state
        self.load = load
        self.unsure = 0
        self.depth = 0
        self.steps = 0
        self.path = Path()
        self.script = Script("", Block(), [])
        self.through: Place | None = None

    # Files

    def file(self, path: Path, *, through: Place | None = None) -> bool:
        """Follow the file; whether it is there."""
        if self.depth > _DEEPEST:
            return True
        script = self.load(path, self.state.shell)
        if script is None:
            return path.exists()
        before = self.path, self.script, self.through, self.unsure
        self.path, self.script, self.through = path, script, through or self.through
        self.depth += 1
        try:
            self.block(script.body)
        except Left:
            pass
        finally:
            self.path, self.script, self.through, self.unsure = before
            self.depth -= 1
        return True

    def place(self, command: Simple, word: Word | None = None) -> Place:
        """Where a command stands."""
        line = self.script.line_of(word.start) if word is not None else command.line
        return Place(self.path, line, self.script, command, word)

    # What the commands do

    def assign(self, name: str, value: Value) -> None:
        """Set a variable; it stays exported if it was."""
        old = self.state.variables.get(name)
        certain = value.certain and not self.unsure
        new = Value(
            value.text,
            value.place,
            value.exported or self.state.allexport or bool(old and old.exported),
            certain,
            value.via,
            value.ran,
            value.through or self.through,
        )
        if new.text == "" and not certain and old is not None:
            return  # emptied perhaps: it may still be what it was
        self.state.variables[name] = new
        self.note(name, new)

    def note(self, name: str, value: Value) -> None:
        """Keep a setting of a watched name in mind."""
        if name not in WATCHED:
            return
        self.state.passed.append((name, value))
        if value.text == "" and value.certain:
            self.state.live.pop(name, None)
        elif value.exported:
            self.state.live.setdefault(name, []).append(value)

    def assign_word(self, command: Simple, word: Word, *, exported: bool) -> str | None:
        """Do a word NAME=value; the name, None if it is no assignment."""
        found = assignment(word)
        if found is None:
            return None
        name, parts, appends = found
        text = text_of(parts, self.state)
        if appends:
            old = self.state.text(name)
            text = None if old is None or text is None else old + text
        self.assign(name, Value(text, self.place(command, word), exported, ran=dynamic_text(parts)))
        return name

    def export(self, name: str, *, on: bool = True) -> None:
        """Mark a variable as exported, or not."""
        old = self.state.variables.get(name)
        if old is None or (not on and self.unsure):
            return
        new = Value(old.text, old.place, on, old.certain and not (on and self.unsure), old.via, old.ran, old.through)
        self.state.variables[name] = new
        if on and not old.exported:
            self.note(name, new)

    def unset(self, name: str) -> None:
        """Forget a variable, if that is certain."""
        if not self.unsure:
            self.state.variables.pop(name, None)
            self.state.live.pop(name, None)

    def source(self, command: Simple) -> bool | None:
        """`source FILE` and `. FILE`."""
        if len(command.words) < 2:
            return None
        text = expand(command.words[1], self.state)
        if text is None:
            return None
        path = Path(text)
        if not path.is_absolute():
            path = self.state.home / path  # start-up files are read from the home directory
        through = self.place(command)
        return self.file(path, through=through)

    def leave(self) -> None:
        """`return` and `exit`."""
        if not self.unsure:
            raise Left

    # Nodes

    def block(self, block: Block) -> bool | None:
        """Every command; the status of the last."""
        status: bool | None = True
        for item in block.items:
            status = self.node(item)
        return status

    def node(self, node: Node) -> bool | None:
        """Follow `node`; its status, None if that cannot be told."""
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise Left
        match node:
            case Simple():
                return self.simple(node)
            case Block():
                return self.block(node)
            case Chain():
                return self.chain(node)
            case Not():
                status = self.node(node.item)
                return None if status is None else not status
            case If():
                return self.if_(node)
            case For():
                return self.for_(node)
            case While():
                if self.node(node.condition) is not False:
                    self.perhaps(node.body)
                dynamic.loop(self, node)
                return None
            case Case():
                return self.case(node)
            case Function():
                for name in node.names:
                    self.state.functions[name] = (node, self.path, self.script)
                return True
            case Pipe():
                return None  # a process of its own: nothing of it comes back

    def perhaps(self, node: Node) -> bool | None:
        """Follow what may or may not be reached."""
        self.unsure += 1
        try:
            return self.node(node)
        finally:
            self.unsure -= 1

    def chain(self, chain: Chain) -> bool | None:
        """`&&` and `||`."""
        status: bool | None = None
        for operator, item in chain.items:
            if not operator:
                status = self.node(item)
            elif status is None:
                self.perhaps(item)
            elif status == (operator == "&&"):
                status = self.node(item)
        return status

    def if_(self, node: If) -> bool | None:
        """The branches that are reached, or may be."""
        unsure = 0
        try:
            for condition, body in node.branches:
                holds = True if condition is None else self.node(condition)
                if holds is None:
                    unsure += 1
                    self.unsure += 1
                if holds is not False:
                    self.block(body)
                if holds:
                    break
        finally:
            self.unsure -= unsure
        return None

    def for_(self, node: For) -> bool | None:
        """The body once for each value."""
        for word in node.words:
            values = paths(word, self.state)
            if values is None:
                self.state.variables[node.name] = Value(None, certain=False)
                self.perhaps(node.body)
                dynamic.loop(self, node)
            for value in values or []:
                self.state.variables[node.name] = Value(value)
                self.block(node.body)
        return None

    def case(self, node: Case) -> bool | None:
        """The bodies whose pattern matches, or may match."""
        text = expand(node.word, self.state)
        for patterns, body in node.items:
            held = [None if text is None else matches(text, pattern, self.state) for pattern in patterns]
            if True in held:
                return self.block(body)
            if None in held:
                self.perhaps(body)
        return None

    def simple(self, command: Simple) -> bool | None:
        """An assignment, a builtin, a function, or a command that changes nothing here."""
        words = command.words
        prefix = 0
        while prefix < len(words) and self.state.shell != "fish" and assignment(words[prefix]):
            prefix += 1
        if prefix == len(words):
            for word in words:
                self.assign_word(command, word, exported=False)
            return True
        rest = Simple(words[prefix:], command.line)
        name = rest.words[0].literal
        if name in ("builtin", "command", "noglob") and len(rest.words) > 1 and not prefix:
            return self.simple(Simple(rest.words[1:], command.line, command.alone))
        if name in self.state.functions and self.depth < _DEEPEST:
            return self.call(name)
        builtins = builtins_fish.BUILTINS if self.state.shell == "fish" else builtins_posix.BUILTINS
        if name in builtins and not prefix:
            return builtins[name](self, command)
        return known(rest, self.state)

    def call(self, name: str) -> bool | None:
        """Follow a function's body."""
        function, path, script = self.state.functions[name]
        before = self.path, self.script
        self.path, self.script = path, script
        self.depth += 1
        try:
            return self.block(function.body)
        except Left:
            return None
        finally:
            self.path, self.script = before
            self.depth -= 1
