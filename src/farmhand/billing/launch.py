"""What `claude` gets when it is typed in a shell: an alias or a function over it may change its environment."""

from __future__ import annotations

import contextlib
import copy
import re
from pathlib import Path

from . import fish, posix
from .expand import assignment, expand, text_of
from .interp import Interpreter, Left
from .names import WATCHED
from .startup import Files
from .state import Place, State, Value
from .syntax import Block, Node, Pipe, Simple, SyntaxProblem, Word

COMMANDS = ("claude-cheap", "farmhand")
_WRAPPERS = {"command", "builtin", "exec", "env", "nohup", "noglob", "time", "nice", "caffeinate"}
_NAMED = re.compile(rf"\b({'|'.join(WATCHED)})\b")


def environment(state: State, files: Files) -> dict[str, Value]:
    """What the CLI would get. A function or alias that is beyond the parser leaves the shell's own environment."""
    alias = state.aliases.get("claude")
    active = alias is not None and (state.interactive or state.shell != "bash")
    function = state.functions.get("claude")
    if alias is None and function is None:
        return state.environment()
    launcher = _Launcher(copy.copy(state), files)
    if active and alias is not None:
        try:
            script = fish.parse(alias.text) if state.shell == "fish" else posix.parse(alias.text)
        except SyntaxProblem:
            return state.environment()
        launcher.at = alias.place
        if not alias.certain:
            launcher.unsure += 1
        return launcher.launch(script.body)
    if function is not None:
        launcher.path, launcher.script = function[1], function[2]
        return launcher.launch(function[0].body)
    return state.environment()


class _Launcher(Interpreter):
    """Follows a wrapper up to the command that is `claude`, and takes what that gets."""

    def __init__(self, state: State, files: Files) -> None:
        super().__init__(state, files.load)
        state.variables = dict(state.variables)
        state.functions = {name: found for name, found in state.functions.items() if name != "claude"}
        state.passed = []
        self.at: Place | None = None
        self.found: dict[str, Value] | None = None

    def launch(self, node: Node) -> dict[str, Value]:
        with contextlib.suppress(Left):
            self.node(node)
        return self.found if self.found is not None else self.state.environment()

    def node(self, node: Node) -> bool | None:
        """As ever, and into subshells: what `claude` gets there counts as well."""
        return self.block(Block(node.items)) if isinstance(node, Pipe) else super().node(node)

    def place(self, command: Simple, word: Word | None = None) -> Place:
        return self.at or super().place(command, word)

    def simple(self, command: Simple) -> bool | None:
        words = list(command.words)
        given: dict[str, Value] = {}
        dropped: set[str] = set()
        while words:
            found = assignment(words[0])
            name = expand(words[0], self.state)
            if found is not None:
                text = text_of(found[1], self.state)
                given[found[0]] = Value(
                    text, self.place(command, words[0]), exported=True, certain=not self.unsure, via="prefix"
                )
            elif name == "-u" and len(words) > 1:
                dropped.add(expand(words[1], self.state) or "")
                words.pop(0)
            elif name is not None and name in ("-i", "--ignore-environment"):
                dropped |= set(self.state.variables)
            elif name not in _WRAPPERS and not (name or "").startswith("-"):
                break
            words.pop(0)
        last = expand(words[0], self.state) if words else None
        if last is not None and Path(last).name == "claude":
            if self.found is None:
                kept = {name: value for name, value in self.state.environment().items() if name not in dropped}
                self.found = {**kept, **given}
            return None
        return super().simple(command)


def dormant(state: State) -> list[tuple[str, Value]]:
    """Settings of watched names in functions and aliases other than `claude`: there, but only when they are called."""
    found: list[tuple[str, Value]] = []
    for name, (function, path, script) in state.functions.items():
        if name == "claude":
            continue
        for command in _all(function.body):
            for word in command.words:
                set_ = assignment(word)
                watched = set_[0] if set_ else word.literal or ""
                if watched in WATCHED and (set_ or command.words[0].literal == "set"):
                    text = text_of(set_[1], state) if set_ else None
                    where = Place(path, command.line, script, command, word)
                    found.append((watched, Value(text, where, certain=False, via="function", ran=name)))
    for name, alias in state.aliases.items():
        if name != "claude" and (match := _NAMED.search(alias.text)):
            found.append((match[1], Value(None, alias.place, certain=False, via="alias", ran=name)))
    return found


def hidden(state: State) -> list[str]:
    """Farmhand's commands that an alias or a function stands in front of: the wrappers that people had before."""
    places = {name: str(alias.place) for name, alias in state.aliases.items()}
    places |= {name: f"{path}:{function.line}" for name, (function, path, _) in state.functions.items()}
    return [f"{name} in {places[name]}" for name in COMMANDS if name in places]


def _all(block: Block) -> list[Simple]:
    from .dynamic import commands

    return commands(block)
