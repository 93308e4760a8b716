"""Removal of members from a JSON file's text; everything else stays byte for byte, including formatting."""

from __future__ import annotations

import json
import re

_BLANK = " \t\r\n"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def without(text: str, path: tuple[str, ...]) -> str | None:
    """Return `text` (valid JSON) without the member at `path` (("env", "NAME")); None if there is none."""
    at = _skip(text, 1 if text.startswith("\ufeff") else 0)
    for depth, name in enumerate(path):
        if text[at : at + 1] != "{":
            return None
        found = _member(text, at, name)
        if found is None:
            return None
        start, value, end = found
        if depth == len(path) - 1:
            return _cut(text, start, end)
        at = value
    return None


def _member(text: str, at: int, name: str) -> tuple[int, int, int] | None:
    """Return (start, start of the value, end) of the last member `name` in the object at `at`: the last one counts."""
    found = None
    at = _skip(text, at + 1)
    while text[at] != "}":
        key = _STRING.match(text, at)
        assert key is not None  # noqa: S101 - the text is valid JSON
        value = _skip(text, _skip(text, key.end()) + 1)
        end = _end(text, value)
        if json.loads(key[0]) == name:
            found = (at, value, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _end(text: str, at: int) -> int:
    string = _STRING.match(text, at)
    if string:
        return string.end()
    if text[at] not in "{[":
        while at < len(text) and text[at] not in ",]}" + _BLANK:
            at += 1
        return at
    depth = 0
    while True:
        string = _STRING.match(text, at)
        if string:
            at = string.end()
            continue
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(text[at], 0)
        at += 1
        if not depth:
            return at


def _cut(text: str, start: int, end: int) -> str:
    """Return `text` without the member and the comma that joined it."""
    after = _skip(text, end)
    if text[after] == ",":
        return text[:start] + text[_skip(text, after + 1) :]
    before = start
    while text[before - 1] in _BLANK:
        before -= 1
    if text[before - 1] == ",":
        return text[: before - 1] + text[end:]
    return text[:before] + text[after:]


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at
