"""Prompt templates: text with `{column}`; `{{` and `}}` are literal braces. Nothing else is expanded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from farmhand.core.errors import UsageError

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")


class MissingColumn(ValueError):
    """A record lacks a column that the template names."""


class Template:
    """A template, parsed once. `names` are its columns in order."""

    def __init__(self, text: str, where: str = "--template") -> None:
        """Raise UsageError, with line and column, for a single brace or braces without a name."""
        self._parts: list[tuple[str, bool]] = []
        start = 0
        for token in _TOKEN.finditer(text):
            self._parts.append((text[start : token.start()], False))
            start = token.end()
            name = token.group(1)
            if token.group() in ("{{", "}}"):
                self._parts.append((token.group()[0], False))
            elif name is not None and name.strip():
                self._parts.append((name.strip(), True))
            else:
                raise UsageError(
                    f"{where}: {_position(text, token.start())}: {token.group()!r} is no column",
                    code="invalid_template",
                    hint="write {column}, and {{ or }} for a brace",
                )
        self._parts.append((text[start:], False))
        self.names = tuple(dict.fromkeys(part for part, is_name in self._parts if is_name))

    def fill(self, columns: Mapping[str, Any]) -> str:
        """Return the prompt for one record. Raise MissingColumn."""
        return "".join(_text(columns, part) if is_name else part for part, is_name in self._parts)


def _text(columns: Mapping[str, Any], name: str) -> str:
    """Return a column's text: strings as they are, null as nothing, everything else as JSON."""
    if name not in columns:
        known = ", ".join(map(str, columns)) or "none"
        raise MissingColumn(f"there is no column {name!r} (there are: {known[:200]})")
    value = columns[name]
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _position(text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    return f"line {line}, character {at - text.rfind(chr(10), 0, at)}"
