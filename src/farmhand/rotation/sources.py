"""The places that keep the metered key, as a rotation writes them: the key in force, the next one, the previous one.

While a rotation goes on, a file has `NAME_NEXT` or `NAME_PREVIOUS` in a line of its own above `NAME`; a keyring has
`USER-next` or `USER-previous`. So both keys survive a crash, in the operator's own places and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Protocol

from ..core import envfile, keys
from ..core.errors import WireError, not_configured
from ..core.files import replace
from ..core.keysource import DEFAULT_NAME, read_private


def leftover(path: str) -> str:
    """The name that `path` is written under before it takes its place; a crash may leave it, with keys in it."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.farmhand-rotate")


@dataclass(frozen=True)
class Slots:
    """The keys in one place."""

    current: str
    next: str | None = None
    previous: str | None = None

    def find(self, fingerprint: str) -> str | None:
        """The key with this fingerprint."""
        held = (key for key in (self.current, self.next, self.previous) if key is not None)
        return next((key for key in held if keys.fingerprint(key) == fingerprint), None)


class RotationSource(Protocol):
    """A place that keeps keys. A later one (a secrets manager with version stages) has the same.

    `place` names it, however it was spelled.
    """

    place: str

    def read(self) -> Slots:
        """What is there. Raises WireError `not_configured`."""

    def since(self) -> float | None:
        """Since when its content has certainly been what it is, in Unix seconds; None: that cannot be told."""

    def write(self, slots: Slots) -> None:
        """Make it so. A crash in here loses no key, and doing it again completes it. Raises WireError."""


def open_source(source: str) -> RotationSource:
    """The place that the key source names. Raises WireError for one that nobody can write to."""
    kind, _, rest = source.partition(":")
    if kind == "file" and rest:
        path, hash_sign, name = rest.rpartition("#")
        return FileSource(path if hash_sign else rest, name if hash_sign else DEFAULT_NAME)
    if kind == "keyring" and rest:
        service, _, user = rest.rpartition("/")
        if service and user:
            return KeyringSource(service, user)
    if kind in ("env", "command"):
        hint = "keep it in a file or a keyring (key_source), or change it there yourself: the next call brings it"
        raise not_configured(f"a key source {kind}: can only be read, so its key cannot be rotated here", hint)
    raise not_configured("the key source is not of a known form", "use file:PATH[#NAME] or keyring:SERVICE/USER")


class FileSource:
    """A KEY=VALUE file. All three keys change in one step; every other byte stays, and a link stays a link."""

    def __init__(self, path: str, name: str) -> None:
        self.path = os.path.realpath(os.path.expanduser(path))
        self.name = name
        self.place = f"file:{self.path}#{name}"

    def read(self) -> Slots:
        """What is there, if only the owner can read it."""
        values = self._values(self._text())
        if self.name not in values:
            raise not_configured(f"{self.path} sets no {self.name}", f"add the line {self.name}=…")
        slots = [values.get(self.name + end) for end in ("", "_NEXT", "_PREVIOUS")]
        for end, value in zip(("", "_NEXT", "_PREVIOUS"), slots, strict=True):
            self._check(self.name + end, value)
        return Slots(slots[0] or "", slots[1], slots[2])

    def since(self) -> float | None:
        """When the file was last changed."""
        try:
            return os.stat(self.path).st_mtime
        except OSError:
            return None

    def write(self, slots: Slots) -> None:
        """Replace the file."""
        text = with_slots(self._text(), self.name, slots)
        values = self._values(text)
        found = tuple(values.get(self.name + end) for end in ("", "_NEXT", "_PREVIOUS"))
        if found != (slots.current, slots.next, slots.previous):
            raise not_configured(f"{self.path}: the line of {self.name} is of a form that cannot be edited safely")
        try:
            replace(self.path, text.encode(), beside=leftover(self.path))
        except OSError as error:
            raise not_configured(f"{self.path} cannot be written: {error.strerror}") from None

    def _text(self) -> str:
        with contextlib.suppress(OSError):
            os.unlink(leftover(self.path))
        return read_private(self.path)

    def _values(self, text: str) -> dict[str, str]:
        try:
            return envfile.parse(text)
        except envfile.EnvFileError as error:
            raise not_configured(f"{self.path}, {error}", "correct that line; nothing was changed") from None

    def _check(self, name: str, value: str | None) -> None:
        try:
            if value is not None:
                keys.check_format(value)
        except ValueError as error:
            raise not_configured(f"{self.path}, {name}: {error}") from None


def with_slots(text: str, name: str, slots: Slots) -> str:
    """`text` with the value of `name` replaced where it stands; the lines of the other two are added above it or go."""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    lines: list[str] = []
    for line in text.removeprefix(mark).split("\n"):
        found = re.match(rf"[ \t]*(?:export[ \t]+)?({re.escape(name)}(?:_NEXT|_PREVIOUS)?)=", line)
        if found is None:
            lines.append(line)
        elif found[1] == name:
            end = "\r" if line.endswith("\r") else ""
            extra = (("_NEXT", slots.next), ("_PREVIOUS", slots.previous))
            lines += [f"{name}{suffix}={key}{end}" for suffix, key in extra if key is not None]
            old = next(iter(envfile.parse(line).values()))
            head, rest = line[: found.end()], line[found.end() :]
            lines.append(head + (rest.replace(old, slots.current, 1) if old else slots.current + rest))
    return mark + "\n".join(lines)


class KeyringSource:
    """The desktop's keyring. Its entries change one by one: what is added first, what goes last."""

    def __init__(self, service: str, user: str) -> None:
        self.service = service
        self.user = user
        self.place = f"keyring:{service}/{user}"

    def read(self) -> Slots:
        """What is there."""
        current = self._get(self.user)
        if current is None:
            raise not_configured(f"the keyring has no {self.service}/{self.user}")
        return Slots(current, self._get(f"{self.user}-next"), self._get(f"{self.user}-previous"))

    def since(self) -> float | None:
        """A keyring does not say."""
        return None

    def write(self, slots: Slots) -> None:
        """Change what differs."""
        before = self.read()
        extra = [
            (f"{self.user}-next", before.next, slots.next),
            (f"{self.user}-previous", before.previous, slots.previous),
        ]
        for user, old, new in extra:
            if new is not None and new != old:
                self._do("set_password", user, new)
        if slots.current != before.current:
            self._do("set_password", self.user, slots.current)
        for user, old, new in extra:
            if new is None and old is not None:
                self._do("delete_password", user)
        if self.read() != slots:
            raise not_configured(f"the keyring does not keep what is written to {self.service}/{self.user}")

    def _get(self, user: str) -> str | None:
        value = self._do("get_password", user)
        return None if value is None else str(value)

    def _do(self, what: str, *arguments: str) -> object:
        try:
            import keyring
        except ImportError:
            raise not_configured(
                "the Python package keyring is not installed", "pip install 'farmhand[keyring]'"
            ) from None
        try:
            result: object = getattr(keyring, what)(self.service, *arguments)
        except Exception as error:  # backends raise what they like; only the kind is shown, its text may quote secrets
            where = f"{self.service}/{arguments[0]}"
            raise not_configured(f"the keyring failed for {where}: {type(error).__name__}") from None
        return result


__all__ = ["FileSource", "KeyringSource", "RotationSource", "Slots", "WireError", "open_source", "with_slots"]
