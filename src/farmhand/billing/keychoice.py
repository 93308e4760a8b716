"""The choice of the found secrets that go into the key file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from ..core.keys import fingerprint, is_key
from . import keyfile
from .guard import refusal
from .keyfile import ChangeRefused
from .names import KEY, SECRETS
from .verdict import Location, Report
from .wanted import Wanted

#: The values in files, by name, each with its first location.
Found = Mapping[str, Mapping[str, Location]]


class KeyFile:
    """The planned key file. `moved` lists the secrets added to it; `hints` lists those not added, with the reason."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.path = wanted.key_file.resolve()
        self.original = self.path.read_bytes() if self.path.exists() else None
        self.content = self.written = self.original
        self.moved: dict[str, None] = {}
        self.hints: dict[str, None] = {}

    def take(self, found: Found) -> None:
        """Add the found secrets. Raises ChangeRefused for two different keys, or if the file cannot hold one."""
        text = (self.content or b"").decode("utf-8", "surrogateescape")
        given = self.wanted.key_file
        for name in SECRETS:
            value = self.choose(name, found.get(name, {}), text)
            if value is None:
                continue
            if self.path.exists() and (reason := refusal(given, self.wanted.home)):
                raise ChangeRefused(f"{given} cannot take the key: {reason}; nothing was changed")
            text = keyfile.with_value(text, given, name, value)
            self.moved[f"{name} ({fingerprint(value)}) to {given}"] = None
        new = text.encode("utf-8", "surrogateescape")
        if new != (self.content or b""):
            self.content = new

    def choose(self, name: str, found: Mapping[str, Location], text: str) -> str | None:
        """Return the value of `name` to write; None if there is none. Raises ChangeRefused for two different keys."""
        if not found:
            return None
        there = keyfile.parse(text, self.wanted.key_file).get(name)
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
        chosen = [value for value in candidates if self.wanted.chosen and fingerprint(value) == self.wanted.chosen]
        if chosen:
            return None if chosen[0] == there else chosen[0]
        listed = ", ".join(f"{fingerprint(v)} ({found.get(v) or self.wanted.key_file})" for v in candidates)
        raise ChangeRefused(
            f"{len(candidates)} different keys were found: {listed}; nothing was changed. "
            f"Say which one to keep: -e workstation_key=FINGERPRINT"
        )

    def remains(self, files: Mapping[Path, tuple[bytes | None, bytes]], found: Found, report: Report) -> list[str]:
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
            for value in found.get(KEY, {}):
                at = content.find(value.encode("utf-8", "surrogateescape"))
                if at >= 0 and path != self.path and path not in reaching:
                    line = content.count(b"\n", 0, at) + 1
                    said.append(f"the key is still written in {path}:{line}, which does not reach claude")
        return said
