"""The file with the metered key (~/repos.env), and the choice of the found secrets that go into it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from ..core import envfile
from ..core.keys import fingerprint, is_key
from .draft import refusal
from .names import KEY, SECRETS
from .verdict import Location, Report
from .wanted import Wanted

_BARE = re.compile(r"[^\s\"'\\$`;&|<>()#]*")


class ChangeRefused(ValueError):
    """An error with nothing changed. Its message is one line: what, where and what to do, without the value."""


class KeyFile:
    """The planned key file: an assignment is added or replaced, all else stays unchanged. The file is never run.

    `found` has the values in other files, by name, each with its first location. `moved` lists the secrets added;
    `hints` lists those not added, with the reason. `known` is what this run has last read or written.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.path = wanted.key_file.resolve()
        self.original = self.path.read_bytes() if self.path.exists() else None
        self.content = self.known = self.original
        self.found: dict[str, dict[str, Location]] = {name: {} for name in SECRETS}
        self.moved: dict[str, None] = {}
        self.hints: dict[str, None] = {}

    def render(self) -> bytes | None:
        """Return the planned content; None for no file."""
        return self.content

    def written(self, content: bytes) -> None:
        """Record the file's new content."""
        self.known = content

    def take(self) -> None:
        """Add the found secrets. Raises ChangeRefused for two different keys, or if the file cannot hold one."""
        before = text = (self.content or b"").decode("utf-8", "surrogateescape")
        given = self.wanted.key_file
        for name in SECRETS:
            value = self._choose(name, text)
            if value is None:
                continue
            if self.path.exists() and (reason := refusal(given, self.wanted.home)):
                raise ChangeRefused(f"{given} cannot take the key: {reason}; nothing was changed")
            text = self._with(text, name, value)
            self.moved[f"{name} ({fingerprint(value)}) to {given}"] = None
        if text != before:
            self.content = text.encode("utf-8", "surrogateescape")

    def _choose(self, name: str, text: str) -> str | None:
        """Return the value of `name` to write; None if there is none. Raises ChangeRefused for two different keys."""
        found = self.found[name]
        if not found:
            return None
        there = self._parse(text).get(name)
        values = [value for value in found if name != KEY or is_key(value)]
        if not values:
            self.hints["the value is no Anthropic API key (sk-ant-…), so it stays in the backup only"] = None
            return None
        candidates = dict.fromkeys([*([there] if there else []), *values])
        if len(candidates) == 1:
            return None if there else values[0]
        if name != KEY:
            self.hints[f"several values of {name} were found; they stay in the backups only"] = None
            return None
        for value in candidates:
            if fingerprint(value) == self.wanted.chosen:
                return None if value == there else value
        listed = ", ".join(f"{fingerprint(v)} ({found.get(v) or self.wanted.key_file})" for v in candidates)
        raise ChangeRefused(
            f"{len(candidates)} different keys were found: {listed}; nothing was changed. "
            f"Say which one to keep: -e workstation_key=FINGERPRINT"
        )

    def _parse(self, text: str) -> dict[str, str]:
        try:
            return envfile.parse(text)
        except envfile.EnvFileError as error:
            raise ChangeRefused(f"{self.wanted.key_file}, {error}; correct that line, nothing was changed") from None

    def _with(self, text: str, name: str, value: str) -> str:
        """Return `text` with NAME=value: its line is replaced, or a line is added at the end."""
        ending = "\r\n" if "\r\n" in text else "\n"
        line = f"{name}={_quoted(value)}"
        old = re.compile(rf"^\ufeff?([ \t]*(?:export[ \t]+)?){name}=.*?(\r?)$", re.MULTILINE)
        new, replaced = old.subn(lambda match: f"{match[1]}{line}{match[2]}", text)
        if not replaced:
            new = text + ("" if not text or text.endswith("\n") else ending) + line + ending
        if self._parse(new).get(name) != value:
            where = self.wanted.key_file
            raise ChangeRefused(
                f"{name} cannot be written to {where}: its value has characters that the file cannot hold"
            )
        return new

    def remains(self, files: Mapping[Path, tuple[bytes | None, bytes]], report: Report) -> list[str]:
        """Return where the key is still written although it does not reach `claude` from there.

        Only the changed `files` and those named by `report` are searched.
        """
        contents = {path: new for path, (_, new) in files.items()}
        for path in dict.fromkeys(s.location.path.resolve() for s in report.sources if s.location.path):
            if path not in contents:
                with contextlib.suppress(OSError):
                    contents[path] = path.read_bytes()
        reaching = {s.location.path.resolve() for s in report.reaching if s.name == KEY and s.location.path}
        said = []
        for path, content in contents.items():
            for value in self.found[KEY]:
                at = content.find(value.encode("utf-8", "surrogateescape"))
                if at >= 0 and path != self.path and path not in reaching:
                    line = content.count(b"\n", 0, at) + 1
                    said.append(f"the key is still written in {path}:{line}, which does not reach claude")
        return said


def _quoted(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    if "'" not in value:
        return f"'{value}'"
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
