"""The key sources that a rotation can write to: the current key, the next one, the previous one.

During a rotation a file has `NAME_NEXT` or `NAME_PREVIOUS` on its own line above `NAME`; a keyring has `USER-next` or
`USER-previous`. So both keys survive a crash, in the operator's own key source and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Protocol

from ..core import envfile, keys
from ..core.errors import not_configured
from ..core.files import replace
from ..core.keysource import DEFAULT_NAME, read_private


def leftover(path: str) -> str:
    """Return the temporary name used to replace `path`. A crash may leave this file behind, with keys in it."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.farmhand-rotate")


@dataclass(frozen=True)
class Slots:
    """The keys in one key source."""

    current: str
    next: str | None = None
    previous: str | None = None

    def find(self, fingerprint: str) -> str | None:
        """Return the key with this fingerprint."""
        held = (key for key in (self.current, self.next, self.previous) if key is not None)
        return next((key for key in held if keys.fingerprint(key) == fingerprint), None)


class RotationSource(Protocol):
    """A key source for rotations. A later kind (a secrets manager with version stages) has the same interface.

    `place` is its canonical name, however it is spelled.
    """

    place: str

    def read(self) -> Slots:
        """Return the stored keys. Raises WireError `not_configured`."""

    def since(self) -> float | None:
        """Return the time from which the content is certainly unchanged, in Unix seconds; None if unknown."""

    def write(self, slots: Slots) -> None:
        """Store the keys. A crash here loses no key, and a repeated call completes the write. Raises WireError."""


def open_source(source: str) -> RotationSource:
    """Open the key source named by `source`. Raises WireError if it cannot be written to."""
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
    """A KEY=VALUE file. All three keys change in one step; all other bytes are kept, and a link stays a link."""

    def __init__(self, path: str, name: str) -> None:
        self.path = os.path.realpath(os.path.expanduser(path))
        self.name = name
        self.place = f"file:{self.path}#{name}"

    def read(self) -> Slots:
        """Return the stored keys, if only the owner can read the file."""
        found = self._found(self._text())
        for name, key in found.items():
            try:
                keys.check_format(key)
            except ValueError as error:
                raise not_configured(f"{self.path}, {name}: {error}") from None
        if self.name not in found:
            raise not_configured(f"{self.path} sets no {self.name}", f"add the line {self.name}=…")
        return Slots(found[self.name], found.get(f"{self.name}_NEXT"), found.get(f"{self.name}_PREVIOUS"))

    def since(self) -> float | None:
        """Return the file's modification time."""
        try:
            return os.stat(self.path).st_mtime
        except OSError:
            return None

    def write(self, slots: Slots) -> None:
        """Replace the file."""
        text = with_slots(self._text(), self.name, slots)
        wanted = {"": slots.current, "_NEXT": slots.next, "_PREVIOUS": slots.previous}
        if self._found(text) != {self.name + end: key for end, key in wanted.items() if key is not None}:
            raise not_configured(f"{self.path}: the line of {self.name} is of a form that cannot be edited safely")
        try:
            replace(self.path, text.encode(), beside=leftover(self.path))
        except OSError as error:
            raise not_configured(f"{self.path} cannot be written: {error.strerror}") from None

    def _text(self) -> str:
        with contextlib.suppress(OSError):
            os.unlink(leftover(self.path))
        return read_private(self.path)

    def _found(self, text: str) -> dict[str, str]:
        """Return the keys in `text` by name."""
        try:
            values = envfile.parse(text)
        except envfile.EnvFileError as error:
            raise not_configured(f"{self.path}, {error}", "correct that line; nothing was changed") from None
        names = (self.name + end for end in ("", "_NEXT", "_PREVIOUS"))
        return {name: values[name] for name in names if name in values}


def with_slots(text: str, name: str, slots: Slots) -> str:
    """Return `text` with the value of `name` replaced in place; the other two lines are added above it or removed."""
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
    """The desktop's keyring. Its entries change one by one: additions first, deletions last."""

    def __init__(self, service: str, user: str) -> None:
        self.service = service
        self.user = user
        self.place = f"keyring:{service}/{user}"

    def read(self) -> Slots:
        """Return the stored keys."""
        current = self._get(self.user)
        if current is None:
            raise not_configured(f"the keyring has no {self.service}/{self.user}")
        return Slots(current, self._get(f"{self.user}-next"), self._get(f"{self.user}-previous"))

    def since(self) -> float | None:
        """Return None: a keyring does not record times."""
        return None

    def write(self, slots: Slots) -> None:
        """Change the entries that differ."""
        before = self.read()
        entries = (
            (f"{self.user}-next", before.next, slots.next),
            (f"{self.user}-previous", before.previous, slots.previous),
            (self.user, before.current, slots.current),
        )
        for user, old, new in entries:
            if new is not None and new != old:
                self._do("set_password", user, new)
        for user, old, new in entries:
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
        except Exception as error:  # any type is possible; show only the type, as the text may quote secrets
            where = f"{self.service}/{arguments[0]}"
            raise not_configured(f"the keyring failed for {where}: {type(error).__name__}") from None
        return result
