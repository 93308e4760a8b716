"""The tokens of sh, bash and zsh: words, operators, line ends; comments and here-documents are passed over."""

from __future__ import annotations

import re

from . import words
from .syntax import SyntaxProblem, Word

_OPERATOR = re.compile(r";;&|;;|;&|;\||&[|!]|&&|\|\||&>>|&>|\|&|<<-|<<<|<<|<>|<&|>&|>>|>\||>!|[;&|()<>\n]")
_DESCRIPTOR = re.compile(r"(?:[0-9]+|\{[A-Za-z_]\w*\})(?=[<>])")
CLOSING = {"then", "elif", "else", "fi", "do", "done", "esac", "}"}


class Tokens:
    """One token of look-ahead: `next` is an operator's text, a Word, or None at the end."""

    def __init__(self, text: str, *, zsh: bool) -> None:
        self.text = text
        self.zsh = zsh
        self.at = 0
        self.line_starts = [0]
        self.heredocs: list[tuple[str, bool, int]] = []
        self.start = 0
        self.next: str | Word | None = None
        self.advance()

    def problem(self, reason: str, at: int | None = None) -> SyntaxProblem:
        """What is wrong at the token, or at an offset."""
        return SyntaxProblem(self.text.count("\n", 0, self.start if at is None else at) + 1, reason)

    def shown(self) -> str:
        """The token for a message: a reserved word or an operator, never other text of the file."""
        if isinstance(self.next, Word):
            return f"'{self.next.keyword}'" if self.next.keyword in CLOSING else "a word"
        return {None: "the file ends", "\n": "the line ends"}.get(self.next, f"'{self.next}'")

    def advance(self) -> None:
        """Read the next token."""
        text = self.text
        while True:
            while self.at < len(text) and text[self.at] in " \t\r":
                self.at += 1
            if text.startswith("\\\n", self.at):
                self.at += 2
            elif text.startswith("\\\r\n", self.at):
                self.at += 3
            elif text.startswith("#", self.at):
                end = text.find("\n", self.at)
                self.at = len(text) if end < 0 else end
            else:
                break
        self.start = self.at
        if self.at >= len(text):
            if self.heredocs:
                raise self.problem("a here-document is never closed", self.heredocs[0][2])
            self.next = None
            return
        descriptor = _DESCRIPTOR.match(text, self.at)
        if descriptor:
            self.at = descriptor.end()
        operator = _OPERATOR.match(text, self.at)
        if operator and not (operator[0] in "<>" and text.startswith("(", self.at + 1)):
            self.at = operator.end()
            self.next = operator[0]
            if self.next == "\n":
                self._read_heredocs()
                self.line_starts.append(self.at)
            return
        self.next = words.read(self.text, self.at, zsh=self.zsh)
        self.at = self.next.end

    def _read_heredocs(self) -> None:
        for delimiter, strip, opened in self.heredocs:
            while True:
                if self.at >= len(self.text):
                    raise self.problem("a here-document is never closed", opened)
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                line = self.text[self.at : end]
                self.at = min(end + 1, len(self.text))
                if (line.lstrip("\t") if strip else line).removesuffix("\r") == delimiter:
                    break
        self.heredocs = []

    def keyword(self) -> str | None:
        """The reserved word that the token may be."""
        return self.next.keyword if isinstance(self.next, Word) else None

    def line(self) -> int:
        """The number of the line that the token begins on."""
        return self.text.count("\n", 0, self.start) + 1

    def at_operator(self, text: str) -> bool:
        """Whether the token is this operator."""
        return self.next == text

    def newlines(self) -> None:
        """Pass over line ends."""
        while self.next == "\n":
            self.advance()

    def expect(self, word: str) -> None:
        """Take `word`, an operator or a reserved word."""
        if self.next != word and self.keyword() != word:
            raise self.problem(f"'{word}' is missing: {self.shown()} stands there")
        self.advance()
