"""Which of the secrets that were found goes into the key file."""

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

#: Of each name the values that stand in files, with the first place of each.
Found = Mapping[str, Mapping[str, Location]]


class KeyFile:
    """The key file as it is to become. `moved`: what was put into it; `hints`: what was not, and why."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.path = wanted.key_file.resolve()
        self.original = self.path.read_bytes() if self.path.exists() else None
        self.content = self.written = self.original
        self.moved: dict[str, None] = {}
        self.hints: dict[str, None] = {}

    def take(self, found: Found) -> None:
        """Put what was found into it. Raises Refused for two different keys, or a file that cannot take one."""
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
        """The value of `name` to write; None if there is nothing to write. Raises Refused for two different keys."""
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
        """Where the key itself is still written, though nothing brings it to `claude` from there.

        Looked into are the `files` that change and those that `report` names.
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
