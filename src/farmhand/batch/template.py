"""Prompts made of a record's columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farmhand.core.decoding import as_text, broken, decoded
from farmhand.core.errors import UsageError

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")


class BadRecord(ValueError):
    """A record that cannot become a task: a one-line message, without its position."""


class Template:
    """A prompt with `{column}`, parsed once; `{{` and `}}` are literal braces. Nothing else is expanded."""

    def __init__(self, text: str) -> None:
        """Raise UsageError, with line and column, for a single brace or braces without a name."""
        self._parts: list[tuple[str, bool]] = []
        start = 0
        for token in _TOKEN.finditer(text):
            self._parts.append((text[start : token.start()], False))
            start = token.end()
            name = (token.group(1) or "").strip()
            if not name and token.group() not in ("{{", "}}"):
                before = text[: token.start()].split("\n")
                raise UsageError(
                    f"--template: line {len(before)}, character {len(before[-1]) + 1}: {token.group()!r} is no column",
                    code="invalid_template",
                    hint="write {column}, and {{ or }} for a brace",
                )
            self._parts.append((name, True) if name else (token.group()[0], False))
        self._parts.append((text[start:], False))

    def check(self, columns: Mapping[str, Any]) -> None:
        """Raise BadRecord for a missing column."""
        for part, is_name in self._parts:
            if is_name:
                column_of(columns, part)

    def fill(self, columns: Mapping[str, Any]) -> str:
        """Return the prompt for one record. Raise BadRecord for a missing column."""
        return "".join(_column(columns, part) if is_name else part for part, is_name in self._parts)


def column_of(columns: Mapping[str, Any], name: str) -> Any:
    """Return a column's value. Raise BadRecord if it is missing."""
    if name not in columns:
        known = ", ".join(map(str, columns)) or "none"
        raise BadRecord(f"has no column {name!r} (it has: {known[:200]})")
    return columns[name]


def _column(columns: Mapping[str, Any], name: str) -> str:
    """Return a column's text: strings as they are, null as nothing, everything else as JSON."""
    value = column_of(columns, name)
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def read_template(given: str) -> str:
    """Return the text of the file `given`, or `given` itself. Raise UsageError."""
    path = Path(given)
    try:
        if len(given) < 4096 and "\n" not in given and path.is_file():
            return decoded(path.read_bytes())
    except UnicodeDecodeError as error:
        where = f"--template {given} {broken(error)}"
        raise UsageError(where, code="invalid_template") from None
    except OSError as error:
        raise UsageError(f"--template {given}: {error.strerror}", code="invalid_template") from None
    text = as_text(given, "--template")
    if "{" not in text:
        what = f"--template {text!r:.80} is no file, and as a text it names no {{column}}"
        raise UsageError(what, code="invalid_template")
    return text
