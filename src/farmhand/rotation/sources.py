"""The key sources that a rotation can write to: the current key, the next one, the previous one.

During a rotation a file has `NAME_NEXT` or `NAME_PREVIOUS` on its own line above `NAME`; a keyring has `USER-next` or
`USER-previous`; a secret of Secrets Manager has versions at AWSPENDING or AWSPREVIOUS. So both keys survive a crash, in
the operator's own key source and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import NamedTuple, Protocol

from farmhand.core import envfile, keys
from farmhand.core.errors import not_configured
from farmhand.core.files import replace
from farmhand.core.keysource import DEFAULT_NAME, read_private
from farmhand.core.settings import Settings


class Slots(NamedTuple):
    """The keys in one key source."""

    current: str
    next: str | None = None
    previous: str | None = None

    def find(self, fingerprint: str) -> str | None:
        """Return the key with this fingerprint."""
        return next((key for key in self if key is not None and keys.fingerprint(key) == fingerprint), None)


class RotationSource(Protocol):
    """A key source for rotations.

    `place` is its canonical name, however it is spelled. `keeps_previous`: it may have a previous key without any
    rotation, which a new rotation replaces.
    """

    place: str
    keeps_previous: bool

    def read(self) -> Slots:
        """Return the stored keys. Raise WireError `not_configured`."""

    def since(self) -> float | None:
        """Return the time from which the content is certainly unchanged, in Unix seconds; None if unknown."""

    def write(self, slots: Slots) -> None:
        """Store the keys. A crash here loses no key, and a repeated call completes the write. Raise WireError."""


def open_source(source: str, conf: Settings | None = None) -> RotationSource:
    """Open the key source named by `source`. Raise WireError if it cannot be written to.

    `conf` has region and login of a source on AWS; None: the settings are read for that.
    """
    kind, _, rest = source.partition(":")
    if kind == "file" and rest:
        path, hash_sign, name = rest.rpartition("#")
        return FileSource(path if hash_sign else rest, name if hash_sign else DEFAULT_NAME)
    if kind == "keyring" and rest:
        service, _, user = rest.rpartition("/")
        if service and user:
            return KeyringSource(service, user)
    if kind == "secretsmanager" and rest:
        return StagedSource(rest, conf)
    if kind in ("env", "command"):
        hint = "keep it in a file or a keyring (key_source), or change it there yourself: the next call brings it"
        raise not_configured(f"a key source {kind}: can only be read, so its key cannot be rotated here", hint)
    raise not_configured(
        "the key source is not of a known form", "use file:PATH[#NAME], keyring:SERVICE/USER or secretsmanager:NAME"
    )


class FileSource:
    """A KEY=VALUE file. All three keys change in one step; all other bytes are kept, and a link stays a link."""

    keeps_previous = False

    def __init__(self, path: str, name: str) -> None:
        self.path = os.path.realpath(os.path.expanduser(path))
        self.name = name
        self.place = f"file:{self.path}#{name}"
        self._names = (name, f"{name}_NEXT", f"{name}_PREVIOUS")
        #: The temporary file of `write`. A crash may leave it behind, with keys in it.
        self._beside = os.path.join(os.path.dirname(self.path), f".{os.path.basename(self.path)}.farmhand-rotate")

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
        return Slots(found[self.name], *map(found.get, self._names[1:]))

    def since(self) -> float | None:
        """Return the file's modification time."""
        try:
            return os.stat(self.path).st_mtime
        except OSError:
            return None

    def write(self, slots: Slots) -> None:
        """Replace the file."""
        text = with_slots(self._text(), self.name, slots)
        wanted = {name: key for name, key in zip(self._names, slots, strict=True) if key is not None}
        if self._found(text) != wanted:
            raise not_configured(f"{self.path}: the line of {self.name} is of a form that cannot be edited safely")
        try:
            replace(self.path, text.encode(), beside=self._beside)
        except OSError as error:
            raise not_configured(f"{self.path} cannot be written: {error.strerror}") from None

    def _text(self) -> str:
        with contextlib.suppress(OSError):
            os.unlink(self._beside)
        return read_private(self.path)

    def _found(self, text: str) -> dict[str, str]:
        """Return the keys in `text` by name."""
        try:
            values = envfile.parse(text)
        except envfile.EnvFileError as error:
            raise not_configured(f"{self.path}, {error}", "correct that line; nothing was changed") from None
        return {name: values[name] for name in self._names if name in values}


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

    keeps_previous = False

    def __init__(self, service: str, user: str) -> None:
        self.service = service
        self.place = f"keyring:{service}/{user}"
        self._users = (user, f"{user}-next", f"{user}-previous")

    def read(self) -> Slots:
        """Return the stored keys."""
        current, *others = (self._do("get_password", user) for user in self._users)
        if current is None:
            raise not_configured(f"the keyring has no {self.service}/{self._users[0]}")
        return Slots(current, *others)

    def since(self) -> float | None:
        """Return None: a keyring does not record times."""
        return None

    def write(self, slots: Slots) -> None:
        """Change the entries that differ, the current key after the others are in place."""
        changes = list(zip(self._users, self.read(), slots, strict=True))
        for user, old, new in reversed(changes):
            if new is not None and new != old:
                self._do("set_password", user, new)
        for user, old, new in changes:
            if new is None and old is not None:
                self._do("delete_password", user)
        if self.read() != slots:
            raise not_configured(f"the keyring does not keep what is written to {self.service}/{self._users[0]}")

    def _do(self, what: str, user: str, *password: str) -> str | None:
        """Return the answer of the keyring's function `what`."""
        try:
            import keyring
        except ImportError:
            hint = "pip install keyring"
            raise not_configured("the Python package keyring is not installed", hint) from None
        try:
            found = getattr(keyring, what)(self.service, user, *password)
        except Exception as error:  # any type is possible; show only the type, as the text may quote secrets
            raise not_configured(f"the keyring failed for {self.service}/{user}: {type(error).__name__}") from None
        return None if found is None else str(found)


class StagedSource:
    """A secret of Secrets Manager: the three keys are the versions at its three stages.

    AWS itself keeps the replaced version at AWSPREVIOUS, so one may be there from before.
    """

    keeps_previous = True

    def __init__(self, rest: str, conf: Settings | None = None) -> None:
        from farmhand.aws.credentials.secret_source import (
            SecretSource,  # boto3 follows, which other sources do not need
        )

        self._source = SecretSource(rest, conf, self._note)
        self.place = self._source.place

    def read(self) -> Slots:
        """Return the keys at the three stages, after checking their format."""
        slots = Slots(*self._source.read())
        for key in slots:
            try:
                keys.check_format(key or slots.current)
            except ValueError as error:
                raise not_configured(f"{self.place}: {error}") from None
        return slots

    def since(self) -> float | None:
        """Return the time of the secret's last change."""
        return self._source.since()

    def write(self, slots: Slots) -> None:
        """Store new versions and move the stages."""
        self._source.write(slots)

    def _note(self, key: str, version: str) -> None:
        """Tell the watcher of an environment's own key that there is another one."""
        self._source.note_moved(keys.fingerprint(key), version)
