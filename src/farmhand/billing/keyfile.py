"""The file with the metered key (~/repos.env): one assignment is added or replaced, all else stays unchanged."""

from __future__ import annotations

import re
from pathlib import Path

from ..core import envfile

_BARE = re.compile(r"[^\s\"'\\$`;&|<>()#]*")


class ChangeRefused(ValueError):
    """An error with nothing changed. Its message is one line: what, where and what to do, without the value."""


def parse(text: str, path: Path) -> dict[str, str]:
    """Return the assignments. Raises ChangeRefused for a line that cannot be parsed safely: the file is never run."""
    try:
        return envfile.parse(text)
    except envfile.EnvFileError as error:
        raise ChangeRefused(f"{path}, {error}; correct that line, nothing was changed") from None


def with_value(text: str, path: Path, name: str, value: str) -> str:
    """Return `text` with NAME=value: its line is replaced, or a line is added at the end."""
    values = parse(text, path)
    if values.get(name) == value:
        return text
    ending = "\r\n" if "\r\n" in text else "\n"
    line = f"{name}={_quoted(value)}"
    if name in values:
        lines = text.split("\n")
        for number, old in enumerate(lines):
            match = re.match(rf"\ufeff?([ \t]*(?:export[ \t]+)?){name}=", old)
            if match:
                lines[number] = match[1] + line + ("\r" if old.endswith("\r") else "")
        new = "\n".join(lines)
    else:
        new = text + ("" if not text or text.endswith("\n") else ending) + line + ending
    if parse(new, path).get(name) != value:
        raise ChangeRefused(f"{name} cannot be written to {path}: its value has characters that the file cannot hold")
    return new


def _quoted(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    if "'" not in value:
        return f"'{value}'"
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
