"""A parser for `KEY=VALUE` files such as ~/repos.env. The file is read, never run.

Accepted: blank lines, `#` comments, an optional `export`, bare, single-quoted and double-quoted values, CRLF.
Rejected, with the line number: anything that a shell would expand or run, an unclosed quote, a duplicate name.
"""

from __future__ import annotations

import re

_ASSIGNMENT = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_SPACED = re.compile(r"(?:export[ \t]+)?[A-Za-z_][A-Za-z0-9_]*[ \t]+=")
_BARE = re.compile(r"[^\s\"'\\$`;&|<>()]*")
_REST = re.compile(r"[ \t]*(?:[ \t]#.*)?", re.DOTALL)
#: The start of a double-quoted value, and the characters that a backslash escapes in it, as in a POSIX shell (2.2.3).
_DOUBLE = re.compile(r'"(?:\\["\\$`]|[^"$`])*+')
_ESCAPED = re.compile(r'\\(["\\$`])')


class EnvFileError(ValueError):
    """An error for a file that cannot be parsed safely. The message has the line number and never a value."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


def parse(text: str) -> dict[str, str]:
    """Return the assignments of `text` in their order. Raise EnvFileError."""
    values: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = raw.removesuffix("\r").strip(" \t")
        if not line or line.startswith("#"):
            continue
        name, value = _assignment(number, line)
        if name in seen:
            raise EnvFileError(number, f"{name} is set a second time (first on line {seen[name]})")
        seen[name] = number
        values[name] = value
    return values


def _assignment(number: int, line: str) -> tuple[str, str]:
    match = _ASSIGNMENT.fullmatch(line)
    if match is None:
        if _SPACED.match(line):
            raise EnvFileError(number, "there must be no space before '='")
        raise EnvFileError(number, "not of the form NAME=VALUE")
    name, rest = match.groups()
    if rest.startswith("'"):
        value, closed, rest = rest[1:].partition("'")
        if not closed:
            raise EnvFileError(number, "the single quote is never closed on this line")
    elif quoted := _DOUBLE.match(rest):
        value, rest = _ESCAPED.sub(r"\1", quoted.group()[1:]), rest[quoted.end() :]
        if not rest.startswith('"'):
            raise EnvFileError(number, _why_not(rest) if rest else "the double quote is never closed on this line")
        rest = rest[1:]
    else:
        value = _BARE.match(rest).group()  # type: ignore[union-attr]  # the pattern matches the empty string
        rest = rest[len(value) :]
    if _REST.fullmatch(rest) is None:
        raise EnvFileError(number, _why_not(rest))
    return name, value


def _why_not(rest: str) -> str:
    first = rest[0]
    if first in "$`":
        return "expansions ($NAME, $(command), `command`) are not run here; write the value itself"
    if first in "\"'":
        return "a quote inside a value; quote the whole value"
    if first in " \t":
        return "more text after the value; quote a value that has spaces"
    return f"the character {first!r} needs quotes around the value"
