"""Reading one word of sh, bash or zsh: its extent, and the parts that it is made of."""

from __future__ import annotations

import re

from .syntax import Part, SyntaxProblem, Word

_END = frozenset(" \t\r\n;&|<>()")
_NAME = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]")
_BRACED = re.compile(r"([A-Za-z_]\w*)(?::?[-=]([^{}$`\"'\\]*))?")
_ANSI = {"n": "\n", "t": "\t", "r": "\r", "e": "\033", "a": "\a", "\\": "\\", "'": "'", '"': '"'}


def literal(text: str) -> tuple[Part, ...]:
    """The parts of a word that is `text` itself."""
    return (Part("lit", text),)


def dynamic(text: str) -> tuple[Part, ...]:
    """The parts of a word that only its shell can tell."""
    return (Part("dyn", text),)


def read(text: str, start: int, *, zsh: bool) -> Word:
    """The word that begins at `start`. Raises SyntaxProblem for an open quote or bracket."""
    reader = _Reader(text, start)
    reader.word(zsh=zsh)
    return Word(start, reader.at, tuple(reader.parts))


def skip_parentheses(text: str, start: int) -> int:
    """The end of what the parenthesis at `start` opens; quotes, substitutions and comments in it are passed over."""
    at, depth = start, 0
    while at < len(text):
        char = text[at]
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if not depth:
                return at + 1
        elif char in "'\"`\\$":
            at = _skip_quoted(text, at)
            continue
        elif char == "#" and text[at - 1] in " \t\n":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
            continue
        at += 1
    raise SyntaxProblem(text.count("\n", 0, start) + 1, "a parenthesis is never closed")


def _skip_quoted(text: str, at: int) -> int:
    reader = _Reader(text, at)
    reader.piece()
    return reader.at


class _Reader:
    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at
        self.parts: list[Part] = []

    def problem(self, start: int, what: str) -> SyntaxProblem:
        return SyntaxProblem(self.text.count("\n", 0, start) + 1, f"{what} is never closed")

    def word(self, *, zsh: bool) -> None:
        start = self.at
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in "<>" and self.text.startswith("(", self.at + 1):
                self._parentheses(self.at + 1)
            elif char == "(" and self.at > start and (self.text[self.at - 1] in "=?*+@!" or self._is_glob(start, zsh)):
                self._parentheses(self.at)
            elif char in _END:
                break
            else:
                self.piece()
        if self.at == start:
            # An operator that cannot stand here; taken for a word, so that reading always goes on.
            self.at += 1
            self.parts.append(Part("lit", self.text[start : self.at]))

    def _is_glob(self, start: int, zsh: bool) -> bool:
        """zsh: a parenthesis inside a word is a pattern, unless the word is a function's name."""
        return zsh and not re.match(r"\([ \t]*\)", self.text[self.at :])

    def _parentheses(self, opening: int) -> None:
        end = skip_parentheses(self.text, opening)
        self.parts.append(Part("dyn", self.text[self.at : end]))
        self.at = end

    def piece(self) -> None:
        """One part of a word."""
        char = self.text[self.at]
        if char == "'":
            self._single()
        elif char == '"':
            self._double()
        elif char == "$":
            self._dollar(quoted=False)
        elif char == "`":
            self._backticks()
        elif char == "\\":
            following = self.text[self.at + 1 : self.at + 2]
            if following != "\n":
                self.parts.append(Part("lit", following, quoted=True))
            self.at = min(self.at + 2, len(self.text))
        else:
            end = self.at + 1
            while end < len(self.text) and self.text[end] not in " \t\r\n;&|<>()'\"$`\\":
                end += 1
            self.parts.append(Part("lit", self.text[self.at : end]))
            self.at = end

    def _single(self) -> None:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise self.problem(self.at, "a single quote")
        self.parts.append(Part("lit", self.text[self.at + 1 : end], quoted=True))
        self.at = end + 1

    def _double(self) -> None:
        opened = self.at
        self.at += 1
        self.parts.append(Part("lit", "", quoted=True))
        literal: list[str] = []

        def flush() -> None:
            if literal:
                self.parts.append(Part("lit", "".join(literal), quoted=True))
                literal.clear()

        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                flush()
                self.at += 1
                return
            if char == "\\":
                following = self.text[self.at + 1 : self.at + 2]
                literal.append(following if following in '"\\$`' else "" if following == "\n" else char + following)
                self.at += 2
            elif char == "$":
                flush()
                self._dollar(quoted=True)
            elif char == "`":
                flush()
                self._backticks()
            else:
                literal.append(char)
                self.at += 1
        raise self.problem(opened, "a double quote")

    def _backticks(self) -> None:
        end = self.at + 1
        while end < len(self.text) and self.text[end] != "`":
            end += 2 if self.text[end] == "\\" else 1
        if end >= len(self.text):
            raise self.problem(self.at, "a backquote")
        self.parts.append(Part("dyn", self.text[self.at : end + 1]))
        self.at = end + 1

    def _dollar(self, *, quoted: bool) -> None:
        start = self.at
        following = self.text[start + 1 : start + 2]
        if following == "(":
            self.at = skip_parentheses(self.text, start + 1)
            self.parts.append(Part("dyn", self.text[start : self.at]))
        elif following == "{":
            self._braced(quoted)
        elif following == "'" and not quoted:
            self._ansi()
        elif following == '"' and not quoted:
            self.at += 1
            self._double()
        elif name := _NAME.match(self.text, start + 1):
            self.parts.append(Part("var", name[0], quoted))
            self.at = name.end()
        else:
            self.parts.append(Part("lit", "$", quoted))
            self.at += 1

    def _braced(self, quoted: bool) -> None:
        start = self.at
        at = start + 2
        depth = 1
        while at < len(self.text) and depth:
            char = self.text[at]
            if char in "'\"`" and not (char == "'" and quoted):
                at = _skip_quoted(self.text, at)
                continue
            if char == "\\":
                at += 1
            elif char in "{}":
                depth += 1 if char == "{" else -1
            at += 1
        if depth:
            raise self.problem(start, "a brace")
        self.at = at
        simple = _BRACED.fullmatch(self.text, start + 2, at - 1)
        if simple:
            self.parts.append(Part("var", simple[1], quoted, simple[2]))
        else:
            self.parts.append(Part("dyn", self.text[start:at]))

    def _ansi(self) -> None:
        start = self.at
        at = start + 2
        out = []
        while at < len(self.text) and self.text[at] != "'":
            if self.text[at] == "\\":
                at += 1
                out.append(_ANSI.get(self.text[at : at + 1], "\\" + self.text[at : at + 1]))
            else:
                out.append(self.text[at])
            at += 1
        if at >= len(self.text):
            raise self.problem(start, "a single quote")
        self.parts.append(Part("lit", "".join(out), quoted=True))
        self.at = at + 1
