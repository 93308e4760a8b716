"""The tokens of fish: words, operators, line ends."""

from __future__ import annotations

import re

from .syntax import Part, SyntaxProblem, Word

_OPERATOR = re.compile(r"&&|\|\||&\||&>>|&>\?|&>|\d?>\||\d?>>|\d?>\?|\d?>|<\?|<|[;&|\n]")
_NAME = re.compile(r"[A-Za-z_]\w*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "e": "\033", "a": "\a"}


class Tokens:
    """One token of look-ahead: `next` is an operator's text, a Word, or None at the end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.start = 0
        self.line_starts = [0]
        self.next: str | Word | None = None
        self.advance()

    def problem(self, reason: str, at: int | None = None) -> SyntaxProblem:
        """What is wrong at the token, or at an offset."""
        return SyntaxProblem(self.text.count("\n", 0, self.start if at is None else at) + 1, reason)

    def line(self) -> int:
        """The number of the line that the token begins on."""
        return self.text.count("\n", 0, self.start) + 1

    def advance(self) -> None:
        """Read the next token."""
        text = self.text
        while self.at < len(text):
            if text[self.at] in " \t\r":
                self.at += 1
            elif text.startswith(("\\\n", "\\\r\n"), self.at):
                self.at = text.index("\n", self.at) + 1
            elif text[self.at] == "#":
                end = text.find("\n", self.at)
                self.at = len(text) if end < 0 else end
            else:
                break
        self.start = self.at
        if self.at >= len(text):
            self.next = None
            return
        operator = _OPERATOR.match(text, self.at)
        if operator:
            self.at = operator.end()
            self.next = operator[0]
            if self.next == "\n":
                self.line_starts.append(self.at)
            return
        parts: list[Part] = []
        while self.at < len(text) and text[self.at] not in " \t\r\n;&|<>":
            self.piece(parts)
        self.next = Word(self.start, self.at, tuple(parts))

    def piece(self, parts: list[Part]) -> None:
        """One part of a word."""
        char = self.text[self.at]
        if char == "'":
            parts.append(Part("lit", self.quoted("'"), quoted=True))
        elif char == '"':
            self.double(parts)
        elif char == "$":
            self.dollar(parts, quoted=False)
        elif char == "(":
            self.parenthesis(parts)
        elif char == "\\":
            following = self.text[self.at + 1 : self.at + 2]
            parts.append(Part("lit", _ESCAPES.get(following, following), quoted=True))
            self.at = min(self.at + 2, len(self.text))
        elif char == ")":
            raise self.problem("a parenthesis is closed that was never opened")
        else:
            end = self.at + 1
            while end < len(self.text) and self.text[end] not in " \t\r\n;&|<>()'\"$\\":
                end += 1
            parts.append(Part("lit", self.text[self.at : end]))
            self.at = end

    def quoted(self, quote: str) -> str:
        """The text in single quotes."""
        opened = self.at
        self.at += 1
        out: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == quote:
                return "".join(out)
            if char == "\\" and self.text[self.at : self.at + 1] in (quote, "\\"):
                char = self.text[self.at]
                self.at += 1
            out.append(char)
        raise self.problem("a single quote is never closed", opened)

    def double(self, parts: list[Part]) -> None:
        """The parts in double quotes."""
        opened = self.at
        self.at += 1
        parts.append(Part("lit", "", quoted=True))
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return
            if char == "$":
                self.dollar(parts, quoted=True)
                continue
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "$", "\\", "\n"):
                self.at += 1
                char = "" if self.text[self.at] == "\n" else self.text[self.at]
            parts.append(Part("lit", char, quoted=True))
            self.at += 1
        raise self.problem("a double quote is never closed", opened)

    def dollar(self, parts: list[Part], *, quoted: bool) -> None:
        """A variable or `$(…)`."""
        if self.text.startswith("$(", self.at):
            self.at += 1
            self.parenthesis(parts)
        elif name := _NAME.match(self.text, self.at + 1):
            parts.append(Part("var", name[0], quoted))
            self.at = name.end()
            if self.text.startswith("[", self.at):
                end = self.text.find("]", self.at)
                parts[-1] = Part("dyn", name[0])
                self.at = len(self.text) if end < 0 else end + 1
        else:
            parts.append(Part("lit", "$", quoted))
            self.at += 1

    def parenthesis(self, parts: list[Part]) -> None:
        """A command substitution."""
        opened, depth = self.at, 0
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in "'\"\\":
                self.piece([])
                continue
            depth += {"(": 1, ")": -1}.get(char, 0)
            self.at += 1
            if not depth:
                parts.append(Part("dyn", self.text[opened : self.at]))
                return
        raise self.problem("a parenthesis is never closed", opened)

    def keyword(self) -> str | None:
        """The reserved word that the token may be."""
        return self.next.keyword if isinstance(self.next, Word) else None
